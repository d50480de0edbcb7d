//! Networks of clusters: node ports, pods behind bridges and tunnels, pods that come back elsewhere. Every session is
//! to be forwarded in the kernel, and loses nothing on the way there.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::{IpAddr, UdpSocket},
    sync::Arc,
    thread::sleep,
    time::Duration,
};

use integration_tests::{
    case::Case,
    in_case,
    load::{Client, ClientOptions, Swarm},
    netns::{Cluster, Namespace, Peer},
    origin::{Heartbeat, Origin, OriginConfig},
    proxy::{Engine, Proxy, Status},
    residue,
};

const PATIENCE: Duration = Duration::from_secs(15);
const WATCH: Duration = Duration::from_secs(1);
const NODE_PORT: u16 = 30_800;

macro_rules! rules {
    ($($name:ident, $engine:ident;)*) => {
        $(in_case!(
            $name, $engine, V4,
            a_node_port_that_leads_to_another_address_of_the_node_is_forwarded,
            a_proxy_in_a_pod_behind_a_masquerading_node_port_is_forwarded,
            clients_that_enter_by_another_card_than_they_signal_by_are_forwarded_to_a_pod,
            an_origin_in_a_pod_behind_a_tunnel_is_forwarded,
            a_pod_that_comes_back_elsewhere_costs_others_nothing,
        );)*
    };
}

rules! {
    xdp, Xdp;
    tc, Tc;
}

/// A publisher and viewers outside the cluster.
struct Outside<'a> {
    client: &'a Namespace,
    swarm: Arc<Swarm>,
    api: String,
    /// What every address ends with.
    query: String,
    /// The card that media leaves by, if it is not that of signalling.
    media: Option<IpAddr>,
}

