//! UDP sockets with what a relay needs and std does not offer: the local address and device of each datagram
//! (`IP_PKTINFO`), its DSCP and ECN bits, the choice of the source address when sending, and many datagrams by one
//! system call: `recvmmsg` and `sendmmsg`, runs of equal datagrams merged by the kernel on receive (`UDP_GRO`) and cut
//! by it on send (`UDP_SEGMENT`).
//!
//! What merges and cuts is asked of the kernel when a socket is bound and left alone where it is refused; the bounds
//! of payloads are the same either way.

use std::{
    io,
    mem::zeroed,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

mod control;
mod options;
mod receive;
mod send;

pub use options::enlarge_buffers;
pub use receive::{Arrival, RecvBatch, Span};
pub use send::{Burst, SendBatch, Sent};

use control::Control;

/// Datagrams, or runs that the kernel merged, taken by one system call.
pub const BATCH: usize = 64;

/// A non-blocking UDP socket that reports where datagrams arrived.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
    /// The kernel cuts runs for this socket, as far as we know.
    segments: AtomicBool,
}

/// What came with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
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
        socket.set_reuse_port(reuse_port)?;
        options::report_arrivals(&socket, address)?;
        Self::prepare(socket, address)
    }

    /// Binds to `address`, of which nobody asks where its datagrams arrived.
    pub fn bind_source(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        Self::prepare(socket, address)
    }

    fn prepare(socket: Socket, address: SocketAddr) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        options::report_class(&socket, address)?;
        options::never_refuse_long_datagrams(&socket, address)?;
        enlarge_buffers(&socket)?;
        let segments = options::merge_and_cut_runs(&socket);
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { fd: socket.into(), local, segments: AtomicBool::new(segments) })
    }

    /// Lets the CPU that received a datagram choose among the `sockets` bound to this address so far: the one bound
    /// n-th gets what CPUs n, n + `sockets`, n + 2 `sockets` and so on received.
    pub fn steer_by_cpu(&self, sockets: u32) -> io::Result<()> {
        options::steer_by_cpu(self.as_fd(), sockets)
    }

    /// Lets a hash of addresses and ports choose among them again (5.3).
    pub fn steer_by_hash(&self) -> io::Result<()> {
        options::steer_by_hash(self.as_fd())
    }

    /// Goes on with a socket that an earlier process bound and set up as [`Self::bind`] does.
    pub fn inherit(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        if socket.r#type()? != Type::DGRAM {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let segments = options::merge_and_cut_runs(&socket);
        Ok(Self { fd: socket.into(), local, segments: AtomicBool::new(segments) })
    }

    /// A second descriptor of the same socket, for the next process.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Takes packets of another protocol than UDP, or copies of those that others take, if `filter` wants them: over IPv4 from
    /// the IP header on, over IPv6 from behind it.
    pub(super) fn raw(any: IpAddr, protocol: Protocol, filter: &[SockFilter]) -> io::Result<Self> {
        let local = SocketAddr::new(any, 0);
        let socket = Socket::new(Domain::for_address(local), Type::RAW, Some(protocol))?;
        socket.attach_filter(filter)?;
        socket.set_nonblocking(true)?;
        if any.is_ipv6() {
            options::report_arrivals(&socket, local)?;
        }
        Ok(Self { fd: socket.into(), local, segments: AtomicBool::new(false) })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Takes what has arrived in place of what `batch` held; `WouldBlock` when there is nothing.
    pub fn receive(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.clear();
        self.receive_more(batch)
    }

    /// Takes what has arrived into the room that `batch` has left.
    pub fn receive_more(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        let (headers, count) = batch.vacant();
        // SAFETY: every msghdr points into buffers that `batch` owns and that outlive the call.
        let n = unsafe {
            libc::recvmmsg(self.fd.as_raw_fd(), headers, count, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        batch.fill(n);
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
        control.write(&mut header, transmit, self.local.ip(), None);
        // SAFETY: the header points at locals that live until the call returns.
        match unsafe { self.send_message(&header) } {
            Err(error) if send::belongs_to_an_earlier_datagram(&error) => {
                // SAFETY: as above.
                unsafe { self.send_message(&header) }
            }
            result => result,
        }
    }

    /// Sends one message.
    ///
    /// # Safety
    /// What `header` points at is valid; it is only read.
    unsafe fn send_message(&self, header: &libc::msghdr) -> io::Result<()> {
        // SAFETY: the caller's promise.
        let sent = unsafe { libc::sendmsg(self.fd.as_raw_fd(), header, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Whether the kernel cuts runs for this socket.
    fn cuts_runs(&self) -> bool {
        self.segments.load(Relaxed)
    }

    /// The device this socket sends by cannot: other devices of the same socket lose speed, nothing else.
    fn stop_cutting_runs(&self) {
        self.segments.store(false, Relaxed);
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
