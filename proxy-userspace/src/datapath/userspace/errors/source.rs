//! Raw sockets that the thread of ICMP errors waits for.

use std::{io, time::Instant};

use proxy_protocol::icmp::Version;
use rustix::io::Errno;

use crate::{datapath::userspace::reactor::Reactor, net::udp::UdpSocket};

pub(super) struct Source {
    pub(super) version: Version,
    pub(super) socket: UdpSocket,
}

/// Sees long datagrams as they come, headers and all.
pub(super) struct Watch {
    pub(super) sources: Vec<Source>,
    pub(super) until: Instant,
}

/// A socket for each version that this host has, named from `first` on.
pub(super) fn open_each(
    reactor: &Reactor,
    first: u64,
    open: impl Fn(Version) -> io::Result<UdpSocket>,
) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for version in [Version::V4, Version::V6] {
        match open(version) {
            Ok(socket) => sources.push(Source { version, socket }),
            // A host without IPv6.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => {}
            Err(error) => return Err(error),
        }
    }
    for (name, source) in (first..).zip(&sources) {
        reactor.watch(&source.socket, name)?;
    }
    Ok(sources)
}
