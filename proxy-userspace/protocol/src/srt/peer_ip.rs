//! The address of a handshake's receiver, as libsrt writes it: words of the sender, whose bytes the network's order reverses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// On the wire.
pub(super) fn to_wire(ip: IpAddr) -> [u8; 16] {
    let mut wire = [0; 16];
    let octets: &[u8] = match ip {
        IpAddr::V4(ip) => &ip.octets(),
        IpAddr::V6(ip) => &ip.octets(),
    };
    for (word, octets) in wire.as_chunks_mut::<4>().0.iter_mut().zip(octets.as_chunks::<4>().0) {
        let [a, b, c, d] = *octets;
        *word = [d, c, b, a];
    }
    wire
}

/// From the wire: an IPv4 address is followed by zeroes.
pub(super) fn from_wire(wire: [u8; 16]) -> IpAddr {
    let mut octets = wire;
    octets.as_chunks_mut::<4>().0.iter_mut().for_each(|word| word.reverse());
    match octets {
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Ipv4Addr::new(a, b, c, d).into(),
        octets => Ipv6Addr::from(octets).into(),
    }
}
