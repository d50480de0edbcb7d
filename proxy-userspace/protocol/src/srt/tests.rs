use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::{extension::stream_id_block, *};

/// FFmpeg 5.1 with libsrt 1.5.1, which called a listener on loopback.
const INDUCTION: &[u8] = include_bytes!("../../tests/data/srt/ffmpeg_induction.bin");
const CONCLUSION: &[u8] = include_bytes!("../../tests/data/srt/ffmpeg_conclusion.bin");
const WITH_KEY: &[u8] = include_bytes!("../../tests/data/srt/ffmpeg_key_conclusion.bin");
const OVER_IPV6: &[u8] = include_bytes!("../../tests/data/srt/ffmpeg_v6_conclusion.bin");
const WITHOUT_ID: &[u8] = include_bytes!("../../tests/data/srt/ffmpeg_none_conclusion.bin");

fn caller() -> SocketAddr {
    "192.0.2.7:40000".parse().unwrap()
}

fn stream_id(datagram: &[u8]) -> Result<Option<String>, HandshakeError> {
    Handshake::parse(datagram)?.stream_id()
}

#[test]
fn reads_the_first_request_of_a_caller() {
    let expected = Handshake {
        timestamp: 0x1ae,
        destination: SocketId(0),
        version: 4,
        encryption: 0,
        extension_field: DATAGRAM,
        initial_sequence: 0x7926_b761,
        mtu: 1500,
        window: 8192,
        kind: Kind::Induction,
        socket: SocketId(0x30d2_6381),
        cookie: 0,
        peer_ip: Ipv4Addr::LOCALHOST.into(),
        extensions: &[],
    };
    assert_eq!(Handshake::parse(INDUCTION), Ok(expected));
    assert_eq!(expected.encode(), INDUCTION);
}

#[test]
fn reads_the_second_request_of_a_caller() {
    let conclusion = Handshake::parse(CONCLUSION).unwrap();
    assert_eq!((conclusion.version, conclusion.kind), (HSV5, Kind::Conclusion));
    assert_eq!((conclusion.socket, conclusion.cookie), (SocketId(0x30d2_6381), 0x418d_5e4e));
    assert_eq!(conclusion.encode(), CONCLUSION);
    let kinds: Vec<_> = Extensions::new(conclusion.extensions).map(|e| e.unwrap().kind).collect();
    assert_eq!(kinds, [1, 5]);
    assert_eq!(stream_id(CONCLUSION), Ok(Some("#!::r=live/livestream,m=publish".into())));
    assert_eq!(stream_id(WITH_KEY), Ok(Some("#!::r=live/s1,m=publish".into())));
    assert_eq!(stream_id(WITHOUT_ID), Ok(None));
}

#[test]
fn defect_35_an_ipv6_address_of_a_peer_is_read_whole() {
    let conclusion = Handshake::parse(OVER_IPV6).unwrap();
    assert_eq!(conclusion.peer_ip, Ipv6Addr::LOCALHOST);
    assert_eq!(conclusion.encode(), OVER_IPV6);
    assert_eq!(stream_id(OVER_IPV6), Ok(Some("live/s1".into())));
}

#[test]
fn defect_04_every_truncation_of_a_conclusion_is_refused_or_has_the_stream_id_or_none() {
    for datagram in [CONCLUSION, WITH_KEY] {
        let whole = stream_id(datagram);
        for end in 0..datagram.len() {
            let cut = &datagram[..end];
            match Handshake::parse(cut) {
                Err(error) => {
                    assert!(end < HANDSHAKE_LEN, "{end}");
                    assert!(matches!(error, HandshakeError::Truncated(_)), "{end}");
                }
                Ok(handshake) => {
                    let id = handshake.stream_id();
                    // Where a block ends nothing tells that another one was to follow.
                    assert!(id.is_err() || id == Ok(None) || id == whole, "{end}: {id:?}");
                }
            }
        }
    }
}

#[test]
fn a_length_that_leaves_the_datagram_is_refused_however_large() {
    for words in [9, 0x4000, 0x4001, u16::MAX] {
        let mut datagram = CONCLUSION.to_vec();
        datagram[82..84].copy_from_slice(&words.to_be_bytes());
        assert!(stream_id(&datagram).is_err(), "{words}");
    }
}

#[test]
fn stream_ids_that_libsrt_refuses_are_refused() {
    let with = |block: &[u8]| stream_id(&[&CONCLUSION[..80], block].concat());
    assert_eq!(with(&stream_id_block(&"s".repeat(512))), Ok(Some("s".repeat(512))));
    assert_eq!(with(&stream_id_block(&"s".repeat(513))), Err(HandshakeError::StreamId));
    assert_eq!(with(&stream_id_block("")), Err(HandshakeError::StreamId));
    // Of several the last counts.
    let two = [stream_id_block("live/a"), stream_id_block("live/b")].concat();
    assert_eq!(with(&two), Ok(Some("live/b".into())));
}

#[test]
fn a_stream_id_without_its_flag_is_none() {
    let mut datagram = CONCLUSION.to_vec();
    datagram[23] = 1;
    assert_eq!(stream_id(&datagram), Ok(None));
}

#[test]
fn other_packets_are_no_handshakes() {
    for first in [[0x80, 0x01], [0x80, 0x05], [0x00, 0x00], [0x00, 0x01]] {
        let datagram = [&first[..], &INDUCTION[2..]].concat();
        assert_eq!(Handshake::parse(&datagram), Err(HandshakeError::NotAHandshake));
    }
}

