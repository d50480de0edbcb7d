//! The proxy behind a host firewall that lets established flows in alone: connection tracking sees none of a session's
//! packets while the kernel forwards them, and must know it all the same when one comes up.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{thread::sleep, time::Duration};

use integration_tests::{
    case::Case,
    fault::{Outcome, outlive},
    in_cases, links,
    netns::{Direct, Namespace},
    proxy::Engine,
    pulse::{Rhythm, Tally},
    wire::Wire,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType,
    netlink::{NETFILTER, SocketAddrNetlink},
    recv, sendto, socket,
};

in_cases!(xdp, tc, xdp_v6, tc_v6: {
    a16_a_session_that_is_returned_behind_an_established_only_input_chain_loses_nothing,
    a16_a_session_whose_entries_were_flushed_loses_nothing,
    a16_a_session_whose_program_is_detached_behind_the_chain_loses_nothing,
    a16_a_datagram_that_comes_up_alone_passes_the_chain,
    a16_a_chain_that_nobody_tracks_for_is_left_alone,
});

/// An operator's rules: what answers us is let in, and new flows to the ports that we serve.
const ESTABLISHED_ONLY: &str = "
    add table inet operator
    add chain inet operator input { type filter hook input priority filter; policy drop; }
    add rule inet operator input iif lo accept
    add rule inet operator input ct state established,related accept
    add rule inet operator input meta l4proto { icmp, ipv6-icmp } accept
    add rule inet operator input tcp dport { 11985, 12025 } accept
    add rule inet operator input udp dport 18000 accept
";
/// Connection tracking forgets within this time.
const MEMORY: Duration = Duration::from_secs(1);
const LONGER_THAN_MEMORY: Duration = Duration::from_millis(2500);
const SMALL_MTU: u16 = 1400;

/// A viewer sends little but checks: its next packet is too far away to make a flow known again.
fn viewer() -> Rhythm {
    Rhythm { to_origin: None, checks: Duration::from_secs(20), ..Rhythm::default() }
}

fn firewalled() -> Direct {
    let network = Direct::new().unwrap();
    network.proxy.run("nft", &[ESTABLISHED_ONLY]).unwrap();
    for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        let seconds = MEMORY.as_secs().to_string();
        network.proxy.sysctl(&format!("net.netfilter.{timeout}"), &seconds).unwrap();
    }
    network
}

fn switched_off(network: &Direct, case: Case, before: impl FnOnce(&Wire<'_>)) -> Tally {
    let outcome = outlive(network, case, viewer(), |wire| {
        sleep(LONGER_THAN_MEMORY);
        before(wire);
        wire.proxy.switch_offload(false).unwrap();
        sleep(Duration::from_secs(2));
    });
    let Outcome { tally, status, .. } = outcome.unwrap();
    assert!(status.relayed("switched_off") > 0, "{status:#?}");
    tally
}

fn a16_a_session_that_is_returned_behind_an_established_only_input_chain_loses_nothing(case: Case) {
    assert_eq!(switched_off(&firewalled(), case, |_| ()).missing(), 0);
}

fn a16_a_session_whose_entries_were_flushed_loses_nothing(case: Case) {
    let network = firewalled();
    let tally = switched_off(&network, case, |_| {
        flush(&network.proxy);
        sleep(MEMORY);
    });
    assert_eq!(tally.missing(), 0);
}

/// Has connection tracking forget everything, as reloading a firewall may.
fn flush(namespace: &Namespace) {
    const CT_DELETE: u16 = (1 << 8) | 2;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const ANSWER: u16 = 2;
    let mut message = Vec::from(20_u32.to_ne_bytes());
    message.extend(CT_DELETE.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    message.resize(20, 0);
    let mut answer = [0; 64];
    let received = namespace.enter(|| {
        let netlink = socket(AddressFamily::NETLINK, SocketType::RAW, Some(NETFILTER)).unwrap();
        sendto(&netlink, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).unwrap();
        recv(&netlink, &mut answer, RecvFlags::empty()).unwrap().0
    });
    // Behind the header of sixteen bytes, the negative number of the error.
    assert!(received >= 20, "{received} bytes of answer");
    assert_eq!(answer[4..6], ANSWER.to_ne_bytes());
    assert_eq!(answer[16..20], 0_i32.to_ne_bytes(), "connection tracking refused");
}

fn a16_a_session_whose_program_is_detached_behind_the_chain_loses_nothing(case: Case) {
    let network = firewalled();
    let outcome = outlive(&network, case, viewer(), |wire| {
        sleep(LONGER_THAN_MEMORY);
        let kinds: &[&str] = if case.engine == Engine::Xdp { &["xdp", "tcx"] } else { &["tcx"] };
        for kind in kinds {
            links::detach(wire.proxy.id(), kind, network.proxy.ifindex("eth1").unwrap()).unwrap();
        }
        sleep(Duration::from_secs(2));
    });
    let outcome = outcome.unwrap();
    assert_eq!(outcome.tally.missing(), 0, "{:#?}", outcome.status);
}

fn a16_a_datagram_that_comes_up_alone_passes_the_chain(case: Case) {
    let network = firewalled();
    for namespace in [&network.client, &network.proxy] {
        namespace.ip(&["link", "set", "eth0", "mtu", &SMALL_MTU.to_string()]).unwrap();
    }
    let wire = Wire::start(&network, case, &[]).unwrap();
    let (_, source) = wire.connected().unwrap();
    wire.settled().unwrap();
    for _ in 0..2 {
        sleep(LONGER_THAN_MEMORY);
        let payload = vec![0x80; case.family.usual_payload()];
        wire.origin.media.send(&payload, source, 0).unwrap();
        assert_eq!(wire.client.receive().unwrap().1, payload);
    }
    let status = wire.proxy.status().unwrap();
    // The origin was told of the first, and sent the second in fragments.
    let came_up = status.reason("oversize") + status.reason("fragment");
    assert!(came_up >= 2 && status.totals.offloaded == 1, "{status:#?}");
    wire.proxy.stop().unwrap();
}

fn a16_a_chain_that_nobody_tracks_for_is_left_alone(case: Case) {
    let network = Direct::new().unwrap();
    let untracked = "
        add table inet operator
        add chain inet operator raw { type filter hook prerouting priority raw; }
        add chain inet operator raw_out { type filter hook output priority raw; }
        add rule inet operator raw meta l4proto udp notrack
        add rule inet operator raw_out meta l4proto udp notrack
        add chain inet operator input { type filter hook input priority filter; policy accept; }
        add rule inet operator input ct state established accept
    ";
    network.proxy.run("nft", &[untracked]).unwrap();
    let outcome = outlive(&network, case, viewer(), |wire| {
        sleep(LONGER_THAN_MEMORY);
        wire.proxy.switch_offload(false).unwrap();
        sleep(Duration::from_secs(1));
        network.proxy.run("cat", &["/proc/net/nf_conntrack"]).unwrap()
    });
    let Outcome { result: entries, tally, .. } = outcome.unwrap();
    assert_eq!(tally.missing(), 0);
    assert!(!entries.lines().any(|line| line.contains(" udp ")), "{entries}");
}
