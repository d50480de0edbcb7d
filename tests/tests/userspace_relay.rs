//! The userspace relay by itself, between a client and an origin in namespaces, with sessions that no signalling made.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use integration_tests::{
    netns::{Direct, Namespace, Routed},
    relay::admit,
};
use proxy_common::verdict::Reason;
use proxy_userspace::{
    datapath::{
        Protocol,
        userspace::{Placement, Relay},
    },
    net::udp::{Burst, Meta, RecvBatch, SendBatch, Transmit, UdpSocket},
    proxy::Event,
    session::{SessionId, Tuple},
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(10);
const SOURCE_PORT: u16 = 61_000;

/// A client and an origin with sessions between them, one a client port.
struct Path<'a> {
    relay: Relay,
    _events: mpsc::Receiver<Event>,
    near: &'a Namespace,
    clients: Vec<UdpSocket>,
    origin: UdpSocket,
    service: SocketAddr,
    inside: Ipv4Addr,
}

/// Addresses of a path: client, proxy towards it, proxy towards the origin, origin.
const DIRECT: [Ipv4Addr; 4] = [Direct::CLIENT, Direct::PROXY, Direct::PROXY_INSIDE, Direct::ORIGIN];
const ROUTED: [Ipv4Addr; 4] = [Routed::CLIENT, Routed::PROXY, Routed::PROXY_INSIDE, Routed::ORIGIN_A];

