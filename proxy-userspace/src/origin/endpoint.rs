//! The grammar of an endpoint in a registration: everything that SRS accepts after `listen`.
//!
//! SRS reports its `listen` values as they are written, some with a protocol in front: `1935`, `:1935`,
//! `0.0.0.0:1935`, `[::]:1935`, `udp://8000`, `udp://0.0.0.0:8000`, `udp://[::]:8000`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
};

/// Where an origin listens, as far as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The transport in front of `://`.
    pub transport: Transport,
    /// The address, unless it is a wildcard or missing.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: NonZeroU16,
}

/// The transport an endpoint names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `udp://`.
    Udp,
    /// `tcp://`.
    Tcp,
    /// None, or the name of an application protocol: what the list it stands in implies.
    Implied,
}

/// Why a text is not an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// A port is a decimal number from 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// The host is an IPv4 address or an IPv6 address in brackets.
    #[error("its host is not an IP address (IPv6 in brackets)")]
    Host,
}

impl Endpoint {
    /// The address to connect to when the origin registered with `ip`.
    pub fn at(&self, ip: IpAddr) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(ip), self.port.get())
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (transport, address) = match text.trim().split_once("://") {
            Some((name, address)) => (Transport::named(name), address),
            None => (Transport::Implied, text.trim()),
        };
        let (host, port) = address.rsplit_once(':').unwrap_or(("", address));
        let port = parse_port(port)?;
        Ok(Self { transport, ip: parse_host(host)?, port })
    }
}

impl Transport {
    fn named(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "udp" => Self::Udp,
            "tcp" => Self::Tcp,
            _ => Self::Implied,
        }
    }
}

fn parse_port(text: &str) -> Result<NonZeroU16, EndpointError> {
    // `parse` alone would take a sign.
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(EndpointError::Port);
    }
    text.parse().map_err(|_| EndpointError::Port)
}

fn parse_host(text: &str) -> Result<Option<IpAddr>, EndpointError> {
    let ip: IpAddr = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        _ if text.is_empty() || text == "*" => return Ok(None),
        Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| EndpointError::Host)?.into(),
        None => text.parse::<Ipv4Addr>().map_err(|_| EndpointError::Host)?.into(),
    };
    Ok(Some(ip).filter(|ip| !ip.is_unspecified()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTERED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

    #[track_caller]
    fn reads(text: &str, transport: Transport, address: &str) {
        let endpoint: Endpoint = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(endpoint.transport, transport, "{text}");
        assert_eq!(endpoint.at(REGISTERED), address.parse().unwrap(), "{text}");
    }

    #[test]
    fn reads_every_form_that_srs_sends() {
        reads("1935", Transport::Implied, "10.0.0.9:1935");
        reads(":1935", Transport::Implied, "10.0.0.9:1935");
        reads("*:1935", Transport::Implied, "10.0.0.9:1935");
        reads("10.0.0.3:1935", Transport::Implied, "10.0.0.3:1935");
        reads("[fd00::3]:1935", Transport::Implied, "[fd00::3]:1935");
        reads("udp://8000", Transport::Udp, "10.0.0.9:8000");
        reads("udp://:8000", Transport::Udp, "10.0.0.9:8000");
        reads("tcp://10.0.0.3:8000", Transport::Tcp, "10.0.0.3:8000");
        reads("udp://[fd00::3]:8000", Transport::Udp, "[fd00::3]:8000");
        reads("rtmp://10.0.0.3:1935", Transport::Implied, "10.0.0.3:1935");
        reads(" UDP://8000 ", Transport::Udp, "10.0.0.9:8000");
    }

    #[test]
    fn a_wildcard_host_means_the_registered_address() {
        for text in ["0.0.0.0:8000", "[::]:8000", "udp://0.0.0.0:8000", "udp://[::]:8000"] {
            assert_eq!(
                text.parse::<Endpoint>().unwrap().at(REGISTERED),
                "10.0.0.9:8000".parse().unwrap(),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_has_no_port_or_another_host() {
        for text in
            ["", "0", "65536", "-1", "+1", "http", "1.2.3.4:", "udp://", "udp://host", "[::1]", "1.2.3.4"]
        {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Port), "{text}");
        }
        for text in ["host:1", "::1:1935", "[1.2.3.4]:1", "[::1:1935", "1.2.3:1", "a://b://1:2"] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Host), "{text}");
        }
    }
}
