//! What is on the wire, under every engine: an origin and a client whose datagrams are the test's own.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread::sleep,
    time::Duration,
};

use integration_tests::{
    case::Case,
    in_every_case,
    netns::Direct,
    proxy::Proxy,
    raw::{self, RawOrigin, RawSession},
    wire::Wire,
};

const PATIENCE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(300);

in_every_case!(
    a13_kernel_and_userspace_agree_on_the_wire,
    a_spare_tuple_is_answered_where_it_asked_and_does_not_move_the_return_path,
    media_from_a_spare_tuple_moves_the_return_path,
    a_check_with_a_wrong_password_creates_nothing,
    media_without_a_check_creates_nothing,
    malformed_and_unknown_checks_are_counted_and_dropped,
    a8_a_flood_of_unknown_users_does_not_disturb_a_session,
    a_silent_client_is_forgotten_and_its_port_rests,
    a12_a_dtls_alert_followed_by_silence_ends_the_session,
    a3_a_node_port_is_answered_from_the_address_on_the_wire,
    a3_a_virtual_address_on_lo_is_answered_from_the_address_on_the_wire,
    a_pick_is_shared_by_all_sessions_of_a_stream,
);

/// An RTP-like payload of `len` bytes.
fn media(len: usize) -> Vec<u8> {
    let head = [0x80, 96];
    (0..len).map(|i| head.get(i).copied().unwrap_or(i as u8)).collect()
}

/// Sends datagrams of many sizes and classes both ways and returns what arrived: from where, class, payload.
fn exchange(
    wire: &Wire<'_>,
    case: Case,
    session: &RawSession,
    source: SocketAddr,
) -> Vec<(SocketAddr, u8, Vec<u8>)> {
    let mut seen = vec![];
    let longest = case.family.usual_payload();
    for (len, class) in [(2, 0), (3, 0xb8), (13, 0x01), (100, 0x02), (999, 0xba), (1371, 0x28), (longest, 0)]
    {
        let payload = media(len);
        wire.client.send(&payload, session.proxy, class).unwrap();
        let (meta, got) = wire.origin.media.receive().unwrap();
        seen.push((meta.peer, meta.traffic_class, got));
        wire.origin.media.send(&payload, source, class).unwrap();
        let (meta, got) = wire.client.receive().unwrap();
        seen.push((meta.peer, meta.traffic_class, got));
        assert_eq!(seen[seen.len() - 2].2, payload, "to the origin, {len} bytes");
        assert_eq!(
            (seen[seen.len() - 1].1, &seen[seen.len() - 1].2),
            (class, &payload),
            "to the client, {len} bytes"
        );
    }
    seen
}

fn a13_kernel_and_userspace_agree_on_the_wire(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    wire.proxy.switch_offload(false).unwrap();
    let (session, source) = wire.connected().unwrap();
    let before = wire.proxy.status().unwrap();
    let relayed = exchange(&wire, case, &session, source);
    let between = wire.proxy.status().unwrap();
    assert_eq!(between.packets("userspace") - before.packets("userspace"), relayed.len() as u64);
    wire.proxy.switch_offload(true).unwrap();
    wire.settled().unwrap();
    let between = wire.proxy.status().unwrap();
    let forwarded = exchange(&wire, case, &session, source);
    let after = wire.proxy.status().unwrap();
    assert_eq!(
        after.packets(case.path()) - between.packets(case.path()),
        forwarded.len() as u64,
        "{after:#?}"
    );
    assert_eq!(relayed, forwarded);
}

fn a_spare_tuple_is_answered_where_it_asked_and_does_not_move_the_return_path(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let (session, source) = wire.connected().unwrap();
    wire.settled().unwrap();
    let spare = wire.other_client().unwrap();
    for _ in 0..3 {
        assert_eq!(
            wire.check(&spare, &session, false).unwrap(),
            source,
            "one source port whatever the tuple"
        );
        assert_eq!(wire.check(&wire.client, &session, true).unwrap(), source);
    }
    wire.origin.media.send(&media(50), source, 0).unwrap();
    assert_eq!(wire.client.receive().unwrap().1, media(50));
    assert_eq!(spare.receive_within(QUIET).unwrap(), None);
    wire.settled().unwrap();
}

