use proptest::prelude::*;

use super::*;

/// What a Linux router (10.72.2.9, MTU 1400) sent about a datagram of 1428 bytes from 10.72.2.1:61000 to 10.72.3.2:8000;
/// the zeroes that the datagram ended with are left out.
const FRAGMENTATION_NEEDED: &[u8] = &[
    0x45, 0xc0, 0x02, 0x40, 0xef, 0x05, 0x00, 0x00, 0x40, 0x01, 0x70, 0x5e, 10, 72, 2, 9, 10, 72, 2,
    1, //
    3, 4, 0x44, 0xf3, 0, 0, 0x05, 0x78, //
    0x45, 0x00, 0x05, 0x94, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x1b, 0xc7, 10, 72, 2, 1, 10, 72, 3,
    2, //
    0xee, 0x48, 0x1f, 0x40, 0x05, 0x80, 0x1f, 0x24, 0x80, 0x60, 0, 1, 0, 0, 0, 2,
];

/// The same over IPv6, from `[fd78::201]:61000` to `[fd78::1:2]:8000`.
const PACKET_TOO_BIG: &[u8] = &[
    2, 0, 0xcb, 0x83, 0, 0, 0x05, 0x78, //
    0x60, 0x04, 0x1f, 0x48, 0x05, 0x80, 0x11, 0x40, //
    0xfd, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, //
    0xfd, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, //
    0xee, 0x48, 0x1f, 0x40, 0x05, 0x80, 0x02, 0x87, 0x80, 0x60, 0, 1, 0, 0, 0, 2,
];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn from_message(version: Version, message: &[u8]) -> Result<(Cause, SocketAddr, SocketAddr), IcmpFault> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(message);
    let error = match version {
        Version::V4 => IcmpError::parse_v4(&packet),
        Version::V6 => IcmpError::parse_v6(message),
    }?;
    Ok((error.cause, error.quote.from(), error.quote.to()))
}

#[test]
fn reads_what_a_router_says_of_a_datagram_that_does_not_fit() {
    let error = IcmpError::parse_v4(FRAGMENTATION_NEEDED).unwrap();
    assert_eq!(error.cause, Cause::TooBig { mtu: 1400 });
    assert_eq!(error.quote.from(), address("10.72.2.1:61000"));
    assert_eq!(error.quote.to(), address("10.72.3.2:8000"));
    let error = IcmpError::parse_v6(PACKET_TOO_BIG).unwrap();
    assert_eq!(error.cause, Cause::TooBig { mtu: 1400 });
    assert_eq!(error.quote.from(), address("[fd78::201]:61000"));
    assert_eq!(error.quote.to(), address("[fd78::1:2]:8000"));
}

#[test]
fn translates_addresses_ports_and_checksums_and_nothing_else() {
    let error = IcmpError::parse_v4(FRAGMENTATION_NEEDED).unwrap();
    let (from, to) = (address("10.72.1.2:5000"), address("10.72.1.1:18000"));
    let message = error.translate(from, to).unwrap();
    assert_eq!(message.len(), FRAGMENTATION_NEEDED.len() - IPV4_HEADER);
    assert!(sum(&message).is_multiple_of(0xffff), "the checksum of the message");
    let (quote, before) = (&message[8..], &FRAGMENTATION_NEEDED[28..]);
    assert!(sum(&quote[..20]).is_multiple_of(0xffff), "the checksum of the quoted header");
    assert_eq!(quote[..10], before[..10]);
    assert_eq!(quote[12..24], [10, 72, 1, 2, 10, 72, 1, 1, 0x13, 0x88, 0x46, 0x50]);
    assert_eq!((&quote[24..26], &quote[28..]), (&before[24..26], &before[28..]));
    let sums = |bytes: &[u8]| sum(&bytes[12..24]) + sum(&bytes[26..28]);
    assert_eq!(
        fold(sums(quote)),
        fold(sums(before)),
        "the checksum of the datagram moves with its endpoints"
    );
    assert_eq!(from_message(Version::V4, &message), Ok((error.cause, from, to)));
}

#[test]
fn a_checksum_of_zero_stays_zero() {
    let quote = quote_v4("10.0.0.1:1", "10.0.0.2:2", 0);
    let error = IcmpError { cause: Cause::Unreachable { code: 3 }, quote: parsed(Version::V4, &quote) };
    let message = error.translate(address("192.0.2.1:3"), address("192.0.2.2:4")).unwrap();
    assert_eq!(message[8 + 26..8 + 28], [0, 0]);
}

