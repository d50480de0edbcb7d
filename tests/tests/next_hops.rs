//! Links, neighbours and routes that change under live sessions, and what the proxy makes of them.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    thread::sleep,
    time::{Duration, Instant},
};

use integration_tests::{
    case::Case,
    in_cases,
    netns::{Direct, End, Family, MTU, Namespace, join},
    proxy::{Engine, Proxy, Status},
    raw::RawSession,
    wire::{Wire, registered},
};
use proxy_userspace::net::route::{Care, Keeper, Monitor, Query, Routes};

const PATIENCE: Duration = Duration::from_secs(10);
/// A neighbour is asked every two seconds and has three to answer.
const NOTICED: Duration = Duration::from_secs(9);
/// Sessions are to outlive the origin's link, and nobody but the client is to send to the origin.
const NO_PROBES: (&str, &str) = ("PROXY_ORIGIN_PROBE_INTERVAL", "0");
/// The second way from the proxy to the origin.
const DETOUR: Ipv4Addr = Ipv4Addr::new(10, 72, 3, 1);
const DETOUR_FAR: Ipv4Addr = Ipv4Addr::new(10, 72, 3, 2);

in_cases!(xdp, tc: {
    a6_a_next_hop_whose_mac_changes_without_arp_is_followed,
    a_route_flap_moves_flows_and_back,
});

/// A proxy with one session between a raw client and a raw origin.
struct Live<'a> {
    wire: Wire<'a>,
    session: RawSession,
    /// Where the origin sees the session.
    source: SocketAddr,
}

impl<'a> Deref for Live<'a> {
    type Target = Wire<'a>;

    fn deref(&self) -> &Wire<'a> {
        &self.wire
    }
}

impl<'a> Live<'a> {
    /// Starts everything and waits until the kernel forwards.
    fn start(network: &'a Direct, engine: Engine, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = settings.iter().copied().chain([NO_PROBES]).collect();
        let wire = Wire::start(network, Case { engine, family: Family::V4 }, &settings).unwrap();
        let (session, source) = wire.connected().unwrap();
        let live = Self { wire, session, source };
        live.is_offloaded(true);
        live
    }

    fn is_offloaded(&self, offloaded: bool) -> Status {
        let offloaded = usize::from(offloaded);
        self.proxy.wait(PATIENCE, |status| status.totals.offloaded == offloaded).unwrap()
    }

    /// Sends to the origin until a datagram arrives, and says how long that took.
    fn until_it_arrives(&self, limit: Duration) -> Duration {
        let arrived =
            self.client.send_until_it_arrives(&media(100), self.session.proxy, &self.origin.media, limit);
        arrived.unwrap_or_else(|error| panic!("{error}: {:#?}", self.proxy.status().unwrap()))
    }

    /// One datagram of `len` bytes each way.
    fn exchange(&self, len: usize) {
        self.client.send(&media(len), self.session.proxy, 0).unwrap();
        assert_eq!(self.origin.media.receive().unwrap().1, media(len));
        self.origin.media.send(&media(len), self.source, 0).unwrap();
        assert_eq!(self.client.receive().unwrap().1, media(len));
    }

    /// Whether datagrams of `len` bytes take the kernel's path, both ways.
    fn takes_the_kernel(&self, len: usize) -> bool {
        let before = self.proxy.status().unwrap().packets("kernel");
        self.exchange(len);
        self.proxy.status().unwrap().packets("kernel") == before + 2
    }

    fn interface(&self, name: &str) -> Option<integration_tests::proxy::Interface> {
        self.proxy.status().unwrap().interfaces.into_iter().find(|interface| interface.name == name)
    }
}

fn media(len: usize) -> Vec<u8> {
    let head = [0x80, 96];
    (0..len).map(|i| head.get(i).copied().unwrap_or(i as u8)).collect()
}

#[track_caller]
fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn neighbours(namespace: &Namespace, device: &str) -> String {
    namespace.ip(&["neigh", "show", "dev", device]).unwrap()
}

fn sent_by(namespace: &Namespace, device: &str) -> u64 {
    let path = format!("/sys/class/net/{device}/statistics/tx_packets");
    // `/sys` shows the namespace it was mounted in: `ip` mounts it anew.
    let shown = namespace.run("ip", &["netns", "exec", namespace.name(), "cat", &path]).unwrap();
    shown.trim().parse().unwrap()
}