impl<'a> Path<'a> {
    fn new(
        namespaces: [&'a Namespace; 3],
        addresses: [Ipv4Addr; 4],
        flows: u16,
        placement: &Placement,
    ) -> Self {
        let [near, proxy, far] = namespaces;
        let [client, outside, inside, origin] = addresses;
        let workers = match placement {
            Placement::ByHash => 2,
            Placement::ByCpu(sets) => sets.len(),
        };
        let (events, received) = mpsc::channel(1024);
        let relay = proxy
            .enter(|| Relay::start(&[SocketAddr::from((outside, 0))], workers, placement, events))
            .unwrap();
        let bind = |ip| UdpSocket::bind(SocketAddr::from((ip, 0)), false).unwrap();
        let clients = near.enter(|| (0..flows).map(|_| bind(client)).collect());
        let origin = far.enter(|| bind(origin));
        let service = relay.addresses_of(Protocol::WebRtc).next().unwrap();
        let path = Self { relay, _events: received, near, clients, origin, service, inside };
        proxy.enter(|| (0..flows).for_each(|flow| path.add(flow)));
        path
    }

    fn direct(network: &'a Direct) -> Self {
        let Direct { client, proxy, origin } = network;
        Self::new([client, proxy, origin], DIRECT, 1, &Placement::ByHash)
    }

    fn add(&self, flow: u16) {
        let source = SocketAddr::from((self.inside, SOURCE_PORT + flow));
        let tuple = Tuple { client: self.clients[usize::from(flow)].local_addr(), local: self.service };
        admit(&self.relay, flow, tuple, source, self.origin.local_addr()).unwrap();
    }

    /// Sends `datagrams` of every second flow's kind both ways and demands that they arrive as they are, in order.
    fn carries(&self, datagrams: &[(u8, Vec<u8>)]) {
        let source = SocketAddr::from((self.inside, SOURCE_PORT));
        send(&self.clients[0], self.service, datagrams);
        assert_arrived(&self.origin, source, datagrams);
        send(&self.origin, source, datagrams);
        assert_arrived(&self.clients[0], self.service, datagrams);
        let totals = self.relay.totals();
        let sent = datagrams.len() as u64;
        let failed = totals.reasons.iter().find(|(reason, _)| *reason == Reason::SendFailed).unwrap().1;
        assert_eq!((totals.to_origin.0, totals.to_client.0, failed), (sent, sent, 0));
        let bytes: usize = datagrams.iter().map(|(_, payload)| payload.len()).sum();
        assert_eq!((totals.to_origin.1, totals.to_client.1), (bytes as u64, bytes as u64));
    }
}

fn send(from: &UdpSocket, to: SocketAddr, datagrams: &[(u8, Vec<u8>)]) {
    let mut room = SendBatch::default();
    for some in datagrams.chunks(32) {
        let bursts = some.iter().map(|(traffic_class, payload)| Burst {
            transmit: Transmit { payload, peer: to, local_ip: None, traffic_class: *traffic_class },
            segment: payload.len(),
        });
        from.send_batch(&mut room, bursts, |sent| assert!(sent.taken, "{sent:?}"));
    }
}

fn receive(socket: &UdpSocket, count: usize) -> Vec<(Meta, Vec<u8>)> {
    let (mut batch, mut got) = (RecvBatch::default(), Vec::new());
    let end = Instant::now() + PATIENCE;
    while got.len() < count && Instant::now() < end {
        match socket.receive(&mut batch) {
            Ok(_) => got.extend(batch.iter().map(|(meta, payload)| (meta, payload.to_vec()))),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    got
}

#[track_caller]
fn assert_arrived(at: &UdpSocket, from: SocketAddr, datagrams: &[(u8, Vec<u8>)]) {
    let got = receive(at, datagrams.len());
    assert_eq!(got.len(), datagrams.len());
    for (at, ((meta, payload), (class, sent))) in got.iter().zip(datagrams).enumerate() {
        assert_eq!(
            (meta.peer, meta.traffic_class, payload.len()),
            (from, *class, sent.len()),
            "datagram {at}"
        );
        assert!(payload == sent, "the payload of datagram {at} changed");
    }
}

/// An RTP-like payload whose bytes depend on `mark`.
fn media(mark: usize, len: usize) -> Vec<u8> {
    let head = [0x80, 96];
    (0..len).map(|i| head.get(i).copied().unwrap_or((i * 7 + mark * 13) as u8)).collect()
}

fn run_of(count: usize, len: usize, class: u8) -> Vec<(u8, Vec<u8>)> {
    (0..count).map(|mark| (class, media(mark, len))).collect()
}

/// Runs of equal datagrams, odd ends, changes of class within a run.
fn mixture() -> Vec<(u8, Vec<u8>)> {
    let mut all = run_of(70, 1200, 0xba);
    all.extend(run_of(1, 17, 0xba));
    all.extend((0..60).map(|i| ([0x00, 0x01, 0x02, 0x03, 0xb8][i / 3 % 5], media(i, 900))));
    all.extend((0..60).map(|i| (0x28, media(i, 2 + i * 23 % 1400))));
    all.extend(run_of(40, 200, 0x88));
    all.extend(run_of(3, 2, 0));
    all
}

#[test]
fn a13_the_relay_keeps_dscp_ecn_ports_and_payload() {
    let network = Direct::new().unwrap();
    Path::direct(&network).carries(&mixture());
}

#[test]
fn a_device_that_computes_no_checksums_loses_nothing() {
    let network = Direct::new().unwrap();
    for device in ["eth0", "eth1"] {
        network.proxy.run("ethtool", &["-K", device, "tx", "off"]).unwrap();
    }
    Path::direct(&network).carries(&mixture());
}

#[test]
fn a_device_that_cuts_no_runs_loses_nothing() {
    let network = Direct::new().unwrap();
    for device in ["eth0", "eth1"] {
        let off = ["-K", device, "tx-udp-segmentation", "off", "gro", "off"];
        network.proxy.run("ethtool", &off).unwrap();
    }
    Path::direct(&network).carries(&mixture());
}

#[test]
fn a_datagram_longer_than_the_egress_mtu_arrives_whole() {
    let network = Direct::with_origin_mtu(1400).unwrap();
    let mut datagrams = run_of(40, 1472, 0xb8);
    datagrams.extend(run_of(4, 8000, 0));
    datagrams.extend(run_of(20, 1373, 0x02));
    datagrams.extend(run_of(20, 1372, 0x02));
    Path::direct(&network).carries(&datagrams);
}

#[test]
fn a_datagram_longer_than_a_link_beyond_the_next_router_arrives_whole() {
    let network = Routed::new().unwrap();
    let Routed { client, router1, proxy, router2, origin_a, .. } = &network;
    for (namespace, device) in [(router2, "right_a"), (origin_a, "eth0"), (router1, "left"), (client, "eth0")]
    {
        namespace.ip(&["link", "set", device, "mtu", "1400"]).unwrap();
    }
    // The router's message never comes, as where ICMP is filtered.
    let silence = "add table ip f; add chain ip f out { type filter hook output priority 0; }; \
         add rule ip f out ip protocol icmp drop";
    for router in [router1, router2] {
        router.run("nft", &[silence]).unwrap();
    }
    let path = Path::new([client, proxy, origin_a], ROUTED, 1, &Placement::ByHash);
    path.carries(&run_of(40, 1472, 0xb8));
}

#[test]
fn a_learnt_path_mtu_loses_nothing() {
    let network = Direct::new().unwrap();
    let path = Path::direct(&network);
    for (to, device) in [(Direct::CLIENT, "eth0"), (Direct::ORIGIN, "eth1")] {
        network.proxy.ip(&["route", "add", &format!("{to}/32"), "dev", device, "mtu", "600"]).unwrap();
    }
    path.carries(&run_of(40, 1200, 0x28));
}

fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Every flow sends `STEPS` times `AT_ONCE` datagrams; the next step waits until all have arrived, because the rings of
/// virtual links are short.
const FLOWS: u16 = 40;
const STEPS: usize = 20;
const AT_ONCE: usize = 4;

#[track_caller]
fn every_flow_keeps_its_order(placement: &Placement) {
    let network = Direct::new().unwrap();
    let path = Path::new([&network.client, &network.proxy, &network.origin], DIRECT, FLOWS, placement);
    // What waits for a neighbour's address is overtaken by what is sent when the answer comes.
    path.carries(&run_of(1, 100, 0));
    let got: Vec<_> = (0..STEPS).flat_map(|step| step_of_every_flow(&path, step)).collect();
    for flow in 0..FLOWS {
        let source = SocketAddr::from((path.inside, SOURCE_PORT + flow));
        let of_flow = got.iter().filter(|(meta, _)| meta.peer == source);
        let marks: Vec<(u8, u8)> = of_flow.map(|(_, payload)| (payload[2], payload[3])).collect();
        let expected: Vec<(u8, u8)> = (0..STEPS * AT_ONCE).map(|mark| (flow as u8, mark as u8)).collect();
        assert_eq!(marks, expected, "flow {flow}");
    }
}

/// Each CPU sends the datagrams of some flows, and so receives them for the proxy.
fn step_of_every_flow(path: &Path<'_>, step: usize) -> Vec<(Meta, Vec<u8>)> {
    let cpus = cpus();
    let send_as = &|turn: usize| {
        let mut alone = CpuSet::new();
        alone.set(cpus[turn]);
        sched_setaffinity(None, &alone).unwrap();
        for mark in step * AT_ONCE..(step + 1) * AT_ONCE {
            for (flow, client) in
                path.clients.iter().enumerate().filter(|(flow, _)| flow % cpus.len() == turn)
            {
                let mut payload = media(flow, 100);
                payload[2..4].copy_from_slice(&[flow as u8, mark as u8]);
                send(client, path.service, &[(0, payload)]);
            }
        }
    };
    path.near.enter(|| {
        std::thread::scope(|scope| (0..cpus.len()).for_each(|turn| drop(scope.spawn(move || send_as(turn)))));
    });
    receive(&path.origin, usize::from(FLOWS) * AT_ONCE)
}

#[test]
fn every_flow_keeps_its_order_when_a_hash_chooses_the_worker() {
    every_flow_keeps_its_order(&Placement::ByHash);
}

#[test]
fn every_flow_keeps_its_order_when_the_receiving_cpu_chooses_the_worker() {
    let cpus = cpus();
    let placement = Placement::by_cpu(cpus.len(), &cpus);
    assert!(cpus.len() < 2 || placement != Placement::ByHash);
    every_flow_keeps_its_order(&placement);
}

#[test]
fn a_relay_that_ends_gives_its_ports_back() {
    let network = Direct::new().unwrap();
    let path = Path::direct(&network);
    path.carries(&run_of(5, 100, 0));
    let ports = [path.service, SocketAddr::from((path.inside, SOURCE_PORT))];
    drop(path);
    // A process that another test is just starting has them until it runs its program.
    let end = Instant::now() + PATIENCE;
    let is_free = |address| UdpSocket::bind(address, false).is_ok();
    while !network.proxy.enter(|| ports.iter().all(|address| is_free(*address))) {
        assert!(Instant::now() < end, "{ports:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_comes_for_a_session_that_is_gone_is_counted() {
    let network = Direct::new().unwrap();
    let path = Path::direct(&network);
    path.carries(&run_of(5, 100, 0));
    path.relay.retire(SessionId(0));
    send(&path.origin, SocketAddr::from((path.inside, SOURCE_PORT)), &run_of(40, 100, 0));
    send(&path.clients[0], path.service, &run_of(40, 100, 0));
    let end = Instant::now() + PATIENCE;
    let count =
        |wanted| path.relay.totals().reasons.into_iter().find(|(reason, _)| *reason == wanted).unwrap().1;
    while (count(Reason::Quarantined), count(Reason::NoFlow)) != (40, 40) {
        assert!(Instant::now() < end, "{:?}", path.relay.totals());
        std::thread::sleep(Duration::from_millis(5));
    }
}
