use proptest::prelude::*;

use super::*;

/// The credential of RFC 5769's samples.
const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769, section 2.1.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae\
     802200105354554e207465737420636c69656e74\
     002400046e0001ff\
     80290008932ff9b151263b36\
     000600096576746a3a68367659202020\
     000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
     80280004e57a3bcf";

/// RFC 5769, section 2.2.
const IPV4_RESPONSE: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae\
     8022000b7465737420766563746f7220\
     002000080001a147e112a643\
     000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7\
     80280004c07d4c96";

/// RFC 5769, section 2.3.
const IPV6_RESPONSE: &str = "010100482112a442b7e7a701bc34d686fa87dfae\
     8022000b7465737420766563746f7220\
     002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9\
     00080014a382954e4be67bf11784c97c8292c275bfe3ed41\
     80280004c8fb0b4c";

#[test]
fn reads_the_sample_request() {
    let bytes = hex(REQUEST);
    let request = Message::parse(&bytes).unwrap();
    assert_eq!((request.class(), request.method()), (Class::Request, Method::BINDING));
    assert_eq!(request.transaction_id().0.as_slice(), hex("b7e7a701bc34d686fa87dfae"));
    assert_eq!(request.username(), Some("evtj:h6vY"));
    assert_eq!(request.priority(), Some(0x6E00_01FF));
    assert!(!request.use_candidate());
    assert!(request.verify_integrity(PASSWORD));
    assert!(!request.verify_integrity(b"VOkJxbRl1RmTxUk/WvJxBs"));
    assert_eq!(request.fingerprint(), Some(true));
}

#[test]
fn reads_the_sample_responses() {
    check_response(IPV4_RESPONSE, "192.0.2.1:32853");
    check_response(IPV6_RESPONSE, "[2001:db8:1234:5678:11:2233:4455:6677]:32853");
}

#[test]
fn reads_a_request_without_priority() {
    let bytes = request().username("9b22ga66:abcd").use_candidate().integrity(PASSWORD).fingerprint().build();
    let request = Message::parse(&bytes).unwrap();
    assert!(request.use_candidate());
    assert_eq!(request.priority(), None);
    assert!(request.verify_integrity(PASSWORD));
}

#[test]
fn integrity_is_right_without_fingerprint() {
    let bytes = request().username("9b22ga66:abcd").integrity(PASSWORD).build();
    let request = Message::parse(&bytes).unwrap();
    assert!(request.verify_integrity(PASSWORD));
    assert_eq!(request.fingerprint(), None);
}

#[test]
fn ignores_what_follows_integrity() {
    let bytes = request().integrity(PASSWORD).username("late:late").use_candidate().fingerprint().build();
    let request = Message::parse(&bytes).unwrap();
    assert_eq!(request.username(), None);
    assert!(!request.use_candidate());
    assert!(request.verify_integrity(PASSWORD));
    assert_eq!(request.fingerprint(), Some(true));
}

#[test]
fn ignores_what_follows_fingerprint() {
    let bytes = request().fingerprint().username("late:late").integrity(PASSWORD).build();
    let request = Message::parse(&bytes).unwrap();
    assert_eq!(request.username(), None);
    assert!(!request.has_integrity());
}

#[test]
fn first_of_two_usernames_counts() {
    let bytes = request().username("first:one").username("second:one").build();
    assert_eq!(Message::parse(&bytes).unwrap().username(), Some("first:one"));
}

#[test]
fn unsigned_message_never_verifies() {
    let bytes = request().username("abcd:efgh").build();
    let request = Message::parse(&bytes).unwrap();
    assert!(!request.has_integrity());
    assert!(!request.verify_integrity(b""));
}

