//! The two ends of a datagram as they stand in its headers.

use std::net::{IpAddr, SocketAddr};

use super::Version;
use crate::checksum;

pub(super) struct Endpoints {
    pub(super) addresses: Vec<u8>,
    pub(super) ports: [u8; 4],
}

impl Endpoints {
    pub(super) fn sum(&self) -> u32 {
        checksum::sum(&self.addresses) + checksum::sum(&self.ports)
    }
}

pub(super) fn endpoints(from: SocketAddr, to: SocketAddr, version: Version) -> Option<Endpoints> {
    let addresses = match (from.ip(), to.ip(), version) {
        (IpAddr::V4(from), IpAddr::V4(to), Version::V4) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to), Version::V6) => [from.octets(), to.octets()].concat(),
        (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_), _) => return None,
    };
    let ([a, b], [c, d]) = (from.port().to_be_bytes(), to.port().to_be_bytes());
    Some(Endpoints { addresses, ports: [a, b, c, d] })
}