#[expect(clippy::print_stdout, reason = "the figure is what the test measures")]
fn a6_a_next_hop_whose_mac_changes_without_arp_is_followed(Case { engine, .. }: Case) {
    let network = Direct::new().unwrap();
    let wire = Live::start(&network, engine, &[]);
    assert!(wire.takes_the_kernel(100));
    assert!(neighbours(&network.proxy, "eth1").contains("managed"), "the kernel keeps it resolved");
    network.origin.ip(&["link", "set", "eth0", "address", "02:78:aa:aa:aa:aa"]).unwrap();
    let waited = wire.until_it_arrives(NOTICED);
    println!("{engine:?}: followed after {waited:?}");
    let status = wire.proxy.status().unwrap();
    assert_eq!(status.totals.offloaded, 1, "{status:#?}");
    while wire.origin.media.receive_within(Duration::from_millis(200)).unwrap().is_some() {}
    assert!(wire.takes_the_kernel(100));
}

#[test]
fn a6_what_an_operator_made_of_a_neighbour_is_left_alone() {
    let network = Direct::new().unwrap();
    let mac = End { namespace: &network.origin, interface: "eth0", address: Some(Direct::ORIGIN) }.mac();
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let origin = Direct::ORIGIN.to_string();
    network
        .proxy
        .ip(&["neigh", "replace", &origin, "lladdr", &mac, "dev", "eth1", "nud", "permanent"])
        .unwrap();
    let wire = Live::start(&network, Engine::Xdp, &[]);
    assert!(wire.takes_the_kernel(100));
    // Longer than a round of questions.
    sleep(Duration::from_secs(3));
    let entry = neighbours(&network.proxy, "eth1");
    assert!(entry.contains("PERMANENT") && !entry.contains("managed"), "{entry}");
    assert!(neighbours(&network.proxy, "eth0").contains("managed"));
    wire.wire.proxy.stop().unwrap();
    assert!(neighbours(&network.proxy, "eth1").contains("PERMANENT"));
    let client = neighbours(&network.proxy, "eth0");
    assert!(!client.contains("managed"), "what we managed is released: {client}");
}

#[test]
fn a6_what_a_process_that_was_killed_managed_is_released_by_the_next() {
    let network = Direct::new().unwrap();
    let hop = inside(&network.proxy, async {
        let route = Routes::connect().unwrap().find(Query::to(Direct::ORIGIN.into())).await;
        route.unwrap().unwrap().hop
    });
    take(&network.proxy, Care::Resolve(hop));
    assert!(neighbours(&network.proxy, "eth1").contains("managed"));
    let _proxy = Proxy::start(&network.proxy, Direct::PROXY, Engine::Tc, &[NO_PROBES]).unwrap();
    wait_until("nobody manages it", PATIENCE, || !neighbours(&network.proxy, "eth1").contains("managed"));
}

#[test]
fn a6_neighbours_of_both_families_are_managed_asked_and_released() {
    let network = Direct::new().unwrap();
    let (near, far) = ("fd72::1", "fd72::2");
    network.proxy.ip(&["address", "add", &format!("{near}/64"), "dev", "eth1", "nodad"]).unwrap();
    network.origin.ip(&["address", "add", &format!("{far}/64"), "dev", "eth0", "nodad"]).unwrap();
    for ip in [far.parse().unwrap(), std::net::IpAddr::from(Direct::ORIGIN)] {
        let hop = inside(&network.proxy, async {
            let routes = Routes::connect().unwrap();
            let hop = routes.find(Query::to(ip)).await.unwrap().unwrap().hop;
            Keeper::start(&routes).close(vec![Care::Resolve(hop)]).await;
            hop
        });
        let entry = || network.proxy.ip(&["neigh", "show", &ip.to_string(), "dev", "eth1"]).unwrap();
        wait_until("it is managed and answers", PATIENCE, || {
            entry().contains("managed") && entry().contains("REACHABLE")
        });
        take(&network.proxy, Care::Ask(hop));
        wait_until("it answers again", PATIENCE, || entry().contains("managed REACHABLE"));
        take(&network.proxy, Care::Release { hop, is_known: true });
        wait_until("it is the kernel's own", PATIENCE, || {
            !entry().contains("managed") && entry().contains("REACHABLE")
        });
    }
}

fn take(namespace: &Namespace, care: Care) {
    inside(namespace, async {
        Keeper::start(&Routes::connect().unwrap()).close(vec![care]).await;
    });
}

/// Runs `work` on a runtime whose one thread is in the namespace.
fn inside<T: Send>(namespace: &Namespace, work: impl Future<Output = T> + Send) -> T {
    namespace
        .enter(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work))
}

