use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::{io::AsyncReadExt as _, net::TcpListener, sync::watch, task::JoinHandle};

use super::*;
use crate::{
    api::Server,
    config::{Config, Listen},
    net::tcp::{Acceptor, Dialer, Listeners},
    origin::{Origin, balance::Terms, memory::MemoryRegistry},
};

const SECOND: Duration = Duration::from_secs(1);
const ANY: Listen = Listen { ip: Some(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)), port: 0 };
const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy whose only origin is a listener of the test.
struct Rig {
    address: SocketAddr,
    live: Live,
    registry: Arc<MemoryRegistry>,
    origin: TcpListener,
    connections: Arc<Connections>,
    _stop: watch::Sender<bool>,
    others: Arc<Mutex<HashMap<SocketAddr, Bytes>>>,
    _accepting: JoinHandle<()>,
}

async fn rig(variables: &[(&str, &str)]) -> Rig {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    rig_with(origin, variables).await
}

async fn rig_with(origin: TcpListener, variables: &[(&str, &str)]) -> Rig {
    let unprobed = [("PROXY_ORIGIN_PROBE_INTERVAL", "0s")];
    let config = Config::from_variables(variables.iter().chain(&unprobed).copied()).unwrap();
    let (registry, _events) = MemoryRegistry::new(config.origins, config.balancing.clone());
    registry.register(an_origin(origin.local_addr().unwrap()), Terms::default()).await.unwrap();
    let connections = Arc::new(Connections::default());
    let live = Live {
        origins: Connector {
            registry: Arc::clone(&registry) as _,
            dialer: Arc::new(Dialer::new(22_000..=22_999, Vec::new(), rand::random())),
            deadline: SECOND,
        },
        rules: Arc::new(config.streams.rules()),
        trusted_proxies: config.trusted_proxies.as_slice().into(),
        connections: Arc::clone(&connections),
        join: TcpJoin::Auto,
        head_deadline: SECOND,
    };
    let listeners = Listeners::bind(ANY).unwrap();
    let address = listeners.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let acceptor = listeners.into_acceptors(100, &stopping).remove(0);
    let others = Arc::new(Mutex::new(HashMap::new()));
    let accepting = tokio::spawn(accept(acceptor, live.clone(), Arc::clone(&others)));
    Rig { address, live, registry, origin, connections, _stop: stop, others, _accepting: accepting }
}

async fn accept(mut acceptor: Acceptor, live: Live, others: Arc<Mutex<HashMap<SocketAddr, Bytes>>>) {
    while let Some((stream, slot)) = acceptor.next().await {
        let (live, others) = (live.clone(), Arc::clone(&others));
        tokio::spawn(async move {
            if let Sorted::Other(stream, first, _slot) = live.sort(stream, slot).await {
                others.lock().insert(stream.peer_addr().unwrap(), first);
            }
        });
    }
}

fn an_origin(http: SocketAddr) -> Origin {
    let id = crate::origin::OriginId::new("vid", "service", "1");
    Origin { http: Some(http), ..Origin::bare("vid", id, http.ip()) }
}