#[test]
fn every_cause_is_written_as_it_was_read() {
    let (v4, v6) = (quote_v4("10.0.0.1:1", "10.0.0.2:2", 7), quote_v6("[2001:db8::1]:1", "[2001:db8::2]:2"));
    let causes = [
        Cause::Unreachable { code: 3 },
        Cause::TooBig { mtu: 1280 },
        Cause::TimeExceeded { code: 0 },
        Cause::TimeExceeded { code: 1 },
    ];
    for (version, quote) in [(Version::V4, &v4), (Version::V6, &v6)] {
        for cause in causes {
            let quote = parsed(version, quote);
            let message = write(version, cause, quote.bytes);
            assert_eq!(from_message(version, &message), Ok((cause, quote.from(), quote.to())), "{version:?}");
        }
    }
}

#[test]
fn no_error_is_longer_than_everybody_takes() {
    let mut v4 = quote_v4("10.0.0.1:1", "10.0.0.2:2", 7);
    put(&mut v4, 2, &1500_u16.to_be_bytes());
    v4.resize(1500, 0);
    assert_eq!(parsed(Version::V4, &v4).too_big(1400).len(), 576 - 20);
    let mut v6 = quote_v6("[2001:db8::1]:1", "[2001:db8::2]:2");
    put(&mut v6, 4, &1460_u16.to_be_bytes());
    v6.resize(1500, 0);
    assert_eq!(parsed(Version::V6, &v6).too_big(1400).len(), 1280 - 40);
}

#[test]
fn a_datagram_that_was_told_without_its_header_gets_one() {
    let datagram = [0xee, 0x48, 0x1f, 0x40, 0x05, 0x80, 0x02, 0x87, 0x80];
    let (source, destination) = ("fd78::201".parse().unwrap(), "fd78::1:2".parse().unwrap());
    let packet = [ipv6_header(source, destination, &datagram), datagram.to_vec()].concat();
    let quote = parsed(Version::V6, &packet);
    assert_eq!((quote.from(), quote.to()), (address("[fd78::201]:61000"), address("[fd78::1:2]:8000")));
    assert_eq!(quote.length(), 40 + 0x580);
}

