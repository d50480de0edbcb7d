//! The kernel engine on real devices: a client and an origin behind veths, one flow installed, no proxy.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::Duration,
};

use proxy_common::verdict::Reason;
use proxy_userspace::datapath::{
    Datapath as _, Egress, Engine, FlowCounters, FlowId, FlowSpec, NextHopId, NextHopSpec, Protocol,
    kernel::{EngineChoice, KernelDatapath},
};

use crate::{
    kernel::load,
    netns::{Direct, End, MTU, Namespace},
    residue,
};

/// Where clients send to.
pub const SERVICE_PORT: u16 = 8000;
/// The leased port.
pub const SOURCE_PORT: u16 = 61000;
/// Of the origin.
pub const ORIGIN_PORT: u16 = 9000;
const CLIENT: SocketAddrV4 = SocketAddrV4::new(Direct::CLIENT, 40000);
/// Where the client sends to.
pub const SERVICE: SocketAddrV4 = SocketAddrV4::new(Direct::PROXY, SERVICE_PORT);
const SOURCE: SocketAddrV4 = SocketAddrV4::new(Direct::PROXY_INSIDE, SOURCE_PORT);
const ORIGIN: SocketAddrV4 = SocketAddrV4::new(Direct::ORIGIN, ORIGIN_PORT);
const WAIT: Duration = Duration::from_secs(2);
/// Odd, even, around the steps in which XDP sums, and the longest that fits.
const SIZES: [usize; 12] = [0, 1, 2, 3, 247, 248, 249, 503, 504, 1200, 1471, 1472];

/// `client - proxy - origin` with an engine on both interfaces of the proxy and one flow.
#[derive(Debug)]
pub struct Veths {
    /// The engine.
    pub kernel: KernelDatapath,
    /// Its flow.
    pub flow: FlowId,
    hops: [Hop; 2],
    origin: UdpSocket,
    /// The network. Last: the engine detaches before its interfaces go.
    pub namespaces: Direct,
}

impl Veths {
    /// With an engine of few flows.
    #[must_use]
    pub fn new(choice: EngineChoice) -> Self {
        Self::with_mtu(choice, MTU)
    }

    /// The same on links of another MTU.
    #[must_use]
    pub fn with_mtu(choice: EngineChoice, mtu: u16) -> Self {
        Self::with(mtu, |_| load(16, choice))
    }

    /// With the engine that `load` makes in the proxy's namespace.
    ///
    /// # Panics
    /// Without the privilege to make namespaces.
    #[must_use]
    pub fn with(mtu: u16, load: impl FnOnce(&Direct) -> KernelDatapath + Send) -> Self {
        let namespaces = Direct::new().expect("kernel tests need root, ip, ethtool: run `cargo xtask test`");
        let Direct { client, proxy, origin } = &namespaces;
        for (namespace, interface) in [(client, "eth0"), (proxy, "eth0"), (proxy, "eth1"), (origin, "eth0")] {
            let set = namespace.ip(&["link", "set", interface, "mtu", &mtu.to_string()]);
            set.expect("veth takes MTUs up to 65535");
        }
        let (kernel, flow, hops) = proxy.enter(|| engine(&namespaces, load(&namespaces), mtu));
        let origin = origin.enter(|| socket(ORIGIN));
        Self { kernel, flow, hops, origin, namespaces }
    }

    /// Changes how frames leave, in both directions.
    pub fn set_egress(&mut self, change: impl Fn(Egress) -> Egress) {
        for (id, hop) in &mut self.hops {
            hop.egress = change(hop.egress);
            self.kernel.update_next_hop(*id, hop);
        }
    }

    /// Changes what fits, in both directions.
    pub fn set_mtu(&mut self, mtu: u16) {
        for (id, hop) in &mut self.hops {
            hop.mtu = mtu;
            self.kernel.update_next_hop(*id, hop);
        }
    }

    /// What the two interfaces got.
    ///
    /// # Panics
    /// Unless there are two.
    #[must_use]
    pub fn engines(&self) -> [Engine; 2] {
        let engines: Vec<_> = self.kernel.attachments().iter().map(|attachment| attachment.engine).collect();
        engines.try_into().expect("two interfaces are attached")
    }

    /// Frames that an engine forwarded.
    #[must_use]
    pub fn forwarded(&self, engine: Engine) -> u64 {
        let reasons = self.kernel.reasons().into_iter();
        reasons.filter(|&(of, reason, _)| of == engine && reason == Reason::Forwarded).map(|(.., n)| n).sum()
    }

    /// A socket of the client.
    #[must_use]
    pub fn client(&self) -> UdpSocket {
        self.namespaces.client.enter(|| socket(CLIENT))
    }

    /// A socket of the proxy.
    #[must_use]
    pub fn proxy_socket(&self, addr: SocketAddrV4) -> UdpSocket {
        self.namespaces.proxy.enter(|| socket(addr))
    }

    /// Has datagrams of every size echoed, and counts them.
    ///
    /// # Panics
    /// When one is missing.
    pub fn echo_every_size(&self) -> FlowCounters {
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
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn echo(&self, client: &UdpSocket, size: usize) {
        let sent: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
        let answer = self.serve(1, || {
            client.send_to(&sent, SERVICE).expect("the namespace has a route");
            receive_from(client)
        });
        assert_eq!(answer, (sent, SERVICE), "{size} bytes");
    }

    /// Detaches, and demands that nothing is left.
    ///
    /// # Panics
    /// When something is.
    pub fn finish(self) {
        let Self { kernel, namespaces, .. } = self;
        namespaces.proxy.enter(|| drop(kernel));
        assert_eq!(residue::attached(&namespaces.proxy).expect("tc is installed"), [""; 0]);
        for interface in ["eth0", "eth1"] {
            let qdiscs = namespaces.proxy.run("tc", &["qdisc", "show", "dev", interface]);
            assert!(!qdiscs.expect("tc is installed").contains("clsact"), "{interface} has a qdisc of ours");
        }
    }

    /// Runs `work` while an origin answers datagrams that come from the leased port.
    ///
    /// # Panics
    /// When they do not come.
    pub fn serve<R>(&self, datagrams: usize, work: impl FnOnce() -> R) -> R {
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
fn engine(network: &Direct, mut kernel: KernelDatapath, mtu: u16) -> (KernelDatapath, FlowId, [Hop; 2]) {
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
    let flow = FlowSpec { protocol: Protocol::WebRtc, client, service, source, origin, to_origin, to_client };
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

/// A bound socket with patience.
///
/// # Panics
/// When the address is taken.
#[must_use]
pub fn socket(addr: SocketAddrV4) -> UdpSocket {
    let socket = UdpSocket::bind(addr).expect("the address is free in its namespace");
    socket.set_read_timeout(Some(WAIT)).expect("the time is not zero");
    socket
}

/// The next datagram.
///
/// # Panics
/// When none comes.
#[must_use]
pub fn receive(socket: &UdpSocket) -> Vec<u8> {
    receive_from(socket).0
}

fn receive_from(socket: &UdpSocket) -> (Vec<u8>, SocketAddrV4) {
    let mut datagram = vec![0; 65536];
    let (length, from) = socket.recv_from(&mut datagram).expect("a datagram arrives in time");
    datagram.truncate(length);
    let SocketAddr::V4(from) = from else { panic!("the networks are IPv4") };
    (datagram, from)
}

/// The index of a device.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn device(name: &str) -> u32 {
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port is free");
    rustix::net::netdevice::name_to_index(&any, name).expect("the interface is there")
}