impl Rig {
    async fn client(&self, request: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    /// Holds that a request is for the ordinary server, as it was sent.
    async fn goes_on(&self, request: &str) {
        let client = self.client(request).await;
        let address = client.local_addr().unwrap();
        let start = Instant::now();
        let first = loop {
            if let Some(first) = self.others.lock().remove(&address) {
                break first;
            }
            assert!(start.elapsed() < PATIENCE, "{request}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(first, request);
    }

    /// What the origin gets of a request.
    async fn at_origin(&self) -> (TcpStream, String) {
        let (mut origin, _) = timeout(PATIENCE, self.origin.accept()).await.expect("a connection").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(origin.read_u8().await.unwrap());
        }
        (origin, String::from_utf8(head).unwrap())
    }
}

async fn all_of(mut stream: TcpStream) -> String {
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("an end").unwrap();
    text
}

#[tokio::test]
async fn defect_16_and_17_the_query_and_headers_of_both_sides_are_kept() {
    let rig = rig(&[]).await;
    let request = "GET /live/s1.flv?token=a%2Fb&vhost=v.example HTTP/1.1\r\nHost: cdn.example\r\nUser-Agent: player\r\n\
                   Range: bytes=0-\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: keep-alive\r\n\r\n";
    let client = rig.client(request).await;
    let (mut origin, head) = rig.at_origin().await;
    assert!(head.starts_with("GET /live/s1.flv?token=a%2Fb&vhost=v.example HTTP/1.1\r\n"), "{head}");
    for line in [
        "Host: cdn.example",
        "User-Agent: player",
        "Range: bytes=0-",
        "Connection: close",
        "X-Real-IP: 127.0.0.1",
    ] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
    }
    assert!(head.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{head}");
    let answer = "HTTP/1.1 206 Partial\r\nServer: SRS\r\nX-Own: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nFLV\r\n0\r\n\r\n";
    origin.write_all(answer.as_bytes()).await.unwrap();
    drop(origin);
    assert_eq!(all_of(client).await, answer);
    assert_eq!(rig.connections.close(PATIENCE).await, 0);
    let totals = rig.connections.totals()[1];
    assert_eq!((totals.open, totals.accepted, totals.to_client), (0, 1, answer.len() as u64));
}

#[tokio::test]
async fn the_status_of_the_origin_is_the_clients() {
    let rig = rig(&[]).await;
    let client = rig.client("GET /live/none.ts HTTP/1.0\r\n\r\n").await;
    let (mut origin, _) = rig.at_origin().await;
    origin.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    drop(origin);
    assert!(all_of(client).await.starts_with("HTTP/1.0 404 Not Found\r\n"));
}

#[tokio::test]
async fn a_second_request_behind_the_head_does_not_reach_the_origin() {
    let rig = rig(&[]).await;
    let smuggled = "GET /live/s.flv HTTP/1.1\r\nHost: a\r\n\r\nGET /api/v1/raw HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = rig.client(smuggled).await;
    let (mut origin, _) = rig.at_origin().await;
    client.write_all(b"DELETE / HTTP/1.1\r\n\r\n").await.unwrap();
    origin.write_all(b"HTTP/1.1 200 OK\r\n\r\nFLV").await.unwrap();
    let mut got = [0; 22];
    client.read_exact(&mut got).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(all_of(origin).await, "");
}

#[tokio::test]
async fn a_websocket_goes_both_ways() {
    let rig = rig(&[]).await;
    let request = "GET /live/s.flv HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: k\r\n\r\n";
    let mut client = rig.client(request).await;
    let (mut origin, head) = rig.at_origin().await;
    assert!(head.contains("Upgrade: websocket\r\n") && head.contains("Sec-WebSocket-Key: k\r\n"), "{head}");
    origin.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
    let mut got = [0; 36];
    client.read_exact(&mut got).await.unwrap();
    client.write_all(b"frame").await.unwrap();
    let mut frame = [0; 5];
    origin.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"frame");
}

#[tokio::test]
async fn what_is_no_stream_goes_on_untouched() {
    let rig = rig(&[]).await;
    for request in [
        "GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /live/s.flv HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        "GET /live/s.m3u8 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        rig.goes_on(request).await;
    }
}

#[tokio::test]
async fn a_stream_asked_for_on_a_connection_that_served_something_else_is_carried_like_any() {
    const PAGE: &str = "GET /page HTTP/1.1\r\nHost: cdn.example\r\n\r\n";
    let rig = rig(&[]).await;
    let server = Server::new(Listeners::bind(ANY).unwrap());
    let address = server.local_addr().unwrap();
    let router = axum::Router::new().route("/page", axum::routing::get(|| async { "page" }));
    let (_stop, stopping) = watch::channel(false);
    tokio::spawn(server.serve_with(rig.live.clone(), router, SECOND, SECOND, stopping));

    let mut client = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        client.write_all(PAGE.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\npage") {
            answer.push(client.read_u8().await.unwrap());
        }
    }
    client
        .write_all(b"GET /live/s.flv?a=%2F HTTP/1.1\r\nHost: cdn.example\r\nX-Own: 1\r\n\r\n")
        .await
        .unwrap();
    let (mut origin, head) = rig.at_origin().await;
    assert!(head.starts_with("GET /live/s.flv?a=%2F HTTP/1.1\r\n"), "{head}");
    for line in ["host: cdn.example", "x-own: 1", "connection: close", "x-real-ip: 127.0.0.1"] {
        assert!(head.to_lowercase().contains(&format!("{line}\r\n")), "{line} in {head}");
    }
    assert_eq!(rig.connections.list()[0].stream.as_deref(), Some("__defaultVhost__/live/s"));
    origin.write_all(b"HTTP/1.1 200 OK\r\n\r\nFLV").await.unwrap();
    drop(origin);
    assert_eq!(all_of(client).await, "HTTP/1.1 200 OK\r\n\r\nFLV");
    assert_eq!(rig.connections.close(PATIENCE).await, 0);
}

#[tokio::test]
async fn bad_heads_are_answered_and_closed() {
    let rig = rig(&[]).await;
    for (request, status) in [
        ("GET /live/s.flv HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET /live/s.flv HTTP/1.1\nHost: a\n\n".to_owned(), "400"),
        (format!("GET /live/s.flv?{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000)), "414"),
        ("GET /live/s.flv HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), "505"),
    ] {
        let answer = all_of(rig.client(&request).await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn defect_29_a_client_that_sends_no_head_is_disconnected() {
    let rig = rig(&[]).await;
    assert_eq!(all_of(rig.client("GET /live/s.flv HT").await).await, "");
}

#[tokio::test]
async fn an_origin_that_is_gone_is_told() {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = origin.local_addr().unwrap();
    let rig = rig_with(origin, &[]).await;
    let Rig { address: proxy, origin, connections, _stop, .. } = rig;
    drop(origin);
    let mut client = TcpStream::connect(proxy).await.unwrap();
    client.write_all(b"GET /live/s.flv HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = all_of(client).await;
    assert!(answer.starts_with("HTTP/1.1 50"), "{address}: {answer}");
    assert_eq!(connections.close(PATIENCE).await, 0);
}

#[tokio::test]
async fn a_player_that_comes_before_its_publisher_waits_as_long_as_it_likes() {
    let rig = rig(&[]).await;
    let mut client = rig.client("GET /live/s.flv HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut origin, _) = rig.at_origin().await;
    tokio::time::sleep(3 * SECOND / 2).await;
    origin.write_all(b"HTTP/1.1 200 OK\r\n\r\nFLV").await.unwrap();
    let mut got = [0; 22];
    client.read_exact(&mut got).await.unwrap();
    drop(client);
    assert_eq!(all_of(origin).await, "");
}

#[tokio::test]
async fn a_name_that_only_a_segment_of_a_known_stream_has_is_a_segment() {
    let rig = rig(&[]).await;
    let segment_of = "__defaultVhost__/live/cam".parse().unwrap();
    rig.registry.pick(&segment_of).await.unwrap();
    rig.goes_on("GET /live/cam-7.ts HTTP/1.1\r\nHost: a\r\n\r\n").await;
    rig.registry.pick(&"__defaultVhost__/live/cam-7".parse().unwrap()).await.unwrap();
    let _client = rig.client("GET /live/cam-7.ts HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(rig.at_origin().await.1.starts_with("GET /live/cam-7.ts "));
}
