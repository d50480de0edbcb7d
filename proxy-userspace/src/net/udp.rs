//! UDP sockets with what a relay needs and std does not offer: the local address and device of each datagram
//! (`IP_PKTINFO`), its DSCP and ECN bits, batches (`recvmmsg`), and the choice of the source address when sending.

use std::{
    io,
    mem::{MaybeUninit, size_of, zeroed},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Datagrams taken by one system call.
pub const BATCH: usize = 32;
/// The largest UDP payload.
const DATAGRAM: usize = 65_535;
/// Room for a packet-info and a traffic-class control message of either family.
const CONTROL: usize = 128;
/// Enough for a burst of a few hundred sessions while a worker is busy elsewhere.
const SOCKET_BUFFER: usize = 4 << 20;

/// A non-blocking UDP socket that reports where datagrams arrived.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
}

/// What came with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Payload length.
    pub len: usize,
    /// The sender.
    pub peer: SocketAddr,
    /// The destination address after any DNAT of this host; `None` if the kernel did not tell.
    pub local_ip: Option<IpAddr>,
    /// The device it came in by, 0 if unknown.
    pub ifindex: u32,
    /// DSCP and ECN: the whole traffic-class byte.
    pub traffic_class: u8,
}

/// A datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// The receiver.
    pub peer: SocketAddr,
    /// The address to send from; `None` leaves it to the socket.
    pub local_ip: Option<IpAddr>,
    /// DSCP and ECN of the datagram being relayed.
    pub traffic_class: u8,
}

impl UdpSocket {
    /// Binds to `address`; several sockets share it when `reuse_port` is set.
    pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_port(reuse_port)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_recv_tclass_v6(true)?;
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
        } else {
            socket.set_recv_tos_v4(true)?;
            set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        }
        // The kernel clamps to net.core.{r,w}mem_max; a smaller buffer is not an error.
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { fd: socket.into(), local })
    }

    /// Goes on with a socket that an earlier process bound and set up as [`Self::bind`] does.
    pub fn inherit(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        if socket.r#type()? != Type::DGRAM {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self { fd: socket.into(), local })
    }

    /// A second descriptor of the same socket, for the next process.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Takes up to [`BATCH`] datagrams; `WouldBlock` when there is none.
    pub fn receive(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.prepare();
        // SAFETY: every msghdr points into buffers that `batch` owns and that outlive the call.
        let n = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                batch.headers.as_mut_ptr(),
                batch.headers.len() as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        batch.filled = n;
        Ok(n)
    }

    /// Sends one datagram.
    pub fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let peer = SockAddr::from(transmit.peer);
        let mut control = Control::default();
        let mut iov = libc::iovec {
            iov_base: transmit.payload.as_ptr().cast_mut().cast(),
            iov_len: transmit.payload.len(),
        };
        // SAFETY: msghdr is plain data for which zeroes are valid.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_name = peer.as_ptr().cast_mut().cast();
        header.msg_namelen = peer.len();
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        control.write(&mut header, transmit);
        // SAFETY: the header points at locals that live until the call returns; sendmsg only reads them.
        let sent = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set_option(socket: &Socket, level: i32, name: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is an int that lives during the call.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Buffers for [`BATCH`] datagrams, made once and used again.
pub struct RecvBatch {
    payloads: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    filled: usize,
}

// SAFETY: the raw pointers in the headers point into the boxes beside them, which move as a whole.
unsafe impl Send for RecvBatch {}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch").field("filled", &self.filled).finish_non_exhaustive()
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::of(BATCH)
    }
}

impl RecvBatch {
    /// Room for a single datagram.
    pub fn one() -> Self {
        Self::of(1)
    }

    fn of(datagrams: usize) -> Self {
        // SAFETY: all three are plain data for which zeroes are valid.
        let (name, iovec, header) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            payloads: vec![0; datagrams * DATAGRAM].into(),
            names: vec![name; datagrams].into(),
            controls: vec![Control::default(); datagrams].into(),
            iovecs: vec![iovec; datagrams].into(),
            headers: vec![header; datagrams].into(),
            filled: 0,
        }
    }

    /// The datagrams of the last receive.
    pub fn iter(&self) -> impl Iterator<Item = (Meta, &[u8])> {
        (0..self.filled).filter_map(|i| {
            let meta = self.meta(i)?;
            let start = i * DATAGRAM;
            Some((meta, self.payloads.get(start..start + meta.len)?))
        })
    }

    fn prepare(&mut self) {
        self.filled = 0;
        let payloads = self.payloads.chunks_exact_mut(DATAGRAM);
        let buffers = self.iovecs.iter_mut().zip(&mut self.names).zip(payloads).zip(&mut self.controls);
        for (header, (((iovec, name), payload), control)) in self.headers.iter_mut().zip(buffers) {
            *iovec = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut *iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL;
            header.msg_hdr.msg_flags = 0;
        }
    }

    fn meta(&self, i: usize) -> Option<Meta> {
        let header = self.headers.get(i)?;
        let peer = socket_addr(self.names.get(i)?)?;
        let mut meta =
            Meta { len: header.msg_len as usize, peer, local_ip: None, ifindex: 0, traffic_class: 0 };
        // SAFETY: the kernel filled msg_control with well-formed control messages of msg_controllen bytes.
        unsafe {
            let mut cmsg = libc::CMSG_FIRSTHDR(&raw const header.msg_hdr);
            while !cmsg.is_null() {
                read_control(cmsg, &mut meta);
                cmsg = libc::CMSG_NXTHDR(&raw const header.msg_hdr, cmsg);
            }
        }
        Some(meta)
    }
}

