//! WebRTC end to end under every engine: real ICE, DTLS and SRTP at both ends, the real proxy in between.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::{SocketAddr, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

use integration_tests::{
    case::Case,
    in_every_case,
    load::{Client, ClientOptions},
    netns::Routed,
    origin::OriginStats,
    proxy::Engine,
    residue,
    site::Site,
};

const PATIENCE: Duration = Duration::from_secs(15);
/// What a session needs to show that nothing is lost.
const WATCH: Duration = Duration::from_secs(2);

in_every_case!(
    every_viewer_of_every_stream_gets_every_packet,
    removing_the_offload_midway_loses_nothing,
    media_is_back_soon_after_the_first_check_from_a_new_port,
    a_second_session_from_the_same_client_port_reaches_its_own_origin,
    a_dead_origin_is_picked_no_more_and_other_origins_lose_nothing,
    delete_ends_the_session_at_the_origin_and_frees_its_port,
    the_legacy_api_works_as_whip_does,
    a11_a_proxy_that_stops_leaves_nothing_attached,
);

fn start<'a>(network: &'a Routed, case: Case, settings: &[(&str, &str)]) -> Site<'a> {
    Site::start_between(network, case.engine, [case.family; 2], settings).unwrap()
}

fn receiving(client: &Client) {
    client.wait(PATIENCE, |stats| stats.received() > 50).unwrap();
}

#[track_caller]
fn lost_nothing(clients: &[Client]) {
    for client in clients {
        let stats = client.stats();
        assert_eq!(stats.missing(), 0, "{stats:?}");
        assert_eq!(stats.duplicates(), 0, "{stats:?}");
    }
}

fn every_viewer_of_every_stream_gets_every_packet(case: Case) {
    let network = Routed::new().unwrap();
    let site = start(&network, case, &[]);
    let publishers: Vec<_> = ["a", "b"].map(|stream| site.publish(stream).unwrap()).into();
    let viewers: Vec<_> = ["a", "a", "a", "b", "b"].map(|stream| site.play(stream).unwrap()).into();
    viewers.iter().for_each(receiving);
    let before = site.settled(case.forwarder(), 7).unwrap();
    sleep(WATCH);
    let after = site.proxy.status().unwrap();
    lost_nothing(&viewers);
    assert_ne!(site.origin_of("a").unwrap(), site.origin_of("b").unwrap(), "both streams are on one origin");
    let moved = |datapath| after.packets(datapath) - before.packets(datapath);
    if case.expects_kernel() {
        for name in ["eth0", "eth1"] {
            let attached = after.interfaces.iter().find(|interface| interface.name == name);
            assert_eq!(attached.map(|i| i.engine.as_str()), Some(case.engine.as_str()), "{after:#?}");
        }
        assert!(moved("kernel") > 1000, "{after:#?}");
        // Only checks that were escalated may still go through userspace.
        assert!(moved("userspace") * 100 <= moved("kernel"), "{} of {}", moved("userspace"), moved("kernel"));
    } else {
        assert!(moved("userspace") > 1000 && moved("kernel") == 0, "{after:#?}");
    }
    drop(publishers);
    site.proxy.stop().unwrap();
}

fn removing_the_offload_midway_loses_nothing(case: Case) {
    let network = Routed::new().unwrap();
    let site = start(&network, case, &[]);
    let _publisher = site.publish("a").unwrap();
    let viewers: Vec<_> = (0..3).map(|_| site.play("a").unwrap()).collect();
    viewers.iter().for_each(receiving);
    for _ in 0..3 {
        site.settled(case.forwarder(), 4).unwrap();
        sleep(Duration::from_millis(300));
        site.proxy.switch_offload(false).unwrap();
        site.settled(Engine::Userspace, 4).unwrap();
        sleep(Duration::from_millis(300));
        site.proxy.switch_offload(true).unwrap();
    }
    site.settled(case.forwarder(), 4).unwrap();
    sleep(Duration::from_millis(500));
    lost_nothing(&viewers);
}

fn media_is_back_soon_after_the_first_check_from_a_new_port(case: Case) {
    let network = Routed::new().unwrap();
    let site = start(&network, case, &[]);
    let _publisher = site.publish("a").unwrap();
    let viewer = site.play("a").unwrap();
    receiving(&viewer);
    site.settled(case.forwarder(), 2).unwrap();
    network.client.enter(|| viewer.migrate()).unwrap();
    let stats = viewer.wait(PATIENCE, |stats| stats.migrations[0].media_back.is_some()).unwrap();
    let recovery = stats.migrations[0].recovery().unwrap();
    assert!(recovery < Duration::from_millis(200), "{recovery:?}");
    let status = site.settled(case.forwarder(), 2).unwrap();
    assert_eq!(status.totals.migrations, 1);
    sleep(WATCH);
    lost_nothing(&[viewer]);
}

