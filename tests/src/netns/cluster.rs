//! Nodes of a cluster: pods behind a bridge, clients outside, and a second node behind a tunnel.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use anyhow::Result;

use super::{End, MTU, Namespace, join};

/// A client with two network cards, and a node with a card for each and pods behind the bridge `cni0`.
///
/// ```text
/// client eth0 --- eth0 node cni0 --- veth1 --- eth0 pod
///        eth1 --- eth1           --- veth2 --- eth0 pod
/// ```
#[derive(Debug)]
pub struct Cluster {
    /// Viewers and publishers.
    pub client: Namespace,
    /// The node: it forwards, as every node does.
    pub node: Namespace,
    /// Pods made so far: none has an address that another one had.
    pods: AtomicU8,
}

/// A pod: its end of the veth pair is `eth0`. Dropped, it goes away with its address.
#[derive(Debug)]
pub struct Pod<'a> {
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
    node: &'a Namespace,
    port: String,
}

/// A second node, whose pods the first one reaches through a VXLAN tunnel over a link of its own.
///
/// ```text
/// node vxlan0 (eth2) === (eth0) vxlan0 peer cni0 --- veth1 --- eth0 pod
/// ```
#[derive(Debug)]
pub struct Peer {
    /// The second node.
    pub node: Namespace,
    pods: AtomicU8,
}

impl Cluster {
    /// The client's address on its first card.
    pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 74, 1, 2);
    /// The node's address there.
    pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 74, 1, 1);
    /// The client's address on its second card.
    pub const CLIENT_ASIDE: Ipv4Addr = Ipv4Addr::new(10, 74, 2, 2);
    /// The node's address there.
    pub const NODE_ASIDE: Ipv4Addr = Ipv4Addr::new(10, 74, 2, 1);
    /// The node's address towards its pods.
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 74, 16, 1);

    /// Builds the client and the node.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn new() -> Result<Self> {
        let cluster =
            Self { client: Namespace::new("client")?, node: Namespace::new("node")?, pods: AtomicU8::new(0) };
        let Self { client, node, .. } = &cluster;
        let end = |namespace, interface, address| End { namespace, interface, address: Some(address) };
        join(end(client, "eth0", Self::CLIENT), end(node, "eth0", Self::NODE), MTU)?;
        join(end(client, "eth1", Self::CLIENT_ASIDE), end(node, "eth1", Self::NODE_ASIDE), MTU)?;
        node.forwards()?;
        bridge(node, Self::GATEWAY)?;
        Ok(cluster)
    }

    /// Makes a pod.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn pod(&self) -> Result<Pod<'_>> {
        pod(&self.node, Self::GATEWAY, &self.pods)
    }

    /// Adds the second node.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn peer(&self) -> Result<Peer> {
        let peer = Peer { node: Namespace::new("peer")?, pods: AtomicU8::new(0) };
        let ends = [(&self.node, "eth2", Peer::UNDERLAY[0]), (&peer.node, "eth0", Peer::UNDERLAY[1])];
        let [near, far] =
            ends.map(|(namespace, interface, address)| End { namespace, interface, address: Some(address) });
        join(near, far, MTU)?;
        tunnel(near, far, Peer::TUNNEL)?;
        tunnel(far, near, Peer::TUNNEL_FAR)?;
        peer.node.forwards()?;
        bridge(&peer.node, Peer::GATEWAY)?;
        self.node.route("10.74.32.0/24", Peer::TUNNEL_FAR)?;
        Ok(peer)
    }
}

impl Peer {
    /// The first node's address in the tunnel.
    pub const TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 74, 48, 1);

    const TUNNEL_FAR: Ipv4Addr = Ipv4Addr::new(10, 74, 48, 2);
    const UNDERLAY: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 74, 3, 1), Ipv4Addr::new(10, 74, 3, 2)];
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 74, 32, 1);

    /// Makes a pod on the second node.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn pod(&self) -> Result<Pod<'_>> {
        pod(&self.node, Self::GATEWAY, &self.pods)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // The kernel takes its time with a namespace that is gone; a pod's link goes at once.
        let _ = self.node.ip(&["link", "delete", &self.port]);
    }
}

fn bridge(node: &Namespace, gateway: Ipv4Addr) -> Result<()> {
    // A bridge has the least address of its ports unless it is given one, as network plugins do.
    node.ip(&["link", "add", "cni0", "address", "02:78:00:00:00:01", "type", "bridge"])?;
    node.ip(&["link", "set", "cni0", "up"])?;
    node.address("cni0", gateway, 24)
}

fn pod<'a>(node: &'a Namespace, gateway: Ipv4Addr, pods: &AtomicU8) -> Result<Pod<'a>> {
    const FIRST: u8 = 10;
    let number = FIRST + pods.fetch_add(1, Relaxed);
    let [a, b, c, _] = gateway.octets();
    let (address, port) = (Ipv4Addr::new(a, b, c, number), format!("veth{number}"));
    let namespace = Namespace::new("pod")?;
    join(
        End { namespace: node, interface: &port, address: None },
        End { namespace: &namespace, interface: "eth0", address: Some(address) },
        MTU,
    )?;
    node.ip(&["link", "set", &port, "master", "cni0"])?;
    namespace.route("default", gateway)?;
    Ok(Pod { namespace, address, node, port })
}

/// What the tunnel adds to every packet.
const VXLAN_OVERHEAD: u16 = 50;

fn tunnel(here: End<'_>, there: End<'_>, address: Ipv4Addr) -> Result<()> {
    let [local, remote] = [here, there].map(|end| end.address.map(|ip| ip.to_string()).unwrap_or_default());
    let (device, mtu) = (here.interface, (MTU - VXLAN_OVERHEAD).to_string());
    let vxlan = format!(
        "link add vxlan0 mtu {mtu} type vxlan id 1 dstport 8472 local {local} remote {remote} dev {device}"
    );
    here.namespace.ip(&vxlan.split(' ').collect::<Vec<_>>())?;
    here.namespace.ip(&["link", "set", "vxlan0", "up"])?;
    here.namespace.address("vxlan0", address, 24)
}
