//! Peers that do not keep to the rules: slow ones, ones that play games with chunks, ones that stop anywhere. Each is served or
//! disconnected, nobody else notices, and nothing is left of it.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    io::{ErrorKind, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use integration_tests::{
    http::Server,
    live::{
        Between, Clip, Ends, RTMP_PORT, descriptors, memory, publish as published_by_ffmpeg, read_once,
        register, start, until, wait_for_connections,
    },
    netns::Direct,
    proxy::{Engine, Proxy},
    rtmp::{Peer, connect, create_stream, media, publish},
};
use proxy_protocol::rtmp::{
    Message,
    chunk::{Limits, MAX_MESSAGE_LENGTH, Reader},
    control::Control,
    message::kind,
};
use socket2::SockRef;

const SOON: Duration = Duration::from_secs(10);

/// A client that sends a byte now and then, and when it was disconnected.
struct Slow {
    what: &'static str,
    stream: TcpStream,
    rest: Vec<u8>,
    began: Instant,
    had: Option<Duration>,
}

impl Slow {
    fn new(what: &'static str, stream: TcpStream, rest: impl Into<Vec<u8>>) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { what, stream, rest: rest.into(), began: Instant::now(), had: None }
    }

    /// Sends the next byte, if there is one, and looks whether it is still connected.
    fn turn(&mut self) {
        if !self.rest.is_empty() {
            // That it is disconnected shows when it reads.
            let _sent = self.stream.write(&[self.rest.remove(0)]);
        }
        let mut buffer = [0; 4096];
        loop {
            match read_once(&mut self.stream, &mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.had.get_or_insert(self.began.elapsed());
    }
}

/// Turns until every client is disconnected, none of them before its time.
#[track_caller]
fn are_disconnected(mut slow: Vec<Slow>, timeout: Duration, mut meanwhile: impl FnMut()) {
    const STEP: Duration = Duration::from_millis(50);
    let end = Instant::now() + 4 * timeout;
    while slow.iter().any(|client| client.had.is_none()) {
        slow.iter_mut().filter(|client| client.had.is_none()).for_each(Slow::turn);
        meanwhile();
        let still: Vec<_> = slow.iter().filter(|one| one.had.is_none()).map(|one| one.what).collect();
        assert!(Instant::now() < end, "still connected: {still:?}");
        thread::sleep(STEP);
    }
    for Slow { what, had, .. } in slow {
        assert!(had.unwrap() > timeout / 2, "{what}: after {had:?}");
    }
}

/// What follows the handshake, as bytes.
fn chunks(peer: &mut Peer, messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(|message| peer.chunks(message).unwrap()).collect()
}

#[test]
fn defect_29_slow_clients_of_rtmp_are_disconnected_at_every_step() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[("PROXY_API_CLIENT_TIMEOUT", "3s")]).unwrap();
    let hello = [&[3][..], &[0x5A; 3072]].concat();
    let bare = |what, rest: &[u8]| Slow::new(what, stage.connect_rtmp().unwrap(), rest);
    let peer = || network.client.enter(|| Peer::connect(stage.rtmp())).unwrap();
    let after = |what, mut peer: Peer, said: &[Message], next: Message| {
        let said = chunks(&mut peer, said);
        peer.send_bytes(&said).unwrap();
        let next = peer.chunks(&next).unwrap();
        Slow::new(what, peer.stream().try_clone().unwrap(), next)
    };
    let connect = connect(stage.rtmp());
    // One that needs no answer.
    let a_word = Control::Acknowledgement(1).to_message();
    // So many that the last of them is not sent in time.
    let padded = Message { payload: [connect.payload.as_slice(), &[5; 4000]].concat(), ..connect.clone() };
    let slow = vec![
        bare("nothing", b""),
        bare("a handshake byte by byte", &hello),
        bare("a handshake without its last part", &hello[..1537]),
        after("a word after the handshake", peer(), &[], a_word.clone()),
        after("connect byte by byte", peer(), &[], padded.clone()),
        after("a word after connect", peer(), std::slice::from_ref(&connect), a_word),
        after(
            "publish byte by byte",
            peer(),
            &[connect.clone(), create_stream()],
            Message { payload: [publish("s").payload.as_slice(), &[5; 4000]].concat(), ..publish("s") },
        ),
    ];
    are_disconnected(slow, TIMEOUT, || {
        // Somebody who is not slow is served meanwhile.
        drop(stage.published("prompt").unwrap());
    });
    wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
    stage.proxy.stop().unwrap();
}

