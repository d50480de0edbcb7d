//! Real forwarding between namespaces: over veth by native XDP and by TC, and on `lo`. Needs root, `ip` and `ethtool`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use integration_tests::{
    kernel::load,
    netns::{Direct, End, MTU, Namespace},
};
use proxy_common::verdict::Reason;
use proxy_userspace::datapath::{
    Datapath as _, Egress, Engine, FlowCounters, FlowId, FlowSpec, NextHopId, NextHopSpec,
    kernel::{EngineChoice, KernelDatapath, features::xdp_features},
};

const SERVICE_PORT: u16 = 8000;
const SOURCE_PORT: u16 = 61000;
const ORIGIN_PORT: u16 = 9000;
const CLIENT: SocketAddrV4 = SocketAddrV4::new(Direct::CLIENT, 40000);
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Direct::PROXY, SERVICE_PORT);
const SOURCE: SocketAddrV4 = SocketAddrV4::new(Direct::PROXY_INSIDE, SOURCE_PORT);
const ORIGIN: SocketAddrV4 = SocketAddrV4::new(Direct::ORIGIN, ORIGIN_PORT);
const WAIT: Duration = Duration::from_secs(2);
/// Odd, even, around the steps in which XDP sums, and the longest that fits.
const SIZES: [usize; 12] = [0, 1, 2, 3, 247, 248, 249, 503, 504, 1200, 1471, 1472];

#[test]
fn xdp_forwards_both_ways_between_veths() {
    let network = Veths::new(EngineChoice::Xdp);
    assert_eq!(network.engines(), [Engine::Xdp, Engine::Xdp]);
    let counters = network.echo_every_size();
    assert_eq!(network.forwarded(Engine::Xdp), counters.to_origin.packets + counters.to_client.packets);
    assert_eq!(network.forwarded(Engine::Tc), 0);
}

#[test]
fn tc_forwards_both_ways_between_veths() {
    let network = Veths::new(EngineChoice::Tc);
    assert_eq!(network.engines(), [Engine::Tc, Engine::Tc]);
    let counters = network.echo_every_size();
    assert_eq!(network.forwarded(Engine::Tc), counters.to_origin.packets + counters.to_client.packets);
}

#[test]
fn tc_resolves_neighbours_that_it_is_not_told() {
    let mut network = Veths::new(EngineChoice::Tc);
    network.set_egress(|_| Egress::Neighbour);
    network.echo_every_size();
}

#[test]
fn tc_forwards_what_xdp_cannot() {
    let mut network = Veths::new(EngineChoice::Xdp);
    network.set_egress(|egress| match egress {
        Egress::Redirect { dst_mac, src_mac, .. } => Egress::Redirect { dst_mac, src_mac, xdp: false },
        other @ (Egress::Unusable | Egress::Neighbour | Egress::Stack) => other,
    });
    network.echo_every_size();
    assert_eq!(network.forwarded(Engine::Xdp), 0);
}

#[test]
fn every_engine_keeps_segmented_bursts_whole() {
    for choice in [EngineChoice::Xdp, EngineChoice::Tc] {
        let network = Veths::new(choice);
        let client = network.client();
        set_option(&client, libc::SOL_UDP, libc::UDP_SEGMENT, 1200);
        let burst: Vec<u8> = (0..8_u8).flat_map(|n| [n; 1200]).collect();
        let answers = network.serve(8, || {
            client.send_to(&burst, SERVICE).expect("the namespace has a route");
            (0..8).map(|_| receive(&client)).collect::<Vec<_>>()
        });
        let expected: Vec<_> = (0..8_u8).map(|n| vec![n; 1200]).collect();
        assert_eq!(answers, expected, "{choice:?}");
        let counters = network.kernel.counters(network.flow);
        assert_eq!((counters.to_origin.packets, counters.to_origin.bytes), (8, 8 * 1228), "{choice:?}");
    }
}