#[test]
fn extensions_and_padding_are_no_part_of_the_datagram() {
    let quote = quote_v4("10.0.0.1:1", "10.0.0.2:2", 7);
    let mut message = vec![11, 0, 0, 0, 0, 8, 0, 0];
    message.extend(&quote);
    message.extend([0x20, 0, 0, 0, 1, 2, 3, 4]);
    let checksum = !fold(sum(&message));
    put(&mut message, 2, &checksum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(&message);
    assert_eq!(IcmpError::parse_v4(&packet).unwrap().quote.bytes, quote);
    let padded = [&quote[..], &[0; 14]].concat();
    assert_eq!(parsed(Version::V4, &padded).bytes, quote);
}

#[test]
fn the_first_fragment_of_a_datagram_over_ipv6_is_one() {
    let whole = quote_v6("[2001:db8::1]:1", "[2001:db8::2]:2");
    let mut first = [&whole[..40], &[UDP, 0, 0, 1, 0, 0, 0, 9], &whole[40..]].concat();
    put(&mut first, 4, &20_u16.to_be_bytes());
    put(&mut first, 6, &[FRAGMENT_HEADER]);
    let quote = Quote::parse(Version::V6, &first).unwrap();
    assert_eq!((quote.from(), quote.udp), (address("[2001:db8::1]:1"), 48));
    put(&mut first, 42, &8_u16.to_be_bytes());
    assert_eq!(Quote::parse(Version::V6, &first), Err(IcmpFault::Quote));
}

#[test]
fn what_is_no_error_about_a_udp_datagram_is_refused() {
    let with = |at: usize, value: u8| {
        let mut packet = FRAGMENTATION_NEEDED.to_vec();
        packet[at] = value;
        put(&mut packet, 22, &[0, 0]);
        let checksum = !fold(sum(&packet[20..]));
        put(&mut packet, 22, &checksum.to_be_bytes());
        IcmpError::parse_v4(&packet).map(drop)
    };
    assert_eq!(with(20, 8), Err(IcmpFault::Kind), "an echo request");
    assert_eq!(with(9, 17), Err(IcmpFault::Kind), "not ICMP");
    assert_eq!(with(28 + 9, 6), Err(IcmpFault::Quote), "about TCP");
    assert_eq!(with(28 + 7, 1), Err(IcmpFault::Quote), "about a later fragment");
    assert_eq!(with(28, 0x65), Err(IcmpFault::Quote), "about another version");
    assert_eq!(with(28, 0x44), Err(IcmpFault::Quote), "about an impossible header");
    assert_eq!(with(21, 4), Ok(()));
    let mut broken = FRAGMENTATION_NEEDED.to_vec();
    broken[50] ^= 1;
    assert_eq!(IcmpError::parse_v4(&broken), Err(IcmpFault::Checksum));
    assert_eq!(IcmpError::parse_v6(&[128, 0, 0, 0, 0, 0, 0, 0]), Err(IcmpFault::Kind), "an echo request");
}

#[test]
fn another_version_is_not_translated() {
    let error = IcmpError::parse_v4(FRAGMENTATION_NEEDED).unwrap();
    assert_eq!(error.translate(address("[2001:db8::1]:1"), address("[2001:db8::2]:2")), None);
    assert_eq!(error.translate(address("10.0.0.1:1"), address("[2001:db8::2]:2")), None);
}

#[test]
fn every_truncation_is_refused_or_quotes_the_same_datagram() {
    let whole = IcmpError::parse_v4(FRAGMENTATION_NEEDED).unwrap();
    for length in 0..FRAGMENTATION_NEEDED.len() {
        let mut cut = FRAGMENTATION_NEEDED[..length].to_vec();
        if length > 24 {
            put(&mut cut, 22, &[0, 0]);
            let checksum = !fold(sum(&cut[20..]));
            put(&mut cut, 22, &checksum.to_be_bytes());
        }
        match IcmpError::parse_v4(&cut) {
            Ok(error) => {
                assert!(length >= 56, "{length} bytes hold no ports");
                assert_eq!((error.quote.from(), error.quote.to()), (whole.quote.from(), whole.quote.to()));
            }
            Err(fault) => assert!(length < 56, "{length} bytes: {fault}"),
        }
    }
    for length in 0..PACKET_TOO_BIG.len() {
        let is_read = IcmpError::parse_v6(&PACKET_TOO_BIG[..length]).is_ok();
        assert_eq!(is_read, length >= 8 + 40 + 8, "{length} bytes");
    }
}

fn parsed(version: Version, bytes: &[u8]) -> Quote<'_> {
    Quote::parse(version, bytes).unwrap()
}

fn quote_v4(from: &str, to: &str, checksum: u16) -> Vec<u8> {
    let endpoints = endpoints(address(from), address(to), Version::V4).unwrap();
    let mut bytes = vec![0x45, 0, 0, 32, 0, 1, 0x40, 0, 63, UDP, 0, 0];
    bytes.extend(&endpoints.addresses);
    let header = !fold(sum(&bytes));
    put(&mut bytes, 10, &header.to_be_bytes());
    bytes.extend(endpoints.ports);
    bytes.extend([0, 12]);
    bytes.extend(checksum.to_be_bytes());
    bytes.extend([1, 2, 3, 4]);
    bytes
}

fn quote_v6(from: &str, to: &str) -> Vec<u8> {
    let endpoints = endpoints(address(from), address(to), Version::V6).unwrap();
    let mut bytes = vec![0x60, 0, 0, 0, 0, 12, UDP, 63];
    bytes.extend(&endpoints.addresses);
    bytes.extend(endpoints.ports);
    bytes.extend([0, 12, 0x12, 0x34, 1, 2, 3, 4]);
    bytes
}

proptest! {
    #[test]
    fn a_translation_and_its_inverse_are_nothing(from: (u32, u16), to: (u32, u16), checksum in 1..u16::MAX) {
        let bytes = quote_v4("10.0.0.1:1", "10.0.0.2:2", checksum);
        let quote = parsed(Version::V4, &bytes);
        let there = |(ip, port): (u32, u16)| SocketAddr::new(std::net::Ipv4Addr::from(ip).into(), port);
        let translated = quote.rewritten(there(from), there(to)).unwrap();
        let translated = parsed(Version::V4, &translated);
        prop_assert_eq!((translated.from(), translated.to()), (there(from), there(to)));
        prop_assert_eq!(translated.rewritten(quote.from(), quote.to()).unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        for parsed in [IcmpError::parse_v4(&bytes), IcmpError::parse_v6(&bytes)].into_iter().flatten() {
            let (from, to) = (parsed.quote.to(), parsed.quote.from());
            prop_assert!(parsed.translate(from, to).is_some());
        }
    }
}
