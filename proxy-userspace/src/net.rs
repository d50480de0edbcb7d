//! Sockets and netlink: thin I/O that knows no session.

pub mod conntrack;
mod filter;
pub mod handover;
pub mod icmp;
pub mod join;
pub mod namespace;
pub mod neighbour_answers;
pub mod rewound;
pub mod route;
pub mod tcp;
pub mod udp;
