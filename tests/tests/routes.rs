//! Routes that are not there for a while, lead elsewhere than they did, or depend on who sends.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::Ipv4Addr,
    thread::sleep,
    time::{Duration, Instant},
};

use integration_tests::{
    case::Case,
    in_cases,
    load::Client,
    netns::{End, MTU, Routed, join},
    proxy::{Proxy, Status},
    residue,
    site::{self, Site},
};

const PATIENCE: Duration = Duration::from_secs(15);
const WATCH: Duration = Duration::from_secs(1);

in_cases!(xdp, tc, xdp_v6, tc_v6: {
    a_route_that_is_gone_for_a_moment_costs_no_more_than_the_moment,
    a6_a_gateway_that_changes_is_followed,
    a4_an_origin_behind_a_card_of_its_own_is_forwarded,
    a6_a_route_for_our_source_address_alone_is_followed,
});

/// A second link between the proxy and the origins' router.
const PROXY_ASIDE: Ipv4Addr = Ipv4Addr::new(10, 71, 6, 2);
const ROUTER_ASIDE: Ipv4Addr = Ipv4Addr::new(10, 71, 6, 1);

fn with_a_second_link() -> Routed {
    let network = Routed::new().unwrap();
    let end = |namespace, interface, address| End { namespace, interface, address: Some(address) };
    let near = end(&network.proxy, "eth2", PROXY_ASIDE);
    join(near, end(&network.router2, "aside", ROUTER_ASIDE), MTU).unwrap();
    network
}

fn start<'a>(network: &'a Routed, case: Case, settings: &[(&str, &str)]) -> Site<'a> {
    Site::start_between(network, case.engine, [case.family; 2], settings).unwrap()
}

/// Publishes and plays a stream until both sessions are where they belong.
fn play(site: &Site<'_>, case: Case) -> [Client; 2] {
    let publisher = site.publish("a").unwrap();
    let viewer = site.play("a").unwrap();
    viewer.wait(PATIENCE, |stats| stats.received() > 20).unwrap();
    site.settled(case.forwarder(), 2).unwrap();
    [publisher, viewer]
}

/// Nothing is missing but what was sent from `fault` to `recovered`, and both sessions live.
#[track_caller]
fn loses_only_between(viewer: &Client, site: &Site<'_>, fault: Instant, recovered: Instant) -> Status {
    let stats = viewer.stats();
    let allowed = stats.missing_between(fault, recovered);
    assert_eq!(stats.missing(), allowed, "silent for {:?}", stats.longest_silence());
    is_playing(viewer);
    let status = site.proxy.status().unwrap();
    assert_eq!(status.totals.sessions, 2, "{status:#?}");
    status
}

#[track_caller]
fn is_playing(viewer: &Client) {
    let tracks = viewer.stats().tracks;
    let last = tracks.iter().map(|track| track.sequence.last_arrival()).max().unwrap();
    assert!(last.elapsed() < WATCH / 2, "silent since {:?}", last.elapsed());
}

fn ends_cleanly(site: Site<'_>, network: &Routed) {
    site.proxy.stop().unwrap();
    assert_eq!(residue::attached(&network.proxy).unwrap(), [""; 0]);
}

fn ip_of(case: Case) -> &'static str {
    if case.family.of(Ipv4Addr::LOCALHOST).is_ipv4() { "-4" } else { "-6" }
}

fn a_route_that_is_gone_for_a_moment_costs_no_more_than_the_moment(case: Case) {
    const BOUND: Duration = Duration::from_secs(2);
    let network = Routed::new().unwrap();
    let site = start(&network, case, &[]);
    let [_publisher, viewer] = play(&site, case);
    let gone = Instant::now();
    network.proxy.ip(&[ip_of(case), "route", "delete", "default"]).unwrap();
    sleep(WATCH / 2);
    let gateway = case.family.of(Routed::ROUTER2_LEFT).to_string();
    network.proxy.ip(&[ip_of(case), "route", "add", "default", "via", &gateway]).unwrap();
    let back = Instant::now();
    sleep(BOUND + WATCH);
    loses_only_between(&viewer, &site, gone, back + BOUND);
    ends_cleanly(site, &network);
}

