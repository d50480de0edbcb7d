//! What goes wrong around a session that the kernel forwards alone, and what it may cost: numbered datagrams go both
//! ways all the time, and each rule says how many may be missing.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use integration_tests::{
    case::Case,
    fault::{Outcome, outlive},
    in_cases, links,
    netns::{Direct, End, Namespace},
    proxy::{Engine, Status},
    pulse::Rhythm,
    raw::{Endpoint, RawSession},
    residue,
    wire::Wire,
};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

in_cases!(xdp, tc, xdp_v6, tc_v6: {
    a6_a_neighbour_that_changes_its_address_without_a_word_is_found_again,
    a5_a_peer_that_stops_taking_redirected_frames_is_served_otherwise,
    a7_datagrams_too_long_for_the_origins_leg_arrive_and_others_stay_in_the_kernel,
    a7_datagrams_too_long_for_the_clients_leg_arrive_and_others_stay_in_the_kernel,
    a_session_outlives_the_clients_leg_being_down,
    a_session_outlives_the_origins_leg_being_down_and_is_offloaded_again,
    a4_a_program_that_somebody_detaches_costs_nothing,
    a9_a_proxy_that_stands_still_costs_nothing,
    a_proxy_that_is_told_to_return_a_session_loses_nothing,
});

/// With these timers a silent neighbour is asked after 2 s, and given up after 1 s more.
fn ask_neighbours_early(namespace: &Namespace, interface: &str) {
    let timers = [
        ("base_reachable_time_ms", "1000"),
        ("delay_first_probe_time", "1"),
        ("retrans_time_ms", "200"),
        ("interval_probe_time_ms", "1000"),
    ];
    for (timer, value) in timers {
        for family in ["ipv4", "ipv6"] {
            namespace.sysctl(&format!("net.{family}.neigh.{interface}.{timer}"), value).unwrap();
        }
    }
}

fn a6_a_neighbour_that_changes_its_address_without_a_word_is_found_again(case: Case) {
    const BOUND: Duration = Duration::from_secs(6);
    let network = Direct::new().unwrap();
    ask_neighbours_early(&network.proxy, "eth1");
    // The origin knows us and never asks: nothing but our own question tells where it is.
    let silence = "add table arp silence; \
                   add chain arp silence output { type filter hook output priority 0; }; \
                   add rule arp silence output arp operation request drop; \
                   add table ip6 silence; \
                   add chain ip6 silence output { type filter hook output priority 0; }; \
                   add rule ip6 silence output icmpv6 type nd-neighbor-solicit drop";
    network.origin.run("nft", &[silence]).unwrap();
    let ours = End { namespace: &network.proxy, interface: "eth1", address: Some(Direct::PROXY_INSIDE) };
    let inside = case.family.of(Direct::PROXY_INSIDE).to_string();
    let known =
        ["neighbour", "replace", &inside, "lladdr", &ours.lladdr(), "dev", "eth0", "nud", "permanent"];
    network.origin.ip(&known).unwrap();
    let outcome = outlive(&network, case, Rhythm::default(), |_| {
        network.origin.ip(&["link", "set", "eth0", "address", "02:78:00:00:00:99"]).unwrap();
        // It forgets its neighbours with its address.
        network.origin.ip(&known).unwrap();
        let changed = Instant::now();
        sleep(BOUND + Duration::from_secs(1));
        changed
    });
    let outcome = outcome.unwrap();
    assert!(outcome.tally.to_origin.missing() > 0, "the old address still took frames");
    assert_eq!(outcome.tally.to_client.missing(), 0);
    outcome.recovers(outcome.result + BOUND, BOUND).unwrap();
}

