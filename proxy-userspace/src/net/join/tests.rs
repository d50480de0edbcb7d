use std::{sync::Arc, time::Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::*;

const MEANS: [Means; 3] = [Means::Auto, Means::Copy, Means::Splice];
const PATIENCE: Duration = Duration::from_secs(20);

/// A client and an origin, with a join between them.
struct Between {
    client: TcpStream,
    origin: TcpStream,
    traffic: Arc<Traffic>,
    join: JoinHandle<io::Result<()>>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (connected, listener.accept().await.unwrap().0)
}

async fn joined(means: Means, unsent: Unsent) -> Between {
    let (client, at_client) = pair().await;
    let (at_origin, origin) = pair().await;
    prepare(&at_client).unwrap();
    prepare(&at_origin).unwrap();
    let traffic = Arc::new(Traffic::default());
    let shared = Arc::clone(&traffic);
    let join =
        tokio::spawn(async move { join(at_client, at_origin, unsent, Carries::Both, means, &shared).await });
    Between { client, origin, traffic, join }
}

/// Bytes of which each tells where it belongs.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) >> 3) as u8).collect()
}

async fn ended(join: JoinHandle<io::Result<()>>) -> io::Result<()> {
    timeout(PATIENCE, join).await.expect("the join ends").unwrap()
}

#[tokio::test]
async fn every_byte_arrives_once_and_in_order_both_ways() {
    for means in MEANS {
        let Between { client, origin, traffic, join } = joined(means, Unsent::default()).await;
        let (there, back) = (pattern(5_000_000), pattern(3_000_001));
        let exchange = async |mut stream: TcpStream, sent: Vec<u8>| {
            let (mut reads, mut writes) = stream.split();
            let mut got = Vec::new();
            let send = async {
                writes.write_all(&sent).await.unwrap();
                writes.shutdown().await.unwrap();
            };
            let (_, read) = tokio::join!(send, reads.read_to_end(&mut got));
            read.unwrap();
            got
        };
        let (got_back, got_there) =
            tokio::join!(exchange(client, there.clone()), exchange(origin, back.clone()));
        assert!(got_there == there && got_back == back, "{means:?}");
        ended(join).await.unwrap();
        assert_eq!((traffic.to_origin(), traffic.to_client()), (5_000_000, 3_000_001));
    }
}

#[tokio::test]
async fn it_can_be_seen_how_bytes_are_carried() {
    for (means, expected) in
        [(Means::Copy, Joined::Copy), (Means::Splice, Joined::Splice), (Means::Auto, Joined::Copy)]
    {
        let Between { mut client, mut origin, traffic, .. } = joined(means, Unsent::default()).await;
        origin.write_all(b"frame").await.unwrap();
        timeout(PATIENCE, client.read_exact(&mut [0; 5])).await.unwrap().unwrap();
        assert_eq!(traffic.joined(), Some(expected), "{means:?}");
    }
    assert_eq!(Traffic::default().joined(), None);
}

#[tokio::test]
async fn what_was_read_before_comes_first() {
    for means in MEANS {
        let unsent =
            Unsent { to_origin: Bytes::from_static(b"first "), to_client: Bytes::from_static(b"head ") };
        let Between { mut client, mut origin, join, .. } = joined(means, unsent).await;
        client.write_all(b"then").await.unwrap();
        client.shutdown().await.unwrap();
        origin.write_all(b"body").await.unwrap();
        origin.shutdown().await.unwrap();
        let (mut at_origin, mut at_client) = (String::new(), String::new());
        origin.read_to_string(&mut at_origin).await.unwrap();
        client.read_to_string(&mut at_client).await.unwrap();
        assert_eq!((at_origin.as_str(), at_client.as_str()), ("first then", "head body"));
        ended(join).await.unwrap();
    }
}

#[tokio::test]
async fn a_direction_that_ends_leaves_the_other_open() {
    for means in MEANS {
        let Between { mut client, mut origin, join, .. } = joined(means, Unsent::default()).await;
        client.shutdown().await.unwrap();
        assert_eq!(origin.read(&mut [0; 8]).await.unwrap(), 0, "{means:?}");
        origin.write_all(b"still here").await.unwrap();
        let mut got = [0; 10];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"still here");
        drop(origin);
        assert_eq!(client.read(&mut got).await.unwrap(), 0);
        ended(join).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_client_may_not_send_is_forgotten_but_its_end_is_passed_on() {
    let (mut client, at_client) = pair().await;
    let (at_origin, mut origin) = pair().await;
    let carried = tokio::spawn(async move {
        let traffic = Traffic::default();
        let unsent = Unsent { to_origin: Bytes::from_static(b"more"), ..Unsent::default() };
        join(at_client, at_origin, unsent, Carries::ToClient, Means::Splice, &traffic).await
    });
    client.write_all(&pattern(300_000)).await.unwrap();
    origin.write_all(b"body").await.unwrap();
    let mut got = [0; 4];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"body");
    client.shutdown().await.unwrap();
    assert_eq!(origin.read(&mut got).await.unwrap(), 0);
    drop(origin);
    ended(carried).await.unwrap();
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset() {
    for means in MEANS {
        let Between { client, mut origin, join, .. } = joined(means, Unsent::default()).await;
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let error = timeout(PATIENCE, origin.read(&mut [0; 8])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{means:?}");
        assert!(ended(join).await.is_err());
    }
}

/// The origin sends as long as somebody takes it; returns how much it got rid of.
async fn push(origin: &TcpStream, limit: usize) -> usize {
    let chunk = pattern(64 << 10);
    let mut sent = 0;
    let start = Instant::now();
    while sent < limit && start.elapsed() < Duration::from_secs(2) {
        match origin.try_write(&chunk) {
            Ok(bytes) => sent += bytes,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
    sent
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_has_the_sender_wait() {
    for means in MEANS {
        let Between { mut client, origin, join, .. } = joined(means, Unsent::default()).await;
        let sent = push(&origin, 1 << 30).await;
        assert!(sent < 64 << 20, "{means:?}: {sent} bytes went somewhere");
        drop(origin);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), sent, "{means:?}");
        drop(client);
        ended(join).await.unwrap();
    }
}

#[tokio::test]
async fn one_that_reads_slowly_loses_nothing() {
    for means in MEANS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let at_client = listener.accept().await.unwrap().0;
        let (at_origin, mut origin) = pair().await;
        let traffic = Traffic::default();
        let sent = pattern(400_000);
        let feed = async {
            origin.write_all(&sent).await.unwrap();
            drop(origin);
        };
        let read = async {
            let mut got = Vec::new();
            let mut some = [0; 3000];
            loop {
                match client.read(&mut some).await.unwrap() {
                    0 => break,
                    bytes => got.extend_from_slice(&some[..bytes]),
                }
                tokio::task::yield_now().await;
            }
            drop(client);
            got
        };
        let carried = join(at_client, at_origin, Unsent::default(), Carries::Both, means, &traffic);
        let ((), got, carried) = tokio::join!(feed, read, carried);
        assert!(got == sent, "{means:?}");
        carried.unwrap();
    }
}
