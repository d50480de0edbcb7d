//! HTTP over TCP: connections in, requests to a router, an orderly end.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::OnceLock, time::Duration};

use axum::{Router, body::Bytes, response::Response};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::debug;

use super::Connection;
use crate::{
    ice_tcp::IceTcp,
    live::{self, Live, Sorted, Wish},
    net::{
        rewound::Rewound,
        tcp::{Acceptor, Listeners, Slot, stopped},
    },
};

/// Open connections per server; more wait in the backlog.
const MAX_CONNECTIONS: usize = 8192;
/// A client that connected right before the end has this long to send its request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// A bound HTTP server.
#[derive(Debug)]
pub struct Server(Listeners);

impl Server {
    /// A server on these listeners.
    pub fn new(listeners: Listeners) -> Self {
        Self(listeners)
    }

    /// Stops listening.
    pub fn close(&mut self) {
        self.0.close();
    }

    /// Second descriptors of its listeners, for the next process.
    pub fn share(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        self.0.share()
    }

    /// A server on the same listeners: connections wait in them while neither is served.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The first bound address, whose port is that of all.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
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
        let ordinary = Ordinary { service: TowerToHyperService::new(router), client_timeout, grace, stop };
        self.serve_each(MAX_CONNECTIONS, &ordinary, Sorter::None).await;
    }

    /// As [`Self::serve`], but requests for streams are taken by `live`, and may outlast it.
    pub async fn serve_with(
        self,
        live: Live,
        router: Router,
        client_timeout: Duration,
        grace: Duration,
        stop: watch::Receiver<bool>,
    ) {
        let ordinary = Ordinary { service: TowerToHyperService::new(router), client_timeout, grace, stop };
        self.serve_each(live::MAX_CONNECTIONS, &ordinary, Sorter::Live(live)).await;
    }

    /// As [`Self::serve`], but connections that begin with a frame of WebRTC media are taken by `ice`, and may outlast it.
    pub async fn serve_beside(
        self,
        ice: IceTcp,
        router: Router,
        client_timeout: Duration,
        grace: Duration,
        stop: watch::Receiver<bool>,
    ) {
        let ordinary = Ordinary { service: TowerToHyperService::new(router), client_timeout, grace, stop };
        self.serve_each(MAX_CONNECTIONS, &ordinary, Sorter::Ice(Box::new(ice))).await;
    }

    async fn serve_each(self, most: usize, ordinary: &Ordinary, sorter: Sorter) {
        let mut serving = JoinSet::new();
        for acceptor in self.0.into_acceptors(most, &ordinary.stop) {
            serving.spawn(accept(acceptor, ordinary.clone(), sorter.clone()));
        }
        serving.join_all().await;
    }
}

/// Who looks at connections first.
#[derive(Clone)]
enum Sorter {
    None,
    Live(Live),
    Ice(Box<IceTcp>),
}

impl Sorter {
    async fn sort(&self, stream: TcpStream, slot: Slot, stop: &watch::Receiver<bool>) -> Sorted {
        match self {
            Self::None => Sorted::Other(stream, Bytes::new(), slot),
            Self::Live(live) => live.sort(stream, slot).await,
            Self::Ice(ice) => ice.sort(stream, slot, stop.clone()).await,
        }
    }
}

/// What serves requests that have an end.
#[derive(Clone)]
struct Ordinary {
    service: TowerToHyperService<Router>,
    client_timeout: Duration,
    grace: Duration,
    stop: watch::Receiver<bool>,
}

async fn accept(mut acceptor: Acceptor, ordinary: Ordinary, sorter: Sorter) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = acceptor.next() => {
                let Some((stream, slot)) = accepted else { break };
                connections.spawn(serve_stream(stream, slot, ordinary.clone(), sorter.clone()));
            }
        }
    }
    drop(acceptor);
    if timeout(ordinary.grace, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        debug!(left = connections.len(), "requests under way are cut");
    }
}