#[test]
fn defect_29_slow_clients_of_http_are_disconnected_at_every_step() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[("PROXY_API_CLIENT_TIMEOUT", "3s")]).unwrap();
    let long = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(4000));
    let slow = |what, first: &str, rest: &str| {
        let mut stream = stage.connect_http().unwrap();
        stream.write_all(first.as_bytes()).unwrap();
        Slow::new(what, stream, rest)
    };
    let versions = "GET /api/v1/versions HTTP/1.1\r\nHost: a\r\n\r\n";
    let clients = vec![
        slow("nothing", "", ""),
        slow("half a line", "GET /live/s.fl", ""),
        slow("a head for a stream byte by byte", "", &long("/live/s.flv")),
        slow("a head for a playlist byte by byte", "", &long("/live/s.m3u8")),
        slow("nothing after an answer", versions, ""),
        slow("a second head byte by byte", versions, &long("/live/s.m3u8")),
    ];
    are_disconnected(clients, TIMEOUT, || drop(stage.fetched("prompt.flv").unwrap()));
    wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
    stage.proxy.stop().unwrap();
}

/// Media by chunk stream, timestamp and payload.
type Media = Vec<(u32, u32, Vec<u8>)>;

/// What a publisher sends after its `publish`, and what an origin makes of it.
struct Game {
    what: &'static str,
    bytes: Vec<u8>,
    /// None if the connection is to end before.
    media: Option<Media>,
    /// Whether the proxy would have to keep more than it may, unless it has joined.
    is_held: bool,
}

fn control(value: &Control) -> Vec<u8> {
    let message = value.to_message();
    let mut bytes = vec![2, 0, 0, 0, 0, 0, message.payload.len() as u8, message.kind, 0, 0, 0, 0];
    bytes.extend(message.payload);
    bytes
}

fn set_chunk_size(size: u32) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 0, 4, kind::SET_CHUNK_SIZE, 0, 0, 0, 0][..], &size.to_be_bytes()].concat()
}

/// A header of type 0 for video.
fn header(basic: &[u8], time: u32, length: u32) -> Vec<u8> {
    let short = time.min(0xFF_FFFF).to_be_bytes();
    let mut bytes = [basic, &short[1..], &length.to_be_bytes()[1..], &[kind::VIDEO, 1, 0, 0, 0]].concat();
    if time >= 0xFF_FFFF {
        bytes.extend(time.to_be_bytes());
    }
    bytes
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 % 251) as u8).collect()
}

/// One after which the origin knows that nothing more comes.
fn last() -> (Vec<u8>, (u32, u32, Vec<u8>)) {
    ([header(&[0x3F], 9, 4), b"last".to_vec()].concat(), (63, 9, b"last".to_vec()))
}

fn harmless(what: &'static str, bytes: Vec<u8>, mut media: Media) -> Game {
    let (end, expected) = last();
    media.push(expected);
    Game { what, bytes: [bytes, end].concat(), media: Some(media), is_held: false }
}

fn refused(what: &'static str, bytes: Vec<u8>) -> Game {
    Game { what, bytes, media: None, is_held: false }
}