fn media_from_a_spare_tuple_moves_the_return_path(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let (session, source) = wire.connected().unwrap();
    wire.settled().unwrap();
    let spare = wire.other_client().unwrap();
    wire.check(&spare, &session, false).unwrap();
    spare.send(&media(60), session.proxy, 0).unwrap();
    assert_eq!(wire.origin.media.receive().unwrap().1, media(60));
    wire.proxy.wait(PATIENCE, |status| status.totals.migrations == 1).unwrap();
    wire.origin.media.send(&media(70), source, 0).unwrap();
    assert_eq!(spare.receive().unwrap().1, media(70));
    assert_eq!(wire.client.receive_within(QUIET).unwrap(), None);
    wire.settled().unwrap();
}

fn a_check_with_a_wrong_password_creates_nothing(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let session = wire.offered().unwrap();
    let forged = raw::check_signed(&session.username, "ffffffffffffffffffffffffffffffff", true);
    wire.client.send(&forged, session.proxy, 0).unwrap();
    let status = wire.proxy.wait(PATIENCE, |status| status.reason("bad_integrity") == 1).unwrap();
    assert_eq!(status.sessions[0].state, "waiting");
    assert_eq!(wire.origin.media.receive_within(QUIET).unwrap(), None);
    // The session is not harmed: its own check works.
    wire.check(&wire.client, &session, true).unwrap();
}

fn media_without_a_check_creates_nothing(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let (session, _) = wire.connected().unwrap();
    wire.settled().unwrap();
    let stranger = wire.other_client().unwrap();
    stranger.send(&media(80), session.proxy, 0).unwrap();
    stranger.send(&[22, 254, 253, 0, 0], session.proxy, 0).unwrap();
    assert_eq!(wire.origin.media.receive_within(QUIET).unwrap(), None);
    assert_eq!(wire.proxy.status().unwrap().totals.migrations, 0);
}

fn malformed_and_unknown_checks_are_counted_and_dropped(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let session = wire.offered().unwrap();
    let valid = raw::check(&session.username, true);
    for len in 2..valid.len() {
        wire.client.send(&valid[..len], session.proxy, 0).unwrap();
    }
    wire.client.send(&[], session.proxy, 0).unwrap();
    wire.client.send(&raw::check("nobody:knows", true), session.proxy, 0).unwrap();
    let truncated = valid.len() as u64 - 2;
    let status = wire
        .proxy
        .wait(PATIENCE, |status| {
            status.reason("malformed_stun") == truncated && status.reason("unknown_user") == 1
        })
        .unwrap();
    assert_eq!(status.sessions[0].state, "waiting");
    assert_eq!(wire.origin.media.receive_within(QUIET).unwrap(), None);
    wire.check(&wire.client, &session, true).unwrap();
}

fn a8_a_flood_of_unknown_users_does_not_disturb_a_session(case: Case) {
    const FLOOD: usize = 20_000;
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let (session, source) = wire.connected().unwrap();
    wire.settled().unwrap();
    let before = memory_of(&wire.proxy);
    let flooder = wire.other_client().unwrap();
    let unknown = raw::check("nobody:knows", true);
    for i in 0..FLOOD {
        flooder.send(&unknown, session.proxy, 0).ok();
        if i % 1000 == 0 {
            wire.origin.media.send(&media(90), source, 0).unwrap();
            assert_eq!(wire.client.receive().unwrap().1, media(90));
        }
    }
    let status = wire.proxy.wait(PATIENCE, |status| status.reason("unknown_user") > 0).unwrap();
    assert_eq!(status.totals.sessions, 1);
    let grown = memory_of(&wire.proxy).saturating_sub(before);
    assert!(grown < 16 << 20, "the process grew by {grown} bytes");
}

