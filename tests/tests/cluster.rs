//! Networks of clusters: node ports, pods behind bridges and tunnels, pods that come back elsewhere. Every session is
//! to be forwarded in the kernel, and loses nothing on the way there.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    thread::sleep,
    time::Duration,
};

use integration_tests::{
    case::Case,
    in_cases,
    load::{Client, ClientOptions, Swarm},
    netns::{Cluster, Namespace, Peer, Pod},
    origin::{Heartbeat, Origin, OriginConfig},
    proxy::{Engine, Proxy, Status},
    residue,
};

const PATIENCE: Duration = Duration::from_secs(15);
const WATCH: Duration = Duration::from_secs(1);
const NODE_PORT: u16 = 30_800;

in_cases!(xdp, tc, xdp_v6, tc_v6: {
    a3_a_node_port_that_leads_to_another_address_of_the_node_is_forwarded,
    a3_a_proxy_in_a_pod_behind_a_masquerading_node_port_is_forwarded,
    a4_clients_that_enter_by_another_card_than_they_signal_by_are_forwarded_to_a_pod,
    a4_an_origin_in_a_pod_behind_a_tunnel_is_forwarded,
    a4_a_pod_that_comes_back_elsewhere_costs_others_nothing,
});

/// A publisher and viewers outside the cluster.
struct Outside<'a> {
    client: &'a Namespace,
    swarm: Arc<Swarm>,
    api: String,
    /// What every address ends with.
    query: String,
    /// The card that media leaves by, if it is not that of signalling.
    media: Option<IpAddr>,
    case: Case,
}

impl<'a> Outside<'a> {
    fn of(cluster: &'a Cluster, proxy: &Proxy<'_>, case: Case) -> Self {
        let swarm = Arc::new(Swarm::start().unwrap());
        Self { client: &cluster.client, swarm, api: proxy.api(), query: String::new(), media: None, case }
    }

    /// Has answers name this address for media.
    fn sends_to(&mut self, media: impl std::fmt::Display) {
        self.query = format!("&eip={media}");
    }

    fn publish(&self, stream: &str) -> Client {
        self.connect(ClientOptions::publish(&self.url("whip", stream)).unwrap())
    }

    fn play(&self, stream: &str) -> Client {
        let viewer = self.connect(ClientOptions::play(&self.url("whep", stream)).unwrap());
        viewer.wait(PATIENCE, |stats| stats.received() > 20).unwrap();
        viewer
    }

    fn url(&self, protocol: &str, stream: &str) -> String {
        format!("{}/rtc/v1/{protocol}/?app=live&stream={stream}{}", self.api, self.query)
    }

    fn connect(&self, options: ClientOptions) -> Client {
        self.client.enter(|| {
            let options = match self.media {
                Some(ip) => options.socket(UdpSocket::bind((ip, 0)).unwrap()),
                None => options,
            };
            Client::connect(&self.swarm, options).unwrap()
        })
    }
}

/// Publishes and plays a stream, and checks that the kernel forwards all of it, if it is to, and nothing is lost.
fn plays_in_the_kernel(outside: &Outside<'_>, proxy: &Proxy<'_>) -> Status {
    let publisher = outside.publish("a");
    let viewers = [outside.play("a"), outside.play("a")];
    let offloaded = offloaded(outside.case, 3);
    proxy.wait(PATIENCE, |status| status.totals.offloaded == offloaded).unwrap();
    // What was under way at the flip has arrived.
    sleep(WATCH / 4);
    let before = proxy.status().unwrap();
    sleep(WATCH);
    let after = proxy.status().unwrap();
    let moved = |path| after.packets(path) - before.packets(path);
    assert!(moved(outside.case.path()) > 300, "{after:#?}");
    // Checks that were escalated.
    let aside = if outside.case.expects_kernel() { "userspace" } else { "kernel" };
    let (most, few) = (moved(outside.case.path()), moved(aside));
    assert!(few * 20 <= most, "{few} beside {most}: {:#?} {:#?}", before.totals, after.totals);
    assert_eq!(after.totals.offloaded, offloaded, "{after:#?}");
    viewers.iter().for_each(lost_nothing);
    drop(publisher);
    after
}

fn offloaded(case: Case, sessions: usize) -> usize {
    if case.expects_kernel() { sessions } else { 0 }
}

