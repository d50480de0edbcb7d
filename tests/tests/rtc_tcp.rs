//! WebRTC media over TCP through the proxy, with real media stacks and with frames of the tests' own. Numbers in names are those
//! of the defects of the proxy that this one replaces.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use integration_tests::{
    case::Case,
    frames::Frames,
    http::{Request, Url},
    in_cases,
    live::{connections, descriptors, until, wait_for_connections},
    load::{Client, ClientOptions, Over},
    netns::{Direct, Routed},
    origin::RtcTcp,
    proxy::{Engine, Proxy},
    raw::{self, RawOrigin, RawSession},
    site::{Site, origin_over},
};
use rand::RngCore as _;

const PATIENCE: Duration = Duration::from_secs(15);
/// Enough packets to show that nothing is lost.
const ENOUGH: u64 = 600;

in_cases!(tc, userspace: {
    defect_37_rtc_over_tcp_every_packet_of_a_publisher_and_its_player_arrives,
    defect_37_rtc_over_tcp_a_player_gets_what_is_published_by_udp,
});

fn site<'a>(
    network: &'a Routed,
    engine: Engine,
    settings: &[(&str, &str)],
    rtc_tcp: impl Fn(SocketAddr) -> RtcTcp,
) -> Site<'a> {
    let proxy = Proxy::start(&network.proxy, Routed::PROXY, engine, settings).unwrap();
    let origins = [(&network.origin_a, Routed::ORIGIN_A), (&network.origin_b, Routed::ORIGIN_B)];
    let origins = origins.map(|(namespace, ip)| {
        let at = rtc_tcp(SocketAddr::from((ip, 0)));
        origin_over(namespace, ip, Routed::PROXY_INSIDE, at).unwrap()
    });
    Site::of(network, proxy, origins).unwrap()
}

fn publish(site: &Site<'_>, over: Over) -> Client {
    site.connect(ClientOptions::publish(&site.proxy.whip("a")).unwrap().over(over)).unwrap()
}

fn play(site: &Site<'_>, over: Over) -> Client {
    site.connect(ClientOptions::play(&site.proxy.whep("a")).unwrap().over(over)).unwrap()
}

#[track_caller]
fn gets_every_packet(client: &Client) {
    let stats = client.wait(PATIENCE, |stats| stats.received() > ENOUGH).unwrap();
    assert_eq!((stats.missing(), stats.duplicates(), stats.reordered()), (0, 0, 0), "{stats:?}");
    assert!(stats.decrypted > 0, "{stats:?}");
}

/// Sessions of the origins whose media goes over TCP.
fn over_tcp(site: &Site<'_>) -> usize {
    let sessions = site.origins.iter().flatten().flat_map(|origin| origin.stats().sessions);
    sessions.filter(|session| session.over_tcp).count()
}

fn defect_37_rtc_over_tcp_every_packet_of_a_publisher_and_its_player_arrives(case: Case) {
    let network = Routed::new().unwrap();
    let site = site(&network, case.engine, &[], RtcTcp::At);
    let publisher = publish(&site, Over::Tcp);
    wait_for_connections(&site.proxy, PATIENCE, |listed| listed.iter().any(|one| one.to_origin > 10_000))
        .unwrap();
    let before = descriptors(site.proxy.id()).unwrap();
    let players = [play(&site, Over::Tcp), play(&site, Over::Tcp)];
    players.iter().for_each(gets_every_packet);
    assert_eq!(over_tcp(&site), 3);
    let status = site.proxy.status().unwrap();
    assert_eq!((status.totals.offloaded, status.packets("kernel"), status.packets("userspace")), (0, 0, 0));
    for (session, client) in status.sessions.iter().zip([&publisher, &players[0], &players[1]]) {
        let at = client.stats().local.to_string();
        let found = (session.state.as_str(), session.client.as_deref(), session.tcp.as_slice());
        assert_eq!(found, ("tcp", Some(at.as_str()), [at.clone()].as_slice()), "{session:?}");
    }
    let listed = connections(&site.proxy).unwrap();
    assert_eq!(listed.len(), 3, "{listed:#?}");
    for connection in &listed {
        assert_eq!(connection.protocol, "webrtc");
        assert!(connection.stream.as_ref().unwrap().ends_with("/live/a"), "{connection:?}");
        assert_eq!(connection.origin.as_ref(), Some(&status.sessions[0].origin));
        assert!(connection.to_origin > 0 && connection.to_client > 0, "{connection:?}");
    }
    for client in players {
        network.client.enter(|| client.stop()).unwrap();
    }
    site.proxy.wait(PATIENCE, |status| status.totals.ended["deleted"] == 2).unwrap();
    wait_for_connections(&site.proxy, PATIENCE, |listed| listed.len() == 1).unwrap();
    let source_sockets = 2;
    until("no descriptor is left", PATIENCE, || Ok(descriptors(site.proxy.id())? <= before + source_sockets))
        .unwrap();
    network.client.enter(|| publisher.stop()).unwrap();
    wait_for_connections(&site.proxy, PATIENCE, <[_]>::is_empty).unwrap();
    site.proxy.stop().unwrap();
}

