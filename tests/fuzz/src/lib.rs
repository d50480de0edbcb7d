//! What every parser of network input must hold for any bytes at all.
//!
//! The fuzz targets call these functions, and so does the test that replays the corpora without a fuzzer.

use std::{net::SocketAddr, ops::RangeInclusive};

use proxy_common::demux::{Class, classify};
use proxy_protocol::{
    backend_id::{tagged, untagged},
    dash::Manifest,
    hls::Playlist,
    http_head::{AnswerUse, ClientAddress, HeadLimits, Hop, Method as HttpMethod, RequestHead, ResponseHead},
    icmp::IcmpError,
    neighbour::{advertised, probe_answer},
    rfc4571,
    routed_ufrag::{FleetKey, RoutedUfrag},
    rtmp::{
        Message as RtmpMessage,
        chunk::{Assembler, Limits, ReadError, Reader, Writer},
        handshake::{Client, HandshakeError, RANDOM_LEN, Server},
        join,
    },
    sdp::{self, Answer, HostCandidate, OurCandidates},
    srs_api::{self, Identity, Kind, MOST_ITEMS, MergedList, Page, Target},
    srt::{self, Handshake},
    stream_url::{StreamKey, StreamRules},
    stun::{self, Message, Method},
};

pub mod rtmp;

/// A datagram is a message or an error.
pub fn stun(input: &[u8]) {
    let Ok(message) = Message::parse(input) else { return };
    let (_, _) = (message.fingerprint(), message.transaction_id());
    assert!(message.has_integrity() || !message.verify_integrity(b"VOkJxbRl1RmTxUk/WvJxBt"));
}

/// An answer can be rewritten, and the result read and rewritten again without further change.
pub fn sdp_answer(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(answer) = Answer::parse(text) else { return };
    assert_eq!(sdp::offer_ufrag(text).as_ref(), Ok(answer.ufrag()));

    let ours = HostCandidate { ip: [203, 0, 113, 5].into(), port: 8000 };
    let rewritten = answer.with_candidates(&[ours]);
    let again = Answer::parse(&rewritten).expect("our own candidates are well-formed");
    assert_eq!(again.media_count(), answer.media_count());
    assert!(again.candidates().iter().all(|candidate| candidate.host == "203.0.113.5"));
    assert!(!again.candidates().is_empty());
    assert_eq!(again.with_candidates(&[ours]), rewritten);

    let ours = OurCandidates { udp: &[ours], tcp: &[ours] };
    let rewritten = answer.with_candidates_by_transport(&ours);
    let again = Answer::parse(&rewritten).expect("our own candidates are well-formed");
    assert!(again.candidates().iter().all(|candidate| candidate.host == "203.0.113.5"));
    assert_eq!(again.with_candidates_by_transport(&ours), rewritten);
}

/// A handshake is read as it is written, and what is made of it for the other side is the same but for two fields.
pub fn srt_handshake(input: &[u8]) {
    let Ok(handshake) = Handshake::parse(input) else { return };
    let written = handshake.encode();
    assert_eq!(Handshake::parse(&written), Ok(handshake));
    assert_eq!(input.len(), written.len());
    // What handshakes do not use is not kept.
    assert_eq!(input.get(8..), written.get(8..));

    let receiver = [192, 0, 2, 1].into();
    let readdressed = srt::readdress(input, 7, receiver).expect("a handshake has room");
    let expected = Handshake { cookie: 7, peer_ip: receiver, ..handshake };
    assert_eq!(Handshake::parse(&readdressed), Ok(expected));
    if let Ok(Some(id)) = handshake.stream_id() {
        drop(StreamRules::default().srt(&id));
    }
}

/// An address, of which a second line is the stream or the Host, is a key in normal form or an error.
pub fn stream_url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (address, name) = text.split_once('\n').unwrap_or((text, ""));
    let mut rules = StreamRules { vhosts: vec!["cdn.example.com".to_owned()], go_compatible: true };
    stream_keys(&rules, address, name).for_each(drop);
    drop(rules.media(Some(name), address, Some(name)));

    rules.go_compatible = false;
    let media = rules.media(None, address, Some(name)).ok().flatten();
    for key in stream_keys(&rules, address, name).chain(media.iter().flat_map(|m| m.streams()).cloned()) {
        assert!(!key.as_str().contains("//") && !key.app().is_empty());
        assert_eq!(key.as_str().parse(), Ok(key));
    }
}

