//! Listening sockets that outlive a process, and connections to origins.
//!
//! [`Listeners`] are bound first and served later, so that a taken port stops the start instead of being a line in a log.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};
use tracing::warn;

pub use self::{dial::Dialer, room::RECEIVED};
use crate::config::Listen;

mod dial;
mod room;

const BACKLOG: i32 = 1024;
/// How long accepting rests after the system refused a connection, which is mostly a lack of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long a peer may take nothing of what it is sent. The kernel itself waits for ever for one that is there and does not
/// read.
pub const STUCK: Duration = Duration::from_secs(120);

/// Listening sockets of one port.
#[derive(Debug)]
pub struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// Binds every address of `listen`; a host without IPv6 is served by IPv4 alone.
    ///
    /// Must be called within a tokio runtime.
    pub fn bind(listen: Listen) -> io::Result<Self> {
        Self::inherit(listen, Vec::new())
    }

    /// Stops listening.
    pub fn close(&mut self) {
        self.0.clear();
    }

    /// As [`Self::bind`], but goes on with listeners of an earlier process wherever the addresses agree.
    pub fn inherit(listen: Listen, inherited: Vec<OwnedFd>) -> io::Result<Self> {
        let mut listeners = inherited.into_iter().map(adopt).collect::<io::Result<Vec<_>>>()?;
        listeners.retain(|listener| listener.local_addr().is_ok_and(|address| listen.takes(address)));
        for mut address in listen.addresses() {
            if listeners.iter().any(|l| l.local_addr().is_ok_and(|found| found.ip() == address.ip())) {
                continue;
            }
            if let Some(first) = listeners.first() {
                address.set_port(first.local_addr()?.port());
            }
            match bind(address) {
                Ok(listener) => listeners.push(listener),
                Err(error) if !listeners.is_empty() && lacks_ipv6(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(listeners))
    }

    /// Second descriptors of the sockets, for the next process.
    pub fn share(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let share =
            |listener: &TcpListener| Ok((listener.local_addr()?, listener.as_fd().try_clone_to_owned()?));
        self.0.iter().map(share).collect()
    }

    /// The same sockets once more: connections wait in them while nobody accepts.
    pub fn try_clone(&self) -> io::Result<Self> {
        let listeners = self.share()?.into_iter().map(|(_, listener)| adopt(listener));
        Ok(Self(listeners.collect::<io::Result<_>>()?))
    }

    /// The first bound address, whose port is that of all.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.first().ok_or(io::ErrorKind::AddrNotAvailable)?.local_addr()
    }

    /// The sockets, to be accepted on by tasks of their own.
    pub fn into_acceptors(self, most: usize, stop: &watch::Receiver<bool>) -> Vec<Acceptor> {
        let slots = Slots::new(most);
        let acceptor = |listener| Acceptor { listener, slots: slots.clone(), stop: stop.clone() };
        self.0.into_iter().map(acceptor).collect()
    }
}

/// Accepts connections on one socket, as long as there is room for them.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    slots: Slots,
    stop: watch::Receiver<bool>,
}

/// Room for so many connections.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Semaphore>);

impl Slots {
    /// Room for `most`.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// A place, if one is free.
    pub fn try_take(&self) -> Option<Slot> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(Slot)
    }

    async fn take(&self) -> Slot {
        Slot(Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed"))
    }
}

/// A connection's place among those that may be open; it is free again once dropped.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held, not looked at")] OwnedSemaphorePermit);

impl Acceptor {
    /// The next connection once there is room for it, or `None` when accepting is to end.
    pub async fn next(&mut self) -> Option<(TcpStream, Slot)> {
        tokio::select! {
            () = stopped(self.stop.clone()) => None,
            accepted = Self::accept(&self.listener, &self.slots) => Some(accepted),
        }
    }

    async fn accept(listener: &TcpListener, slots: &Slots) -> (TcpStream, Slot) {
        let slot = slots.take().await;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => match SockRef::from(&stream).set_tcp_user_timeout(Some(STUCK)) {
                    Ok(()) => return (stream, slot),
                    Err(error) => warn!(%error, "failed to bound how long a connection may be stuck"),
                },
                Err(error) => {
                    warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }
}

/// Receives more; the end is an error.
pub async fn receive(stream: &TcpStream, into: &mut BytesMut) -> io::Result<()> {
    loop {
        stream.readable().await?;
        into.reserve(4096);
        match stream.try_read_buf(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Ends when `stop` is true, or nobody is left to say so.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    room::limit(&socket);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A listener that is bound and listens already.
fn adopt(listener: OwnedFd) -> io::Result<TcpListener> {
    room::limit(&listener);
    TcpListener::from_std(listener.into())
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const ANY: Listen = Listen { ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), port: 0 };

    #[tokio::test]
    async fn both_families_get_one_port() {
        let listeners = Listeners::bind(Listen { ip: None, port: 0 }).unwrap();
        let ports: Vec<_> = listeners.0.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[tokio::test]
    async fn listeners_of_another_address_are_not_used() {
        let first = Listeners::bind(ANY).unwrap();
        let descriptors = first.share().unwrap().into_iter().map(|(_, listener)| listener).collect();
        let elsewhere = Listen { ip: Some(IpAddr::from([127, 0, 0, 2])), port: 0 };
        let second = Listeners::inherit(elsewhere, descriptors).unwrap();
        assert_eq!(second.local_addr().unwrap().ip(), IpAddr::from([127, 0, 0, 2]));
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let first = Listeners::bind(ANY).unwrap();
        let taken = Listen { port: first.local_addr().unwrap().port(), ..ANY };
        assert_eq!(Listeners::bind(taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn no_more_are_accepted_than_there_is_room_for() {
        let listeners = Listeners::bind(ANY).unwrap();
        let address = listeners.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let mut acceptor = listeners.into_acceptors(1, &stopping).remove(0);
        let clients =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let (first, slot) = acceptor.next().await.unwrap();
        assert_eq!(first.peer_addr().unwrap(), clients[0].local_addr().unwrap());
        assert_eq!(SockRef::from(&first).tcp_user_timeout().unwrap(), Some(STUCK));
        let waits = tokio::time::timeout(Duration::from_millis(50), acceptor.next()).await;
        assert!(waits.is_err());
        drop(slot);
        let (second, _slot) = acceptor.next().await.unwrap();
        assert_eq!(second.peer_addr().unwrap(), clients[1].local_addr().unwrap());
        stop.send(true).unwrap();
        assert!(acceptor.next().await.is_none());
    }
}
