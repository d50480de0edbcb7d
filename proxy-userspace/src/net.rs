//! Sockets and netlink: thin I/O that knows no session.

pub mod route;
pub mod udp;
