use proptest::prelude::*;

use super::{digest::Schema, *};

/// C0, C1 and C2 of ffmpeg 5.1: C1 has a digest.
const FFMPEG: &[u8] = include_bytes!("../../../../../tests/fuzz/corpus/rtmp_handshake/ffmpeg");
/// What SRS 7 answered.
const SRS_TO_FFMPEG: &[u8] =
    include_bytes!("../../../../../tests/fuzz/corpus/rtmp_handshake/srs_with_digest");
/// C0, C1 and C2 of rtmpdump 2.4: C1 has none.
const RTMPDUMP: &[u8] =
    include_bytes!("../../../../../tests/fuzz/corpus/rtmp_handshake/rtmpdump_of_random_bytes");
const SRS_TO_RTMPDUMP: &[u8] = include_bytes!("../../../../../tests/fuzz/corpus/rtmp_handshake/srs_copy");

const RANDOM: [u8; RANDOM_LEN] = [0x5A; RANDOM_LEN];

#[test]
fn the_digest_of_ffmpeg_is_found_and_what_srs_answered_is_signed_as_ours() {
    let (schema, c1_digest) = digest::find(packet(FFMPEG, 1)).unwrap();
    check_signed(SRS_TO_FFMPEG, schema, &c1_digest);
}

#[test]
fn a_client_with_a_digest_gets_one_in_its_schema() {
    for schema in [Schema::KeyFirst, Schema::DigestFirst] {
        let mut c1 = *packet(RTMPDUMP, 1);
        digest::sign(&mut c1, schema, digest::PLAYER_KEY);
        let (found, c1_digest) = digest::find(&c1).unwrap();
        assert_eq!(found, schema);
        let answer = serve(&[&[3], &c1[..]].concat(), &[usize::MAX]).unwrap().1;
        check_signed(&answer, schema, &c1_digest);
        assert_ne!(answer[5..9], [0; 4], "clients that see no version expect no digest");
    }
}

#[test]
fn a_digest_fits_wherever_it_is_said_to_be() {
    for schema in [Schema::KeyFirst, Schema::DigestFirst] {
        for byte in 0..=255 {
            let mut c1 = [byte; 1536];
            digest::sign(&mut c1, schema, digest::PLAYER_KEY);
            assert!(digest::find(&c1).is_some(), "{byte}");
        }
    }
}

