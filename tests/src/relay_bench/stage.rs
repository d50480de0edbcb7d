//! The network: a client, a proxy and an origin, whose far ends discard and count.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Context as _, Result};

use crate::netns::{Direct, End, Namespace};

/// Where media goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the client.
    ToOrigin,
    /// To the client.
    ToClient,
}

impl Direction {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::ToOrigin => "to origin",
            Self::ToClient => "to client",
        }
    }
}

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) network: Direct,
}

/// The most flows of a case.
pub(super) const FLOWS: u16 = 64;
pub(super) const SERVICE: SocketAddrV4 = SocketAddrV4::new(Direct::PROXY, 18_000);
pub(super) const ORIGIN: SocketAddrV4 = SocketAddrV4::new(Direct::ORIGIN, 9_000);

pub(super) fn client(flow: u16) -> SocketAddr {
    SocketAddr::from((Direct::CLIENT, 40_000 + flow))
}

pub(super) fn source(flow: u16) -> SocketAddr {
    SocketAddr::from((Direct::PROXY_INSIDE, 61_000 + flow))
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let network = Direct::new()?;
        for far in [&network.client, &network.origin] {
            let rules = "add table netdev sink; \
                 add chain netdev sink in { type filter hook ingress device eth0 priority 0; }; \
                 add rule netdev sink in meta l4proto udp drop";
            far.run("nft", &[rules])?;
            // A virtual link merges for its receiver only what a sender without this sends, like packets of a real one.
            far.run("ethtool", &["-K", "eth0", "tso", "off"])?;
        }
        for near in ["eth0", "eth1"] {
            // The kernel cuts runs before the link, as for a device that cannot: the far end then counts datagrams.
            network.proxy.run("ethtool", &["-K", near, "tx-udp-segmentation", "off"])?;
            coalesce(&network.proxy, near)?;
        }
        know(&network.proxy, "eth0", (&network.client, Direct::CLIENT))?;
        know(&network.proxy, "eth1", (&network.origin, Direct::ORIGIN))?;
        Ok(Self { network })
    }

    /// Where datagrams are put on the wire: the namespace, and the link-layer address they go to.
    pub(super) fn sender(&self, direction: Direction) -> (&Namespace, [u8; 6]) {
        let end =
            |interface, address| End { namespace: &self.network.proxy, interface, address: Some(address) };
        match direction {
            Direction::ToOrigin => (&self.network.client, end("eth0", Direct::PROXY).mac()),
            Direction::ToClient => (&self.network.origin, end("eth1", Direct::PROXY_INSIDE).mac()),
        }
    }

    /// Packets that came to the proxy and to the far end so far.
    pub(super) fn counts(&self, direction: Direction) -> Result<(u64, u64)> {
        let Direct { client, proxy, origin } = &self.network;
        let (near, far) = match direction {
            Direction::ToOrigin => ("eth0", origin),
            Direction::ToClient => ("eth1", client),
        };
        Ok((received(proxy, near)?, received(far, "eth0")?))
    }

    pub(super) fn ends(&self, direction: Direction, flow: u16) -> (SocketAddrV4, SocketAddrV4) {
        let v4 = |ip: Ipv4Addr, address: SocketAddr| SocketAddrV4::new(ip, address.port());
        match direction {
            Direction::ToOrigin => (v4(Direct::CLIENT, client(flow)), SERVICE),
            Direction::ToClient => (ORIGIN, v4(Direct::PROXY_INSIDE, source(flow))),
        }
    }
}

/// Nothing that is sent waits for a neighbour.
fn know(namespace: &Namespace, device: &str, (far, address): (&Namespace, Ipv4Addr)) -> Result<()> {
    let mac = End { namespace: far, interface: "eth0", address: Some(address) }.mac();
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let entry = ["neigh", "replace", &address.to_string(), "lladdr", &mac, "dev", device, "nud", "permanent"];
    namespace.ip(&entry).map(drop)
}

/// Lets a device gather packets for 20 us before it gives up merging them, as network cards gather interrupts.
fn coalesce(namespace: &Namespace, device: &str) -> Result<()> {
    let script = format!(
        "echo 20000 > /sys/class/net/{device}/gro_flush_timeout; \
         echo 1 > /sys/class/net/{device}/napi_defer_hard_irqs"
    );
    // `ip netns exec` mounts the files of the namespace's own devices.
    namespace.run("ip", &["netns", "exec", namespace.name(), "sh", "-ec", &script]).map(drop)
}

fn received(namespace: &Namespace, device: &str) -> Result<u64> {
    let table = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let packets = line.and_then(|line| line.split_whitespace().nth(1));
    packets.context("no such device")?.parse().context("a count is a number")
}