fn defect_37_rtc_over_tcp_a_player_gets_what_is_published_by_udp(case: Case) {
    let network = Routed::new().unwrap();
    let site = site(&network, case.engine, &[], RtcTcp::At);
    let _publisher = publish(&site, Over::Udp);
    let by_tcp = play(&site, Over::Tcp);
    let by_udp = play(&site, Over::Udp);
    [&by_tcp, &by_udp].into_iter().for_each(gets_every_packet);
    assert_eq!(over_tcp(&site), 1);
    let expected = if case.expects_kernel() { 2 } else { 0 };
    site.proxy.wait(PATIENCE, |status| status.totals.offloaded == expected).unwrap();
    let status = site.proxy.status().unwrap();
    let states: Vec<_> = status.sessions.iter().map(|session| session.state.as_str()).collect();
    let by_udp = if case.expects_kernel() { "kernel" } else { "userspace" };
    assert_eq!(states, [by_udp, "tcp", by_udp]);
}

#[test]
fn media_comes_to_the_port_of_the_api_where_the_origin_takes_it_on_its_own() {
    let network = Routed::new().unwrap();
    let site = site(&network, Engine::Userspace, &[], |_| RtcTcp::WithApi);
    let api = SocketAddr::from((Routed::PROXY, 11985));
    let _publisher = publish(&site, Over::TcpAt(api));
    let players = [play(&site, Over::TcpAt(api)), play(&site, Over::Tcp)];
    players.iter().for_each(gets_every_packet);
    assert_eq!(over_tcp(&site), 3);
}

#[test]
fn one_port_is_enough_for_the_api_and_media() {
    let network = Routed::new().unwrap();
    let settings = [("PROXY_WEBRTC_TCP_SERVER", "11985")];
    let site = site(&network, Engine::Unprivileged, &settings, RtcTcp::At);
    let publisher = publish(&site, Over::Tcp);
    let candidate = format!(" {} 11985 typ host tcptype passive\r\n", Routed::PROXY);
    assert!(publisher.exchange().answer.contains(&candidate), "{}", publisher.exchange().answer);
    gets_every_packet(&play(&site, Over::Tcp));
}

#[test]
fn defect_19_tcp_candidates_are_listed_only_where_they_lead_somewhere() {
    let network = Routed::new().unwrap();
    let site = site(&network, Engine::Userspace, &[("PROXY_WEBRTC_TCP_SERVER", "off")], RtcTcp::At);
    let publisher = publish(&site, Over::Udp);
    assert!(!publisher.exchange().answer.contains(" tcp "), "{}", publisher.exchange().answer);
    assert!(network.client.enter(|| Frames::connect(SocketAddr::from((Routed::PROXY, 18000)))).is_err());
    gets_every_packet(&play(&site, Over::Udp));
}

/// A proxy between a client and an origin whose frames are the test's own.
struct Stage<'a> {
    network: &'a Direct,
    proxy: Proxy<'a>,
    origin: RawOrigin,
}

impl<'a> Stage<'a> {
    fn start(network: &'a Direct, settings: &[(&str, &str)]) -> Self {
        let proxy = Proxy::start(&network.proxy, Direct::PROXY, Engine::Userspace, settings).unwrap();
        let url = Proxy::register_url(Direct::PROXY_INSIDE);
        let origin = network.origin.enter(|| {
            let origin = RawOrigin::start_over_tcp(Direct::ORIGIN, "tcp1").unwrap();
            origin.register(&url).unwrap();
            origin
        });
        proxy.wait_for_origins(1).unwrap();
        Self { network, proxy, origin }
    }

