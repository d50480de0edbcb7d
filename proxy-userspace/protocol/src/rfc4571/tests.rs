use proptest::prelude::*;

use super::*;
use crate::stun::{MessageBuilder, TransactionId};

const LIMIT: usize = 1500;

fn request(username: &str) -> Vec<u8> {
    let builder = MessageBuilder::new(Class::Request, Method::BINDING, TransactionId([7; 12]));
    builder
        .username(username)
        .use_candidate()
        .integrity(b"kd2s5hp0932067x22634149eot9368m6")
        .fingerprint()
        .build()
}

fn framed(packets: &[&[u8]]) -> Vec<u8> {
    let mut stream = Vec::new();
    for packet in packets {
        write(packet, &mut stream).unwrap();
    }
    stream
}

#[test]
fn a_length_in_network_order_precedes_each_packet() {
    assert_eq!(framed(&[&[0x80; 258], b"ab"]), [&[1, 2][..], &[0x80; 258], &[0, 2], b"ab"].concat());
}

#[test]
fn a_frame_is_read_when_all_of_it_is_there() {
    let stream = framed(&[b"abc", b"de"]);
    for end in 0..5 {
        assert_eq!(Frame::parse(&stream[..end], LIMIT), Ok(None));
    }
    let frame = Frame::parse(&stream, LIMIT).unwrap().unwrap();
    assert_eq!((frame.packet(), frame.length()), (&b"abc"[..], 5));
}

#[test]
fn empty_frames_are_passed_over() {
    let stream = framed(&[b"", b"abc", b"", b"de"]);
    let (packets, length) = frames(&stream, LIMIT).unwrap();
    assert_eq!(packets.iter().map(Frame::packet).collect::<Vec<_>>(), [&b"abc"[..], b"de"]);
    assert_eq!(length, stream.len());
}

#[test]
fn a_frame_beyond_the_limit_is_refused_by_its_length() {
    let error = FrameError::TooLong { length: 1501, limit: LIMIT };
    assert_eq!(Frame::parse(&[0x05, 0xDD], LIMIT), Err(error));
    assert_eq!(Frame::parse(&[0x05, 0xDC], LIMIT), Ok(None));
    assert_eq!(frames(&[0, 1, b'a', 0x05, 0xDD], LIMIT), Err(error));
}

#[test]
fn a_packet_that_no_frame_can_hold_is_not_written() {
    let mut stream = Vec::new();
    assert_eq!(
        write(&vec![0; 65_536], &mut stream),
        Err(FrameError::TooLong { length: 65_536, limit: 65_535 })
    );
    assert_eq!(stream, [0_u8; 0]);
    write(&vec![0; 65_535], &mut stream).unwrap();
    assert_eq!(stream.len(), 65_537);
}

#[test]
fn the_first_frame_names_the_session() {
    let stream = [framed(&[&request("9b22ga66:k+/Z")]), vec![0, 3]].concat();
    let (message, length) = first_request(&stream, LIMIT).unwrap().unwrap();
    assert_eq!((message.username(), length), (Some("9b22ga66:k+/Z"), stream.len() - 2));
    assert!(message.verify_integrity(b"kd2s5hp0932067x22634149eot9368m6"));
}

#[test]
fn every_truncation_of_the_first_frame_needs_more() {
    let stream = framed(&[&request("abcd:efgh")]);
    for end in 0..stream.len() {
        assert!(first_request(&stream[..end], LIMIT).unwrap().is_none(), "{end}");
    }
}

