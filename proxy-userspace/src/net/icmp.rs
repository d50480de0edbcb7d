//! Raw sockets: errors that come back, and datagrams that may not fit where they are going.
//!
//! Both need `CAP_NET_RAW`. A filter in the kernel lets pass what is of use, so that nothing else is copied.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use proxy_protocol::icmp::Version;
use rustix::net::sockopt::{ip_mtu, ipv6_mtu};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    filter::{
        IF_EQUAL, IF_GREATER, IF_SET, LOAD_BYTE, LOAD_BYTE_BEHIND, LOAD_HALF, LOAD_HEADER_LENGTH, TAKE,
        WHOLE, jump, op,
    },
    udp::UdpSocket,
};

/// Every link takes datagrams of this length over IPv6, and nearly every one over IPv4: media is seldom longer.
pub const FITS: u32 = 1280;
/// No longer datagram is looked at: it would be several that the kernel merged, or come by a link for longer ones.
const LONGEST: u32 = 1500;
const DONT_FRAGMENT: u32 = 0x4000;

/// Destination unreachable and time exceeded; over IPv6 packet too big as well.
pub fn errors(version: Version) -> io::Result<UdpSocket> {
    match version {
        Version::V4 => {
            let filter = [
                op(LOAD_HEADER_LENGTH, 0),
                op(LOAD_BYTE_BEHIND, 0),
                jump(IF_EQUAL, 3, 1, 0),
                jump(IF_EQUAL, 11, 0, 1),
                op(TAKE, WHOLE),
                op(TAKE, 0),
            ];
            UdpSocket::raw(Ipv4Addr::UNSPECIFIED.into(), Protocol::ICMPV4, &filter)
        }
        Version::V6 => {
            let filter = [
                op(LOAD_BYTE, 0),
                jump(IF_EQUAL, 0, 1, 0),
                jump(IF_GREATER, 3, 0, 1),
                op(TAKE, 0),
                op(TAKE, WHOLE),
            ];
            UdpSocket::raw(Ipv6Addr::UNSPECIFIED.into(), Protocol::ICMPV6, &filter)
        }
    }
}

/// The beginnings of datagrams longer than [`FITS`], as far as Ethernet carries them, that nobody may fragment.
pub fn long_datagrams(version: Version) -> io::Result<UdpSocket> {
    match version {
        Version::V4 => {
            let filter = [
                op(LOAD_HALF, 2),
                jump(IF_GREATER, FITS, 0, 4),
                jump(IF_GREATER, LONGEST, 3, 0),
                op(LOAD_HALF, 6),
                jump(IF_SET, DONT_FRAGMENT, 0, 1),
                op(TAKE, Version::V4.quote() as u32),
                op(TAKE, 0),
            ];
            UdpSocket::raw(Ipv4Addr::UNSPECIFIED.into(), Protocol::UDP, &filter)
        }
        Version::V6 => {
            let filter = [
                op(LOAD_HALF, 4),
                jump(IF_GREATER, FITS - 40, 0, 2),
                jump(IF_GREATER, LONGEST - 40, 1, 0),
                op(TAKE, (Version::V6.quote() - Version::V6.header()) as u32),
                op(TAKE, 0),
            ];
            UdpSocket::raw(Ipv6Addr::UNSPECIFIED.into(), Protocol::UDP, &filter)
        }
    }
}

/// What fits on the way from one of our addresses, from the IP header on, as far as the kernel knows.
pub fn path_mtu(from: IpAddr, to: SocketAddr) -> io::Result<u32> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    // Nothing is sent by that.
    socket.connect(&to.into())?;
    Ok(if to.is_ipv4() { ip_mtu(&socket)? } else { ipv6_mtu(&socket)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_this_host_takes_what_lo_takes() {
        let v4 = path_mtu(Ipv4Addr::LOCALHOST.into(), SocketAddr::from((Ipv4Addr::LOCALHOST, 9))).unwrap();
        let v6 = path_mtu(Ipv6Addr::LOCALHOST.into(), SocketAddr::from((Ipv6Addr::LOCALHOST, 9))).unwrap();
        assert!(v4 >= 1500 && v6 >= 1500, "{v4} {v6}");
    }
}