fn games() -> Vec<Game> {
    let (short, long) = (payload(300), payload(0xFF_FFFF));
    let within =
        [header(&[4], 0, 300), short[..128].to_vec(), set_chunk_size(256), vec![0xC4], short[128..].to_vec()];
    let aborted = [
        header(&[4], 0, 300),
        short[..128].to_vec(),
        control(&Control::Abort { chunk_stream: 4 }),
        header(&[4], 40, 10),
        short[..10].to_vec(),
    ];
    // A delta that needs 32 bits too: 0x01000000 after 0x01000000.
    let extended = [
        header(&[4], 0x0100_0000, 200),
        short[..128].to_vec(),
        [&[0xC4][..], &0x0100_0000_u32.to_be_bytes()].concat(),
        short[128..200].to_vec(),
        vec![0x44, 0xFF, 0xFF, 0xFF, 0, 0, 5, kind::VIDEO, 1, 0, 0, 0],
        short[..5].to_vec(),
        // And once more the same, by a header that says nothing.
        vec![0xC4, 1, 0, 0, 0],
        short[5..10].to_vec(),
    ];
    let highest = [header(&[1, 0xFF, 0xFF], 5, 10), short[..10].to_vec()];
    let largest = [set_chunk_size(0x7FFF_FFFF), header(&[4], 0, 0xFF_FFFF), long.clone()];
    let ordinary = [set_chunk_size(65_536), header(&[4], 0, 0xFF_FFFF)];
    let ordinary = long.chunks(65_536).enumerate().fold(ordinary.concat(), |mut bytes, (at, part)| {
        bytes.extend((at > 0).then_some(0xC4));
        bytes.extend(part);
        bytes
    });
    let interleaved = [
        header(&[4], 0, 300),
        short[..128].to_vec(),
        header(&[5], 1, 200),
        short[..128].to_vec(),
        [&[0xC4][..], &short[128..256]].concat(),
        [&[0xC5][..], &short[128..200]].concat(),
        [&[0xC4][..], &short[256..]].concat(),
    ];
    vec![
        harmless("a chunk size that changes within a message", within.concat(), vec![(4, 0, short.clone())]),
        harmless("a message that is aborted", aborted.concat(), vec![(4, 40, short[..10].to_vec())]),
        harmless(
            "extended timestamps and deltas",
            extended.concat(),
            vec![
                (4, 0x0100_0000, short[..200].to_vec()),
                (4, 0x0200_0000, short[..5].to_vec()),
                (4, 0x0300_0000, short[5..10].to_vec()),
            ],
        ),
        harmless("the highest chunk stream", highest.concat(), vec![(65_599, 5, short[..10].to_vec())]),
        Game { is_held: true, ..harmless("the largest chunk", largest.concat(), vec![(4, 0, long.clone())]) },
        harmless("the longest message", ordinary, vec![(4, 0, long)]),
        harmless(
            "two messages at once",
            interleaved.concat(),
            vec![(5, 1, short[..200].to_vec()), (4, 0, short.clone())],
        ),
        harmless("a message without payload", header(&[4], 3, 0), vec![(4, 3, Vec::new())]),
        refused("a chunk size of 0", set_chunk_size(0)),
        refused("a chunk size of 1", set_chunk_size(1)),
        refused("a chunk size with 32 bits", set_chunk_size(0x8000_0080)),
        refused(
            "a message inside of another",
            [header(&[4], 0, 300), payload(128), header(&[4], 0, 10)].concat(),
        ),
        refused("a header that refers to nothing", vec![0xC9, 0]),
        refused("a chunk size of two bytes", [&[2, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0][..], &[1, 0]].concat()),
    ]
}

/// What a client says before its `publish` that keeps the proxy from joining: nothing can stand for it on its chunk stream.
fn obstacle() -> Message {
    media(70, 0, vec![0; 10])
}

impl Game {
    /// Sent in one go with everything before it.
    #[track_caller]
    fn is_won(&self, stage: &Between<'_>, network: &Direct, before: &[Message], media: Option<&Media>) {
        let mut client = network.client.enter(|| Peer::connect(stage.rtmp())).unwrap();
        let begin = [connect(stage.rtmp()), create_stream()];
        let begin = begin.iter().chain(before).chain([&publish("game")]).cloned().collect::<Vec<_>>();
        let bytes = [chunks(&mut client, &begin), self.bytes.clone()].concat();
        thread::scope(|scope| {
            let mut at_client = client.stream().try_clone().unwrap();
            let sending = scope.spawn(move || at_client.write_all(&bytes));
            let mut origin = Peer::serve(stage.origin.accept().unwrap());
            match (media, &mut origin) {
                (Some(media), Ok(origin)) => self.arrives(origin, media),
                (Some(_), Err(error)) => panic!("{}: {error:#}", self.what),
                // Whether the proxy finds out or the origin does: nobody waits for the other one.
                (None, Ok(origin)) => while matches!(origin.message(), Ok(Some(_))) {},
                (None, Err(_)) => {}
            }
            drop(origin);
            while client.message().unwrap().is_some() {}
            // Whoever is disconnected may find that out while it sends.
            let _sent = sending.join().unwrap();
        });
    }

