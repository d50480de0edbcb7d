//! HTTP over TCP: connections in, requests to a router, an orderly end.
//!
//! A [`Server`] is bound first and served later, so that a taken port stops the start instead of being a line in a log.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::Connection;
use crate::config::Listen;

/// Open connections per server; more wait in the backlog.
const MAX_CONNECTIONS: usize = 8192;
const BACKLOG: i32 = 1024;
/// How long accepting rests after the system refused a connection, which is mostly a lack of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// A client that connected right before the end has this long to send its request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// A bound HTTP server.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
}

impl Server {
    /// Binds every address of `listen`; a host without IPv6 is served by IPv4 alone.
    ///
    /// Must be called within a tokio runtime.
    pub fn bind(listen: Listen) -> io::Result<Self> {
        Self::inherit(listen, Vec::new())
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
        Ok(Self { listeners })
    }

    /// Second descriptors of its listeners, for the next process.
    pub fn share(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let share =
            |listener: &TcpListener| Ok((listener.local_addr()?, listener.as_fd().try_clone_to_owned()?));
        self.listeners.iter().map(share).collect()
    }

    /// A server on the same listeners: connections wait in them while neither is served.
    pub fn try_clone(&self) -> io::Result<Self> {
        let listeners = self.share()?.into_iter().map(|(_, listener)| adopt(listener));
        Ok(Self { listeners: listeners.collect::<io::Result<_>>()? })
    }

    /// The first bound address, whose port is that of all.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listeners.first().ok_or(io::ErrorKind::AddrNotAvailable)?.local_addr()
    }

    /// Serves `router` until `stop` turns true or its sender is gone, then finishes the requests under way for at most
    /// `grace`.
    ///
    /// A client that takes longer than `client_timeout` to send a request head is disconnected.
    pub async fn serve(
        self,
        router: Router,
        client_timeout: Duration,
        grace: Duration,
        stop: watch::Receiver<bool>,
    ) {
        let service = TowerToHyperService::new(router);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            let acceptor = Acceptor {
                service: service.clone(),
                client_timeout,
                slots: slots.clone(),
                stop: stop.clone(),
            };
            accepting.spawn(acceptor.accept(listener, grace));
        }
        accepting.join_all().await;
    }
}