async fn serve_stream(stream: TcpStream, slot: Slot, ordinary: Ordinary, sorter: Sorter) {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let ends = Connection { peer, local };
    let sorted = sorter.sort(stream, slot, &ordinary.stop).await;
    let Sorted::Other(stream, first, slot) = sorted else { return };
    let stream = Rewound::new(first, stream);
    match &sorter {
        Sorter::Live(live) => {
            let begin = |stream, wish| live.begin(stream, peer, wish, slot);
            serve_connection(stream, ends, Some(live), ordinary, begin).await;
        }
        Sorter::None | Sorter::Ice(_) => {
            serve_connection(stream, ends, None, ordinary, |_, _| drop(slot)).await;
        }
    }
}

/// Serves requests until one is for a stream, for which the connection is given to `begin`.
async fn serve_connection(
    stream: Rewound,
    ends: Connection,
    live: Option<&Live>,
    ordinary: Ordinary,
    begin: impl FnOnce(TcpStream, Wish),
) {
    let Ordinary { service, client_timeout, stop, .. } = ordinary;
    let has_asked = Notify::new();
    let wished = OnceLock::new();
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        has_asked.notify_one();
        answer(request, ends, &service, live, &wished)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(client_timeout).half_close(false);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let result = tokio::select! {
        result = &mut connection => result,
        () = stopped(stop) => {
            tokio::select! {
                result = &mut connection => result,
                // A connection without a request would be closed at once, with the request on its way.
                _ = timeout(FIRST_REQUEST, has_asked.notified()) => {
                    Pin::new(&mut connection).graceful_shutdown();
                    (&mut connection).await
                }
            }
        }
    };
    let stream = connection.into_parts().io.into_inner().into_inner();
    match (wished.into_inner(), result) {
        (Some(wish), _) => begin(stream, wish),
        (None, Err(error)) => debug!(peer = %ends.peer, %error, "connection ended"),
        (None, Ok(())) => {}
    }
}

/// The answer to a request, but for a stream's.
async fn answer(
    request: Request<Incoming>,
    ends: Connection,
    service: &TowerToHyperService<Router>,
    live: Option<&Live>,
    wished: &OnceLock<Wish>,
) -> Result<Response, IsForAStream> {
    let (mut parts, body) = request.into_parts();
    if let Some(live) = live
        && let Some(wish) = live.later_wish(&parts, ends.peer).await
    {
        // The error makes hyper let go of the connection, so that there is no second one.
        return wished.set(wish).map_or(Err(IsForAStream), |()| Err(IsForAStream));
    }
    parts.extensions.insert(ends);
    service.call(Request::from_parts(parts, body)).await.map_err(|never| match never {})
}

/// A request is not answered here.
#[derive(Debug, thiserror::Error)]
#[error("the request is for a stream")]
struct IsForAStream;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinHandle,
        time::sleep,
    };

    use super::*;
    use crate::config::Listen;

    const ANY: Listen = Listen { ip: Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)), port: 0 };

    struct Rig {
        address: SocketAddr,
        stop: watch::Sender<bool>,
        task: JoinHandle<()>,
    }

    fn serve(router: Router, client_timeout: Duration, grace: Duration) -> Rig {
        let server = Server::new(Listeners::bind(ANY).unwrap());
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
    async fn a_connection_that_came_while_nobody_served_is_served_by_the_heir() {
        let first = Server::new(Listeners::bind(ANY).unwrap());
        let address = first.local_addr().unwrap();
        let descriptors = first.share().unwrap().into_iter().map(|(_, listener)| listener).collect();
        drop(first);
        let client = tokio::spawn(exchange(address, "GET / HTTP/1.0\r\n\r\n"));
        let heir =
            Server::new(Listeners::inherit(Listen { port: address.port(), ..ANY }, descriptors).unwrap());
        assert_eq!(heir.local_addr().unwrap(), address);
        let (stop, stopping) = watch::channel(false);
        let router = Router::new().route("/", get(|| async { "heir" }));
        let serving = tokio::spawn(heir.serve(router, SECOND, SECOND, stopping));
        assert!(client.await.unwrap().ends_with("heir"));
        stop.send(true).unwrap();
        serving.await.unwrap();
    }
}
