//! Connections to origins, from ports of our own.
//!
//! The system would choose the port as well, but from a range that every process shares, and a port that was in use a moment
//! ago again at once. Ports of ours take turns, so that each rests as long as possible.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::io::Errno;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::room;

/// How many ports are tried: those before may be at rest (TIME_WAIT), or somebody else's.
const ATTEMPTS: u32 = 512;

/// Connects to origins.
#[derive(Debug)]
pub struct Dialer {
    ports: RangeInclusive<u16>,
    /// To connect from; none where the route decides.
    addresses: Vec<IpAddr>,
    turn: AtomicU32,
}

impl Dialer {
    /// Connects from these ports and addresses; `start` says which one is the first.
    pub fn new(ports: RangeInclusive<u16>, addresses: Vec<IpAddr>, start: u32) -> Self {
        Self { ports, addresses, turn: AtomicU32::new(start) }
    }

    /// Connects to `to` within `deadline`.
    ///
    /// # Errors
    /// When nobody answers there, or no port is free towards it (`AddrNotAvailable`).
    pub async fn connect(&self, to: SocketAddr, deadline: Duration) -> io::Result<TcpStream> {
        let connected = timeout(deadline, self.try_ports(to)).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn try_ports(&self, to: SocketAddr) -> io::Result<TcpStream> {
        for _ in 0..ATTEMPTS {
            match self.from(self.next(to), to).await {
                Err(error) if is_taken(&error) => {}
                connected => return connected,
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no source port is free towards the origin"))
    }

    async fn from(&self, from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A port may be in use towards another origin; towards the same one, connecting fails.
        socket.set_reuseaddr(true)?;
        room::limit(&socket);
        socket.bind(from)?;
        socket.connect(to).await
    }

    fn next(&self, to: SocketAddr) -> SocketAddr {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let ports = self.ports.len() as u32;
        let port = self.ports.clone().nth((turn % ports) as usize).unwrap_or(*self.ports.start());
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let family: Vec<_> = self.addresses.iter().filter(|ip| ip.is_ipv4() == to.is_ipv4()).collect();
        let address = family.get((turn / ports) as usize % family.len().max(1)).map_or(any, |ip| **ip);
        SocketAddr::new(address, port)
    }
}

/// Somebody has the port, or it is at rest.
fn is_taken(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn each_connection_has_a_port_of_the_range_and_all_are_used() {
        let (_listener, to) = listen().await;
        let dialer = Dialer::new(21_500..=21_507, Vec::new(), 3);
        let mut streams = Vec::new();
        for _ in 0..8 {
            streams.push(dialer.connect(to, SECOND).await.unwrap());
        }
        let mut ports: Vec<_> = streams.iter().map(|stream| stream.local_addr().unwrap().port()).collect();
        assert_eq!(ports[0], 21_503);
        ports.sort_unstable();
        assert_eq!(ports, (21_500..=21_507).collect::<Vec<_>>());
        let error = dialer.connect(to, SECOND).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn a_port_serves_several_origins() {
        let ((_first, one), (_second, other)) = (listen().await, listen().await);
        let dialer = Dialer::new(21_510..=21_510, Vec::new(), 0);
        let _one = dialer.connect(one, SECOND).await.unwrap();
        let other = dialer.connect(other, SECOND).await.unwrap();
        assert_eq!(other.local_addr().unwrap().port(), 21_510);
    }

    #[tokio::test]
    async fn a_port_that_somebody_listens_on_is_passed_over() {
        let (_listener, to) = listen().await;
        let _taken = TcpListener::bind("0.0.0.0:21520").await.unwrap();
        let dialer = Dialer::new(21_520..=21_521, Vec::new(), 0);
        assert_eq!(dialer.connect(to, SECOND).await.unwrap().local_addr().unwrap().port(), 21_521);
    }

    #[tokio::test]
    async fn source_addresses_are_used() {
        let (_listener, to) = listen().await;
        let addresses = vec!["::1".parse().unwrap(), "127.0.0.9".parse().unwrap()];
        let dialer = Dialer::new(21_530..=21_530, addresses, 0);
        let stream = dialer.connect(to, SECOND).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), "127.0.0.9:21530".parse().unwrap());
    }

    #[tokio::test]
    async fn nobody_there_is_an_error() {
        let (listener, to) = listen().await;
        drop(listener);
        let dialer = Dialer::new(21_540..=21_545, Vec::new(), 0);
        assert_eq!(dialer.connect(to, SECOND).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