#[track_caller]
fn lost_nothing(viewer: &Client) {
    let stats = viewer.stats();
    assert_eq!((stats.missing(), stats.duplicates()), (0, 0), "{stats:?}");
}

fn ends_cleanly(proxy: Proxy<'_>, namespace: &Namespace) {
    proxy.stop().unwrap();
    assert_eq!(residue::attached(namespace).unwrap(), [""; 0]);
}

fn origin_in(pod: &Pod<'_>, case: Case, server: &str, proxy: Ipv4Addr) -> Origin {
    let [ip, proxy] = [pod.address, proxy].map(|address| case.family.of(address));
    let mut config = OriginConfig::on(ip);
    config.server_id = server.to_owned();
    config.heartbeat = Some(Heartbeat::every_second(Proxy::register_url(proxy), server, ip));
    pod.namespace.enter(|| Origin::start(config)).unwrap()
}

/// Where sessions are forwarded in the kernel, this engine is on this interface.
#[track_caller]
fn is_on(status: &Status, case: Case, engine: Engine, interface: &str) {
    let found = status.interfaces.iter().find(|attached| attached.name == interface);
    if case.expects_kernel() {
        assert_eq!(found.map(|attached| attached.engine.as_str()), Some(engine.as_str()), "{status:#?}");
    }
}

fn ip_of(address: &str) -> IpAddr {
    address.parse::<SocketAddr>().unwrap().ip()
}

/// What kube-proxy writes for a service of type `NodePort`.
fn node_port(node: &Namespace, case: Case, to: Ipv4Addr, masquerades: bool) {
    let [host, to] = [Cluster::NODE, to].map(|address| case.family.of(address));
    let (table, udp, tcp) = match to {
        IpAddr::V4(_) => ("ip", format!("{to}:18000"), format!("{to}:11985")),
        IpAddr::V6(_) => ("ip6", format!("[{to}]:18000"), format!("[{to}]:11985")),
    };
    let mut rules = format!(
        "add table {table} kube; \
         add chain {table} kube pre {{ type nat hook prerouting priority dstnat; }}; \
         add rule {table} kube pre {table} daddr {host} udp dport {NODE_PORT} dnat to {udp}; \
         add rule {table} kube pre {table} daddr {host} tcp dport {NODE_PORT} dnat to {tcp}; \
         add chain {table} kube post {{ type nat hook postrouting priority srcnat; }}"
    );
    if masquerades {
        rules += &format!("; add rule {table} kube post ct status dnat masquerade");
    }
    node.run("nft", &[rules]).unwrap();
}

fn a3_a_node_port_that_leads_to_another_address_of_the_node_is_forwarded(case: Case) {
    let cluster = Cluster::new().unwrap();
    node_port(&cluster.node, case, Cluster::GATEWAY, false);
    let proxy = Proxy::start(&cluster.node, case.family.of(Cluster::NODE), case.engine, &[]).unwrap();
    let pod = cluster.pod().unwrap();
    let _origin = origin_in(&pod, case, "pod", Cluster::GATEWAY);
    proxy.wait_for_origins(1).unwrap();
    let mut outside = Outside::of(&cluster, &proxy, case);
    outside.sends_to(SocketAddr::new(case.family.of(Cluster::NODE), NODE_PORT));
    let status = plays_in_the_kernel(&outside, &proxy);
    is_on(&status, case, case.engine, "eth0");
    ends_cleanly(proxy, &cluster.node);
}

/// The pod sees the node as the only client there is, with a port for each session.
fn a3_a_proxy_in_a_pod_behind_a_masquerading_node_port_is_forwarded(case: Case) {
    let cluster = Cluster::new().unwrap();
    let (home, other) = (cluster.pod().unwrap(), cluster.pod().unwrap());
    node_port(&cluster.node, case, home.address, true);
    let proxy = Proxy::start(&home.namespace, case.family.of(home.address), case.engine, &[]).unwrap();
    let _origin = origin_in(&other, case, "pod", home.address);
    proxy.wait_for_origins(1).unwrap();
    let mut outside = Outside::of(&cluster, &proxy, case);
    outside.api = format!("http://{}", SocketAddr::new(case.family.of(Cluster::NODE), NODE_PORT));
    outside.sends_to(SocketAddr::new(case.family.of(Cluster::NODE), NODE_PORT));
    let status = plays_in_the_kernel(&outside, &proxy);
    let gateway = case.family.of(Cluster::GATEWAY);
    let mut clients = status.sessions.iter().filter_map(|session| session.client.as_deref());
    assert!(clients.all(|client| ip_of(client) == gateway), "{status:#?}");
    ends_cleanly(proxy, &home.namespace);
}

