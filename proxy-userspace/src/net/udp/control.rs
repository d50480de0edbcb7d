//! Control messages and socket addresses, to and from what the kernel reads and writes.

use std::{
    mem::{MaybeUninit, size_of},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

use super::{Meta, Transmit};

/// Room for packet info, traffic class and segment length of either family.
pub(super) const CONTROL: usize = 128;

/// Control-message space, aligned as `cmsghdr` wants.
#[derive(Clone, Copy)]
#[repr(align(8))]
pub(super) struct Control(pub(super) [MaybeUninit<u8>; CONTROL]);

impl Default for Control {
    fn default() -> Self {
        Self([MaybeUninit::zeroed(); CONTROL])
    }
}

impl Control {
    /// Puts source address and traffic class of `transmit`, and then the length of segments, into `header`: whatever is
    /// not what a socket bound to `bound` does anyway, because each message costs the kernel time.
    pub(super) fn write(
        &mut self,
        header: &mut libc::msghdr,
        transmit: &Transmit<'_>,
        bound: IpAddr,
        segment: Option<u16>,
    ) {
        let mut used = match (transmit.peer, transmit.local_ip.filter(|ip| *ip != bound)) {
            (SocketAddr::V4(_), Some(IpAddr::V4(ip))) => self.put_source_v4(ip),
            (SocketAddr::V6(_), Some(IpAddr::V6(ip))) => self.put_source_v6(ip),
            _ => 0,
        };
        let class = libc::c_int::from(transmit.traffic_class);
        used += match transmit.peer {
            _ if class == 0 => 0,
            SocketAddr::V4(_) => self.put(used, libc::IPPROTO_IP, libc::IP_TOS, class),
            SocketAddr::V6(_) => self.put(used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class),
        };
        if let Some(segment) = segment {
            used += self.put(used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
        }
        header.msg_control = self.0.as_mut_ptr().cast();
        header.msg_controllen = used;
    }

    fn put_source_v4(&mut self, ip: Ipv4Addr) -> usize {
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        self.put(0, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
    }

    fn put_source_v6(&mut self, ip: Ipv6Addr) -> usize {
        let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
        self.put(0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
    }

    fn put<T: Copy>(&mut self, offset: usize, level: i32, kind: i32, value: T) -> usize {
        let len = size_of::<T>() as u32;
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; three messages of either family fit into CONTROL bytes
        // (asserted below), and the buffer is aligned for cmsghdr.
        unsafe {
            let space = libc::CMSG_SPACE(len) as usize;
            assert!(offset + space <= CONTROL, "three control messages fit");
            let cmsg = self.0.as_mut_ptr().add(offset).cast::<libc::cmsghdr>();
            (*cmsg).cmsg_len = libc::CMSG_LEN(len) as usize;
            (*cmsg).cmsg_level = level;
            (*cmsg).cmsg_type = kind;
            libc::CMSG_DATA(cmsg).cast::<T>().write_unaligned(value);
            space
        }
    }
}

/// Reads what the kernel told of a message: into `meta`, and the length of the datagrams it merged.
///
/// # Safety
/// The kernel filled `header` and what it points at.
pub(super) unsafe fn read(header: &libc::msghdr, meta: &mut Meta) -> Option<usize> {
    let mut segment = None;
    // SAFETY: the caller's promise: msg_control holds well-formed control messages of msg_controllen bytes.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        while !cmsg.is_null() {
            segment = read_one(cmsg, meta).or(segment);
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        }
    }
    segment
}

/// # Safety
/// `cmsg` points at a complete control message written by the kernel.
unsafe fn read_one(cmsg: *const libc::cmsghdr, meta: &mut Meta) -> Option<usize> {
    // SAFETY: the caller's promise; data may be unaligned, hence the unaligned reads.
    unsafe {
        let data = libc::CMSG_DATA(cmsg);
        match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info: libc::in_pktinfo = data.cast::<libc::in_pktinfo>().read_unaligned();
                meta.local_ip = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                meta.ifindex = info.ipi_ifindex.cast_unsigned();
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info: libc::in6_pktinfo = data.cast::<libc::in6_pktinfo>().read_unaligned();
                meta.local_ip = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                meta.ifindex = info.ipi6_ifindex;
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => meta.traffic_class = data.read(),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                meta.traffic_class = (data.cast::<libc::c_int>().read_unaligned() & 0xff) as u8;
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                return usize::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
            }
            _ => {}
        }
    }
    None
}

/// The address of either family in `name`.
pub(super) fn read_address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: sockaddr_storage is large and aligned enough for either family, which ss_family tells apart.
    unsafe {
        match i32::from(name.ss_family) {
            libc::AF_INET => {
                let v4 = &*(&raw const *name).cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let v6 = &*(&raw const *name).cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}