#[test]
fn an_overrun_of_netlink_leads_to_a_full_dump() {
    let namespace = Namespace::new("overrun").unwrap();
    let flood = |count: usize| {
        for number in 0..count {
            namespace.ip(&["link", "add", &format!("d{number}"), "type", "bridge"]).unwrap();
        }
    };
    let table = inside(&namespace, async {
        let monitor = Monitor::with_queue(Routes::connect().unwrap(), 4096).unwrap();
        // Nobody listens meanwhile, and the queue holds two or three notifications.
        flood(20);
        let (sender, mut updates) = tokio::sync::mpsc::channel(1);
        tokio::spawn(monitor.run(sender));
        let update = tokio::time::timeout(PATIENCE, updates.recv()).await.unwrap().unwrap();
        update.table.expect("everything is read anew")
    });
    let bridges = table.links.iter().filter(|link| link.name.starts_with('d')).count();
    assert_eq!(bridges, 20);
}

#[test]
fn a4_the_recreated_device_of_an_origin_is_attached_again() {
    let network = Direct::new().unwrap();
    let wire = Live::start(&network, Engine::Xdp, &[]);
    network.proxy.ip(&["link", "delete", "eth1"]).unwrap();
    wire.is_offloaded(false);
    wait_until("its programs are forgotten", PATIENCE, || wire.interface("eth1").is_none());
    recreate_origin_link(&network);
    wait_until("it is attached again", PATIENCE, || wire.interface("eth1").is_some());
    wire.is_offloaded(true);
    assert!(wire.takes_the_kernel(100));
}

fn recreate_origin_link(network: &Direct) {
    let end = |namespace, interface, address| End { namespace, interface, address: Some(address) };
    join(
        end(&network.proxy, "eth1", Direct::PROXY_INSIDE),
        end(&network.origin, "eth0", Direct::ORIGIN),
        MTU,
    )
    .unwrap();
}

#[test]
fn a4_the_recreated_device_of_clients_is_attached_again_by_its_name() {
    let network = Direct::new().unwrap();
    let wire = Live::start(&network, Engine::Xdp, &[("PROXY_INTERFACES", "eth0,eth1")]);
    network.proxy.ip(&["link", "delete", "eth0"]).unwrap();
    wire.is_offloaded(false);
    wait_until("its programs are forgotten", PATIENCE, || wire.interface("eth0").is_none());
    let end = |namespace, address| End { namespace, interface: "eth0", address: Some(address) };
    join(end(&network.client, Direct::CLIENT), end(&network.proxy, Direct::PROXY), MTU).unwrap();
    wait_until("it is attached again", PATIENCE, || wire.interface("eth0").is_some());
    wire.is_offloaded(true);
    assert!(wire.takes_the_kernel(100));
}

#[test]
fn a4_nothing_stays_attached_for_an_origin_that_is_gone() {
    let network = Direct::new().unwrap();
    let settings = [("PROXY_ORIGIN_PROBE_INTERVAL", "200ms")];
    let proxy = Proxy::start(&network.proxy, Direct::PROXY, Engine::Xdp, &settings).unwrap();
    let attached = |name: &str| {
        let interfaces = proxy.status().unwrap().interfaces;
        interfaces.iter().any(|interface| interface.name == name)
    };
    assert!(!attached("eth1"));
    let origin = registered(&network, Family::V4, &proxy).unwrap();
    wait_until("the origin's device is attached", PATIENCE, || attached("eth1"));
    drop(origin);
    wait_until("it is detached", PATIENCE, || !attached("eth1"));
    assert!(attached("lo"));
}

#[test]
fn a7_a_route_with_a_smaller_mtu_limits_the_next_hop() {
    let network = Direct::new().unwrap();
    let wire = Live::start(&network, Engine::Xdp, &[]);
    assert!(wire.takes_the_kernel(1372));
    let host = format!("{}/32", Direct::ORIGIN);
    network.proxy.ip(&["route", "add", &host, "dev", "eth1", "mtu", "1300"]).unwrap();
    let oversize = || wire.proxy.status().unwrap().reason("oversize");
    wait_until("the route's MTU counts", PATIENCE, || {
        let before = oversize();
        wire.exchange(1372);
        oversize() > before
    });
    assert!(wire.takes_the_kernel(1272), "what fits is forwarded");
    network.proxy.ip(&["route", "delete", &host]).unwrap();
    wait_until("the device's MTU counts again", PATIENCE, || {
        // The client was told what fits, and would go on to send fragments for ten minutes.
        network.client.sysctl("net.ipv4.route.flush", "1").unwrap();
        wire.takes_the_kernel(1372)
    });
    assert_eq!(wire.proxy.status().unwrap().totals.offloaded, 1);
}