impl<'a> Outside<'a> {
    fn of(cluster: &'a Cluster, proxy: &Proxy<'_>) -> Self {
        let swarm = Arc::new(Swarm::start().unwrap());
        Self { client: &cluster.client, swarm, api: proxy.api(), query: String::new(), media: None }
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

/// Publishes and plays a stream, and checks that the kernel forwards all of it and nothing is lost.
fn plays_in_the_kernel(outside: &Outside<'_>, proxy: &Proxy<'_>) -> Status {
    let publisher = outside.publish("a");
    let viewers = [outside.play("a"), outside.play("a")];
    let before = proxy.wait(PATIENCE, |status| status.totals.offloaded == 3).unwrap();
    sleep(WATCH);
    let after = proxy.status().unwrap();
    let moved = |path| after.packets(path) - before.packets(path);
    assert!(moved("kernel") > 300, "{after:#?}");
    // Checks that were escalated, and what was under way at the flip.
    assert!(moved("userspace") * 50 <= moved("kernel"), "{after:#?}");
    assert_eq!(after.totals.offloaded, 3, "{after:#?}");
    viewers.iter().for_each(lost_nothing);
    drop(publisher);
    after
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

fn origin_in(namespace: &Namespace, ip: impl Into<IpAddr>, server: &str, proxy: impl Into<IpAddr>) -> Origin {
    let ip = ip.into();
    let mut config = OriginConfig::on(ip);
    config.server_id = server.to_owned();
    config.heartbeat = Some(Heartbeat::every_second(Proxy::register_url(proxy), server, ip));
    namespace.enter(|| Origin::start(config)).unwrap()
}

#[track_caller]
fn attached(status: &Status, interface: &str) -> String {
    let found = status.interfaces.iter().find(|attached| attached.name == interface);
    found.unwrap_or_else(|| panic!("nothing on {interface}: {:#?}", status.interfaces)).engine.clone()
}

/// What kube-proxy writes for a service of type `NodePort`.
fn node_port(node: &Namespace, to: impl Into<IpAddr>, masquerades: bool) {
    let (host, to) = (Cluster::NODE, to.into());
    let mut rules = format!(
        "add table ip kube; \
         add chain ip kube pre {{ type nat hook prerouting priority dstnat; }}; \
         add rule ip kube pre ip daddr {host} udp dport {NODE_PORT} dnat to {to}:18000; \
         add rule ip kube pre ip daddr {host} tcp dport {NODE_PORT} dnat to {to}:11985; \
         add chain ip kube post {{ type nat hook postrouting priority srcnat; }}"
    );
    if masquerades {
        rules.push_str("; add rule ip kube post ct status dnat masquerade");
    }
    node.run("nft", &[rules]).unwrap();
}

fn a_node_port_that_leads_to_another_address_of_the_node_is_forwarded(case: Case) {
    let cluster = Cluster::new().unwrap();
    node_port(&cluster.node, Cluster::GATEWAY, false);
    let proxy = Proxy::start(&cluster.node, Cluster::NODE, case.engine, &[]).unwrap();
    let pod = cluster.pod().unwrap();
    let _origin = origin_in(&pod.namespace, pod.address, "pod", Cluster::GATEWAY);
    proxy.wait_for_origins(1).unwrap();
    let mut outside = Outside::of(&cluster, &proxy);
    outside.query = format!("&eip={}:{NODE_PORT}", Cluster::NODE);
    let status = plays_in_the_kernel(&outside, &proxy);
    assert_eq!(attached(&status, "eth0"), case.engine.as_str());
    ends_cleanly(proxy, &cluster.node);
}

/// The pod sees the node as the only client there is, with a port for each session.
fn a_proxy_in_a_pod_behind_a_masquerading_node_port_is_forwarded(case: Case) {
    let cluster = Cluster::new().unwrap();
    let (home, other) = (cluster.pod().unwrap(), cluster.pod().unwrap());
    node_port(&cluster.node, home.address, true);
    let proxy = Proxy::start(&home.namespace, home.address, case.engine, &[]).unwrap();
    let _origin = origin_in(&other.namespace, other.address, "pod", home.address);
    proxy.wait_for_origins(1).unwrap();
    let mut outside = Outside::of(&cluster, &proxy);
    outside.api = format!("http://{}:{NODE_PORT}", Cluster::NODE);
    outside.query = format!("&eip={}:{NODE_PORT}", Cluster::NODE);
    let status = plays_in_the_kernel(&outside, &proxy);
    let gateway = Cluster::GATEWAY.to_string();
    let is_node =
        |client: &Option<String>| client.as_ref().is_some_and(|client| client.starts_with(&gateway));
    assert!(status.sessions.iter().all(|session| is_node(&session.client)), "{status:#?}");
    ends_cleanly(proxy, &home.namespace);
}

fn clients_that_enter_by_another_card_than_they_signal_by_are_forwarded_to_a_pod(case: Case) {
    let cluster = Cluster::new().unwrap();
    let proxy = Proxy::start(&cluster.node, Cluster::NODE, case.engine, &[]).unwrap();
    let pod = cluster.pod().unwrap();
    let _origin = origin_in(&pod.namespace, pod.address, "pod", Cluster::GATEWAY);
    proxy.wait_for_origins(1).unwrap();
    let mut outside = Outside::of(&cluster, &proxy);
    outside.query = format!("&eip={}", Cluster::NODE_ASIDE);
    outside.media = Some(Cluster::CLIENT_ASIDE.into());
    let status = plays_in_the_kernel(&outside, &proxy);
    assert_eq!(attached(&status, "eth1"), case.engine.as_str());
    // A bridge has no native XDP.
    assert_eq!(attached(&status, "cni0"), Engine::Tc.as_str());
    ends_cleanly(proxy, &cluster.node);
}

fn an_origin_in_a_pod_behind_a_tunnel_is_forwarded(case: Case) {
    let cluster = Cluster::new().unwrap();
    let peer = cluster.peer().unwrap();
    let proxy = Proxy::start(&cluster.node, Cluster::NODE, case.engine, &[]).unwrap();
    let pod = peer.pod().unwrap();
    let _origin = origin_in(&pod.namespace, pod.address, "pod", Peer::TUNNEL);
    proxy.wait_for_origins(1).unwrap();
    let status = plays_in_the_kernel(&Outside::of(&cluster, &proxy), &proxy);
    assert_eq!(attached(&status, "eth0"), case.engine.as_str());
    // Frames come out of the tunnel at its own device, which has no native XDP.
    assert_eq!(attached(&status, "vxlan0"), Engine::Tc.as_str());
    ends_cleanly(proxy, &cluster.node);
}

fn a_pod_that_comes_back_elsewhere_costs_others_nothing(case: Case) {
    let cluster = Cluster::new().unwrap();
    let proxy = Proxy::start(&cluster.node, Cluster::NODE, case.engine, &[]).unwrap();
    let (stays, goes) = (cluster.pod().unwrap(), cluster.pod().unwrap());
    let _first = origin_in(&stays.namespace, stays.address, "stays", Cluster::GATEWAY);
    proxy.wait_for_origins(1).unwrap();
    let outside = Outside::of(&cluster, &proxy);
    let _publisher = outside.publish("a");
    let others = [outside.play("a"), outside.play("a")];
    let second = origin_in(&goes.namespace, goes.address, "goes", Cluster::GATEWAY);
    proxy.wait_for_origins(2).unwrap();
    let publisher = outside.publish("b");
    let viewer = outside.play("b");
    proxy.wait(PATIENCE, |status| status.totals.offloaded == 5).unwrap();
    let gone = goes.address;
    drop((second, goes));
    let again = cluster.pod().unwrap();
    assert_ne!(again.address, gone);
    let _second = origin_in(&again.namespace, again.address, "goes", Cluster::GATEWAY);
    // A new run of a known server takes the place of the old one, whose sessions are over.
    proxy.wait(PATIENCE, |status| status.totals.sessions == 3).unwrap();
    proxy.wait_for_origins(2).unwrap();
    drop((publisher, viewer));
    let _publisher = outside.publish("c");
    let newcomer = outside.play("c");
    let status = proxy.wait(PATIENCE, |status| status.totals.offloaded == 5).unwrap();
    let new = status.sessions.iter().filter(|s| s.media.starts_with(&again.address.to_string()));
    assert_eq!(new.count(), 2, "{status:#?}");
    sleep(WATCH);
    others.iter().chain([&newcomer]).for_each(lost_nothing);
    ends_cleanly(proxy, &cluster.node);
}