fn a_second_session_from_the_same_client_port_reaches_its_own_origin(case: Case) {
    let network = Routed::new().unwrap();
    let site = start(&network, case, &[]);
    let _publishers = ["a", "b"].map(|stream| site.publish(stream).unwrap());
    let socket = network.client.enter(|| UdpSocket::bind((case.family.of(Routed::CLIENT), 0))).unwrap();
    let play = |stream: &str| {
        let options = ClientOptions::play(&site.proxy.whep(stream)).unwrap();
        site.connect(options.socket(socket.try_clone().unwrap())).unwrap()
    };
    let first = play("a");
    receiving(&first);
    site.settled(case.forwarder(), 3).unwrap();
    // A reload: the page is gone without a word, the next one has the same port.
    drop(first);
    let second = play("b");
    receiving(&second);
    assert_ne!(site.origin_of("a").unwrap(), site.origin_of("b").unwrap());
    let status = site.proxy.status().unwrap();
    let client = socket.local_addr().unwrap().to_string();
    let session = status.sessions.iter().find(|s| s.stream.ends_with("/b") && s.role == "player").unwrap();
    assert_eq!(session.client.as_deref(), Some(client.as_str()));
    let stats = second.stats();
    assert_eq!(stats.missing(), 0, "{stats:?}");
}

fn a_dead_origin_is_picked_no_more_and_other_origins_lose_nothing(case: Case) {
    let detection = Duration::from_millis(500 + 500 + 500);
    let settings = [
        ("PROXY_ORIGIN_PROBE_INTERVAL", "500ms"),
        ("PROXY_ORIGIN_PROBE_TIMEOUT", "500ms"),
        ("PROXY_ORIGIN_PROBE_FAILURES", "2"),
    ];
    let network = Routed::new().unwrap();
    let mut site = start(&network, case, &settings);
    let _publishers = ["a", "b"].map(|stream| site.publish(stream).unwrap());
    let viewers = ["a", "b"].map(|stream| site.play(stream).unwrap());
    viewers.iter().for_each(receiving);
    site.settled(case.forwarder(), 4).unwrap();
    let dead = site.origin_of("a").unwrap();
    assert_ne!(dead, site.origin_of("b").unwrap());
    drop(site.origins[dead].take());
    let died = Instant::now();
    sleep(detection);
    let _again = site.play("a").unwrap();
    assert!(died.elapsed() < detection + Duration::from_secs(1), "{:?}", died.elapsed());
    let status = site.proxy.wait(PATIENCE, |status| status.totals.ended["origin_down"] == 2).unwrap();
    let dead = case.family.of([Routed::ORIGIN_A, Routed::ORIGIN_B][dead]);
    let media = |media: &str| media.parse::<SocketAddr>().unwrap().ip();
    assert!(status.sessions.iter().all(|s| media(&s.media) != dead), "{status:#?}");
    lost_nothing(&viewers[1..]);
}

fn delete_ends_the_session_at_the_origin_and_frees_its_port(case: Case) {
    let network = Routed::new().unwrap();
    let site = start(&network, case, &[]);
    let publisher = site.publish("a").unwrap();
    let viewer = site.play("a").unwrap();
    receiving(&viewer);
    let origin = site.origin_of("a").unwrap();
    let stats = || -> OriginStats { site.origins[origin].as_ref().unwrap().stats() };
    assert_eq!(stats().sessions.len(), 2);
    network.client.enter(|| viewer.stop()).unwrap();
    network.client.enter(|| publisher.stop()).unwrap();
    let status = site.proxy.wait(PATIENCE, |status| status.totals.sessions == 0).unwrap();
    assert_eq!((status.totals.ports_leased, status.totals.ports_resting), (0, 2));
    assert_eq!(status.totals.ended["deleted"], 2);
    assert!(stats().sessions.is_empty(), "{:#?}", stats());
}

fn the_legacy_api_works_as_whip_does(case: Case) {
    let network = Routed::new().unwrap();
    let site = start(&network, case, &[]);
    let api = site.proxy.api();
    let url = |path: &str| format!("{api}/rtc/v1/{path}/");
    let stream = format!("webrtc://{}/live/legacy", SocketAddr::new(case.family.of(Routed::PROXY), 1985));
    let publish = ClientOptions::publish(&url("publish")).unwrap().legacy(stream.clone());
    let _publisher = site.connect(publish).unwrap();
    let viewer = site.connect(ClientOptions::play(&url("play")).unwrap().legacy(stream)).unwrap();
    let by_whep = site.play("legacy").unwrap();
    receiving(&viewer);
    receiving(&by_whep);
    site.settled(case.forwarder(), 3).unwrap();
    sleep(WATCH);
    lost_nothing(&[viewer, by_whep]);
}

fn a11_a_proxy_that_stops_leaves_nothing_attached(case: Case) {
    let network = Routed::new().unwrap();
    let site = start(&network, case, &[]);
    let _publisher = site.publish("a").unwrap();
    site.settled(case.forwarder(), 1).unwrap();
    let attached = residue::attached(&network.proxy).unwrap();
    assert_eq!(attached.is_empty(), !case.engine.is_kernel(), "{attached:?}");
    site.proxy.stop().unwrap();
    assert_eq!(residue::attached(&network.proxy).unwrap(), [""; 0]);
}