/// A veth without GRO has no NAPI context: what XDP redirects to its peer counts as sent and is gone.
fn a5_a_peer_that_stops_taking_redirected_frames_is_served_otherwise(case: Case) {
    const BOUND: Duration = Duration::from_secs(3);
    let network = Direct::new().unwrap();
    let outcome = outlive(&network, case, Rhythm::default(), |_| {
        network.client.run("ethtool", &["-K", "eth0", "gro", "off"]).unwrap();
        let changed = Instant::now();
        sleep(BOUND + Duration::from_secs(1));
        changed
    });
    let outcome = outcome.unwrap();
    outcome.recovers(outcome.result + BOUND, BOUND).unwrap();
    let Outcome { tally, status, .. } = outcome;
    if case.engine == Engine::Xdp {
        let told = status.reason("engine_cannot") > 0 || status.sessions[0].reason.is_some();
        assert!(told, "{status:#?}");
    } else {
        assert_eq!(tally.missing(), 0);
    }
}

fn a7_datagrams_too_long_for_the_origins_leg_arrive_and_others_stay_in_the_kernel(case: Case) {
    let network = Direct::with_origin_mtu(SMALL_MTU).unwrap();
    lengths_arrive((&network, case), |wire| (&wire.client, &wire.origin.media));
}

fn a7_datagrams_too_long_for_the_clients_leg_arrive_and_others_stay_in_the_kernel(case: Case) {
    let network = Direct::new().unwrap();
    for namespace in [&network.client, &network.proxy] {
        namespace.ip(&["link", "set", "eth0", "mtu", &SMALL_MTU.to_string()]).unwrap();
    }
    lengths_arrive((&network, case), |wire| (&wire.origin.media, &wire.client));
}

const SMALL_MTU: u16 = 1400;

/// Sends datagrams around the smaller MTU from the leg with the larger one.
fn lengths_arrive(
    (network, case): (&Direct, Case),
    ends: impl for<'w> Fn(&'w Wire<'_>) -> (&'w Endpoint, &'w Endpoint),
) {
    let wire = Wire::start(network, case, &[]).unwrap();
    let (RawSession { proxy, .. }, source) = wire.connected().unwrap();
    wire.settled().unwrap();
    let (sender, receiver) = ends(&wire);
    let to = if std::ptr::eq(sender, &wire.client) { proxy } else { source };
    let fits = case.family.largest_payload(SMALL_MTU);
    let before = wire.proxy.status().unwrap();
    for length in [100, fits - 1, fits, fits + 1, case.family.usual_payload(), 100] {
        arrives_whole(sender, to, receiver, length);
    }
    let after = wire.proxy.status().unwrap();
    let moved = |path| after.packets(path) - before.packets(path);
    if case.expects_kernel() {
        assert_eq!((moved("kernel"), moved("userspace")), (4, 2), "{after:#?}");
        // The sender of the first is told what fits, and sends the second in fragments.
        let came_up = |status: &Status| status.reason("oversize") + status.reason("fragment");
        assert!(after.reason("oversize") > before.reason("oversize"), "{after:#?}");
        assert!(came_up(&after) >= came_up(&before) + 2, "{after:#?}");
    } else {
        assert_eq!(moved("userspace"), 6, "{after:#?}");
    }
    wire.proxy.stop().unwrap();
    assert_eq!(residue::attached(&network.proxy).unwrap(), [""; 0]);
}

#[track_caller]
fn arrives_whole(sender: &Endpoint, to: SocketAddr, receiver: &Endpoint, length: usize) {
    let payload: Vec<u8> = [0x80, 96].into_iter().chain((2..length).map(|byte| byte as u8)).collect();
    sender.send(&payload, to, 0).unwrap();
    assert_eq!(receiver.receive().unwrap().1, payload, "{length} bytes");
}

fn a_session_outlives_the_clients_leg_being_down(case: Case) {
    let status = outlives_down(case, "eth0", |_| ());
    assert!(status.relayed("next_hop_lost") > 0, "{status:#?}");
}