/// # Safety
/// `cmsg` points at a complete control message written by the kernel.
unsafe fn read_control(cmsg: *const libc::cmsghdr, meta: &mut Meta) {
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
            _ => {}
        }
    }
}

fn socket_addr(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
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

/// Control-message space, aligned as `cmsghdr` wants.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([MaybeUninit<u8>; CONTROL]);

impl Default for Control {
    fn default() -> Self {
        Self([MaybeUninit::zeroed(); CONTROL])
    }
}

impl Control {
    /// Puts the source address and the traffic class of `transmit` into `header`.
    fn write(&mut self, header: &mut libc::msghdr, transmit: &Transmit<'_>) {
        header.msg_control = self.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL;
        let mut used = 0;
        let class = libc::c_int::from(transmit.traffic_class);
        match (transmit.peer, transmit.local_ip) {
            (SocketAddr::V4(_), Some(IpAddr::V4(ip))) => {
                let addr = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: addr,
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                used += self.put(used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            (SocketAddr::V6(_), Some(IpAddr::V6(ip))) => {
                let info =
                    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                used += self.put(used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
            _ => {}
        }
        used += match transmit.peer {
            SocketAddr::V4(_) => self.put(used, libc::IPPROTO_IP, libc::IP_TOS, class),
            SocketAddr::V6(_) => self.put(used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class),
        };
        header.msg_controllen = used;
    }

    fn put<T: Copy>(&mut self, offset: usize, level: i32, kind: i32, value: T) -> usize {
        let len = size_of::<T>() as u32;
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; two messages of either family fit into CONTROL bytes (asserted
        // below), and the buffer is aligned for cmsghdr.
        unsafe {
            let space = libc::CMSG_SPACE(len) as usize;
            assert!(offset + space <= CONTROL, "two control messages fit");
            let cmsg = self.0.as_mut_ptr().add(offset).cast::<libc::cmsghdr>();
            (*cmsg).cmsg_len = libc::CMSG_LEN(len) as usize;
            (*cmsg).cmsg_level = level;
            (*cmsg).cmsg_type = kind;
            libc::CMSG_DATA(cmsg).cast::<T>().write_unaligned(value);
            space
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_one(socket: &UdpSocket) -> (Meta, Vec<u8>) {
        let mut batch = RecvBatch::default();
        for _ in 0..200 {
            match socket.receive(&mut batch) {
                Ok(_) => return batch.iter().map(|(m, p)| (m, p.to_vec())).next().expect("one datagram"),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(std::time::Duration::from_millis(5))
                }
                Err(e) => panic!("{e}"),
            }
        }
        panic!("no datagram");
    }

    #[track_caller]
    fn carries_address_and_class(ip: IpAddr) {
        let a = UdpSocket::bind(SocketAddr::new(ip, 0), false).unwrap();
        let b = UdpSocket::bind(SocketAddr::new(ip, 0), false).unwrap();
        // DSCP 46 (EF), ECT(0).
        let transmit =
            Transmit { payload: b"rtp", peer: b.local_addr(), local_ip: Some(ip), traffic_class: 0xba };
        a.send(&transmit).unwrap();
        let (meta, payload) = receive_one(&b);
        assert_eq!(payload, b"rtp");
        assert_eq!((meta.peer, meta.local_ip, meta.traffic_class), (a.local_addr(), Some(ip), 0xba));
        assert_ne!(meta.ifindex, 0);
    }

    #[test]
    fn carries_dscp_ecn_and_local_address_over_ipv4() {
        carries_address_and_class(Ipv4Addr::LOCALHOST.into());
    }

    #[test]
    fn carries_dscp_ecn_and_local_address_over_ipv6() {
        carries_address_and_class(Ipv6Addr::LOCALHOST.into());
    }

    #[test]
    fn sends_from_the_address_asked_for() {
        let any = UdpSocket::bind("0.0.0.0:0".parse().unwrap(), false).unwrap();
        let b = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let from = Ipv4Addr::new(127, 0, 0, 7).into();
        any.send(&Transmit { payload: b"", peer: b.local_addr(), local_ip: Some(from), traffic_class: 0 })
            .unwrap();
        assert_eq!(receive_one(&b).0.peer.ip(), from);
    }

    #[test]
    fn takes_a_burst_in_one_call() {
        let a = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let b = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        for i in 0..10u8 {
            a.send(&Transmit { payload: &[i], peer: b.local_addr(), local_ip: None, traffic_class: 0 })
                .unwrap();
        }
        let mut batch = RecvBatch::default();
        assert_eq!(b.receive(&mut batch).unwrap(), 10);
        assert!(batch.iter().map(|(_, p)| p[0]).eq(0..10));
        assert_eq!(b.receive(&mut batch).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
