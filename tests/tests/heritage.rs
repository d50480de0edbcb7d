//! What an engine makes of the tables that another process left.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use integration_tests::{
    kernel::{V4_ENDS, V6_ENDS, loaded, redirect},
    netns::Direct,
    pins::Pins,
};
use proxy_common::maps;
use proxy_userspace::datapath::{
    Datapath as _, Direction, Protocol,
    kernel::{EngineChoice, Findings, KernelDatapath, KernelOptions, Pinning},
};

fn owner(pins: &Pins) -> (KernelDatapath, Findings) {
    let mut kernel = loaded(&KernelOptions {
        max_flows: 16,
        max_flows_v6: 16,
        choice: EngineChoice::Tc,
        pinning: Pinning::Keep(pins.path().to_owned()),
        ..KernelOptions::default()
    });
    let findings = kernel.begin().unwrap();
    (kernel, findings)
}

/// Leaves a flow of each family on the same next hops.
fn leave_two_flows(pins: &Pins) {
    let (mut kernel, _) = owner(pins);
    let hops = [1, 2].map(|last| kernel.add_next_hop(&redirect(last)).unwrap());
    for ends in [V4_ENDS, V6_ENDS] {
        kernel.install(&ends.flow(Protocol::WebRtc, hops)).unwrap();
    }
    kernel.settle();
}

/// How many next hops there is room for.
fn room(kernel: &mut KernelDatapath) -> usize {
    kernel.settle();
    let rows: Vec<_> = std::iter::from_fn(|| kernel.add_next_hop(&redirect(3)).ok()).collect();
    rows.iter().for_each(|row| kernel.remove_next_hop(*row));
    kernel.settle();
    rows.len()
}

#[test]
fn a9_the_next_hops_of_inherited_flows_are_free_when_none_of_them_uses_them_any_more() {
    let all = maps::NEXT_HOP_ROWS as usize;
    let network = Direct::new().unwrap();
    let pins = Pins::of(&network.proxy).unwrap();
    network.proxy.enter(|| {
        leave_two_flows(&pins);
        let (mut kernel, findings) = owner(&pins);
        let [(moved, _), (lost, _)] = findings.flows[..] else { panic!("{findings:?}") };
        assert_eq!(room(&mut kernel), all - 2);
        let new = kernel.add_next_hop(&redirect(3)).unwrap();
        kernel.set_flow_hop(moved, Direction::ToOrigin, new);
        kernel.set_flow_hop(moved, Direction::ToClient, new);
        assert_eq!(room(&mut kernel), all - 3, "the other flow uses them");
        // Its session is only told that it is lost once the rest has been taken away.
        kernel.forget_unclaimed();
        kernel.remove(lost);
        assert_eq!(room(&mut kernel), all - 1);
        kernel.remove(moved);
        kernel.remove_next_hop(new);
        assert_eq!(room(&mut kernel), all);
        kernel.unpin();
    });
    assert!(pins.is_empty());
}
