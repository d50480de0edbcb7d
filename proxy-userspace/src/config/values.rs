//! Values with a meaning of their own.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Where a server listens: all addresses, or one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address, or `None` for every address of both families.
    pub ip: Option<IpAddr>,
    /// The port; 0 asks the system for one.
    pub port: u16,
}

impl Listen {
    /// The socket addresses to bind, one per family when no address was given.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self.ip {
            Some(ip) => vec![SocketAddr::new(ip, self.port)],
            None => vec![
                SocketAddr::new(IpAddr::from([0; 4]), self.port),
                SocketAddr::new(IpAddr::from([0; 16]), self.port),
            ],
        }
    }

    /// The address, unless it stands for all.
    pub fn specific_ip(&self) -> Option<IpAddr> {
        self.ip.filter(|ip| !ip.is_unspecified())
    }

    /// Whether a socket on `address` is one that [`Self::addresses`] asks for.
    pub fn takes(&self, address: SocketAddr) -> bool {
        let wanted = self.addresses();
        wanted.iter().any(|w| w.ip() == address.ip() && [0, address.port()].contains(&w.port()))
    }

    /// Whether two sockets of one protocol cannot both be bound.
    pub(super) fn clashes_with(&self, other: &Self) -> bool {
        let overlap = |a: SocketAddr, b: SocketAddr| {
            a.is_ipv4() == b.is_ipv4()
                && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
        };
        let theirs = other.addresses();
        let overlaps = self.addresses().iter().any(|a| theirs.iter().any(|b| overlap(*a, *b)));
        self.port != 0 && self.port == other.port && overlaps
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

/// Where WebRTC media over TCP is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebrtcTcp {
    /// Nowhere.
    Off,
    /// On the port of `PROXY_HTTP_API` alone.
    HttpApi,
    /// On a port of its own, and that of `PROXY_HTTP_API`.
    Own(Listen),
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself; for handing to the peer that needs it, never to a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `PROXY_LOAD_BALANCER_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancer {
    /// Registry in this process: one proxy.
    Memory,
    /// Registry in Redis: a fleet.
    Redis,
}

/// `PROXY_DATAPATH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatapathMode {
    /// Native XDP where it is safe, else TC, else userspace.
    Auto,
    /// Native XDP, with TC for flows whose egress cannot take XDP frames.
    Xdp,
    /// TC alone.
    Tc,
    /// No kernel program.
    Userspace,
}

/// `PROXY_TCP_JOIN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpJoin {
    /// As suits what a connection carries.
    #[default]
    Auto,
    /// Through buffers of the process.
    Copy,
    /// By splice(2).
    Splice,
}

/// `PROXY_ON_STOP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// Sessions are left to the next process.
    Keep,
    /// Sessions end, and nothing stays in the kernel.
    Drain,
}

/// `PROXY_LOG_FORMAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