#[test]
fn a_stranger_is_refused_by_the_first_bytes_that_tell() {
    let stream = framed(&[&request("abcd:efgh")]);
    for (name, at, byte) in [
        ("too short for STUN", 1, 19),
        ("indication", 3, 0x11),
        ("response", 2, 0x01),
        ("DTLS", 2, 22),
        ("RTP", 2, 0x80),
        ("no cookie", 6, 0x22),
        ("no cookie in the end", 9, 0x43),
    ] {
        let mut odd = stream[..=at].to_vec();
        odd[0] = 0;
        odd[at] = byte;
        assert_eq!(first_request(&odd, LIMIT).unwrap_err(), FrameError::NoRequest, "{name}");
    }
    for text in ["GET / HTTP/1.1\r\n", "POST", "\u{16}\u{3}\u{1}"] {
        assert_eq!(first_request(text.as_bytes(), LIMIT).unwrap_err(), FrameError::NoRequest, "{text}");
    }
}

#[test]
fn every_truncation_of_a_request_begins_frames_or_is_undecided() {
    let stream = [framed(&[&request("abcd:efgh")]), vec![0x80; 40]].concat();
    for end in 0..stream.len() {
        let expected = if end < 10 { Beginning::Undecided } else { Beginning::Frames };
        assert_eq!(beginning(&stream[..end], LIMIT), expected, "{end}");
    }
    let nameless = MessageBuilder::new(Class::Request, Method::BINDING, TransactionId([7; 12])).build();
    assert_eq!(beginning(&framed(&[&nameless]), LIMIT), Beginning::Frames);
}

#[test]
fn http_is_told_by_its_first_byte() {
    for text in ["GET / HTTP/1.1", "POST /", "options *", "\r\nGET /", "PRI * HTTP/2.0", "\u{16}\u{3}\u{1}"] {
        for end in 1..text.len() {
            assert_eq!(beginning(&text.as_bytes()[..end], LIMIT), Beginning::Other, "{text} {end}");
        }
    }
}

#[test]
fn every_byte_that_no_request_has_begins_something_else() {
    let stream = framed(&[&request("abcd:efgh")]);
    for at in [0, 2, 3, 6, 7, 8, 9] {
        let mut odd = stream[..=at].to_vec();
        odd[at] ^= 0x40;
        assert_eq!(beginning(&odd, LIMIT), Beginning::Other, "{at}");
    }
    assert_eq!(beginning(&[0x05, 0xDD], LIMIT), Beginning::Other);
}

#[test]
fn a_first_frame_that_names_no_session_is_refused() {
    let nameless = MessageBuilder::new(Class::Request, Method::BINDING, TransactionId([7; 12])).build();
    for packet in [nameless, request("")] {
        assert_eq!(first_request(&framed(&[&packet]), LIMIT).unwrap_err(), FrameError::NoUsername);
    }
    let cut = &request("abcd:efgh")[..40];
    assert_eq!(first_request(&framed(&[cut]), LIMIT).unwrap_err(), FrameError::Request(StunError::Length));
    let long = framed(&[&request("abcd:efgh")]);
    let error = FrameError::TooLong { length: long.len() - 2, limit: 70 };
    assert_eq!(first_request(&long[..10], 70).unwrap_err(), error);
}

proptest! {
    #[test]
    fn packets_come_out_as_they_went_in(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..10),
        extra in prop::collection::vec(any::<u8>(), 0..2),
    ) {
        let packets: Vec<_> = packets.iter().map(Vec::as_slice).collect();
        let stream = [framed(&packets), extra.clone()].concat();
        let (frames, length) = frames(&stream, LIMIT).unwrap();
        prop_assert_eq!(frames.iter().map(Frame::packet).collect::<Vec<_>>(), packets);
        prop_assert_eq!(length, stream.len() - extra.len());
    }

    #[test]
    fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok((frames, length)) = frames(&bytes, 50) {
            let read: usize = frames.iter().map(Frame::length).sum();
            prop_assert!(read <= length && length <= bytes.len());
        }
        let _ = first_request(&bytes, 50);
        let is_request = first_request(&bytes, 50).is_ok_and(|found| found.is_some());
        prop_assert!(!is_request || beginning(&bytes, 50) == Beginning::Frames);
        let _ = first_request(&[&[0, 28, 0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42][..], &bytes].concat(), 50);
    }
}