    /// Sent when there is nothing between client and origin that reads it.
    #[track_caller]
    fn is_won_after_the_join(&self, stage: &Between<'_>) {
        let Some(media) = &self.media else { return };
        let Ends { client, mut origin } = stage.published("game").unwrap();
        thread::scope(|scope| {
            let mut at_client = client.stream().try_clone().unwrap();
            scope.spawn(move || at_client.write_all(&self.bytes).unwrap());
            self.arrives(&mut origin, media);
        });
    }

    #[track_caller]
    fn arrives(&self, origin: &mut Peer, expected: &Media) {
        for (chunk_stream, timestamp, payload) in expected {
            let message = origin.next_media().unwrap();
            assert_eq!(
                (message.chunk_stream, message.timestamp),
                (*chunk_stream, *timestamp),
                "{}",
                self.what
            );
            assert!(message.payload == *payload, "{}: {} bytes", self.what, message.payload.len());
        }
    }
}

#[test]
fn defect_27_every_game_with_chunks_arrives_as_it_was_meant_or_ends_the_connection() {
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[]).unwrap();
    let before = descriptors(stage.proxy.id()).unwrap();
    for game in games() {
        game.is_won(&stage, &network, &[], game.media.as_ref());
        game.is_won(&stage, &network, &[obstacle()], game.media.as_ref().filter(|_| !game.is_held));
        game.is_won_after_the_join(&stage);
        wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
    }
    until("no descriptor is left", SOON, || Ok(descriptors(stage.proxy.id())? <= before)).unwrap();
    stage.proxy.stop().unwrap();
}

/// What FFmpeg and a server say to each other, from the first byte on.
struct Recorded {
    client: Vec<u8>,
    server: Vec<u8>,
}

impl Recorded {
    /// A publisher, for so many bytes.
    fn of_ffmpeg(enough: usize) -> Self {
        let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
        let listen = |ip| network.proxy.enter(|| TcpListener::bind((ip, 0))).unwrap();
        let (front, back) = (listen(Direct::PROXY), listen(Ipv4Addr::LOCALHOST));
        let url = format!("rtmp://{}/live/recorded", front.local_addr().unwrap());
        let mut ffmpeg = start(&network.client, published_by_ffmpeg(&clip, &["-f", "flv", &url])).unwrap();
        let (mut at_client, _) = front.accept().unwrap();
        let mut at_server = network.proxy.enter(|| TcpStream::connect(back.local_addr().unwrap())).unwrap();
        let (server, _) = back.accept().unwrap();
        let recorded = thread::scope(|scope| {
            scope.spawn(move || drop(hear(server)));
            let (mut from, mut to) = (at_server.try_clone().unwrap(), at_client.try_clone().unwrap());
            let said = scope.spawn(move || pass(&mut from, &mut to, usize::MAX));
            let client = pass(&mut at_client, &mut at_server, enough);
            at_server.shutdown(Shutdown::Both).unwrap();
            Self { client, server: said.join().unwrap() }
        });
        ffmpeg.stop().unwrap();
        recorded
    }
}

/// Serves a client to its end.
fn hear(stream: TcpStream) -> anyhow::Result<()> {
    let mut peer = Peer::serve(stream)?;
    while peer.message()?.is_some() {}
    Ok(())
}