fn memory_of(proxy: &Proxy<'_>) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", proxy.id())).unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn a_silent_client_is_forgotten_and_its_port_rests(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[("PROXY_WEBRTC_IDLE_TIMEOUT", "2s")]).unwrap();
    let (_, source) = wire.connected().unwrap();
    wire.settled().unwrap();
    // What the origin sends does not keep a client alive that is gone.
    for _ in 0..30 {
        wire.origin.media.send(&media(40), source, 0).unwrap();
        sleep(Duration::from_millis(100));
    }
    let status = wire.proxy.wait(PATIENCE, |status| status.totals.sessions == 0).unwrap();
    assert_eq!(status.totals.ended["idle"], 1);
    assert_eq!((status.totals.ports_leased, status.totals.ports_resting), (0, 1));
}

fn a12_a_dtls_alert_followed_by_silence_ends_the_session(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let (session, _) = wire.connected().unwrap();
    wire.settled().unwrap();
    let alert = [21, 254, 253, 0, 1, 0, 0, 0, 0, 0, 5, 0, 2, 1, 0];
    wire.client.send(&alert, session.proxy, 0).unwrap();
    assert_eq!(wire.origin.media.receive().unwrap().1, alert);
    let status = wire.proxy.wait(PATIENCE, |status| status.totals.sessions == 0).unwrap();
    assert_eq!(status.totals.ended["closed"], 1);
}

/// Sends media both ways between the client and `service` and checks that it took the engine's path.
fn flows_between(wire: &Wire<'_>, session: &RawSession, case: Case) {
    let source = wire.check(&wire.client, session, true).unwrap();
    wire.settled().unwrap();
    let before = wire.proxy.status().unwrap();
    let seen = exchange(wire, case, session, source);
    let to_client = seen.iter().skip(1).step_by(2);
    to_client
        .for_each(|(peer, ..)| assert_eq!(*peer, session.proxy, "answered from the address on the wire"));
    let after = wire.proxy.status().unwrap();
    assert_eq!(after.packets(case.path()) - before.packets(case.path()), seen.len() as u64, "{after:#?}");
}

fn a3_a_node_port_is_answered_from_the_address_on_the_wire(case: Case) {
    const NODE_PORT: u16 = 30_000;
    let network = Direct::new().unwrap();
    let rules = format!(
        "add table inet nat; add chain inet nat pre {{ type nat hook prerouting priority -100; }}; \
         add rule inet nat pre udp dport {NODE_PORT} redirect to :18000"
    );
    network.proxy.run("nft", &[rules.as_str()]).unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let mut session = wire.offered().unwrap();
    session.proxy.set_port(NODE_PORT);
    flows_between(&wire, &session, case);
}

fn a3_a_virtual_address_on_lo_is_answered_from_the_address_on_the_wire(case: Case) {
    let vip = Ipv4Addr::new(10, 99, 0, 1);
    let network = Direct::new().unwrap();
    network.proxy.address("lo", vip, 32).unwrap();
    network.client.route(&format!("{vip}/32"), Direct::PROXY).unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let mut session = wire.offered().unwrap();
    session.proxy.set_ip(case.family.of(vip));
    flows_between(&wire, &session, case);
}

fn a_pick_is_shared_by_all_sessions_of_a_stream(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let url = Proxy::register_url(case.family.of(Direct::PROXY_INSIDE));
    let second = network.origin.enter(|| {
        let origin = RawOrigin::start(case.family.of(Direct::ORIGIN), "raw2").unwrap();
        origin.register(&url).unwrap();
        origin
    });
    wire.proxy.wait_for_origins(2).unwrap();
    let api = wire.proxy.api();
    network.client.enter(|| {
        let sessions: Vec<_> = (0..6).map(|i| raw::play(&api, "one", &format!("clnt{i}")).unwrap()).collect();
        let origins: std::collections::BTreeSet<_> =
            sessions.iter().map(|s| s.username[..4].to_owned()).collect();
        assert_eq!(origins.len(), 1, "{origins:?}");
        let others: std::collections::BTreeSet<_> = (0..6)
            .map(|i| raw::play(&api, &format!("s{i}"), &format!("othr{i}")).unwrap().username[..4].to_owned())
            .collect();
        assert_eq!(others.len(), 2, "streams are spread over the origins");
    });
    drop(second);
}
