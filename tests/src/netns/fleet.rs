//! Two proxies between the same clients and the same origins, and an address that either may have.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{End, MTU, Namespace, join};

/// `client - router1 - two proxies - router2 - two origins`. The virtual address is on `lo` of one proxy, and `router1` has a
/// route to it, as anycast and BGP make it.
///
/// ```text
///                           right_a --- eth0 proxy_a eth1 --- left_a         right_a --- eth0 origin_a
/// client eth0 --- left router1                                      router2
///                           right_b --- eth0 proxy_b eth1 --- left_b         right_b --- eth0 origin_b
/// ```
#[derive(Debug)]
pub struct Fleet {
    /// Viewers and publishers.
    pub client: Namespace,
    /// Between clients and proxies.
    pub router1: Namespace,
    /// The proxies, `eth0` towards clients and `eth1` towards origins.
    pub proxies: [Namespace; 2],
    /// Between proxies and origins.
    pub router2: Namespace,
    /// The origins.
    pub origins: [Namespace; 2],
}

impl Fleet {
    /// The client's address.
    pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 78, 1, 2);
    /// The proxies' addresses towards clients.
    pub const PROXIES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 78, 2, 2), Ipv4Addr::new(10, 78, 3, 2)];
    /// The proxies' addresses towards origins.
    pub const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 78, 4, 2), Ipv4Addr::new(10, 78, 5, 2)];
    /// The origins' addresses.
    pub const ORIGINS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 78, 6, 2), Ipv4Addr::new(10, 78, 7, 2)];
    /// The address that clients know the fleet by.
    pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 78, 99, 1);

    /// Builds the network; the first proxy has the virtual address.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn new() -> Result<Self> {
        let pair = |name: &str| -> Result<[Namespace; 2]> {
            Ok([Namespace::new(&format!("{name}-a"))?, Namespace::new(&format!("{name}-b"))?])
        };
        let network = Self {
            client: Namespace::new("client")?,
            router1: Namespace::new("router1")?,
            proxies: pair("proxy")?,
            router2: Namespace::new("router2")?,
            origins: pair("origin")?,
        };
        network.join()?;
        network.router1.forwards()?;
        network.router2.forwards()?;
        network.give_virtual_address(0)?;
        Ok(network)
    }

    /// Moves the virtual address from the first proxy to the second.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn move_virtual_address(&self) -> Result<()> {
        self.proxies[0].take_address("lo", Self::VIRTUAL, 32)?;
        self.give_virtual_address(1)
    }

    fn give_virtual_address(&self, proxy: usize) -> Result<()> {
        self.proxies[proxy].address("lo", Self::VIRTUAL, 32)?;
        self.router1.reroute(&Self::VIRTUAL.to_string(), Self::PROXIES[proxy])
    }

    fn join(&self) -> Result<()> {
        let Self { client, router1, proxies, router2, origins } = self;
        let end = |namespace, interface, address| End { namespace, interface, address: Some(address) };
        let gateway = |address: Ipv4Addr| {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 1)
        };
        let legs = [
            ((client, "eth0", Self::CLIENT), (router1, "left")),
            ((&proxies[0], "eth0", Self::PROXIES[0]), (router1, "right_a")),
            ((&proxies[1], "eth0", Self::PROXIES[1]), (router1, "right_b")),
            ((&proxies[0], "eth1", Self::INSIDE[0]), (router2, "left_a")),
            ((&proxies[1], "eth1", Self::INSIDE[1]), (router2, "left_b")),
            ((&origins[0], "eth0", Self::ORIGINS[0]), (router2, "right_a")),
            ((&origins[1], "eth0", Self::ORIGINS[1]), (router2, "right_b")),
        ];
        for ((host, card, address), (router, port)) in legs {
            join(end(host, card, address), end(router, port, gateway(address)), MTU)?;
            // Everything but clients is beyond the second router.
            let destination =
                if card == "eth0" && std::ptr::eq(router, router1) && !std::ptr::eq(host, client) {
                    "10.78.1.0/24"
                } else {
                    "default"
                };
            host.route(destination, gateway(address))?;
        }
        Ok(())
    }
}