fn a_route_flap_moves_flows_and_back(Case { engine, .. }: Case) {
    let network = Direct::new().unwrap();
    let end = |namespace, interface, address| End { namespace, interface, address: Some(address) };
    join(end(&network.proxy, "eth2", DETOUR), end(&network.origin, "eth1", DETOUR_FAR), MTU).unwrap();
    let wire = Live::start(&network, engine, &[]);
    let (there, back) = (format!("{}/32", Direct::ORIGIN), format!("{}/32", Direct::PROXY_INSIDE));
    for _ in 0..2 {
        add_route(&network.origin, &back, DETOUR);
        add_route(&network.proxy, &there, DETOUR_FAR);
        wait_until("the flow takes the detour", PATIENCE, || {
            let before = sent_by(&network.proxy, "eth2");
            (0..10).for_each(|_| wire.exchange(100));
            sent_by(&network.proxy, "eth2") >= before + 10
        });
        wait_until("both ways in the kernel", PATIENCE, || wire.takes_the_kernel(100));
        network.origin.ip(&["route", "delete", &back]).unwrap();
        network.proxy.ip(&["route", "delete", &there]).unwrap();
        wait_until("the flow is back", PATIENCE, || {
            let before = sent_by(&network.proxy, "eth1");
            (0..10).for_each(|_| wire.exchange(100));
            sent_by(&network.proxy, "eth1") >= before + 10
        });
        wait_until("both ways in the kernel", PATIENCE, || wire.takes_the_kernel(100));
    }
    let status = wire.proxy.status().unwrap();
    let given_up: u64 = status.totals.relayed.values().sum();
    assert_eq!(given_up, 0, "the flow was re-pointed, not given up: {status:#?}");
}

#[test]
fn a_flow_without_a_route_comes_up_and_returns_with_the_route() {
    let network = Direct::new().unwrap();
    let wire = Live::start(&network, Engine::Xdp, &[]);
    let net = "10.72.2.0/24";
    network.proxy.ip(&["route", "delete", net, "dev", "eth1"]).unwrap();
    let status = wire.is_offloaded(false);
    assert_eq!(status.totals.relayed.get("next_hop_lost"), Some(&1), "{status:#?}");
    network.proxy.ip(&["route", "add", net, "dev", "eth1"]).unwrap();
    // Sooner than a failed offload is tried again by itself.
    let start = Instant::now();
    wire.is_offloaded(true);
    assert!(start.elapsed() < PATIENCE);
    assert!(wire.takes_the_kernel(100));
}

/// Adds a route of IPv4 alone.
fn add_route(namespace: &Namespace, destination: &str, via: Ipv4Addr) {
    namespace.ip(&["route", "add", destination, "via", &via.to_string()]).unwrap();
}

/// A namespace whose default route leads over a veth to another, under a proxy that was asked for XDP.
fn with_gateway(check: impl FnOnce(&Direct, &Proxy<'_>)) {
    let network = Direct::new().unwrap();
    add_route(&network.proxy, "default", Direct::ORIGIN);
    let proxy = Proxy::start(&network.proxy, Direct::PROXY, Engine::Xdp, &[]).unwrap();
    check(&network, &proxy);
}

fn engine_of(proxy: &Proxy<'_>, name: &str) -> (String, Option<String>) {
    let interfaces = proxy.status().unwrap().interfaces;
    let found = interfaces.into_iter().find(|interface| interface.name == name).unwrap();
    (found.engine, found.note)
}

#[test]
fn a11_a_gateway_lost_after_a_native_attach_detaches_xdp() {
    with_gateway(|network, proxy| {
        assert_eq!(engine_of(proxy, "eth1"), ("xdp".to_owned(), None));
        // The gateway goes on receiving, and answers no ARP.
        network.origin.sysctl("net.ipv4.conf.all.arp_ignore", "8").unwrap();
        wait_until("the interface goes back to TC", PATIENCE, || engine_of(proxy, "eth1").0 == "tc");
        let note = engine_of(proxy, "eth1").1.unwrap();
        assert!(note.contains("gateway") && note.contains(&Direct::ORIGIN.to_string()), "{note}");
    });
}

#[test]
fn a11_a_gateway_that_still_answers_keeps_xdp() {
    with_gateway(|network, proxy| {
        assert_eq!(engine_of(proxy, "eth1").0, "xdp");
        // Longer than the trial.
        sleep(Duration::from_secs(8));
        assert_eq!(engine_of(proxy, "eth1").0, "xdp");
        let gateway = neighbours(&network.proxy, "eth1");
        assert!(gateway.contains("REACHABLE") && !gateway.contains("managed"), "{gateway}");
    });
}
