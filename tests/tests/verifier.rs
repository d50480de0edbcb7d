//! Every program passes the verifier of this kernel, at a cost that is printed and bounded.

use integration_tests::kernel;
use proxy_common::maps;
use proxy_userspace::datapath::{Datapath as _, kernel::EngineChoice};

/// Of a million. Either family is walked once, and so is each step of XDP's sum over a datagram.
const BUDGETS: [(&str, u32); 2] = [(maps::FORWARD_XDP, 25_000), (maps::FORWARD_TC, 20_000)];

#[test]
fn every_program_loads_within_its_budget() {
    let kernel = kernel::load(1024, EngineChoice::Tc);
    let sizes = kernel.program_sizes().expect("loaded programs have sizes");
    for ((name, budget), size) in BUDGETS.into_iter().zip(sizes) {
        println!("{size:?}");
        assert_eq!(size.name, name);
        let walked = size.verified_instructions.expect("kernels since 5.16 count them");
        assert!(walked < budget, "the verifier walked {walked} instructions of {name}, more than {budget}");
    }
}

#[test]
fn the_tables_cost_what_their_records_do() {
    for flows in [1024, 65536] {
        let bytes = kernel::load(flows, EngineChoice::Tc).table_bytes();
        let per_flow = bytes / u64::from(flows);
        println!("{flows} flows: {bytes} bytes, {per_flow} per flow");
    }
    let small = kernel::load(1024, EngineChoice::Tc).table_bytes();
    let large = kernel::load(65536, EngineChoice::Tc).table_bytes();
    let per_flow = (large - small) / (65536 - 1024);
    // Twice as many records as flows, of 64 bytes for IPv4 and 128 for IPv6, in each direction.
    let records = 2 * 2 * (64 + 128);
    assert!((records..records + 16).contains(&per_flow), "{per_flow} bytes per flow of each family");
}