    fn session(&self, ufrag: &str) -> RawSession {
        let api = self.proxy.api();
        self.network.client.enter(|| raw::play(&api, "a", ufrag)).unwrap()
    }

    fn connect(&self, to: SocketAddr) -> Frames {
        self.network.client.enter(|| Frames::connect(to)).unwrap()
    }

    /// Both ends of a connection of `session`, whose first frame has arrived.
    fn connected(&self, session: &RawSession) -> (Frames, Frames) {
        let mut client = self.connect(session.proxy_tcp.unwrap());
        let check = raw::check(&session.username, true);
        client.send(&check).unwrap();
        let mut origin = self.accept();
        assert_eq!(origin.receive().unwrap(), check);
        (client, origin)
    }

    fn accept(&self) -> Frames {
        Frames::accept(self.origin.frames.as_ref().unwrap()).unwrap()
    }

    fn outcome(&self, outcome: &str) -> u64 {
        let name = format!("xproxy_webrtc_tcp_connections_total{{outcome=\"{outcome}\"}}");
        self.proxy.metric(&name).unwrap()
    }

    fn wait_for_outcome(&self, outcome: &str, count: u64) {
        until(outcome, PATIENCE, || Ok(self.outcome(outcome) == count)).unwrap();
    }
}

#[test]
fn frames_of_every_size_arrive_as_they_were_sent_in_both_directions() {
    let network = Direct::new().unwrap();
    let stage = Stage::start(&network, &[]);
    let (mut client, mut origin) = stage.connected(&stage.session("clnt"));
    for (from, to) in [(0, 1), (1, 0)] {
        let ends = [&mut client, &mut origin];
        let mut packets: Vec<Vec<u8>> =
            [1, 2, 3, 1200, 65_534, 65_535, 65_535].map(|size| vec![0; size]).into();
        packets.iter_mut().for_each(|packet| rand::rng().fill_bytes(packet));
        for packet in &packets {
            ends[from].send(packet).unwrap();
            assert!(ends[to].receive().unwrap() == *packet, "{} bytes", packet.len());
        }
    }
    // A frame in pieces, and two in one.
    client.send_bytes(&[0]).unwrap();
    client.send_bytes(&[3, b'a']).unwrap();
    client.send_bytes(&[b'b', b'c', 0, 1, b'd']).unwrap();
    assert_eq!([origin.receive().unwrap(), origin.receive().unwrap()], [&b"abc"[..], b"d"]);
    drop(client);
    origin.wait_for_end().unwrap();
    stage.wait_for_outcome("carried", 1);
}

