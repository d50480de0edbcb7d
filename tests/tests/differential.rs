//! Host, XDP and TC agree on every frame, and etherparse agrees with them.

use std::{cell::RefCell, collections::BTreeMap};

use integration_tests::{
    frame::{Checksum, Frame, has_valid_checksums},
    kernel::{Action, Bench, CLIENT, ORIGIN, SERVICE, SOURCE},
};
use proptest::{prelude::*, test_runner::TestRunner};
use proxy_common::verdict::{Engine, Reason};

const CASES: u32 = 3000;

/// A frame of the bench's flow, as it is or damaged.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec(any::<u8>(), 1400..1480),
        any::<[u8; 18]>().prop_map(|rest| [&[0, 1], rest.as_slice()].concat()),
        (0u8..6, any::<[u8; 18]>()).prop_map(|(kind, rest)| [&[0x80, kind], rest.as_slice()].concat()),
    ];
    let checksum = prop_oneof![8 => Just(Checksum::Valid), 1 => Just(Checksum::Zero)];
    let flip = proptest::option::weighted(0.5, (12usize..46, any::<u8>()));
    let cut = proptest::option::weighted(0.2, 14usize..70);
    (any::<bool>(), payload, 0u8..6, checksum, flip, cut).prop_map(
        |(out, payload, ttl, checksum, flip, cut)| {
            let (src, dst) = if out { (CLIENT, SERVICE) } else { (ORIGIN, SOURCE) };
            let mut frame = Frame::udp(src, dst, &payload).ttl(ttl).checksum(checksum).bytes();
            if let Some((byte, value)) = flip.filter(|(byte, _)| *byte < frame.len()) {
                frame[byte] = value;
            }
            frame.truncate(cut.unwrap_or(usize::MAX));
            frame
        },
    )
}

#[test]
fn host_xdp_and_tc_agree_on_every_frame() {
    agree(Bench::new());
}

#[test]
fn a12_host_xdp_and_tc_agree_on_every_frame_of_srt() {
    let seen = agree(Bench::of_srt());
    let handshakes = |engine: Engine| format!("{} {}", engine.as_str(), Reason::SrtHandshake.as_str());
    assert!(Engine::ALL.iter().all(|&engine| seen[&handshakes(engine)] > CASES / 150), "{seen:#?}");
}

/// How often each engine gave each reason.
fn agree(bench: Bench) -> BTreeMap<String, u32> {
    let bench = RefCell::new(bench);
    let seen = RefCell::new(BTreeMap::<String, u32>::new());
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let agreed = TestRunner::new(config).run(&frames(), |frame| {
        for engine in Engine::ALL {
            let mut bench = bench.borrow_mut();
            let host = bench.on_host(engine, &frame);
            let Some(kernel) = bench.in_kernel(engine, &frame) else { continue };
            prop_assert_eq!(&kernel, &host, "{:?}", engine);
            let intact = has_valid_checksums(&frame);
            prop_assert!(kernel.action != Action::Redirect || !intact || has_valid_checksums(&kernel.frame));
            *seen
                .borrow_mut()
                .entry(format!("{} {}", engine.as_str(), kernel.reason.as_str()))
                .or_default() += 1;
        }
        Ok(())
    });
    agreed.unwrap_or_else(|error| panic!("{error}\n{:#?}", seen.borrow()));
    let forwarded = |engine: Engine| format!("{} {}", engine.as_str(), Reason::Forwarded.as_str());
    assert!(Engine::ALL.iter().all(|&engine| seen.borrow()[&forwarded(engine)] > CASES / 10));
    seen.into_inner()
}