#[test]
fn tells_rejections_and_rendezvous_apart() {
    let kind = |word: u32| {
        let mut datagram = INDUCTION.to_vec();
        datagram[36..40].copy_from_slice(&word.to_be_bytes());
        Handshake::parse(&datagram).unwrap().kind
    };
    assert_eq!(kind(1008), Kind::Rejection(Rejection::VERSION));
    assert_eq!(kind(2402), Kind::Rejection(Rejection::OVERLOAD));
    assert_eq!(kind(0), Kind::Other(0));
    assert_eq!(kind(0xffff_fffe), Kind::Other(0xffff_fffe));
}

#[test]
fn an_answer_to_a_first_request_is_what_a_listener_of_libsrt_says() {
    let request = Handshake::parse(INDUCTION).unwrap();
    let answer = request.induced(0x418d_5e4e, caller().ip(), 9);
    let mut expected = INDUCTION.to_vec();
    expected[8..12].copy_from_slice(&9_u32.to_be_bytes());
    expected.copy_within(40..44, 12);
    expected[16..24].copy_from_slice(&[0, 0, 0, 5, 0, 0, 0x4a, 0x17]);
    expected[44..48].copy_from_slice(&0x418d_5e4e_u32.to_be_bytes());
    expected[48..52].copy_from_slice(&[7, 2, 0, 192]);
    assert_eq!(answer.encode(), expected);
}

#[test]
fn a_refusal_is_for_the_socket_that_asked() {
    let request = Handshake::parse(CONCLUSION).unwrap();
    let refusal = request.rejected(Rejection::DOWN, caller().ip(), 9).encode();
    assert_eq!(refusal.len(), HANDSHAKE_LEN);
    let refusal = Handshake::parse(&refusal).unwrap();
    assert_eq!((refusal.destination, refusal.kind), (request.socket, Kind::Rejection(Rejection::DOWN)));
    assert_eq!(refusal.cookie, request.cookie);
}

#[test]
fn a_first_request_in_the_name_of_a_caller_is_what_the_caller_says() {
    let conclusion = Handshake::parse(CONCLUSION).unwrap();
    let mut expected = INDUCTION.to_vec();
    expected[8..12].copy_from_slice(&conclusion.timestamp.to_be_bytes());
    assert_eq!(conclusion.inducing(Ipv4Addr::LOCALHOST.into()).encode(), expected);
}

#[test]
fn another_receiver_gets_the_same_but_for_its_cookie_and_address() {
    let datagram = readdress(WITH_KEY, 0x0102_0304, "2001:db8::7".parse().unwrap()).unwrap();
    assert_eq!((&datagram[..44], &datagram[64..]), (&WITH_KEY[..44], &WITH_KEY[64..]));
    let handshake = Handshake::parse(&datagram).unwrap();
    assert_eq!((handshake.cookie, handshake.peer_ip), (0x0102_0304, "2001:db8::7".parse().unwrap()));
    assert_eq!(readdress(&WITH_KEY[..63], 1, Ipv4Addr::LOCALHOST.into()), None);
}

#[test]
fn a_cookie_is_of_one_caller_one_port_one_key_and_two_slices() {
    let (key, other) = (CookieKey::new([7; 32]), CookieKey::new([8; 32]));
    let cookie = key.cookie(caller(), 10080, 5);
    assert!(key.accepts(cookie, caller(), 10080, 5) && key.accepts(cookie, caller(), 10080, 6));
    let neighbour = SocketAddr::new(caller().ip(), 40001);
    let elsewhere = SocketAddr::new([192, 0, 2, 8].into(), 40000);
    let refused = [
        key.accepts(cookie, caller(), 10080, 7),
        key.accepts(cookie, caller(), 10080, 4),
        key.accepts(cookie, caller(), 10081, 5),
        key.accepts(cookie, neighbour, 10080, 5),
        key.accepts(cookie, elsewhere, 10080, 5),
        other.accepts(cookie, caller(), 10080, 5),
        key.accepts(0, caller(), 10080, 5),
        key.accepts(cookie, caller(), 10080, 0),
    ];
    assert_eq!(refused, [false; 8]);
    assert_eq!(format!("{key:?}"), "CookieKey(secret)");
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    // An IPv6 address whose last 12 bytes are zero looks like an IPv4 one, and nobody has one.
    prop_oneof![
        any::<u32>().prop_map(|ip| Ipv4Addr::from(ip).into()),
        any::<u128>().prop_map(|ip| Ipv6Addr::from(ip | 1).into()),
    ]
}

proptest! {
    #[test]
    fn any_handshake_is_read_as_it_was_written(
        numbers in any::<[u32; 8]>(),
        fields in any::<[u16; 2]>(),
        peer_ip in any_ip(),
        extensions in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let [timestamp, destination, version, initial_sequence, mtu, window, socket, cookie] = numbers;
        let handshake = Handshake {
            timestamp,
            destination: SocketId(destination),
            version,
            encryption: fields[0],
            extension_field: fields[1],
            initial_sequence,
            mtu,
            window,
            kind: Kind::Conclusion,
            socket: SocketId(socket),
            cookie,
            peer_ip,
            extensions: &extensions,
        };
        let written = handshake.encode();
        prop_assert_eq!(Handshake::parse(&written), Ok(handshake));
    }

    #[test]
    fn any_stream_id_is_found_again(id in "[^\\x00]{1,120}") {
        let datagram = [&CONCLUSION[..80], &stream_id_block(&id)].concat();
        prop_assert_eq!(stream_id(&datagram), Ok(Some(id)));
    }

    #[test]
    fn any_bytes_are_read_or_refused_as_a_handshake(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = stream_id(&[&CONCLUSION[..8], &bytes].concat());
    }
}