#[test]
fn every_engine_forwards_datagrams_without_checksum() {
    for choice in [EngineChoice::Xdp, EngineChoice::Tc] {
        let network = Veths::new(choice);
        let client = network.client();
        set_option(&client, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
        network.echo(&client, 333);
    }
}

#[test]
fn xdp_and_tc_share_an_interface_with_jumbo_frames() {
    let network = Veths::with_mtu(EngineChoice::Xdp, 9000);
    assert_eq!(network.engines(), [Engine::Xdp, Engine::Xdp]);
    let client = network.client();
    for size in [100, 1472, 4000, 8000, 8972] {
        network.echo(&client, size);
    }
    assert!(network.forwarded(Engine::Xdp) > 0, "short frames are XDP's");
    assert!(network.forwarded(Engine::Tc) > 0, "frames in several buffers are TC's");
}

#[test]
fn a_removed_flow_falls_back_to_the_socket() {
    for choice in [EngineChoice::Xdp, EngineChoice::Tc] {
        let mut network = Veths::new(choice);
        let client = network.client();
        let service = network.proxy_socket(SERVICE);
        network.echo(&client, 100);
        network.kernel.remove(network.flow);
        client.send_to(b"still here", SERVICE).expect("the namespace has a route");
        assert_eq!(receive(&service), b"still here", "{choice:?}");
    }
}

#[test]
fn an_oversize_datagram_goes_to_the_socket() {
    let mut network = Veths::new(EngineChoice::Xdp);
    network.set_mtu(1400);
    let (client, service) = (network.client(), network.proxy_socket(SERVICE));
    network.echo(&client, 1372);
    client.send_to(&[7; 1373], SERVICE).expect("the namespace has a route");
    assert_eq!(receive(&service).len(), 1373);
}

#[test]
fn detaching_leaves_every_packet_to_the_sockets() {
    let mut network = Veths::new(EngineChoice::Xdp);
    let (client, service) = (network.client(), network.proxy_socket(SERVICE));
    network.echo(&client, 100);
    for attachment in network.kernel.attachments() {
        network.kernel.detach(attachment.ifindex);
    }
    client.send_to(b"up", SERVICE).expect("the namespace has a route");
    assert_eq!(receive(&service), b"up");
}

#[test]
fn a_veth_tells_that_it_takes_xdp_frames_while_its_peer_does() {
    let network = Veths::new(EngineChoice::Tc);
    let features =
        network.namespaces.proxy.enter(|| xdp_features(device("eth1"))).expect("kernels since 6.3 tell");
    assert!(features.has_basic() && features.has_redirect() && features.has_ndo_xmit());
}

#[test]
fn tc_forwards_on_the_loopback_device() {
    let host = Namespace::new("lo").expect("kernel tests need root: run them with `cargo xtask test`");
    host.enter(|| {
        let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut kernel = load(16, EngineChoice::Auto);
        let lo = device("lo");
        let attachment = kernel.attach(lo).expect("lo takes TC programs");
        assert_eq!((attachment.engine, attachment.mode), (Engine::Tc, "tcx"));
        let hop = kernel.add_next_hop(&NextHopSpec { ifindex: lo, mtu: u16::MAX, egress: Egress::Stack });
        let hop = hop.expect("the table is empty");
        let (client, origin) = (socket(local(0)), socket(local(ORIGIN_PORT)));
        let flow = FlowSpec {
            client: client.local_addr().expect("it is bound"),
            service: local(SERVICE_PORT).into(),
            source: local(SOURCE_PORT).into(),
            origin: local(ORIGIN_PORT).into(),
            to_origin: hop,
            to_client: hop,
        };
        let flow = kernel.install(&flow).expect("the table is empty");
        kernel.settle();
        for size in [0, 1, 200, 1472, 20_000] {
            client.send_to(&vec![9; size], local(SERVICE_PORT)).expect("lo is up");
            let mut datagram = vec![0; 65536];
            let (length, from) = origin.recv_from(&mut datagram).expect("the datagram was rewritten");
            assert_eq!((length, from), (size, local(SOURCE_PORT).into()));
            origin.send_to(&datagram[..length], from).expect("lo is up");
            let (length, from) = client.recv_from(&mut datagram).expect("the answer was rewritten");
            assert_eq!((length, from), (size, local(SERVICE_PORT).into()));
        }
        assert_eq!(kernel.remove(flow).to_client.packets, 5);
    });
}

/// `client - proxy - origin` with an engine on both interfaces of the proxy and one flow.
struct Veths {
    kernel: KernelDatapath,
    flow: FlowId,
    hops: [Hop; 2],
    origin: UdpSocket,
    // Last: the engine detaches before its interfaces go.
    namespaces: Direct,
}

impl Veths {
    fn new(choice: EngineChoice) -> Self {
        Self::with_mtu(choice, MTU)
    }

    fn with_mtu(choice: EngineChoice, mtu: u16) -> Self {
        let namespaces = Direct::new().expect("kernel tests need root, ip, ethtool: run `cargo xtask test`");
        let Direct { client, proxy, origin } = &namespaces;
        for (namespace, interface) in [(client, "eth0"), (proxy, "eth0"), (proxy, "eth1"), (origin, "eth0")] {
            let set = namespace.ip(&["link", "set", interface, "mtu", &mtu.to_string()]);
            set.expect("veth takes MTUs up to 65535");
        }
        let (kernel, flow, hops) = proxy.enter(|| engine(&namespaces, choice, mtu));
        let origin = origin.enter(|| socket(ORIGIN));
        Self { kernel, flow, hops, origin, namespaces }
    }

    fn set_egress(&mut self, change: impl Fn(Egress) -> Egress) {
        for (id, hop) in &mut self.hops {
            hop.egress = change(hop.egress);
            self.kernel.update_next_hop(*id, hop);
        }
    }

    fn set_mtu(&mut self, mtu: u16) {
        for (id, hop) in &mut self.hops {
            hop.mtu = mtu;
            self.kernel.update_next_hop(*id, hop);
        }
    }

    fn engines(&self) -> [Engine; 2] {
        let engines: Vec<_> = self.kernel.attachments().iter().map(|attachment| attachment.engine).collect();
        engines.try_into().expect("two interfaces are attached")
    }

    fn forwarded(&self, engine: Engine) -> u64 {
        let reasons = self.kernel.reasons().into_iter();
        reasons.filter(|&(of, reason, _)| of == engine && reason == Reason::Forwarded).map(|(.., n)| n).sum()
    }

    fn client(&self) -> UdpSocket {
        self.namespaces.client.enter(|| socket(CLIENT))
    }

    fn proxy_socket(&self, addr: SocketAddrV4) -> UdpSocket {
        self.namespaces.proxy.enter(|| socket(addr))
    }

    fn echo_every_size(&self) -> FlowCounters {
        let client = self.client();
        for size in SIZES {
            self.echo(&client, size);
        }
        let counters = self.kernel.counters(self.flow);
        let bytes = SIZES.iter().map(|size| *size as u64 + 28).sum();
        for direction in [counters.to_origin, counters.to_client] {
            assert_eq!((direction.packets, direction.bytes), (SIZES.len() as u64, bytes));
        }
        counters
    }

    /// Sends a datagram to the origin and expects it back, from the address it was sent to.
    #[track_caller]
    fn echo(&self, client: &UdpSocket, size: usize) {
        let sent: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
        let answer = self.serve(1, || {
            client.send_to(&sent, SERVICE).expect("the namespace has a route");
            receive_from(client)
        });
        assert_eq!(answer, (sent, SERVICE), "{size} bytes");
    }

    /// Runs `work` while an origin answers datagrams that come from the leased port.
    fn serve<R>(&self, datagrams: usize, work: impl FnOnce() -> R) -> R {
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..datagrams {
                    let (datagram, from) = receive_from(&self.origin);
                    assert_eq!(from, SOURCE, "the origin sees the leased port");
                    self.origin.send_to(&datagram, from).expect("the namespace has a route");
                }
            });
            work()
        })
    }
}