/// Passes on what comes until it is enough or ends, and returns it.
fn pass(from: &mut TcpStream, to: &mut TcpStream, enough: usize) -> Vec<u8> {
    let (mut passed, mut buffer) = (Vec::new(), [0; 4096]);
    while passed.len() < enough {
        match read_once(from, &mut buffer) {
            Ok(bytes) if bytes > 0 && to.write_all(&buffer[..bytes]).is_ok() => {
                passed.extend(&buffer[..bytes]);
            }
            _ => break,
        }
    }
    passed
}

/// Where messages end, and other places at even distances.
fn cuts(bytes: &[u8]) -> Vec<usize> {
    const HANDSHAKE: usize = 1 + 2 * 1536;
    const DISTANCE: usize = 149;
    let limits = Limits { message_length: MAX_MESSAGE_LENGTH, chunk_streams: 64, held: 0 };
    let (mut reader, mut rest) = (Reader::new(limits), &bytes[HANDSHAKE..]);
    let mut cuts: Vec<_> = (0..bytes.len()).step_by(DISTANCE).collect();
    while let Some(piece) = reader.read(&mut rest).unwrap() {
        if piece.ends() {
            cuts.push(bytes.len() - rest.len());
        }
    }
    cuts
}

/// Ends a connection in one of three ways.
fn end(stream: &TcpStream, way: usize) {
    match way % 3 {
        0 => stream.shutdown(Shutdown::Write).unwrap(),
        1 => SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap(),
        _ => {}
    }
}

/// What a proxy held before, and must not exceed by much after.
struct Before {
    descriptors: usize,
    memory: u64,
}

impl Before {
    fn of(proxy: &Proxy<'_>) -> Self {
        Self { descriptors: descriptors(proxy.id()).unwrap(), memory: memory(proxy.id()).unwrap() }
    }

    #[track_caller]
    fn holds_again(&self, proxy: &Proxy<'_>) {
        const MORE: u64 = 24 << 20;
        wait_for_connections(proxy, SOON, <[_]>::is_empty).unwrap();
        until("no descriptor is left", SOON, || Ok(descriptors(proxy.id())? <= self.descriptors)).unwrap();
        let now = memory(proxy.id()).unwrap();
        assert!(now < self.memory + MORE, "{} bytes more", now - self.memory);
    }
}

#[test]
fn a_publisher_may_stop_anywhere() {
    let recorded = Recorded::of_ffmpeg(40_000).client;
    let network = Direct::new().unwrap();
    let proxy = Proxy::start(&network.proxy, Direct::PROXY, Engine::Userspace, &[]).unwrap();
    let origin = SocketAddr::from((Direct::ORIGIN, 1935));
    let _server = network.origin.enter(|| Server::accept(origin, |stream| drop(hear(stream)))).unwrap();
    register(&network.proxy, Direct::ORIGIN, origin.port(), origin.port()).unwrap();
    proxy.wait_for_origins(1).unwrap();
    let before = Before::of(&proxy);
    let cuts = cuts(&recorded);
    assert!(cuts.len() > 300, "{} cuts", cuts.len());
    for (way, cut) in cuts.into_iter().enumerate() {
        let to = SocketAddr::from((Direct::PROXY, RTMP_PORT));
        let mut client = network.client.enter(|| TcpStream::connect_timeout(&to, SOON)).unwrap();
        client.write_all(&recorded[..cut]).unwrap();
        end(&client, way);
    }
    before.holds_again(&proxy);
    proxy.stop().unwrap();
}

#[test]
fn an_origin_may_stop_anywhere() {
    let recorded = Recorded::of_ffmpeg(20_000).server;
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[]).unwrap();
    let before = Before::of(&stage.proxy);
    for (way, cut) in cuts(&recorded).into_iter().enumerate() {
        let mut client = stage.client().unwrap();
        client.send(&publish("cut")).unwrap();
        let mut origin = stage.origin.accept().unwrap();
        origin.write_all(&recorded[..cut]).unwrap();
        end(&origin, way);
        drop(origin);
        // Whatever it is told, it comes to an end.
        while client.message().unwrap().is_some() {}
    }
    before.holds_again(&stage.proxy);
    stage.proxy.stop().unwrap();
}
