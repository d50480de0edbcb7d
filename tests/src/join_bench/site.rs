//! The network of the benchmark: client, proxy and origin in a row, and a link of client and origin that passes the proxy by.
//!
//! The proxy's namespace routes too: what a hop costs that looks at nothing above IP is measured on the same devices.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use crate::netns::{Direct, End, MTU, join};

/// Where the origin is reached without the proxy's namespace.
const BESIDE: Ipv4Addr = Ipv4Addr::new(10, 72, 3, 2);
const CLIENT_BESIDE: Ipv4Addr = Ipv4Addr::new(10, 72, 3, 1);

/// The origin's port for HTTP.
pub(super) const HTTP: u16 = 8080;
/// Its port for RTMP.
pub(super) const RTMP: u16 = 1935;

#[derive(Debug)]
pub(super) struct Site {
    pub(super) network: Direct,
}

impl Site {
    pub(super) fn new() -> Result<Self> {
        let network = Direct::new()?;
        let Direct { client, proxy, origin } = &network;
        let end = |namespace, address| End { namespace, interface: "eth1", address: Some(address) };
        join(end(client, CLIENT_BESIDE), end(origin, BESIDE), MTU)?;
        client.route("10.72.2.0/24", Direct::PROXY)?;
        origin.route("10.72.1.0/24", Direct::PROXY_INSIDE)?;
        proxy.forwards()?;
        for namespace in [client, proxy, origin] {
            // Every host has it and lets a namespace use it, and it paces nothing: a pacer's timers would be measured.
            namespace.sysctl("net.ipv4.tcp_congestion_control", "reno")?;
            // What one turn found out about the path is no gift to the next.
            namespace.sysctl("net.ipv4.tcp_no_metrics_save", "1")?;
        }
        client.sysctl("net.ipv4.ip_local_port_range", "10000 64000")?;
        Ok(Self { network })
    }

    /// The origin's HTTP past the proxy's namespace.
    pub(super) fn beside(&self) -> SocketAddr {
        SocketAddr::from((BESIDE, HTTP))
    }

    /// The origin's HTTP through the proxy's namespace.
    pub(super) fn routed(&self) -> SocketAddr {
        SocketAddr::from((Direct::ORIGIN, HTTP))
    }
}