/// An engine with both interfaces and one flow, made in the proxy's namespace.
fn engine(network: &Direct, choice: EngineChoice, mtu: u16) -> (KernelDatapath, FlowId, [Hop; 2]) {
    let mut kernel = load(16, choice);
    let (eth0, eth1) = (device("eth0"), device("eth1"));
    for ifindex in [eth0, eth1] {
        kernel.attach(ifindex).expect("veth takes programs");
    }
    let mut add = |ifindex, neighbour, us| {
        let hop = hop(ifindex, mtu, neighbour, us);
        (kernel.add_next_hop(&hop).expect("the table is empty"), hop)
    };
    let hops = [
        add(eth1, mac(&network.origin, Direct::ORIGIN), mac(&network.proxy, Direct::PROXY_INSIDE)),
        add(eth0, mac(&network.client, Direct::CLIENT), mac(&network.proxy, Direct::PROXY)),
    ];
    let [(to_origin, _), (to_client, _)] = hops;
    let [client, service, source, origin] = [CLIENT, SERVICE, SOURCE, ORIGIN].map(SocketAddr::V4);
    let flow = FlowSpec { client, service, source, origin, to_origin, to_client };
    let flow = kernel.install(&flow).expect("the table is empty");
    kernel.settle();
    (kernel, flow, hops)
}

type Hop = (NextHopId, NextHopSpec);

fn hop(ifindex: u32, mtu: u16, dst_mac: [u8; 6], src_mac: [u8; 6]) -> NextHopSpec {
    NextHopSpec { ifindex, mtu, egress: Egress::Redirect { dst_mac, src_mac, xdp: true } }
}

fn mac(namespace: &Namespace, address: Ipv4Addr) -> [u8; 6] {
    End { namespace, interface: "", address: Some(address) }.mac()
}

fn socket(addr: SocketAddrV4) -> UdpSocket {
    let socket = UdpSocket::bind(addr).expect("the address is free in its namespace");
    socket.set_read_timeout(Some(WAIT)).expect("the time is not zero");
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    receive_from(socket).0
}

fn receive_from(socket: &UdpSocket) -> (Vec<u8>, SocketAddrV4) {
    let mut datagram = vec![0; 65536];
    let (length, from) = socket.recv_from(&mut datagram).expect("a datagram arrives in time");
    datagram.truncate(length);
    let SocketAddr::V4(from) = from else { panic!("the networks are IPv4") };
    (datagram, from)
}

fn device(name: &str) -> u32 {
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port is free");
    rustix::net::netdevice::name_to_index(&any, name).expect("the interface is there")
}

fn set_option(socket: &UdpSocket, level: i32, option: i32, value: i32) {
    let length = u32::try_from(size_of::<i32>()).expect("4 fits");
    // SAFETY: the descriptor is open, and the value is as long as it is said to be.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}
