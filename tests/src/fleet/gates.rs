//! The addresses that clients know the proxies of a fleet by.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::netns::{Cluster, Pod};

/// An address for each proxy, which may move to another one. It is on `lo` of a pod, and the node has a route to it, as
/// anycast and BGP make it.
#[derive(Debug)]
pub struct Gates<'a> {
    cluster: &'a Cluster,
    proxies: &'a [Pod<'a>],
    /// Which of the proxies has it.
    at: Vec<usize>,
}

impl<'a> Gates<'a> {
    /// Gives each proxy its own.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn open(cluster: &'a Cluster, proxies: &'a [Pod<'a>]) -> Result<Self> {
        let gates = Self { cluster, proxies, at: (0..proxies.len()).collect() };
        // Hosts that were told a shorter way would keep it when the address has moved.
        cluster.node.sysctl("net.ipv4.conf.all.send_redirects", "0")?;
        cluster.node.sysctl("net.ipv4.conf.cni0.send_redirects", "0")?;
        cluster.client.route("10.74.99.0/24", Cluster::NODE)?;
        for gate in 0..proxies.len() {
            gates.give(gate)?;
        }
        Ok(gates)
    }

    /// The address.
    #[must_use]
    pub fn address(gate: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 74, 99, u8::try_from(gate + 1).unwrap_or(u8::MAX))
    }

    /// Moves an address to another proxy.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn lead_to(&mut self, gate: usize, proxy: usize) -> Result<()> {
        let at = self.at.get_mut(gate).context("there is no such address")?;
        let before = std::mem::replace(at, proxy);
        self.pod(before)?.namespace.take_address("lo", Self::address(gate), 32)?;
        self.give(gate)
    }

    fn give(&self, gate: usize) -> Result<()> {
        let pod = self.pod(*self.at.get(gate).context("there is no such address")?)?;
        pod.namespace.address("lo", Self::address(gate), 32)?;
        self.cluster.node.reroute(&Self::address(gate).to_string(), pod.address)
    }

    fn pod(&self, proxy: usize) -> Result<&'a Pod<'a>> {
        self.proxies.get(proxy).context("there is no such proxy")
    }
}
