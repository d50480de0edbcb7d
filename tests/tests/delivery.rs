//! Proof that what the kernel forwards arrives, beyond its being counted.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{thread::sleep, time::Duration};

use integration_tests::{
    case::Case,
    in_cases,
    netns::{Direct, End, MTU, join},
    proxy::Engine,
    pulse::Rhythm,
    residue,
    wire::Wire,
};

in_cases!(xdp, tc, xdp_v6, tc_v6: {
    a5_a_next_hop_that_redirected_frames_do_not_reach_is_left_to_tc,
});

/// Until a proof is given up, as often as it takes to be sure.
const DOUBT: Duration = Duration::from_secs(4);

/// The device towards the origin has a hook of the operator's on its way out, which carries frames on to where the origin
/// is. XDP goes by that hook: its frames are counted, and reach nobody.
fn a5_a_next_hop_that_redirected_frames_do_not_reach_is_left_to_tc(case: Case) {
    let network = Direct::new().unwrap();
    move_origin_behind_a_hook(&network);
    let wire = Wire::start(&network, case, &[("PROXY_ORIGIN_PROBE_INTERVAL", "0")]).unwrap();
    let live = wire.connected().unwrap();
    wire.settled().unwrap();
    let ((), tally) = wire.beat(&live, Rhythm::default(), || sleep(DOUBT));
    let status = wire.proxy.status().unwrap();
    assert_eq!((tally.missing(), status.totals.offloaded), (0, 1), "{status:#?}");
    let by_xdp = case.engine == Engine::Xdp;
    assert_eq!(status.totals.undelivered_next_hops, usize::from(by_xdp), "{status:#?}");
    assert_eq!(status.reason("engine_cannot") > 0, by_xdp, "{status:#?}");
    wire.proxy.stop().unwrap();
    assert_eq!(residue::attached(&network.proxy).unwrap(), ["filter on spare"]);
}

fn move_origin_behind_a_hook(network: &Direct) {
    let Direct { proxy, origin, .. } = network;
    origin.ip(&["address", "flush", "dev", "eth0"]).unwrap();
    origin.ip(&["link", "set", "eth0", "address", "02:78:00:00:00:99"]).unwrap();
    let ours = End { namespace: proxy, interface: "spare", address: None };
    join(ours, End { namespace: origin, interface: "real", address: Some(Direct::ORIGIN) }, MTU).unwrap();
    // What is carried on is for us by its address.
    let eth1 = End { namespace: proxy, interface: "eth1", address: Some(Direct::PROXY_INSIDE) };
    proxy.ip(&["link", "set", "spare", "address", &eth1.lladdr()]).unwrap();
    for (hook, from, to) in [("egress", "eth1", "spare"), ("ingress", "spare", "eth1")] {
        proxy.run("tc", &["qdisc", "add", "dev", from, "clsact"]).unwrap();
        let every_frame = ["protocol", "all", "u32", "match", "u32", "0", "0"];
        let carry_on = ["action", "mirred", hook, "redirect", "dev", to];
        let filter = [&["filter", "add", "dev", from, hook][..], &every_frame, &carry_on].concat();
        proxy.run("tc", &filter).unwrap();
    }
}