fn stream_keys(rules: &StreamRules, address: &str, name: &str) -> impl Iterator<Item = StreamKey> {
    let keys = [
        rules.rtmp(address, name),
        rules.rtc_url(address),
        rules.http(Some(name), address, Some(name)),
        rules.http(Some(name), "/rtc/v1/whip/", Some(address)),
        rules.srt(address),
    ];
    keys.into_iter().flatten()
}

/// Bytes are a head, or may become one, or never will; the head for the origin reads as what came.
pub fn http_head(input: &[u8]) {
    let limits = HeadLimits { bytes: 4096, headers: 32 };
    for end in [input.len() / 2, input.len().saturating_sub(1)] {
        let early = RequestHead::parse(input.split_at(end).0, &limits);
        let whole = RequestHead::parse(input, &limits);
        assert!(early == Ok(None) || early.is_err() == whole.is_err());
    }
    if let Ok(Some(answer)) = ResponseHead::parse(input, HttpMethod::Get, &limits) {
        let head = answer.with_body_length(7);
        let again = ResponseHead::parse(&head, HttpMethod::Get, &HeadLimits { bytes: 8192, headers: 33 });
        let again = again.expect("what we write can be read").expect("what we write is complete");
        assert_eq!((again.status(), again.length()), (answer.status(), head.len()));
    }
    let Ok(Some(request)) = RequestHead::parse(input, &limits) else { return };
    assert!(request.length() <= input.len() && request.length() <= limits.bytes);
    request_for_origin(&request);
}

fn request_for_origin(request: &RequestHead<'_>) {
    let client = ClientAddress::new([192, 0, 2, 1].into(), request.headers(), |_| false);
    let hop = Hop { client: &client, is_https: false };
    let target = untagged(request.target().as_str());
    let head = request.to_origin(&target, hop, AnswerUse::Passed);
    let sent = RequestHead::parse(&head, &HeadLimits { bytes: 8192, headers: 40 });
    let sent = sent.expect("what we write can be read").expect("what we write is complete");
    assert_eq!(sent.length(), head.len());
    assert_eq!((sent.method(), sent.target().as_str()), (request.method(), target.as_str()));
    assert_eq!((sent.body(), sent.is_websocket()), (request.body(), request.is_websocket()));
    assert!(sent.headers().all("x-forwarded-for").eq([b"192.0.2.1"]));
    assert!(sent.headers().all("x-real-ip").eq([b"192.0.2.1"]));
}

/// A playlist keeps every byte that is no URI of ours, and is rewritten once.
pub fn hls_playlist(input: &[u8]) {
    let Ok(playlist) = Playlist::parse(input) else { return };
    assert_eq!(playlist.rewrite(&HOSTS, str::to_owned).as_bytes(), input);
    let rewritten = playlist.rewrite(&HOSTS, |uri| tagged(uri, "ID"));
    let again = Playlist::parse(rewritten.as_bytes()).expect("a rewritten playlist is one");
    assert_eq!((again.kind(), again.uris().count()), (playlist.kind(), playlist.uris().count()));
    assert_eq!(again.rewrite(&HOSTS, |uri| tagged(uri, "ID")), rewritten);
}

/// A manifest keeps every byte that is no URI of ours, and is rewritten once.
pub fn dash_mpd(input: &[u8]) {
    let Ok(manifest) = Manifest::parse(input) else { return };
    assert_eq!(manifest.rewrite(&HOSTS, str::to_owned).as_bytes(), input);
    let rewritten = manifest.rewrite(&HOSTS, |uri| tagged(uri, "ID"));
    let again = Manifest::parse(rewritten.as_bytes()).expect("a rewritten manifest is one");
    assert_eq!(again.uris().count(), manifest.uris().count());
    assert_eq!(again.rewrite(&HOSTS, |uri| tagged(uri, "ID")), rewritten);
}