#[test]
fn names_what_is_wrong_with_a_datagram() {
    check_error("", StunError::Truncated);
    check_error("0001", StunError::Truncated);
    check_error("800100002112a442b7e7a701bc34d686fa87dfae", StunError::NotStun);
    check_error("040100002112a442b7e7a701bc34d686fa87dfae", StunError::NotStun);
    check_error("000100002112a443b7e7a701bc34d686fa87dfae", StunError::Cookie);
    check_error("000100042112a442b7e7a701bc34d686fa87dfae", StunError::Length);
    check_error("000100002112a442b7e7a701bc34d686fa87dfae00000000", StunError::Length);
    check_error("000100022112a442b7e7a701bc34d686fa87dfae0000", StunError::Length);
    check_error("000100042112a442b7e7a701bc34d686fa87dfae00060001", StunError::Truncated);
    check_error("000100082112a442b7e7a701bc34d686fa87dfae0006000561626364", StunError::Truncated);
    check_error("000100082112a442b7e7a701bc34d686fa87dfae00060004fffefdfc", StunError::Attribute(0x0006));
    check_error("000100082112a442b7e7a701bc34d686fa87dfae0008000400000000", StunError::Attribute(0x0008));
    check_error("000100082112a442b7e7a701bc34d686fa87dfae0020000400010000", StunError::Attribute(0x0020));
    check_error("000100042112a442b7e7a701bc34d686fa87dfae80280000", StunError::Attribute(0x8028));
}

#[test]
fn zero_length_username_is_an_empty_one() {
    let bytes = hex("000100042112a442b7e7a701bc34d686fa87dfae00060000");
    assert_eq!(Message::parse(&bytes).unwrap().username(), Some(""));
}

#[test]
fn every_truncation_is_an_error() {
    for sample in [REQUEST, IPV4_RESPONSE, IPV6_RESPONSE] {
        let bytes = hex(sample);
        for end in 0..bytes.len() {
            assert!(Message::parse(&bytes[..end]).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn every_truncation_with_an_honest_length_is_read_or_refused() {
    let bytes = hex(REQUEST);
    for end in 20..bytes.len() {
        let mut cut = bytes[..end].to_vec();
        cut[2..4].copy_from_slice(&u16::try_from(end - 20).unwrap().to_be_bytes());
        touch(&cut);
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        class in prop_oneof![
            Just(Class::Request), Just(Class::Indication), Just(Class::Success), Just(Class::Error)
        ],
        method in 0..0x100_u16,
        id: [u8; 12],
        username in "[a-zA-Z0-9+/:]{0,513}",
        priority: Option<u32>,
        address: Option<SocketAddr>,
        nominate: bool,
        key in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut builder = MessageBuilder::new(class, Method(method), TransactionId(id)).username(&username);
        if let Some(priority) = priority {
            builder = builder.priority(priority);
        }
        if let Some(address) = address {
            builder = builder.xor_mapped_address(address);
        }
        if nominate {
            builder = builder.use_candidate();
        }
        let bytes = builder.integrity(&key).fingerprint().build();

        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!((message.class(), message.method().0, message.transaction_id().0), (class, method, id));
        prop_assert_eq!(message.username(), Some(username.as_str()));
        prop_assert_eq!(message.priority(), priority);
        prop_assert_eq!(message.xor_mapped_address(), address.map(without_scope));
        prop_assert_eq!(message.use_candidate(), nominate);
        prop_assert!(message.verify_integrity(&key));
        prop_assert_eq!(message.fingerprint(), Some(true));
    }

    #[test]
    fn one_flipped_bit_breaks_both_seals(bit in 0..(108 - 32) * 8_usize) {
        let mut bytes = hex(REQUEST);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert!(!message.verify_integrity(PASSWORD));
            prop_assert_ne!(message.fingerprint(), Some(true));
        }
    }

    #[test]
    fn mutations_are_read_or_refused(changes in proptest::collection::vec((0..108_usize, any::<u8>()), 1..8)) {
        let mut bytes = hex(REQUEST);
        for (position, byte) in changes {
            bytes[position] = byte;
        }
        touch(&bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        touch(&bytes);
    }
}

#[track_caller]
fn check_response(sample: &str, mapped: &str) {
    let bytes = hex(sample);
    let response = Message::parse(&bytes).unwrap();
    assert_eq!((response.class(), response.method()), (Class::Success, Method::BINDING));
    assert_eq!(response.xor_mapped_address(), Some(mapped.parse().unwrap()));
    assert!(response.verify_integrity(PASSWORD));
    assert_eq!(response.fingerprint(), Some(true));
}

#[track_caller]
fn check_error(datagram: &str, expected: StunError) {
    assert_eq!(Message::parse(&hex(datagram)).unwrap_err(), expected, "{datagram}");
}

fn touch(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        let _ = message.verify_integrity(PASSWORD);
        let _ = message.fingerprint();
    }
}

fn request() -> MessageBuilder {
    MessageBuilder::new(Class::Request, Method::BINDING, TransactionId(*b"transaction!"))
}

/// STUN carries neither flow label nor scope id.
fn without_scope(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
