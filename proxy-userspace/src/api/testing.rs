//! Requests to routers without a socket, and origins that listen on loopback.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router, body::Body, response::Response};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Connection, Server};
use crate::{config::Listen, net::tcp::Listeners};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn send(router: Router, request: Request<Body>) -> Response {
    TowerToHyperService::new(router).call(request).await.expect("routers are infallible")
}

pub(super) async fn get(router: Router, path: &str) -> Response {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

pub(super) async fn text(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// What an origin was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    /// Which connection it came by.
    pub(super) peer: SocketAddr,
}

/// A server that answers as it is told to, and remembers what it was asked.
pub(super) struct TestOrigin {
    pub(super) address: SocketAddr,
    pub(super) asked: Arc<Mutex<Vec<Asked>>>,
    stop: watch::Sender<bool>,
}

impl TestOrigin {
    pub(super) fn start(reply: impl Fn(&Asked) -> Response + Clone + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let recorder = Arc::clone(&asked);
        let router =
            Router::new().fallback(async move |ends: Extension<Connection>, request: Request<Body>| {
                let asked = Asked {
                    method: request.method().clone(),
                    target: request.uri().to_string(),
                    headers: request.headers().clone(),
                    peer: ends.peer,
                };
                recorder.lock().push(asked.clone());
                reply(&asked)
            });
        let listen = Listen { ip: Some(Ipv4Addr::LOCALHOST.into()), port: 0 };
        let server = Server::new(Listeners::bind(listen).unwrap());
        let address = server.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(server.serve(router, PATIENCE, Duration::ZERO, stopping));
        Self { address, asked, stop }
    }

    pub(super) fn last(&self) -> Asked {
        self.asked.lock().last().cloned().expect("the origin was asked")
    }

    /// Ends as a process that dies: nobody listens.
    pub(super) async fn kill(self) {
        self.stop.send(true).unwrap();
        while tokio::net::TcpStream::connect(self.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