fn a_session_outlives_the_origins_leg_being_down_and_is_offloaded_again(case: Case) {
    outlives_down(case, "eth1", |wire| {
        let again = |status: &Status| status.relayed("next_hop_lost") > 0 && status.totals.offloaded == 1;
        let before = wire.proxy.wait(PATIENCE, again).unwrap();
        let more = |status: &Status| status.packets("kernel") > before.packets("kernel") + 100;
        wire.proxy.wait(PATIENCE, more).unwrap();
    });
}

/// The leg is down for a second; two seconds after it is up, everything arrives.
fn outlives_down(case: Case, interface: &str, then: impl FnOnce(&Wire<'_>)) -> Status {
    const DOWN: Duration = Duration::from_secs(1);
    const BOUND: Duration = Duration::from_secs(2);
    let network = Direct::new().unwrap();
    // IPv6 addresses would be gone with the link.
    network.proxy.sysctl(&format!("net.ipv6.conf.{interface}.keep_addr_on_down"), "1").unwrap();
    let outcome = outlive(&network, case, Rhythm::default(), |wire| {
        let down = Instant::now();
        network.proxy.ip(&["link", "set", interface, "down"]).unwrap();
        sleep(DOWN);
        network.proxy.ip(&["link", "set", interface, "up"]).unwrap();
        let up = Instant::now();
        sleep(BOUND + DOWN);
        then(wire);
        (down, up)
    });
    let outcome = outcome.unwrap();
    assert!(outcome.tally.missing() > 0, "the leg was not down");
    let (down, up) = outcome.result;
    outcome.recovers(up + BOUND, up.duration_since(down) + BOUND).unwrap();
    outcome.status
}

/// Behind XDP stands TC, behind TC the relay. A packet may be in a program while it is detached, but none is lost.
fn a4_a_program_that_somebody_detaches_costs_nothing(case: Case) {
    let kind = if case.engine == Engine::Xdp { "xdp" } else { "tcx" };
    let network = Direct::new().unwrap();
    let outcome = outlive(&network, case, Rhythm::default(), |wire| {
        let off = network.proxy.ip(&["link", "set", "dev", "eth0", "xdp", "off"]);
        assert_eq!(off.is_err(), kind == "xdp", "a link is not to be replaced: {off:?}");
        links::detach(wire.proxy.id(), kind, network.proxy.ifindex("eth0").unwrap()).unwrap();
        let before = wire.proxy.status().unwrap();
        sleep(Duration::from_secs(4));
        before
    });
    let Outcome { result: before, tally, status } = outcome.unwrap();
    assert_eq!(tally.missing(), 0);
    let goes_on = status.packets("kernel") - before.packets("kernel") > 100;
    assert!(goes_on || status.relayed("hook_missed") > 0, "{status:#?}");
}

/// The kernel forwards alone: the process may be starved, or under a debugger.
fn a9_a_proxy_that_stands_still_costs_nothing(case: Case) {
    let network = Direct::new().unwrap();
    let outcome = outlive(&network, case, Rhythm::default(), |wire| {
        let process = Pid::from_raw(wire.proxy.id().cast_signed()).unwrap();
        kill_process(process, Signal::STOP).unwrap();
        sleep(Duration::from_secs(3));
        kill_process(process, Signal::CONT).unwrap();
        sleep(Duration::from_secs(2));
    });
    let Outcome { tally, status, .. } = outcome.unwrap();
    assert_eq!((tally.missing(), status.totals.offloaded), (0, 1), "{status:#?}");
}

fn a_proxy_that_is_told_to_return_a_session_loses_nothing(case: Case) {
    let network = Direct::new().unwrap();
    let outcome = outlive(&network, case, Rhythm::default(), |wire| {
        for _ in 0..3 {
            wire.proxy.switch_offload(false).unwrap();
            sleep(Duration::from_millis(300));
            wire.proxy.switch_offload(true).unwrap();
            wire.settled().unwrap();
        }
    });
    let Outcome { tally, status, .. } = outcome.unwrap();
    assert_eq!(tally.missing(), 0);
    assert!(!case.expects_kernel() || status.relayed("switched_off") == 3, "{status:#?}");
}
