//! Every rule of the packet path, on the host, in XDP and in TC.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use integration_tests::{
    frame::{Checksum, Frame, has_valid_checksums, offset, put},
    kernel,
    kernel::{Action, Bench, CLIENT, Ends, ORIGIN, Outcome, SERVICE, SOURCE, V4_ENDS, V6_ENDS},
};
use proxy_common::{
    flow::FlowState,
    verdict::{Engine, Reason},
};
use proxy_userspace::datapath::{
    Arrival, Datapath as _, Egress, Escalation, InstallError, Protocol, kernel::KernelOptions,
};

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
        ("ARP", bent(offset::ETHERTYPE, &[0x08, 0x06]), Reason::NotIp),
        ("IPv6 of version 4", bent(offset::ETHERTYPE, &[0x86, 0xdd]), Reason::Truncated),
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
        [0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 1399, 1451, 1452].map(|n| ("a size", vec![0x80; n])),
    );
    for (name, payload) in rows {
        let ends = [V4_ENDS, V6_ENDS];
        let pairs = ends.map(|ends| [(ends.client, ends.service), (ends.origin, ends.source)]);
        for (from, to) in pairs.into_iter().flatten() {
            for engine in Engine::ALL {
                let name = format!("{name} of {} bytes from {from}", payload.len());
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
    for length in [0, 1, 2, 247, 248, 249, 503, 504, 1199, 1200, 1451, 1452] {
        for Ends { client, service, .. } in [V4_ENDS, V6_ENDS] {
            let frame = Frame::udp(client, service, &vec![0x5a; length]).checksum(Checksum::Partial).bytes();
            let name = format!("partial checksum over {length} bytes from {client}");
            let out = check(&mut bench, Engine::Xdp, &name, &frame, Action::Redirect, Reason::Forwarded);
            assert!(has_valid_checksums(&out.frame), "{name}");
        }
    }
}

#[test]
fn obeys_the_state_of_the_flow() {
    let mut bench = Bench::new();
    let rows = [
        (FlowState::User, Action::Pass, Reason::UserState),
        (FlowState::Drop, Action::Drop, Reason::Quarantined),
        (FlowState::Free, Action::Pass, Reason::NoFlow),
        (FlowState::Forward, Action::Redirect, Reason::Forwarded),
    ];
    for (state, action, reason) in rows {
        bench.kernel.set_state(bench.flow, state);
        bench.kernel.set_state(bench.flow_v6, state);
        for ends in [V4_ENDS, V6_ENDS] {
            for (from, to) in [(ends.client, ends.service), (ends.origin, ends.source)] {
                let frame = Frame::udp(from, to, &RTP).bytes();
                check_both(&mut bench, &format!("{state:?} from {from}"), &frame, action, reason);
            }
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
    let frame = Frame::udp(V4_ENDS.origin, V4_ENDS.service, &REQUEST).bytes();
    assert_eq!(bench.kernel.arrival(V4_ENDS.origin), None);
    check(&mut bench, Engine::Tc, "new client", &frame, Action::Pass, Reason::StunWithoutFlow);
    assert_eq!(bench.kernel.arrival(V4_ENDS.origin), Some(Arrival { service: V4_ENDS.service, ifindex: 1 }));
}

#[test]
fn a14_rewrites_ipv6_addresses_ports_hops_and_macs_and_nothing_else() {
    let mut bench = Bench::new();
    let Ends { client, service, source, origin } = V6_ENDS;
    let frame = Frame::udp(client, service, &RTP).bytes();
    for engine in Engine::ALL {
        let out = check(&mut bench, engine, "media", &frame, Action::Redirect, Reason::Forwarded).frame;
        let mut expected = Frame::udp(source, origin, &RTP).ttl(63).bytes();
        put(&mut expected, 0, &[2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 2, 1]);
        assert_eq!(out, expected, "{engine:?}");
    }
}

#[test]
fn a14_passes_up_ipv6_that_it_is_not_sure_about() {
    let mut bench = Bench::new();
    let Ends { client, service, .. } = V6_ENDS;
    let media = || Frame::udp(client, service, &RTP);
    let bent = |at: usize, bytes: &[u8]| {
        let mut frame = media().bytes();
        put(&mut frame, at, bytes);
        frame
    };
    let rows = [
        ("no checksum", media().checksum(Checksum::Zero).bytes(), Reason::ChecksumMissing),
        ("a fragment", bent(20, &[44]), Reason::Fragment),
        ("hop-by-hop options", bent(20, &[0]), Reason::NotUdp),
        ("TCP", bent(20, &[6]), Reason::NotUdp),
        ("hop limit 1", media().ttl(1).bytes(), Reason::TtlExpired),
        ("a payload length unlike the UDP length", bent(18, &[0, 21]), Reason::LengthMismatch),
        (
            "a datagram above the next hop's MTU",
            Frame::udp(client, service, &[0x80; 1453]).bytes(),
            Reason::Oversize,
        ),
        ("an unknown tuple", Frame::udp(V6_ENDS.origin, service, &RTP).bytes(), Reason::NoFlow),
        ("half a header", media().bytes()[..60].to_vec(), Reason::Truncated),
    ];
    for (name, frame, reason) in rows {
        check_both(&mut bench, name, &frame, Action::Pass, reason);
    }
}

#[test]
fn a8_drops_what_cannot_begin_a_session_while_every_relayed_tuple_is_known() {
    let mut bench = Bench::new();
    let known = V4_ENDS.client;
    bench.kernel.bind(known, V4_ENDS.service, Protocol::WebRtc);
    let stranger = |payload: &[u8]| Frame::udp(V4_ENDS.origin, V4_ENDS.service, payload).bytes();
    check_both(&mut bench, "media of a stranger", &stranger(&RTP), Action::Drop, Reason::Unsolicited);
    check_both(&mut bench, "an alert of a stranger", &stranger(&ALERT), Action::Drop, Reason::Unsolicited);
    check_both(&mut bench, "a request", &stranger(&REQUEST), Action::Pass, Reason::StunWithoutFlow);
    let other = Frame::udp(V4_ENDS.origin, SocketAddr::new(V4_ENDS.service.ip(), 53), &RTP).bytes();
    check_both(&mut bench, "another service of this host", &other, Action::Pass, Reason::NoFlow);
}

#[test]
fn a12_on_srt_handshakes_go_up_and_shutdowns_are_noted_whichever_way_they_go() {
    let mut bench = Bench::of_srt();
    let cases = [
        ("a handshake", [0x80, 0x00], Action::Pass, Reason::SrtHandshake),
        ("a keep-alive", [0x80, 0x01], Action::Redirect, Reason::Forwarded),
        ("an acknowledgement", [0x80, 0x02], Action::Redirect, Reason::Forwarded),
        ("a user-defined packet", [0xff, 0xff], Action::Redirect, Reason::Forwarded),
        ("data", [0x12, 0x34], Action::Redirect, Reason::Forwarded),
        ("data like a STUN request", [0x00, 0x01], Action::Redirect, Reason::Forwarded),
        ("data like a DTLS alert", [0x15, 0xfe], Action::Redirect, Reason::Forwarded),
    ];
    let all = Escalation { requests: true, responses: true };
    [bench.flow, bench.flow_v6].into_iter().for_each(|flow| bench.kernel.escalate(flow, all));
    for ends in [V4_ENDS, V6_ENDS] {
        for (from, to) in [(ends.client, ends.service), (ends.origin, ends.source)] {
            for (name, start, action, reason) in cases {
                let frame = Frame::udp(from, to, &[&start[..], &[0; 30]].concat()).bytes();
                check_both(&mut bench, &format!("{name} from {from}"), &frame, action, reason);
            }
        }
    }
    let counters = |bench: &Bench| [bench.flow, bench.flow_v6].map(|flow| bench.kernel.counters(flow));
    for counters in counters(&bench) {
        assert!(!counters.closing && counters.to_origin.checks == 0 && counters.to_client.checks == 0);
    }
    for (from, to) in [(V4_ENDS.client, V4_ENDS.service), (V6_ENDS.origin, V6_ENDS.source)] {
        let frame = Frame::udp(from, to, &[0x80, 0x05, 0, 0, 0, 0, 0, 0]).bytes();
        check_both(&mut bench, "a shutdown", &frame, Action::Redirect, Reason::Forwarded);
    }
    assert!(counters(&bench).iter().all(|counters| counters.closing));
}

#[test]
fn a12_on_webrtc_what_looks_like_srt_is_media() {
    let mut bench = Bench::new();
    for start in [[0x80, 0x00], [0x80, 0x05]] {
        let frame = Frame::udp(CLIENT, SERVICE, &[&start[..], &[0; 30]].concat()).bytes();
        check_both(&mut bench, "RTP", &frame, Action::Redirect, Reason::Forwarded);
    }
    assert!(!bench.kernel.counters(bench.flow).closing);
}

#[test]
fn a8_only_a_handshake_of_a_stranger_comes_up_to_srt() {
    for ends in [V4_ENDS, V6_ENDS] {
        let mut bench = Bench::of_srt();
        bench.kernel.bind(ends.client, ends.service, Protocol::Srt);
        let stranger =
            |start: [u8; 2]| Frame::udp(ends.origin, ends.service, &[&start[..], &[0; 62]].concat()).bytes();
        let call = stranger([0x80, 0x00]);
        check_both(&mut bench, "a handshake", &call, Action::Pass, Reason::CallWithoutFlow);
        for (name, start) in [
            ("data", [0x12, 0x34]),
            ("a keep-alive", [0x80, 0x01]),
            ("a shutdown", [0x80, 0x05]),
            ("a STUN request", [0x00, 0x01]),
        ] {
            check_both(&mut bench, name, &stranger(start), Action::Drop, Reason::Unsolicited);
        }
    }
}

/// How many of 500 frames come up for this reason.
fn passed(bench: &mut Bench, engine: Engine, frame: &[u8], reason: Reason) -> usize {
    (0..500).filter(|_| bench.in_kernel(engine, frame).expect("a test run").reason == reason).count()
}

/// Expects no more of the frames of one network to come up than it has leave to.
#[track_caller]
fn polices(bench: &mut Bench, engine: Engine, frame: &[u8], reason: Reason) {
    let begin = Instant::now();
    let passed = passed(bench, engine, frame, reason);
    // A window may end in between, and on a busy machine more of them.
    let windows = usize::try_from(begin.elapsed().as_secs()).unwrap_or(usize::MAX) + 2;
    assert!((64..=64 * windows).contains(&passed), "{passed} of 500 came up as {}", reason.as_str());
}

#[test]
fn a8_polices_calls_without_a_flow_by_their_network() {
    for (engine, ends) in [(Engine::Xdp, V4_ENDS), (Engine::Tc, V6_ENDS)] {
        let mut bench = Bench::of_srt();
        bench.kernel.bind(ends.client, ends.service, Protocol::Srt);
        let call = Frame::udp(ends.origin, ends.service, &[&[0x80, 0x00][..], &[0; 62]].concat()).bytes();
        polices(&mut bench, engine, &call, Reason::CallWithoutFlow);
    }
}

#[test]
fn a3_where_a_call_entered_is_noted_before_its_service_is_known() {
    let mut bench = Bench::of_srt();
    let frame = Frame::udp(ORIGIN, SERVICE, &[&[0x80, 0x00][..], &[0; 62]].concat()).bytes();
    check(&mut bench, Engine::Tc, "a call", &frame, Action::Pass, Reason::CallWithoutFlow);
    let arrival = bench.kernel.arrival(ORIGIN.into()).expect("it was noted");
    assert_eq!(arrival.service, SocketAddr::from(SERVICE));
}

#[test]
fn a8_drops_nothing_by_class_while_a_relayed_tuple_has_no_record() {
    let mut bench = Bench::new();
    let clients = |port| SocketAddr::new(V4_ENDS.client.ip(), port);
    (1..=64).for_each(|port| bench.kernel.bind(clients(port), V4_ENDS.service, Protocol::WebRtc));
    let stranger = Frame::udp(V4_ENDS.origin, V4_ENDS.service, &RTP).bytes();
    check_both(&mut bench, "beside a full table", &stranger, Action::Pass, Reason::NoFlow);
    (1..=64).for_each(|port| bench.kernel.unbind(clients(port), V4_ENDS.service));
    check_both(&mut bench, "once all are known", &stranger, Action::Drop, Reason::Unsolicited);
}

#[test]
fn a8_polices_requests_without_a_flow_by_their_network() {
    for (engine, ends) in [(Engine::Xdp, V4_ENDS), (Engine::Tc, V6_ENDS)] {
        let mut bench = Bench::new();
        bench.kernel.bind(ends.client, ends.service, Protocol::WebRtc);
        let request = Frame::udp(ends.origin, ends.service, &REQUEST).bytes();
        polices(&mut bench, engine, &request, Reason::StunWithoutFlow);
        bench.kernel.expect(ends.origin.ip());
        let passed = passed(&mut bench, engine, &request, Reason::StunWithoutFlow);
        assert_eq!(passed, 500, "a network that a session is awaited from has a budget of its own");
        bench.kernel.unexpect(ends.origin.ip());
    }
}

#[test]
fn a8_a_relayed_tuple_is_no_stranger_and_a_retired_port_drops() {
    let mut bench = Bench::new();
    let client = SocketAddr::new(V4_ENDS.client.ip(), 40001);
    bench.kernel.bind(client, V4_ENDS.service, Protocol::WebRtc);
    let media = Frame::udp(client, V4_ENDS.service, &RTP).bytes();
    check_both(&mut bench, "a relayed tuple", &media, Action::Pass, Reason::UserState);
    let source = SocketAddr::new(V4_ENDS.source.ip(), 61001);
    let late = Frame::udp(V4_ENDS.origin, source, &RTP).bytes();
    bench.kernel.lease(source, V4_ENDS.origin).expect("the table is nearly empty");
    check_both(&mut bench, "a leased port", &late, Action::Pass, Reason::UserState);
    bench.kernel.retire(source, V4_ENDS.origin);
    check_both(&mut bench, "a port at rest", &late, Action::Drop, Reason::Quarantined);
    bench.kernel.release(source, V4_ENDS.origin);
    check_both(&mut bench, "a port that has rested", &late, Action::Pass, Reason::NoFlow);
}

#[test]
fn a9_without_an_owner_and_after_its_time_limit_a_flow_is_none() {
    let (idle_limit, orphan_timeout) = (Duration::from_millis(30), Duration::from_millis(300));
    let mut bench = Bench::with(KernelOptions { idle_limit, orphan_timeout, ..KernelOptions::default() });
    let frame = media().bytes();
    bench.kernel.keep_alive();
    std::thread::sleep(2 * idle_limit);
    check_both(&mut bench, "silent for too long", &frame, Action::Pass, Reason::Expired);
    std::thread::sleep(2 * orphan_timeout);
    let run = bench.in_kernel(Engine::Xdp, &frame).expect("a test run");
    assert_eq!((run.action, run.reason), (Action::Pass, Reason::Orphaned));
    bench.kernel.keep_alive();
    let run = bench.in_kernel(Engine::Tc, &frame).expect("a test run");
    assert_eq!((run.action, run.reason), (Action::Pass, Reason::Expired));
}

#[test]
fn a2_a_flow_is_seen_after_a_grace_period_and_not_before() {
    let mut bench = Bench::new();
    bench.kernel.remove(bench.flow);
    bench.kernel.settle();
    let hop = bench.kernel.add_next_hop(&kernel::redirect(9)).expect("the table has room");
    let spec = V4_ENDS.flow(Protocol::WebRtc, [hop; 2]);
    let flow = bench.kernel.install(&spec).expect("the table is empty");
    assert!(!bench.kernel.is_published(flow));
    check_both(&mut bench, "staged", &media().bytes(), Action::Pass, Reason::UserState);
    assert_eq!(bench.kernel.install(&spec), Err(InstallError::Taken));
    bench.kernel.settle();
    check_both(&mut bench, "published", &media().bytes(), Action::Redirect, Reason::Forwarded);
    bench.kernel.remove(flow);
    check_both(&mut bench, "withdrawn", &media().bytes(), Action::Pass, Reason::NoFlow);
}

#[test]
fn a2_every_flow_of_a_crowded_table_is_found_and_no_other() {
    let mut bench = Bench::new();
    // The bench has one of its sixteen flows.
    let ends = |n: u16| {
        let Ends { client, service, source, origin } = V4_ENDS;
        let at = |address: SocketAddr, port| SocketAddr::new(address.ip(), port);
        // Every other one towards an origin, and from a block of source ports, of its own.
        let (source, origin) = (at(source, 61_001 + 256 * (n % 8) + n), at(origin, 9_000 + n / 2));
        Ends { client: at(client, 41_000 + n), service, source, origin }
    };
    let hop = bench.kernel.add_next_hop(&kernel::redirect(9)).expect("the table has room");
    let mut install = |n| bench.kernel.install(&ends(n).flow(Protocol::WebRtc, [hop; 2]));
    let flows: Vec<_> = (0..15).map(|n| (n, install(n).expect("the table has room"))).collect();
    assert_eq!(install(15), Err(InstallError::Full));
    bench.kernel.settle();
    let is_found = |bench: &mut Bench, n, action, reason| {
        let Ends { client, service, source, origin } = ends(n);
        for (from, to) in [(client, service), (origin, source)] {
            let frame = Frame::udp(from, to, &RTP).bytes();
            check_both(bench, &format!("flow {n} from {from}"), &frame, action, reason);
        }
    };
    for (n, _) in &flows {
        is_found(&mut bench, *n, Action::Redirect, Reason::Forwarded);
    }
    is_found(&mut bench, 15, Action::Pass, Reason::NoFlow);
    for (n, flow) in flows {
        bench.kernel.remove(flow);
        is_found(&mut bench, n, Action::Pass, Reason::NoFlow);
        for other in n + 1..15 {
            is_found(&mut bench, other, Action::Redirect, Reason::Forwarded);
        }
    }
}