fn a4_clients_that_enter_by_another_card_than_they_signal_by_are_forwarded_to_a_pod(case: Case) {
    let cluster = Cluster::new().unwrap();
    let proxy = Proxy::start(&cluster.node, case.family.of(Cluster::NODE), case.engine, &[]).unwrap();
    let pod = cluster.pod().unwrap();
    let _origin = origin_in(&pod, case, "pod", Cluster::GATEWAY);
    proxy.wait_for_origins(1).unwrap();
    let mut outside = Outside::of(&cluster, &proxy, case);
    outside.sends_to(case.family.of(Cluster::NODE_ASIDE));
    outside.media = Some(case.family.of(Cluster::CLIENT_ASIDE));
    let status = plays_in_the_kernel(&outside, &proxy);
    is_on(&status, case, case.engine, "eth1");
    // A bridge has no native XDP.
    is_on(&status, case, Engine::Tc, "cni0");
    ends_cleanly(proxy, &cluster.node);
}

fn a4_an_origin_in_a_pod_behind_a_tunnel_is_forwarded(case: Case) {
    let cluster = Cluster::new().unwrap();
    let peer = cluster.peer().unwrap();
    let proxy = Proxy::start(&cluster.node, case.family.of(Cluster::NODE), case.engine, &[]).unwrap();
    let pod = peer.pod().unwrap();
    let _origin = origin_in(&pod, case, "pod", Peer::TUNNEL);
    proxy.wait_for_origins(1).unwrap();
    let status = plays_in_the_kernel(&Outside::of(&cluster, &proxy, case), &proxy);
    is_on(&status, case, case.engine, "eth0");
    // Frames come out of the tunnel at its own device, which has no native XDP.
    is_on(&status, case, Engine::Tc, "vxlan0");
    ends_cleanly(proxy, &cluster.node);
}

fn a4_a_pod_that_comes_back_elsewhere_costs_others_nothing(case: Case) {
    let cluster = Cluster::new().unwrap();
    let proxy = Proxy::start(&cluster.node, case.family.of(Cluster::NODE), case.engine, &[]).unwrap();
    let (stays, goes) = (cluster.pod().unwrap(), cluster.pod().unwrap());
    let _first = origin_in(&stays, case, "stays", Cluster::GATEWAY);
    proxy.wait_for_origins(1).unwrap();
    let outside = Outside::of(&cluster, &proxy, case);
    let _publisher = outside.publish("a");
    let others = [outside.play("a"), outside.play("a")];
    let second = origin_in(&goes, case, "goes", Cluster::GATEWAY);
    proxy.wait_for_origins(2).unwrap();
    let publisher = outside.publish("b");
    let viewer = outside.play("b");
    proxy.wait(PATIENCE, |status| status.totals.offloaded == offloaded(case, 5)).unwrap();
    let gone = goes.address;
    drop((second, goes));
    let again = cluster.pod().unwrap();
    assert_ne!(again.address, gone);
    let _second = origin_in(&again, case, "goes", Cluster::GATEWAY);
    // A new run of a known server takes the place of the old one, whose sessions are over.
    proxy.wait(PATIENCE, |status| status.totals.sessions == 3).unwrap();
    proxy.wait_for_origins(2).unwrap();
    drop((publisher, viewer));
    let _publisher = outside.publish("c");
    let newcomer = outside.play("c");
    let status = proxy.wait(PATIENCE, |status| status.totals.offloaded == offloaded(case, 5)).unwrap();
    let new = status.sessions.iter().filter(|s| ip_of(&s.media) == case.family.of(again.address));
    assert_eq!(new.count(), 2, "{status:#?}");
    sleep(WATCH);
    others.iter().chain([&newcomer]).for_each(lost_nothing);
    ends_cleanly(proxy, &cluster.node);
}
