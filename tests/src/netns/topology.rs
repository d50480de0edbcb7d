//! The networks that the tests run on.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{End, MTU, Namespace, join};

fn end<'a>(namespace: &'a Namespace, interface: &'a str, address: Ipv4Addr) -> End<'a> {
    End { namespace, interface, address: Some(address) }
}

/// `client - router1 - proxy - router2 - origin A and B`: every next hop is a router, never the end host.
/// The proxy's namespace routes nothing by itself: what crosses it, the proxy forwarded.
///
/// ```text
/// client eth0 --- left router1 right --- eth0 proxy eth1 --- left router2 right_a --- eth0 origin_a
///                                                                         right_b --- eth0 origin_b
/// ```
#[derive(Debug)]
pub struct Routed {
    /// Viewers and publishers.
    pub client: Namespace,
    /// Between client and proxy.
    pub router1: Namespace,
    /// The proxy under test, `eth0` towards clients and `eth1` towards origins.
    pub proxy: Namespace,
    /// Between proxy and origins.
    pub router2: Namespace,
    /// The first origin.
    pub origin_a: Namespace,
    /// The second origin.
    pub origin_b: Namespace,
}

impl Routed {
    /// The client's address.
    pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 2);
    /// The proxy's address towards clients.
    pub const PROXY: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 2);
    /// The proxy's address towards origins.
    pub const PROXY_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 71, 3, 2);
    /// The first origin's address.
    pub const ORIGIN_A: Ipv4Addr = Ipv4Addr::new(10, 71, 4, 2);
    /// The second origin's address.
    pub const ORIGIN_B: Ipv4Addr = Ipv4Addr::new(10, 71, 5, 2);

    const ROUTER1_LEFT: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 1);
    /// The address of the router between clients and proxy, at the proxy.
    pub const ROUTER1_RIGHT: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 1);
    /// The address of the router between proxy and origins, at the proxy.
    pub const ROUTER2_LEFT: Ipv4Addr = Ipv4Addr::new(10, 71, 3, 1);
    const ROUTER2_RIGHT_A: Ipv4Addr = Ipv4Addr::new(10, 71, 4, 1);
    const ROUTER2_RIGHT_B: Ipv4Addr = Ipv4Addr::new(10, 71, 5, 1);

    /// Builds the network.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn new() -> Result<Self> {
        let network = Self {
            client: Namespace::new("client")?,
            router1: Namespace::new("router1")?,
            proxy: Namespace::new("proxy")?,
            router2: Namespace::new("router2")?,
            origin_a: Namespace::new("origin-a")?,
            origin_b: Namespace::new("origin-b")?,
        };
        network.join()?;
        network.route()?;
        Ok(network)
    }

    fn join(&self) -> Result<()> {
        let Self { client, router1, proxy, router2, origin_a, origin_b } = self;
        join(end(client, "eth0", Self::CLIENT), end(router1, "left", Self::ROUTER1_LEFT), MTU)?;
        join(end(router1, "right", Self::ROUTER1_RIGHT), end(proxy, "eth0", Self::PROXY), MTU)?;
        join(end(proxy, "eth1", Self::PROXY_INSIDE), end(router2, "left", Self::ROUTER2_LEFT), MTU)?;
        join(end(router2, "right_a", Self::ROUTER2_RIGHT_A), end(origin_a, "eth0", Self::ORIGIN_A), MTU)?;
        join(end(router2, "right_b", Self::ROUTER2_RIGHT_B), end(origin_b, "eth0", Self::ORIGIN_B), MTU)
    }

    fn route(&self) -> Result<()> {
        self.router1.forwards()?;
        self.router2.forwards()?;
        self.client.route("default", Self::ROUTER1_LEFT)?;
        self.router1.route("default", Self::PROXY)?;
        self.proxy.route("10.71.1.0/24", Self::ROUTER1_RIGHT)?;
        self.proxy.route("default", Self::ROUTER2_LEFT)?;
        self.router2.route("default", Self::PROXY_INSIDE)?;
        self.origin_a.route("default", Self::ROUTER2_RIGHT_A)?;
        self.origin_b.route("default", Self::ROUTER2_RIGHT_B)
    }
}

/// `client - proxy - origin`, each link one veth pair: `eth0` of the proxy towards the client, `eth1` towards
/// the origin.
#[derive(Debug)]
pub struct Direct {
    /// Viewers and publishers.
    pub client: Namespace,
    /// The proxy under test.
    pub proxy: Namespace,
    /// The origin.
    pub origin: Namespace,
}

impl Direct {
    /// The client's address.
    pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 72, 1, 2);
    /// The proxy's address towards clients.
    pub const PROXY: Ipv4Addr = Ipv4Addr::new(10, 72, 1, 1);
    /// The proxy's address towards the origin.
    pub const PROXY_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 72, 2, 1);
    /// The origin's address.
    pub const ORIGIN: Ipv4Addr = Ipv4Addr::new(10, 72, 2, 2);

    /// Builds the network; client and origin do not reach each other.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn new() -> Result<Self> {
        Self::with_origin_mtu(MTU)
    }

    /// Builds the network with another MTU on the origin's leg.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn with_origin_mtu(mtu: u16) -> Result<Self> {
        let network = Self {
            client: Namespace::new("client")?,
            proxy: Namespace::new("proxy")?,
            origin: Namespace::new("origin")?,
        };
        let Self { client, proxy, origin } = &network;
        join(end(client, "eth0", Self::CLIENT), end(proxy, "eth0", Self::PROXY), MTU)?;
        join(end(proxy, "eth1", Self::PROXY_INSIDE), end(origin, "eth0", Self::ORIGIN), mtu)?;
        Ok(network)
    }
}

/// A client, and a host on which proxy and a container with the origin share a bridge.
#[derive(Debug)]
pub struct Bridged {
    /// Viewers and publishers.
    pub client: Namespace,
    /// The host that runs the proxy: `eth0` towards the client, `br0` towards the container.
    pub host: Namespace,
    /// The container, behind the bridge port `port0`.
    pub container: Namespace,
}

impl Bridged {
    /// The client's address.
    pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 73, 1, 2);
    /// The host's address towards the client.
    pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 73, 1, 1);
    /// The bridge's address.
    pub const BRIDGE: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
    /// The container's address.
    pub const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

    /// Builds the network.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn new() -> Result<Self> {
        let network = Self {
            client: Namespace::new("client")?,
            host: Namespace::new("host")?,
            container: Namespace::new("container")?,
        };
        let Self { client, host, container } = &network;
        join(end(client, "eth0", Self::CLIENT), end(host, "eth0", Self::HOST), MTU)?;
        host.ip(&["link", "add", "br0", "type", "bridge"])?;
        let port = End { namespace: host, interface: "port0", address: None };
        join(port, end(container, "eth0", Self::CONTAINER), MTU)?;
        host.ip(&["link", "set", "port0", "master", "br0"])?;
        host.ip(&["link", "set", "br0", "up"])?;
        host.address("br0", Self::BRIDGE, 24)?;
        container.route("default", Self::BRIDGE)?;
        Ok(network)
    }
}