fn a6_a_gateway_that_changes_is_followed(case: Case) {
    const BOUND: Duration = Duration::from_secs(3);
    let network = with_a_second_link();
    let site = start(&network, case, &[]);
    let [_publisher, viewer] = play(&site, case);
    let changed = Instant::now();
    let gateway = case.family.of(ROUTER_ASIDE).to_string();
    network.proxy.ip(&[ip_of(case), "route", "replace", "default", "via", &gateway]).unwrap();
    network.router2.route(&format!("{}/32", Routed::PROXY_INSIDE), PROXY_ASIDE).unwrap();
    // The old way ends at the router.
    let closed = "add table inet old; \
                  add chain inet old pre { type filter hook prerouting priority raw; }; \
                  add rule inet old pre iifname left meta l4proto udp drop";
    network.router2.run("nft", &[closed]).unwrap();
    sleep(BOUND + WATCH);
    loses_only_between(&viewer, &site, changed, changed + BOUND);
    if case.expects_kernel() {
        let offloaded = |status: &Status| status.totals.offloaded == 2;
        let before = site.proxy.wait(2 * PATIENCE, offloaded).unwrap();
        sleep(WATCH);
        let after = site.proxy.status().unwrap();
        assert!(after.packets("kernel") > before.packets("kernel") + 100, "{after:#?}");
        assert!(after.interfaces.iter().any(|interface| interface.name == "eth2"), "{after:#?}");
    }
    ends_cleanly(site, &network);
}

/// Origins reach the proxy by a network that clients do not use, each over a link that is not the default route's.
fn a4_an_origin_behind_a_card_of_its_own_is_forwarded(case: Case) {
    let network = with_a_second_link();
    let origin = case.family.of(Routed::ORIGIN_B);
    let way = case.family.of(ROUTER_ASIDE).to_string();
    network.proxy.ip(&[ip_of(case), "route", "add", &origin.to_string(), "via", &way]).unwrap();
    let proxy = Proxy::start(&network.proxy, case.family.of(Routed::PROXY), case.engine, &[]).unwrap();
    let on =
        |namespace, ip, proxy| site::origin(namespace, case.family.of(ip), case.family.of(proxy)).unwrap();
    let origins = [
        on(&network.origin_a, Routed::ORIGIN_A, Routed::PROXY_INSIDE),
        on(&network.origin_b, Routed::ORIGIN_B, PROXY_ASIDE),
    ];
    let site = Site::of(&network, proxy, origins).unwrap();
    let _publishers = ["a", "b"].map(|stream| site.publish(stream).unwrap());
    let viewers = ["a", "b"].map(|stream| site.play(stream).unwrap());
    for viewer in &viewers {
        viewer.wait(PATIENCE, |stats| stats.received() > 20).unwrap();
    }
    site.settled(case.forwarder(), 4).unwrap();
    assert_ne!(site.origin_of("a").unwrap(), site.origin_of("b").unwrap());
    sleep(WATCH);
    for viewer in &viewers {
        assert_eq!(viewer.stats().missing(), 0, "{:?}", viewer.stats());
        is_playing(viewer);
    }
    let status = site.proxy.status().unwrap();
    for name in ["eth1", "eth2"].into_iter().filter(|_| case.expects_kernel()) {
        assert!(status.interfaces.iter().any(|interface| interface.name == name), "{status:#?}");
    }
    ends_cleanly(site, &network);
}

/// `ip rule` sends what comes from the media address through a table of its own; the main table leads to nobody.
fn a6_a_route_for_our_source_address_alone_is_followed(case: Case) {
    let network = with_a_second_link();
    let (source, way) = (case.family.of(PROXY_ASIDE).to_string(), case.family.of(ROUTER_ASIDE).to_string());
    let ip = |arguments: &[&str]| network.proxy.ip(&[&[ip_of(case)], arguments].concat()).unwrap();
    ip(&["rule", "add", "from", &source, "table", "100"]);
    ip(&["route", "add", "default", "via", &way, "table", "100"]);
    let closed = "add table inet main; \
                  add chain inet main pre { type filter hook prerouting priority raw; }; \
                  add rule inet main pre iifname left udp sport 61000-65535 drop";
    network.router2.run("nft", &[closed]).unwrap();
    let site = start(&network, case, &[("PROXY_SOURCE_ADDRESSES", &source)]);
    let [_publisher, viewer] = play(&site, case);
    let before = site.proxy.status().unwrap();
    sleep(2 * WATCH);
    let after = site.proxy.status().unwrap();
    assert_eq!(viewer.stats().missing(), 0, "{:?}", viewer.stats());
    is_playing(&viewer);
    let moved = after.packets(case.path()) - before.packets(case.path());
    assert!(moved > 300, "{after:#?}");
    ends_cleanly(site, &network);
}