/// A first line is a path of the API, which leads to what is known or nowhere; the rest is an answer, whose list merged
/// with others is a list again.
pub fn srs_api(input: &[u8]) {
    let split = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (path, body) = input.split_at(split);
    if let Some(target) = std::str::from_utf8(path).ok().and_then(|path| Target::of_path(path).ok()) {
        let asked = target.to_path();
        assert_eq!(Target::of_path(&asked).map(|target| target.to_path()), Ok(asked));
    }
    for kind in Kind::ALL {
        drop(
            srs_api::one(kind, body, "o").map(|answer| srs_api::plain(answer.json.as_bytes()).expect("JSON")),
        );
        let Ok(list) = srs_api::list(kind, body, "o", None, MOST_ITEMS) else { continue };
        let mut merged = MergedList::new(kind, Page { start: 0, count: MOST_ITEMS }, usize::MAX);
        merged.add("o", Ok(list.clone()));
        let (code, json) = merged.into_json(Identity { name: "fuzz", pid: 1 });
        let again = srs_api::list(kind, json.as_bytes(), "o", None, MOST_ITEMS).expect("a list");
        assert_eq!((code, again.items.len(), again.total), (0, list.items.len(), list.total));
    }
}

const HOSTS: [&str; 1] = ["edge.example:8080"];

/// A stream of frames is what its packets are written as, and its first frame is a request or not.
pub fn rfc4571(input: &[u8]) {
    const LIMIT: usize = 2048;
    if let Ok(Some((request, length))) = rfc4571::first_request(input, LIMIT) {
        assert!(request.username().is_some() && length <= input.len());
    }
    let begun = rfc4571::beginning(input, LIMIT);
    for end in 0..input.len().min(16) {
        let early = rfc4571::beginning(&input[..end], LIMIT);
        assert!(early == rfc4571::Beginning::Undecided || early == begun);
    }
    let Ok((frames, length)) = rfc4571::frames(input, LIMIT) else { return };
    let mut written = Vec::new();
    for frame in &frames {
        rfc4571::write(frame.packet(), &mut written).expect("a packet of a frame fits in one");
    }
    assert!(written.len() <= length && length <= input.len());
    assert_eq!(rfc4571::frames(&written, LIMIT), Ok((frames, written.len())));
}

/// A text is a ufrag of ours in its one form, or none; only what the key made has a password.
pub fn routed_ufrag(input: &[u8]) {
    const ORIGIN: &str = "vid-1m3n6a0-0a1b2c3d-77";
    let Some(routed) = std::str::from_utf8(input).ok().and_then(RoutedUfrag::parse) else { return };
    assert_eq!(input.len(), 32);
    let key = FleetKey::new(b"one key for all of a fleet");
    let made = key.credentials(ORIGIN, routed.nonce());
    let is_made = made.ufrag.as_str().as_bytes() == input;
    assert_eq!(key.pwd_of(&routed, ORIGIN), is_made.then_some(made.pwd));
}

/// A message of a neighbour is the answer to a question of ours, or it is not.
pub fn neighbour(input: &[u8]) {
    assert!(probe_answer(input).is_err() || advertised(input).is_err());
}

/// A packet, or a message of ICMPv6, is an error whose translation is the same error about the other leg.
pub fn icmp(input: &[u8]) {
    let v4 = IcmpError::parse_v4(input).map(|error| (error, "192.0.2.1:1", "192.0.2.2:2"));
    let v6 = IcmpError::parse_v6(input).map(|error| (error, "[2001:db8::1]:1", "[2001:db8::2]:2"));
    for (error, from, to) in [v4, v6].into_iter().flatten() {
        let (from, to): (SocketAddr, SocketAddr) =
            (from.parse().expect("an address"), to.parse().expect("an address"));
        let message = error.translate(from, to).expect("both are of the version of the error");
        let packet =
            [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &message[..]].concat();
        let again = if from.is_ipv4() { IcmpError::parse_v4(&packet) } else { IcmpError::parse_v6(&message) };
        let again = again.expect("what we write can be read");
        assert_eq!((again.cause, again.quote.from(), again.quote.to()), (error.cause, from, to));
    }
}

/// The two bytes that the kernel looks at agree with the whole message.
pub fn demux(input: &[u8]) {
    let Some(first) = input.first_chunk() else { return };
    let expected = match Message::parse(input) {
        Ok(message) if message.method() == Method::BINDING => stun_class(message.class()),
        Ok(_) => Class::Other,
        Err(_) => return,
    };
    assert_eq!(classify(*first), expected);
}

