//! Raw sockets in the epoll set of the thread that reads them.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Instant,
};

use proxy_protocol::icmp::Version;
use rustix::event::epoll;

use crate::net::udp::UdpSocket;

/// `EAFNOSUPPORT`.
const NO_FAMILY: i32 = 97;

pub(super) struct Source {
    pub(super) version: Version,
    pub(super) socket: UdpSocket,
}

/// Sees long datagrams as they come, headers and all.
pub(super) struct Watch {
    pub(super) sources: Vec<Source>,
    pub(super) until: Instant,
}

/// A socket for each version that this host has, named from `first` on. Closed sockets leave the set by themselves.
pub(super) fn open_each(
    epoll: &OwnedFd,
    first: u64,
    open: impl Fn(Version) -> io::Result<UdpSocket>,
) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for version in [Version::V4, Version::V6] {
        match open(version) {
            Ok(socket) => sources.push(Source { version, socket }),
            // A host without IPv6.
            Err(error) if error.raw_os_error() == Some(NO_FAMILY) => {}
            Err(error) => return Err(error),
        }
    }
    for (name, source) in (first..).zip(&sources) {
        let data = epoll::EventData::new_u64(name);
        epoll::add(epoll, source.socket.as_fd(), data, epoll::EventFlags::IN)?;
    }
    Ok(sources)
}
