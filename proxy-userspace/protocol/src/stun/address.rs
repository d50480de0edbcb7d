//! XOR-MAPPED-ADDRESS: an address hidden from middleboxes that rewrite addresses in payloads (RFC 8489, section 14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAGIC_COOKIE, TransactionId};
use crate::reader::Reader;

const IPV4: u8 = 1;
const IPV6: u8 = 2;
const PORT_MASK: u16 = (MAGIC_COOKIE >> 16) as u16;

pub(super) fn decode(value: &[u8], id: TransactionId) -> Option<SocketAddr> {
    let mut reader = Reader::new(value);
    reader.u8().ok()?;
    let family = reader.u8().ok()?;
    let port = reader.u16().ok()? ^ PORT_MASK;
    let ip = match family {
        IPV4 => IpAddr::from((reader.u32().ok()? ^ MAGIC_COOKIE).to_be_bytes()),
        IPV6 => IpAddr::from((u128::from_be_bytes(reader.array().ok()?) ^ ipv6_mask(id)).to_be_bytes()),
        _ => return None,
    };
    reader.is_empty().then(|| SocketAddr::new(ip, port))
}

pub(super) fn encode(address: SocketAddr, id: TransactionId) -> Vec<u8> {
    match address.ip() {
        IpAddr::V4(ip) => with_header(IPV4, address.port(), &xor_ipv4(ip)),
        IpAddr::V6(ip) => with_header(IPV6, address.port(), &xor_ipv6(ip, id)),
    }
}

fn with_header(family: u8, port: u16, ip: &[u8]) -> Vec<u8> {
    let mut value = vec![0, family];
    value.extend((port ^ PORT_MASK).to_be_bytes());
    value.extend(ip);
    value
}

const fn xor_ipv4(ip: Ipv4Addr) -> [u8; 4] {
    (ip.to_bits() ^ MAGIC_COOKIE).to_be_bytes()
}

fn xor_ipv6(ip: Ipv6Addr, id: TransactionId) -> [u8; 16] {
    (ip.to_bits() ^ ipv6_mask(id)).to_be_bytes()
}

/// The cookie followed by the transaction id.
fn ipv6_mask(TransactionId(id): TransactionId) -> u128 {
    id.into_iter().fold(u128::from(MAGIC_COOKIE), |mask, byte| mask << 8 | u128::from(byte))
}
