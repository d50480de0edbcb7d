//! The relay's sockets: bound anew, or those of an earlier process.
//!
//! All workers share the service port by `SO_REUSEPORT`, and the kernel spreads clients over its sockets. A second set of
//! sockets beside the first one would take half of the clients away from it, so the next process goes on with the very
//! sockets of the one before.

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use crate::net::{handover::Role, udp::UdpSocket};

/// Sockets of a relay.
#[derive(Debug)]
pub struct Sockets {
    /// Where WebRTC media comes in.
    pub(super) webrtc: Listeners,
    /// Where SRT callers come in.
    pub(super) srt: Listeners,
    /// The sockets on source ports.
    pub(super) sources: Vec<UdpSocket>,
}

/// The sockets of one service.
#[derive(Debug)]
pub(super) struct Listeners {
    /// Its addresses.
    pub(super) local: Vec<SocketAddr>,
    /// The sockets on them, by worker.
    pub(super) by_worker: Vec<Vec<UdpSocket>>,
}

impl Sockets {
    /// Binds every address of `listen` once per worker, for WebRTC alone.
    pub fn bind(listen: &[SocketAddr], workers: usize) -> io::Result<Self> {
        Self::inherit(listen, &[], workers, Vec::new())
    }

    /// Binds every address of both services once per worker, but goes on with what was inherited wherever the addresses
    /// agree; a worker may be left without a socket there.
    pub fn inherit(
        webrtc: &[SocketAddr],
        srt: &[SocketAddr],
        workers: usize,
        inherited: Vec<(Role, OwnedFd)>,
    ) -> io::Result<Self> {
        let (mut media, mut calls, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        for (role, descriptor) in inherited {
            match role {
                Role::Media { worker, .. } => {
                    media.push((usize::from(worker), UdpSocket::inherit(descriptor)?))
                }
                Role::Srt { worker, .. } => {
                    calls.push((usize::from(worker), UdpSocket::inherit(descriptor)?))
                }
                Role::Source(_) => sources.push(UdpSocket::inherit(descriptor)?),
                Role::Lock
                | Role::Doorbell
                | Role::HttpApi(_)
                | Role::HttpServer(_)
                | Role::SystemApi(_)
                | Role::RtmpServer(_)
                | Role::WebrtcTcp(_) => {}
            }
        }
        let (webrtc, srt) = (Listeners::open(webrtc, workers, media)?, Listeners::open(srt, workers, calls)?);
        Ok(Self { webrtc, srt, sources })
    }
}

impl Listeners {
    fn open(
        listen: &[SocketAddr],
        workers: usize,
        mut inherited: Vec<(usize, UdpSocket)>,
    ) -> io::Result<Self> {
        let by_worker = (0..workers.max(1)).map(|_| Vec::new()).collect();
        let mut listeners = Self { local: Vec::new(), by_worker };
        for &wanted in listen {
            listeners.place(wanted, &mut inherited);
            listeners.complete(wanted)?;
        }
        Ok(listeners)
    }

    /// Gives the inherited sockets of one address to the workers.
    fn place(&mut self, wanted: SocketAddr, inherited: &mut Vec<(usize, UdpSocket)>) {
        let fits =
            |address: SocketAddr| address.ip() == wanted.ip() && [0, address.port()].contains(&wanted.port());
        let workers = self.by_worker.len();
        for (worker, socket) in inherited.extract_if(.., |(_, socket)| fits(socket.local_addr())) {
            let sockets = self.by_worker.get_mut(worker % workers).expect("a remainder is in range");
            sockets.push(socket);
        }
    }