/// What the connections of one listener share.
struct Acceptor {
    service: TowerToHyperService<Router>,
    client_timeout: Duration,
    slots: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Acceptor {
    async fn accept(self, listener: TcpListener, grace: Duration) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(self.stop.clone()) => break,
                Some(_) = connections.join_next() => {}
                (stream, slot) = self.next(&listener) => {
                    let (service, stop) = (self.service.clone(), self.stop.clone());
                    let served = serve_connection(stream, service, self.client_timeout, stop);
                    connections.spawn(async move {
                        served.await;
                        drop(slot);
                    });
                }
            }
        }
        drop(listener);
        if timeout(grace, async { while connections.join_next().await.is_some() {} }).await.is_err() {
            debug!(left = connections.len(), "requests under way are cut");
        }
    }

    /// The next connection, once there is room for it.
    async fn next(&self, listener: &TcpListener) -> (TcpStream, OwnedSemaphorePermit) {
        let slot = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, slot),
                Err(error) => {
                    warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    service: TowerToHyperService<Router>,
    client_timeout: Duration,
    stop: watch::Receiver<bool>,
) {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let ends = Connection { peer, local };
    let has_asked = Arc::new(Notify::new());
    let asks = Arc::clone(&has_asked);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        asks.notify_one();
        request.extensions_mut().insert(ends);
        service.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(client_timeout).half_close(false);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(stop) => {
            tokio::select! {
                result = connection.as_mut() => result,
                // A connection without a request would be closed at once, with the request on its way.
                _ = timeout(FIRST_REQUEST, has_asked.notified()) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = result {
        debug!(%peer, %error, "connection ended");
    }
}

/// Ends when `stop` is true, or nobody is left to say so.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A listener that is bound and listens already.
fn adopt(listener: OwnedFd) -> io::Result<TcpListener> {
    TcpListener::from_std(listener.into())
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinHandle,
    };

    use super::*;

    const ANY: Listen = Listen { ip: Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)), port: 0 };

    struct Rig {
        address: SocketAddr,
        stop: watch::Sender<bool>,
        task: JoinHandle<()>,
    }

    fn serve(router: Router, client_timeout: Duration, grace: Duration) -> Rig {
        let server = Server::bind(ANY).unwrap();
        let address = server.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(server.serve(router, client_timeout, grace, stopping));
        Rig { address, stop, task }
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn requests_know_both_ends_of_their_connection() {
        let ends =
            |ends: axum::Extension<Connection>| async move { format!("{}>{}", ends.peer.ip(), ends.local) };
        let rig = serve(Router::new().route("/", get(ends)), SECOND, SECOND);
        let answer = exchange(rig.address, "GET / HTTP/1.0\r\n\r\n").await;
        assert!(answer.ends_with(&format!("127.0.0.1>{}", rig.address)), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_sends_no_head_is_disconnected() {
        let rig = serve(Router::new(), Duration::from_millis(50), SECOND);
        let answer = timeout(5 * SECOND, exchange(rig.address, "GET / HT")).await.expect("disconnected");
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn a_request_under_way_is_finished_at_stop() {
        let slow = || async {
            sleep(Duration::from_millis(100)).await;
            "done"
        };
        let rig = serve(Router::new().route("/", get(slow)), SECOND, 5 * SECOND);
        let client = tokio::spawn(exchange(rig.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        sleep(Duration::from_millis(50)).await;
        rig.stop.send(true).unwrap();
        assert!(client.await.unwrap().ends_with("done"));
        rig.task.await.unwrap();
        assert!(TcpStream::connect(rig.address).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_has_just_connected_is_answered_at_stop() {
        let rig = serve(Router::new().route("/", get(|| async { "done" })), SECOND, 5 * SECOND);
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        // Wait until it is accepted: a connection in the backlog is reset.
        sleep(Duration::from_millis(50)).await;
        rig.stop.send(true).unwrap();
        sleep(Duration::from_millis(50)).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("done"), "{answer}");
        timeout(5 * SECOND, rig.task).await.expect("and then it ends").unwrap();
    }

    #[tokio::test]
    async fn a_request_that_outlives_the_grace_is_cut() {
        let rig = serve(
            Router::new().route("/", get(std::future::pending::<()>)),
            SECOND,
            Duration::from_millis(50),
        );
        let client = tokio::spawn(exchange(rig.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        sleep(Duration::from_millis(50)).await;
        drop(rig.stop);
        timeout(5 * SECOND, rig.task).await.expect("does not wait for it").unwrap();
        assert_eq!(client.await.unwrap(), "");
    }

    #[tokio::test]
    async fn both_families_get_one_port() {
        let server = Server::bind(Listen { ip: None, port: 0 }).unwrap();
        let ports: Vec<_> = server.listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[tokio::test]
    async fn a_connection_that_came_while_nobody_served_is_served_by_the_heir() {
        let first = Server::bind(ANY).unwrap();
        let address = first.local_addr().unwrap();
        let descriptors = first.share().unwrap().into_iter().map(|(_, listener)| listener).collect();
        drop(first);
        let client = tokio::spawn(exchange(address, "GET / HTTP/1.0\r\n\r\n"));
        let heir = Server::inherit(Listen { port: address.port(), ..ANY }, descriptors).unwrap();
        assert_eq!(heir.local_addr().unwrap(), address);
        let (stop, stopping) = watch::channel(false);
        let router = Router::new().route("/", get(|| async { "heir" }));
        let serving = tokio::spawn(heir.serve(router, SECOND, SECOND, stopping));
        assert!(client.await.unwrap().ends_with("heir"));
        stop.send(true).unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn listeners_of_another_address_are_not_used() {
        let first = Server::bind(ANY).unwrap();
        let descriptors = first.share().unwrap().into_iter().map(|(_, listener)| listener).collect();
        let elsewhere = Listen { ip: Some(IpAddr::from([127, 0, 0, 2])), port: 0 };
        let second = Server::inherit(elsewhere, descriptors).unwrap();
        assert_eq!(second.local_addr().unwrap().ip(), IpAddr::from([127, 0, 0, 2]));
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let first = Server::bind(ANY).unwrap();
        let taken = Listen { port: first.local_addr().unwrap().port(), ..ANY };
        assert_eq!(Server::bind(taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