#[test]
fn a_client_without_a_digest_gets_a_copy() {
    let (done, answer, _) = serve(RTMPDUMP, &[usize::MAX]).unwrap();
    assert!(done);
    assert_eq!(answer[..9], [3, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer[9..1537], RANDOM);
    assert_eq!(answer[1537..], RTMPDUMP[1..1537]);
    assert_eq!(SRS_TO_RTMPDUMP[1537..], RTMPDUMP[1..1537]);
}

#[test]
fn a_damaged_digest_is_none() {
    let mut c1 = *packet(FFMPEG, 1);
    c1[1000] ^= 1;
    assert!(digest::find(&c1).is_none());
}

#[test]
fn the_answer_to_c1_does_not_wait_for_c2_nor_depend_on_it() {
    let (done, answer, _) = serve(&FFMPEG[..1537], &[1]).unwrap();
    assert_eq!((done, answer.len()), (false, 3073));
    let other_c2 = [&FFMPEG[..1537], &[0xEE; 1536]].concat();
    assert_eq!(serve(&other_c2, &[700]).unwrap(), (true, answer, vec![]));
}

#[test]
fn c2_is_sent_as_soon_as_s1_is_whole() {
    let mut sent = vec![];
    let mut client = Client::start(&RANDOM, None, &mut sent);
    assert_eq!((sent.len(), &sent[..9]), (1537, &[3, 0, 0, 0, 0, 0, 0, 0, 0][..]));
    let (mut input, mut c2) = (&SRS_TO_RTMPDUMP[..1536], vec![]);
    assert_eq!((client.read(&mut input, &mut c2), c2.len(), input.len()), (Ok(false), 0, 1535));
    let mut input = &SRS_TO_RTMPDUMP[1..1537];
    assert_eq!((client.read(&mut input, &mut c2), &c2[..]), (Ok(false), &SRS_TO_RTMPDUMP[1..1537]));
    let mut input = &SRS_TO_RTMPDUMP[1537..];
    assert_eq!((client.read(&mut input, &mut c2), c2.len()), (Ok(true), 1536));
}

#[test]
fn the_preamble_has_the_address_of_the_client() {
    let mut sent = vec![];
    drop(Client::start(&RANDOM, Some([192, 0, 2, 7].into()), &mut sent));
    assert_eq!((sent.len(), &sent[..8]), (7 + 1537, &[0xF3, 0, 4, 192, 0, 2, 7, 3][..]));
}

#[test]
fn what_is_no_handshake_of_ours_has_its_reason() {
    for (first, reason) in [
        (0, HandshakeError::Version(0)),
        (4, HandshakeError::Version(4)),
        (6, HandshakeError::Encrypted(6)),
        (8, HandshakeError::Encrypted(8)),
        (0x16, HandshakeError::NotRtmp(0x16)),
        (b'G', HandshakeError::NotRtmp(b'G')),
        (0xF3, HandshakeError::NotRtmp(0xF3)),
    ] {
        assert_eq!(serve(&[first], &[1]), Err(reason));
        let mut client = Client::start(&RANDOM, None, &mut vec![]);
        assert_eq!(client.read(&mut &[first][..], &mut vec![]), Err(reason));
    }
}

#[test]
fn our_two_sides_understand_each_other() {
    let mut to_server = vec![];
    let mut client = Client::start(&RANDOM, None, &mut to_server);
    let mut server = Server::new([0xA5; RANDOM_LEN]);
    let mut to_client = vec![];
    assert_eq!(server.read(&mut &to_server[..], &mut to_client), Ok(false));
    let mut c2 = vec![];
    assert_eq!(client.read(&mut &to_client[..], &mut c2), Ok(true));
    assert_eq!((server.read(&mut &c2[..], &mut vec![]), &c2[8..]), (Ok(true), &[0xA5; RANDOM_LEN][..]));
}

proptest! {
    #[test]
    fn bytes_come_in_any_portions(
        reads in prop::collection::vec(1..2000_usize, 1..6),
        with_digest in any::<bool>(),
        chunks in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let (theirs, srs) = if with_digest { (FFMPEG, SRS_TO_FFMPEG) } else { (RTMPDUMP, SRS_TO_RTMPDUMP) };
        let bytes = [theirs, &chunks].concat();
        let whole = serve(&bytes, &[usize::MAX]).unwrap();
        prop_assert_eq!((whole.0, &whole.2), (true, &chunks));
        prop_assert_eq!(serve(&bytes, &reads).unwrap(), whole);

        let bytes = [srs, &chunks].concat();
        let mut client = Client::start(&RANDOM, None, &mut vec![]);
        let read = |input: &mut &[u8], out: &mut Vec<u8>| client.read(input, out);
        prop_assert_eq!(run(&bytes, &reads, read).unwrap(), (true, srs[1..1537].to_vec(), chunks));
    }
}

fn serve(bytes: &[u8], reads: &[usize]) -> Result<(bool, Vec<u8>, Vec<u8>), HandshakeError> {
    let mut server = Server::new(RANDOM);
    run(bytes, reads, |input, out| server.read(input, out))
}

/// Whether the handshake is over, what was sent, and what is left.
fn run(
    bytes: &[u8],
    reads: &[usize],
    mut read: impl FnMut(&mut &[u8], &mut Vec<u8>) -> Result<bool, HandshakeError>,
) -> Result<(bool, Vec<u8>, Vec<u8>), HandshakeError> {
    let (mut unread, mut arrived, mut out, mut done) = (0, 0_usize, vec![], false);
    for length in reads.iter().cycle() {
        arrived = bytes.len().min(arrived.saturating_add(*length));
        let mut input = &bytes[unread..arrived];
        done = read(&mut input, &mut out)?;
        unread = arrived - input.len();
        if done || arrived == bytes.len() {
            break;
        }
    }
    Ok((done, out, bytes[unread..].to_vec()))
}

/// Whether S1 has a digest in this schema, and S2 is signed with a key from the digest of C1.
#[track_caller]
fn check_signed(s0_s1_s2: &[u8], schema: Schema, c1_digest: &[u8; 32]) {
    let mut s1 = *packet(s0_s1_s2, 1);
    digest::sign(&mut s1, schema, digest::SERVER_KEY);
    assert_eq!(s1, *packet(s0_s1_s2, 1));
    let (body, signature) = s0_s1_s2[1537..].split_at(1504);
    assert_eq!(signature, digest::s2_signature(body, c1_digest));
}

fn packet(bytes: &[u8], at: usize) -> &[u8; PACKET_LEN] {
    bytes[at..].first_chunk().unwrap()
}