    /// Binds for every worker, unless there is an inherited socket: whoever reads that one may go on, and would miss what
    /// comes to others beside it.
    fn complete(&mut self, wanted: SocketAddr) -> io::Result<()> {
        let of_ip = |socket: &&UdpSocket| socket.local_addr().ip() == wanted.ip();
        if let Some(found) = self.by_worker.iter().flatten().find(of_ip) {
            self.local.push(found.local_addr());
            return Ok(());
        }
        // A port chosen by the system for the first address is the port of all.
        let port = self.local.first().map_or(wanted.port(), SocketAddr::port);
        let mut address = SocketAddr::new(wanted.ip(), port);
        for (worker, sockets) in self.by_worker.iter_mut().enumerate() {
            match UdpSocket::bind(address, true) {
                Ok(socket) => {
                    address = socket.local_addr();
                    sockets.push(socket);
                }
                Err(error) if worker == 0 && address.is_ipv6() && !self.local.is_empty() => {
                    tracing::info!(%error, "no IPv6 on this host: serving IPv4 alone");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.local.push(address);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    pub(in super::super) fn shared(sockets: &Sockets) -> Vec<(Role, OwnedFd)> {
        let listeners = sockets.webrtc.by_worker.iter().enumerate();
        let roles =
            listeners.flat_map(|(worker, sockets)| sockets.iter().map(move |socket| (worker, socket)));
        let media = roles.map(|(worker, socket)| {
            let role = Role::Media { worker: worker as u16, address: socket.local_addr() };
            (role, socket.share().unwrap())
        });
        let sources = sockets.sources.iter().map(|s| (Role::Source(s.local_addr()), s.share().unwrap()));
        media.chain(sources).collect()
    }

    fn ports(sockets: &Sockets) -> Vec<Vec<u16>> {
        let ports = |sockets: &Vec<UdpSocket>| sockets.iter().map(|s| s.local_addr().port()).collect();
        sockets.webrtc.by_worker.iter().map(ports).collect()
    }

    #[test]
    fn every_worker_has_a_socket_on_the_same_port() {
        let sockets = Sockets::bind(&[any()], 3).unwrap();
        let port = sockets.webrtc.local[0].port();
        assert_eq!(ports(&sockets), vec![vec![port]; 3]);
    }

    #[test]
    fn inherited_sockets_are_used_and_none_is_bound_beside_them() {
        let before = Sockets::bind(&[any()], 2).unwrap();
        let address = before.webrtc.local[0];
        let after = Sockets::inherit(&[address], &[], 2, shared(&before)).unwrap();
        assert_eq!(ports(&after), vec![vec![address.port()]; 2]);
        assert_eq!(after.webrtc.local, [address]);
        // The very same sockets: what waits in one is read from the other.
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"early", address).unwrap();
        drop(before);
        let mut batch = crate::net::udp::RecvBatch::default();
        let received = |sockets: &Vec<UdpSocket>, batch: &mut _| sockets[0].receive(batch).is_ok();
        assert!(after.webrtc.by_worker.iter().any(|sockets| received(sockets, &mut batch)));
    }

    #[test]
    fn fewer_workers_share_the_sockets_and_of_more_some_have_none() {
        let before = Sockets::bind(&[any()], 3).unwrap();
        let address = before.webrtc.local[0];
        let fewer = Sockets::inherit(&[address], &[], 2, shared(&before)).unwrap();
        assert_eq!(ports(&fewer).iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        let more = Sockets::inherit(&[address], &[], 4, shared(&before)).unwrap();
        assert_eq!(ports(&more).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 0]);
    }

    #[test]
    fn both_services_have_ports_of_their_own_on_one_address() {
        let sockets = Sockets::inherit(&[any()], &[any()], 2, Vec::new()).unwrap();
        let (media, calls) = (sockets.webrtc.local[0], sockets.srt.local[0]);
        assert!(media.ip() == calls.ip() && media.port() != calls.port());
        let shared = sockets.srt.by_worker.iter().enumerate().map(|(worker, sockets)| {
            let role = Role::Srt { worker: worker as u16, address: calls };
            (role, sockets[0].share().unwrap())
        });
        let after = Sockets::inherit(&[any()], &[calls], 2, shared.collect()).unwrap();
        assert_eq!(after.srt.local, [calls]);
        assert!(after.webrtc.local[0] != calls);
    }

    #[test]
    fn sockets_of_an_address_that_is_no_longer_wanted_are_closed() {
        let before = Sockets::bind(&[any()], 1).unwrap();
        let given = shared(&before);
        let after = Sockets::inherit(&["127.0.0.2:0".parse().unwrap()], &[], 1, given).unwrap();
        assert_eq!(after.webrtc.local[0].ip(), std::net::IpAddr::from([127, 0, 0, 2]));
        drop(before);
        assert_eq!(after.webrtc.by_worker[0].len(), 1);
    }

    #[test]
    fn source_sockets_are_inherited_whatever_their_port() {
        let mut before = Sockets::bind(&[any()], 1).unwrap();
        before.sources = (0..3).map(|_| UdpSocket::bind(any(), false).unwrap()).collect();
        let expected: Vec<_> = before.sources.iter().map(UdpSocket::local_addr).collect();
        let after = Sockets::inherit(&[before.webrtc.local[0]], &[], 1, shared(&before)).unwrap();
        assert_eq!(after.sources.iter().map(UdpSocket::local_addr).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_no_udp_socket_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let role = Role::Source(listener.local_addr().unwrap());
        assert!(Sockets::inherit(&[any()], &[], 1, vec![(role, listener.into())]).is_err());
    }
}
