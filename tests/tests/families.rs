//! Clients and origins that do not speak the same IP version, and what browsers make of `localhost`.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{net::Ipv4Addr, sync::Arc, thread::sleep, time::Duration};

use integration_tests::{
    case::Case,
    in_cases,
    load::{Client, ClientOptions, Swarm},
    netns::{Family, Namespace, Routed},
    proxy::{Engine, Proxy, Status},
    site::{self, Site},
};

const PATIENCE: Duration = Duration::from_secs(15);
const WATCH: Duration = Duration::from_secs(1);

in_cases!(xdp, tc, userspace: {
    a14_an_ipv6_client_of_an_ipv4_origin_is_relayed_and_told_why,
    a14_an_ipv4_client_of_an_ipv6_origin_is_relayed_and_told_why,
});

fn a14_an_ipv6_client_of_an_ipv4_origin_is_relayed_and_told_why(Case { engine, .. }: Case) {
    families_do_not_meet_in_the_kernel(engine, [Family::V6, Family::V4]);
}

fn a14_an_ipv4_client_of_an_ipv6_origin_is_relayed_and_told_why(Case { engine, .. }: Case) {
    families_do_not_meet_in_the_kernel(engine, [Family::V4, Family::V6]);
}

fn families_do_not_meet_in_the_kernel(engine: Engine, families: [Family; 2]) {
    let network = Routed::new().unwrap();
    let site = Site::start_between(&network, engine, families, &[]).unwrap();
    let publisher = site.publish("a").unwrap();
    let viewer = site.play("a").unwrap();
    viewer.wait(PATIENCE, |stats| stats.received() > 50).unwrap();
    let reason = if engine.is_kernel() { "address_family" } else { "no_engine" };
    site.proxy.wait(PATIENCE, |status| is_relayed(status, reason)).unwrap();
    sleep(WATCH);
    plays_whole(&viewer);
    let status = site.proxy.status().unwrap();
    assert_eq!((status.totals.offloaded, status.packets("kernel")), (0, 0), "{status:#?}");
    if engine.is_kernel() {
        assert!(status.totals.relayed["address_family"] >= 2, "{status:#?}");
    }
    let [client, inside] = families;
    for session in &status.sessions {
        let ip = |address: &str| address.parse::<std::net::SocketAddr>().unwrap().ip();
        assert!(client.is_of(ip(session.client.as_deref().unwrap())), "{session:#?}");
        assert!(inside.is_of(ip(&session.media)), "{session:#?}");
    }
    drop(publisher);
    site.proxy.stop().unwrap();
}

fn is_relayed(status: &Status, reason: &str) -> bool {
    status.sessions.len() == 2 && status.sessions.iter().all(|s| s.reason.as_deref() == Some(reason))
}

#[track_caller]
fn plays_whole(viewer: &Client) {
    let stats = viewer.stats();
    assert_eq!((stats.missing(), stats.duplicates()), (0, 0), "{stats:?}");
}

/// Browsers take `localhost` for `::1` first.
#[test]
fn a_browser_on_the_ipv6_loopback_plays_from_an_origin_on_127_0_0_1() {
    let host = Namespace::new("host").unwrap();
    let loopback = Family::V6.of(Ipv4Addr::LOCALHOST);
    let proxy = Proxy::start(&host, loopback, Engine::Tc, &[]).unwrap();
    let _origin = site::origin(&host, Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST).unwrap();
    proxy.wait_for_origins(1).unwrap();
    let swarm = Arc::new(Swarm::start().unwrap());
    let connect = |options| host.enter(|| Client::connect(&swarm, options)).unwrap();
    let _publisher = connect(ClientOptions::publish(&proxy.whip("first")).unwrap());
    let viewer = connect(ClientOptions::play(&proxy.whep("first")).unwrap());
    viewer.wait(PATIENCE, |stats| stats.received() > 50).unwrap();
    assert_eq!(viewer.stats().local.ip(), loopback);
    proxy.wait(PATIENCE, |status| is_relayed(status, "address_family")).unwrap();
    sleep(WATCH);
    plays_whole(&viewer);
}
