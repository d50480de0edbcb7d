//! How much a TCP connection may have received before anybody reads it.

use std::os::fd::AsFd;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

/// Memory for what a socket has received. The kernel doubles what it is asked for, since packets take room beside their bytes;
/// at least half of it is a window for the sender: 60 Mbit/s over 100 ms.
pub const RECEIVED: usize = 1536 << 10;

/// Limits what a socket holds for a reader that stalls; those that a listener accepts are limited as it is.
///
/// By itself the kernel goes up to `net.ipv4.tcp_rmem`, 6 to 32 MiB, for whoever has read fast before. A window clamp
/// (`TCP_WINDOW_CLAMP`) is no bound: it counts from what was received, not from what was read, and follows the buffer as that
/// grows. The size has to be set before the connection is there: afterwards the window stays as small as it begins.
///
/// Needs `CAP_NET_ADMIN`: without it the size would be cut to `net.core.rmem_max`, mostly 208 KiB, which is too little for a
/// long way, so the kernel's own limit stays.
pub(super) fn limit(socket: impl AsFd) {
    if let Err(error) = set_socket_recv_buffer_size_force(socket, RECEIVED / 2) {
        tracing::debug!(%error, "what is received of a stalled connection is bounded by the kernel's own limit");
    }
}