#[test]
fn a_first_frame_may_come_in_pieces_and_with_more_behind_it() {
    let network = Direct::new().unwrap();
    let stage = Stage::start(&network, &[]);
    let session = stage.session("clnt");
    let mut client = stage.connect(session.proxy_tcp.unwrap());
    let check = raw::check(&session.username, false);
    let mut bytes = u16::try_from(check.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(&check);
    bytes.extend([0, 2, 0x80, 96]);
    for byte in bytes {
        client.send_bytes(&[byte]).unwrap();
    }
    let mut origin = stage.accept();
    assert_eq!([origin.receive().unwrap(), origin.receive().unwrap()], [check, vec![0x80, 96]]);
}

#[test]
fn strangers_are_closed_and_counted_and_the_origin_hears_nothing() {
    let network = Direct::new().unwrap();
    let stage = Stage::start(&network, &[("PROXY_API_CLIENT_TIMEOUT", "3s")]);
    let session = stage.session("clnt");
    let before = descriptors(stage.proxy.id()).unwrap();
    let framed =
        |packet: Vec<u8>| [&u16::try_from(packet.len()).unwrap().to_be_bytes()[..], &packet].concat();
    let check = raw::check(&session.username, true);
    let nameless = raw::check("", true);
    let mut malformed = check.clone();
    // The length of its first attribute.
    malformed[22] = 0xFF;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no_request", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        ("no_request", b"\x16\x03\x01\x02\x00\x01\x00".to_vec()),
        ("no_request", vec![0xA5; 5000]),
        ("no_request", framed(vec![0x80; 200])),
        ("no_request", framed(vec![0; 10])),
        ("too_long", [&[0xFF, 0xFF, 0, 1, 0xFF, 0xE8, 0x21, 0x12, 0xA4, 0x42][..], &[0; 65_000]].concat()),
        ("malformed_stun", framed(malformed)),
        ("no_username", framed(nameless)),
        ("unknown_user", framed(raw::check("tcp19999:clnt", true))),
        ("unknown_user", framed(raw::check("tcp10000:other", true))),
        (
            "bad_integrity",
            framed(raw::check_signed(&session.username, "another password of that size", true)),
        ),
        ("late", framed(check.clone())[..40].to_vec()),
        ("late", Vec::new()),
    ];
    let ports = [session.proxy_tcp.unwrap(), SocketAddr::from((Direct::PROXY, 11985))];
    let mut expected = std::collections::BTreeMap::<&str, u64>::new();
    for (outcome, bytes) in &cases {
        // On the API's port HTTP gets what is no frame.
        let is_framed = !["no_request", "too_long"].contains(outcome) && !bytes.is_empty();
        for port in ports.into_iter().take(if is_framed { 2 } else { 1 }) {
            let mut client = stage.connect(port);
            // It may have been closed already.
            let _ = client.send_bytes(bytes);
            client.wait_for_end().unwrap_or_else(|error| panic!("{outcome} at {port}: {error:#}"));
            *expected.entry(outcome).or_default() += 1;
        }
    }
    let mut leaves = stage.connect(ports[0]);
    leaves.send_bytes(&framed(check)[..40]).unwrap();
    drop(leaves);
    expected.insert("left", 1);
    for (outcome, count) in expected {
        stage.wait_for_outcome(outcome, count);
    }
    let heard = Frames::accept_within(stage.origin.frames.as_ref().unwrap(), Duration::from_millis(300));
    assert!(heard.unwrap().is_none());
    wait_for_connections(&stage.proxy, PATIENCE, <[_]>::is_empty).unwrap();
    until("no descriptor is left", PATIENCE, || Ok(descriptors(stage.proxy.id())? <= before)).unwrap();
    assert_eq!(stage.proxy.status().unwrap().sessions[0].state, "waiting");
    stage.connected(&session);
}

#[test]
fn several_connections_of_a_session_are_carried_and_no_more_than_eight() {
    let network = Direct::new().unwrap();
    let stage = Stage::start(&network, &[]);
    let session = stage.session("clnt");
    let mut ends: Vec<_> = (0..8).map(|_| stage.connected(&session)).collect();
    let mut one_more = stage.connect(session.proxy_tcp.unwrap());
    one_more.send(&raw::check(&session.username, true)).unwrap();
    one_more.wait_for_end().unwrap();
    stage.wait_for_outcome("too_many", 1);
    for (at, (client, origin)) in (0_u8..).zip(&mut ends) {
        client.send(&[at]).unwrap();
        assert_eq!(origin.receive().unwrap(), [at]);
        origin.send(&[at, at]).unwrap();
        assert_eq!(client.receive().unwrap(), [at, at]);
    }
    let status = stage.proxy.status().unwrap();
    assert_eq!((status.sessions.len(), status.sessions[0].tcp.len()), (1, 8));
    drop(ends.pop());
    stage.proxy.wait(PATIENCE, |status| status.sessions[0].tcp.len() == 7).unwrap();
    stage.connected(&session);
}

#[test]
fn an_end_of_a_session_closes_its_connections() {
    let network = Direct::new().unwrap();
    let settings = [("PROXY_ORIGIN_PROBE_INTERVAL", "500ms"), ("PROXY_ORIGIN_PROBE_TIMEOUT", "500ms")];
    let mut stage = Stage::start(&network, &settings);
    let deleted = stage.session("clnt");
    let (client, origin) = stage.connected(&deleted);
    let api = stage.proxy.api();
    assert_eq!(network.client.enter(|| deleted.delete(&api)).unwrap(), 200);
    client.wait_for_end().unwrap();
    origin.wait_for_end().unwrap();
    stage.wait_for_outcome("session_ended", 1);
    let mut late = stage.connect(deleted.proxy_tcp.unwrap());
    late.send(&raw::check(&deleted.username, true)).unwrap();
    late.wait_for_end().unwrap();
    stage.wait_for_outcome("unknown_user", 1);
    let (client, origin) = stage.connected(&stage.session("othr"));
    let kept = stage.origin.frames.take();
    drop(stage.origin);
    client.wait_for_end().unwrap();
    origin.wait_for_end().unwrap();
    drop(kept);
    let ended = stage.proxy.status().unwrap().totals.ended;
    assert_eq!((ended["deleted"], ended["origin_down"]), (1, 1));
}