/// A handshake is the same however it is cut, and leaves what follows.
pub fn rtmp_handshake(input: &[u8]) {
    let serve = |arrivals| {
        let mut server = Server::new([0x5A; RANDOM_LEN]);
        shake_hands(input, arrivals, |input, out| server.read(input, out))
    };
    assert_eq!(serve(byte_by_byte(input)), serve(at_once(input)));

    let connect = |arrivals| {
        let mut client = Client::start(&[0x5A; RANDOM_LEN], None, &mut Vec::new());
        shake_hands(input, arrivals, |input, out| client.read(input, out))
    };
    assert_eq!(connect(byte_by_byte(input)), connect(at_once(input)));
}

/// How many bytes have come at each read.
const fn byte_by_byte(input: &[u8]) -> RangeInclusive<usize> {
    0..=input.len()
}

const fn at_once(input: &[u8]) -> RangeInclusive<usize> {
    input.len()..=input.len()
}

/// Whether it is over, what was sent and how much is left.
fn shake_hands(
    input: &[u8],
    arrivals: RangeInclusive<usize>,
    mut read: impl FnMut(&mut &[u8], &mut Vec<u8>) -> Result<bool, HandshakeError>,
) -> Result<(bool, Vec<u8>, usize), HandshakeError> {
    let (mut out, mut unread) = (Vec::new(), 0);
    for arrived in arrivals {
        let mut rest = &input[unread..arrived];
        let done = read(&mut rest, &mut out)?;
        unread = arrived - rest.len();
        if done {
            return Ok((true, out, input.len() - unread));
        }
    }
    Ok((false, out, input.len() - unread))
}

const RTMP_LIMITS: Limits = Limits { message_length: 1 << 16, chunk_streams: 16, held: 1 << 20 };

/// Chunks are the same messages however they are cut, and after a relay that joins the two sides as soon as it may.
pub fn rtmp_chunk(input: &[u8]) {
    let (messages, error) = rtmp_messages(input, at_once(input), RTMP_LIMITS);
    assert_eq!(rtmp_messages(input, byte_by_byte(input), RTMP_LIMITS), (messages.clone(), error));

    for (chunk_size, ours) in [(None, 0), (Some(4096), 1)] {
        let relayed = relay(input, chunk_size);
        let limits = Limits { chunk_streams: RTMP_LIMITS.chunk_streams + ours, ..RTMP_LIMITS };
        let (understood, _) = rtmp_messages(&relayed, at_once(&relayed), limits);
        assert!(understood[ours..].starts_with(&messages));
        // What refers to no header of the source may refer to one of ours: that is the source's fault.
        assert!(error.is_some() || understood.len() == ours + messages.len());
    }
}

fn rtmp_messages(
    input: &[u8],
    arrivals: RangeInclusive<usize>,
    limits: Limits,
) -> (Vec<RtmpMessage>, Option<ReadError>) {
    let (mut reader, mut assembler) = (Reader::new(limits), Assembler::new(limits));
    let (mut messages, mut unread) = (Vec::new(), 0);
    for arrived in arrivals {
        let mut rest = &input[unread..arrived];
        loop {
            match reader.read(&mut rest) {
                Ok(Some(piece)) => messages.extend(assembler.push(&piece).expect("the limits allow it")),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        unread = arrived - rest.len();
    }
    (messages, None)
}

/// What a relay sends that begins with a chunk size of its own, or with none.
fn relay(mut input: &[u8], chunk_size: Option<u32>) -> Vec<u8> {
    let (mut reader, mut writer, mut out) = (Reader::new(RTMP_LIMITS), Writer::new(RTMP_LIMITS), Vec::new());
    if let Some(size) = chunk_size {
        writer.set_chunk_size(size, &mut out).expect("the size is allowed");
    }
    while let Ok(Some(piece)) = reader.read(&mut input) {
        writer.relay(&piece, &mut out).expect("the limits allow it");
        if join::check(&reader, &writer).is_ok() {
            out.extend(input);
            break;
        }
    }
    out
}

const fn stun_class(class: stun::Class) -> Class {
    match class {
        stun::Class::Request => Class::StunRequest,
        stun::Class::Indication => Class::StunIndication,
        stun::Class::Success => Class::StunSuccess,
        stun::Class::Error => Class::StunError,
    }
}
