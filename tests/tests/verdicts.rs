//! Every rule of the packet path, on the host, in XDP and in TC.

use integration_tests::{
    frame::{Checksum, Frame, has_valid_checksums, offset, put},
    kernel::{Action, Bench, CLIENT, ORIGIN, Outcome, SERVICE, SOURCE},
};
use proxy_common::{
    flow::FlowState,
    verdict::{Engine, Reason},
};
use proxy_userspace::datapath::{Arrival, Datapath as _, Egress, Escalation};

const RTP: [u8; 12] = [0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
const REQUEST: [u8; 20] = stun([0x00, 0x01]);
const SUCCESS: [u8; 20] = stun([0x01, 0x01]);
const ALERT: [u8; 15] = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0];

const fn stun(kind: [u8; 2]) -> [u8; 20] {
    [kind[0], kind[1], 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn media() -> Frame {
    Frame::udp(CLIENT, SERVICE, &RTP)
}

fn answer() -> Frame {
    Frame::udp(ORIGIN, SOURCE, &RTP)
}

fn bent(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = media().bytes();
    put(&mut frame, offset, bytes);
    frame
}

#[track_caller]
fn check(
    bench: &mut Bench,
    engine: Engine,
    name: &str,
    frame: &[u8],
    action: Action,
    reason: Reason,
) -> Outcome {
    let host = bench.on_host(engine, frame);
    assert_eq!((host.action, host.reason), (action, reason), "{name}, on the host as {engine:?}");
    let kernel =
        bench.in_kernel(engine, frame).unwrap_or_else(|| panic!("{name}: no test run as {engine:?}"));
    assert_eq!(kernel, host, "{name}, in the kernel as {engine:?}");
    if action != Action::Redirect && reason != Reason::Forwarded {
        assert_eq!(kernel.frame, frame, "{name}: a frame that is not forwarded stays as it is");
    }
    kernel
}

#[track_caller]
fn check_both(bench: &mut Bench, name: &str, frame: &[u8], action: Action, reason: Reason) {
    for engine in Engine::ALL {
        check(bench, engine, name, frame, action, reason);
    }
}

#[test]
fn passes_up_what_it_is_not_sure_about() {
    let mut bench = Bench::new();
    let long = Frame::udp(CLIENT, SERVICE, &[0x80; 1473]).bytes();
    let stranger = Frame::udp(ORIGIN, SERVICE, &RTP).bytes();
    let new_client = Frame::udp(ORIGIN, SERVICE, &REQUEST).bytes();
    let rows = [
        ("a frame shorter than the headers", media().bytes()[..40].to_vec(), Reason::Truncated),
        ("ARP", bent(offset::ETHERTYPE, &[0x08, 0x06]), Reason::NotIpv4),
        ("IPv6", bent(offset::ETHERTYPE, &[0x86, 0xdd]), Reason::NotIpv4),
        ("a VLAN tag", bent(offset::ETHERTYPE, &[0x81, 0x00]), Reason::Vlan),
        ("IPv4 options", bent(offset::VERSION_IHL, &[0x46]), Reason::IpOptions),
        ("TCP", bent(offset::PROTOCOL, &[6]), Reason::NotUdp),
        ("a first fragment", bent(offset::FRAGMENT, &[0x20, 0]), Reason::Fragment),
        ("a last fragment", bent(offset::FRAGMENT, &[0, 1]), Reason::Fragment),
        ("TTL 1", media().ttl(1).bytes(), Reason::TtlExpired),
        ("TTL 0", media().ttl(0).bytes(), Reason::TtlExpired),
        ("a UDP length below its header", bent(offset::UDP_LEN, &[0, 7]), Reason::LengthMismatch),
        ("a UDP length unlike the IP length", bent(offset::UDP_LEN, &[0, 19]), Reason::LengthMismatch),
        ("an IP length behind the frame", bent(offset::TOTAL_LEN, &[5, 0]), Reason::LengthMismatch),
        ("an unknown tuple", stranger, Reason::NoFlow),
        ("a STUN request of an unknown tuple", new_client, Reason::StunWithoutFlow),
        ("a datagram above the next hop's MTU", long, Reason::Oversize),
    ];
    for (name, frame, reason) in rows {
        check_both(&mut bench, name, &frame, Action::Pass, reason);
    }
}

#[test]
fn forwards_every_class_and_size_with_valid_checksums() {
    let mut bench = Bench::new();
    let mut rows =
        vec![("RTP", RTP.to_vec()), ("STUN request", REQUEST.to_vec()), ("DTLS alert", ALERT.to_vec())];
    rows.extend(
        [0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 1399, 1471, 1472].map(|n| ("a size", vec![0x80; n])),
    );
    for (name, payload) in rows {
        for (from, to) in [(CLIENT, SERVICE), (ORIGIN, SOURCE)] {
            for engine in Engine::ALL {
                let name = format!("{name} of {} bytes", payload.len());
                let frame = Frame::udp(from, to, &payload).bytes();
                let out = check(&mut bench, engine, &name, &frame, Action::Redirect, Reason::Forwarded);
                assert!(has_valid_checksums(&out.frame), "{name} as {engine:?}");
            }
        }
    }
}

#[test]
fn rewrites_addresses_ports_ttl_and_macs_and_nothing_else() {
    let mut bench = Bench::new();
    let mut frame = media().bytes();
    put(&mut frame, offset::TOS, &[0xb9]);
    for engine in Engine::ALL {
        let out = check(&mut bench, engine, "media", &frame, Action::Redirect, Reason::Forwarded).frame;
        let mut expected = Frame::udp(SOURCE, ORIGIN, &RTP).ttl(63).bytes();
        put(&mut expected, 0, &[2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 2, 1]);
        put(&mut expected, offset::TOS, &[0xb9]);
        let checksums = [offset::IP_CHECKSUM, offset::IP_CHECKSUM + 1];
        let differing: Vec<_> = (0..out.len()).filter(|&i| out[i] != expected[i]).collect();
        assert!(differing.iter().all(|i| checksums.contains(i)), "{engine:?} changed bytes {differing:?}");
    }
}

#[test]
fn keeps_a_checksum_of_zero() {
    let mut bench = Bench::new();
    let frame = media().checksum(Checksum::Zero).bytes();
    for engine in Engine::ALL {
        let out = check(&mut bench, engine, "no checksum", &frame, Action::Redirect, Reason::Forwarded);
        assert_eq!(out.frame[offset::UDP_CHECKSUM..offset::PAYLOAD], [0, 0]);
    }
}

#[test]
fn xdp_finishes_a_checksum_that_the_sender_left_to_the_device() {
    let mut bench = Bench::new();
    for length in [0, 1, 2, 247, 248, 249, 503, 504, 1199, 1200, 1471, 1472] {
        let frame = Frame::udp(CLIENT, SERVICE, &vec![0x5a; length]).checksum(Checksum::Partial).bytes();
        let name = format!("partial checksum over {length} bytes");
        let out = check(&mut bench, Engine::Xdp, &name, &frame, Action::Redirect, Reason::Forwarded);
        assert!(has_valid_checksums(&out.frame), "{name}");
    }
}

#[test]
fn obeys_the_state_of_the_flow() {
    let mut bench = Bench::new();
    let rows = [
        (FlowState::User, Action::Pass, Reason::UserState),
        (FlowState::Drop, Action::Drop, Reason::Quarantined),
        (FlowState::Free, Action::Pass, Reason::StaleFlow),
        (FlowState::Forward, Action::Redirect, Reason::Forwarded),
    ];
    for (state, action, reason) in rows {
        bench.kernel.set_state(bench.flow, state);
        for frame in [media().bytes(), answer().bytes()] {
            check_both(&mut bench, &format!("{state:?}"), &frame, action, reason);
        }
    }
}

#[test]
fn escalates_only_the_checks_it_was_asked_to() {
    let mut bench = Bench::new();
    let (forwarded, escalated) =
        ((Action::Redirect, Reason::Forwarded), (Action::Pass, Reason::EscalatedCheck));
    let request = Frame::udp(CLIENT, SERVICE, &REQUEST).bytes();
    let success = Frame::udp(ORIGIN, SOURCE, &SUCCESS).bytes();
    for (requests, responses) in [(false, false), (true, false), (false, true), (true, true)] {
        bench.kernel.escalate(bench.flow, Escalation { requests, responses });
        let (action, reason) = if requests { escalated } else { forwarded };
        check_both(&mut bench, "request", &request, action, reason);
        let (action, reason) = if responses { escalated } else { forwarded };
        check_both(&mut bench, "response", &success, action, reason);
        check_both(&mut bench, "media", &media().bytes(), forwarded.0, forwarded.1);
    }
}

#[test]
fn leaves_next_hops_that_xdp_cannot_use_to_tc() {
    let mut bench = Bench::new();
    let macs = ([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 2, 1]);
    let no_xdp = Egress::Redirect { dst_mac: macs.0, src_mac: macs.1, xdp: false };
    let rows =
        [(no_xdp, Action::Redirect), (Egress::Neighbour, Action::Redirect), (Egress::Stack, Action::Pass)];
    for (egress, in_tc) in rows {
        bench.set_hops(|hop| hop.egress = egress);
        let name = format!("{egress:?}");
        check(&mut bench, Engine::Xdp, &name, &media().bytes(), Action::Pass, Reason::EngineCannot);
        let out = check(&mut bench, Engine::Tc, &name, &media().bytes(), in_tc, Reason::Forwarded);
        assert!(has_valid_checksums(&out.frame), "{name}");
        assert_eq!(out.frame[offset::TTL], if egress == Egress::Stack { 64 } else { 63 }, "{name}");
    }
    bench.set_hops(|hop| hop.egress = Egress::Unusable);
    check_both(&mut bench, "unusable", &media().bytes(), Action::Pass, Reason::NextHopUnusable);
}

#[test]
fn counts_each_direction_by_itself() {
    let mut bench = Bench::new();
    for payload in [RTP.as_slice(), &REQUEST] {
        let frame = Frame::udp(CLIENT, SERVICE, payload).bytes();
        check(&mut bench, Engine::Xdp, "request", &frame, Action::Redirect, Reason::Forwarded);
    }
    let frame = Frame::udp(ORIGIN, SOURCE, &ALERT).bytes();
    check(&mut bench, Engine::Tc, "alert", &frame, Action::Redirect, Reason::Forwarded);
    let counters = bench.kernel.remove(bench.flow);
    assert_eq!((counters.to_origin.packets, counters.to_origin.checks), (2, 1));
    assert_eq!(counters.to_origin.bytes, (28 + RTP.len() + 28 + REQUEST.len()) as u64);
    assert_eq!((counters.to_client.packets, counters.to_client.checks), (1, 0));
    assert!(counters.closing);
    check_both(&mut bench, "after the removal", &media().bytes(), Action::Pass, Reason::NoFlow);
}

#[test]
fn remembers_where_a_stun_request_without_a_flow_came_in() {
    let mut bench = Bench::new();
    let frame = Frame::udp(ORIGIN, SERVICE, &REQUEST).bytes();
    assert_eq!(bench.kernel.arrival(ORIGIN), None);
    check(&mut bench, Engine::Tc, "new client", &frame, Action::Pass, Reason::StunWithoutFlow);
    assert_eq!(bench.kernel.arrival(ORIGIN), Some(Arrival { service: SERVICE, ifindex: 1 }));
}
