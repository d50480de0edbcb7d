//! The options a relay's socket is bound with.

use std::{
    io,
    mem::size_of,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use socket2::{SockRef, Socket};

/// Enough for a burst of a few hundred sessions while a worker is busy elsewhere.
const SOCKET_BUFFER: libc::c_int = 4 << 20;

/// `SKF_AD_OFF + SKF_AD_CPU`: where a classic BPF program reads the number of the CPU it runs on.
const CURRENT_CPU: u32 = (-0x1000_i32 + 36).cast_unsigned();

/// Asks for the traffic class of each datagram.
pub(super) fn report_class(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        return socket.set_recv_tclass_v6(true);
    }
    socket.set_recv_tos_v4(true)
}

/// Asks for destination address and device of each datagram.
pub(super) fn report_arrivals(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        return set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1);
    }
    set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, &1)
}

/// Datagrams longer than the way they go are cut into fragments, here or, for IPv4, by the router that finds out.
///
/// The default sets DF on what fits the first link, so a datagram that is too long for a later one is lost until a
/// message of that router has come, and for good if it never comes. Media is not sent again, and whoever sent it
/// cannot learn the length of a path beyond us.
pub(super) fn never_refuse_long_datagrams(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        let dont = libc::IPV6_PMTUDISC_DONT;
        return set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &dont);
    }
    set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DONT)
}

/// Gives a socket room for bursts: as much as a relay wants if this process may, else what the host allows.
pub fn enlarge_buffers(socket: &impl AsFd) -> io::Result<()> {
    let fd = socket.as_fd();
    if set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &SOCKET_BUFFER).is_ok()
        && set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SOCKET_BUFFER).is_ok()
    {
        return Ok(());
    }
    // The kernel clamps to net.core.{r,w}mem_max; a smaller buffer is not an error.
    let socket = SockRef::from(&fd);
    let bytes = SOCKET_BUFFER.cast_unsigned() as usize;
    socket.set_recv_buffer_size(bytes)?;
    socket.set_send_buffer_size(bytes)
}

/// Has the kernel merge runs on receive if it can (5.0), and tells whether it can cut them on send (4.18).
pub(super) fn merge_and_cut_runs(socket: &Socket) -> bool {
    if let Err(error) = set(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, &1) {
        tracing::debug!(%error, "the kernel merges no runs of datagrams");
    }
    // 0 cuts nothing: the length is told with each run.
    set(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, &0).is_ok()
}

/// Attaches `A = cpu; A %= sockets; return A` to the group of sockets that share an address.
pub(super) fn steer_by_cpu(socket: BorrowedFd<'_>, sockets: u32) -> io::Result<()> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, CURRENT_CPU);
    let modulo = (libc::BPF_ALU | BPF_MOD | libc::BPF_K, sockets);
    let give = (libc::BPF_RET | BPF_A, 0);
    let mut program = [load, modulo, give].map(|(code, k)| libc::sock_filter {
        code: u16::try_from(code).expect("codes of classic BPF have 16 bits"),
        jt: 0,
        jf: 0,
        k,
    });
    let program = libc::sock_fprog { len: 3, filter: program.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Leaves the choice within such a group to the kernel's hash, whatever was attached to it.
pub(super) fn steer_by_hash(socket: BorrowedFd<'_>) -> io::Result<()> {
    match set(socket, libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, &0) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        detached => detached,
    }
}

const BPF_MOD: u32 = 0x90;
const BPF_A: u32 = 0x10;

/// Has datagrams leave without a checksum, for which kernels cut no runs.
#[cfg(test)]
pub(super) fn send_without_checksums(socket: &impl AsFd) -> io::Result<()> {
    set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, &1)
}

fn set<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the option value lives during the call and is as long as it says.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