#[test]
fn a_session_outlives_its_connections_for_the_usual_time() {
    let network = Direct::new().unwrap();
    let settings = [("PROXY_WEBRTC_CONNECT_TIMEOUT", "2s"), ("PROXY_WEBRTC_IDLE_TIMEOUT", "5s")];
    let stage = Stage::start(&network, &settings);
    let session = stage.session("clnt");
    let (mut client, mut origin) = stage.connected(&session);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(8) {
        client.send(&[0x80, 96]).unwrap();
        assert_eq!(origin.receive().unwrap(), [0x80, 96]);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(stage.proxy.status().unwrap().sessions[0].state, "tcp");
    drop(client);
    origin.wait_for_end().unwrap();
    stage.proxy.wait(PATIENCE, |status| status.sessions[0].state == "waiting").unwrap();
    let again = stage.connected(&session);
    drop(again);
    let status = stage.proxy.wait(PATIENCE, |status| status.sessions.is_empty()).unwrap();
    assert_eq!((status.totals.ended["idle"], status.totals.ended["never_connected"]), (1, 0));
}

#[test]
fn an_origin_that_does_not_accept_costs_the_connection_and_not_the_session() {
    let network = Direct::new().unwrap();
    let mut stage = Stage::start(&network, &[]);
    let session = stage.session("clnt");
    drop(stage.origin.frames.take());
    let mut client = stage.connect(session.proxy_tcp.unwrap());
    client.send(&raw::check(&session.username, true)).unwrap();
    client.wait_for_end().unwrap();
    stage.wait_for_outcome("origin_unreachable", 1);
    stage.proxy.wait(PATIENCE, |status| status.sessions[0].state == "waiting").unwrap();
    stage.proxy.wait_for_origins(1).unwrap();
}

#[test]
fn connections_that_say_nothing_delay_nobody() {
    const MANY: usize = 300;
    const PROMPT: Duration = Duration::from_secs(2);
    let network = Direct::new().unwrap();
    let stage = Stage::start(&network, &[("PROXY_API_CLIENT_TIMEOUT", "30s")]);
    let session = stage.session("clnt");
    let api = SocketAddr::from((Direct::PROXY, 11985));
    let mut idle: Vec<Frames> = Vec::new();
    for port in [session.proxy_tcp.unwrap(), api] {
        idle.extend((0..MANY).map(|_| stage.connect(port)));
    }
    // Half of them begin a frame.
    for stream in idle.iter_mut().step_by(2) {
        stream.send_bytes(&[0, 100, 0]).unwrap();
    }
    wait_for_connections(&stage.proxy, PATIENCE, |listed| listed.len() == MANY).unwrap();
    let begin = Instant::now();
    let url = Url::parse(&format!("{}/api/v1/versions", stage.proxy.api())).unwrap();
    assert_eq!(network.client.enter(|| Request::new("GET", url).send()).unwrap().status, 200);
    let http = begin.elapsed();
    let begin = Instant::now();
    stage.connected(&session);
    let frames = begin.elapsed();
    assert!(http < PROMPT && frames < PROMPT, "{http:?} {frames:?}");
}

#[test]
fn a_session_over_tcp_goes_on_in_the_next_process_when_its_client_connects_again() {
    let network = Direct::new().unwrap();
    let settings = [("PROXY_WEBRTC_CONNECT_TIMEOUT", "1s")];
    let mut stage = Stage::start(&network, &settings);
    let session = stage.session("clnt");
    let (client, origin) = stage.connected(&session);
    // Older than a session gets whose client never came.
    stage.proxy.wait(PATIENCE, |status| status.sessions[0].age > 1.5).unwrap();
    let mut command = Proxy::command(Engine::Userspace).unwrap();
    command.envs(settings).env("PROXY_TAKE_OVER", "on");
    let next = Proxy::spawn_in(&network.proxy, Direct::PROXY, command, stage.proxy.runtime()).unwrap();
    client.wait_for_end().unwrap();
    origin.wait_for_end().unwrap();
    std::mem::replace(&mut stage.proxy, next).wait_for_end().unwrap();
    let (mut client, mut origin) = stage.connected(&session);
    client.send(b"abc").unwrap();
    assert_eq!(origin.receive().unwrap(), b"abc");
    assert_eq!(stage.proxy.status().unwrap().totals.adopted, 1);
}
