//! What encoders and servers sent over loopback.

use super::*;

/// ffmpeg 5.1 from its connect to its publish: a message of two chunks, Set Chunk Size, headers of type 1.
const FFMPEG_PUBLISHES: &str = "0300000000008c1400000000020007636f6e6e656374003ff00000000000000300036170700200046c6976650004747970650200\
     0a6e6f6e707269766174650008666c617368566572020024464d4c452f332e302028636f6d70617469626c653b204c6176663539\
     2e32372e313030290005746355726c02001b72746d703a2f2f3132372e302e302e313a32c3373933362f6c697665000009020000\
     0000000401000000000000ea604300000000001f1402000d72656c6561736553747265616d004000000000000000050200027331\
     4300000000001b1402000946435075626c697368004008000000000000050200027331430000000000191402000c637265617465\
     53747265616d0040100000000000000543000000000015140200085f636865636b62770040140000000000000508000000000020\
     14010000000200077075626c6973680040180000000000000502000273310200046c697665";

/// rtmpdump 2.4 after its connect: protocol control with headers of all types, the last of type 3.
const RTMPDUMP_PLAYS: &str = "020000000000040500000000002625a04200000000000a040003000000000000012c430000000000191402000c63726561746553\
     747265616d004000000000000000050300000000001514000000000200085f636865636b62770040080000000000000508000000\
     0000281401000000020004706c617900401000000000000005020002733100000000000000000000409f400000000000c2000300\
     00000102255100430000000000221402000c64656c65746553747265616d00401400000000000005003ff0000000000000";

/// librtmp 2.4, audio: a header of type 0, and one of type 1 whose extended delta the chunks of type 3 repeat.
const LIBRTMP_EXTENDS: &str = "040000000000070801000000af00120856e50044ffffff00010408010002f9af01de02004c61766335392e33372e313030000260\
     ac5ba9507226a578f5e3f7aeb896d5496a969524c93b83a101061572f1771ae92d6bda5e63c1bb63ceeaf93c52d8333e4be79d35\
     d23cddcdbb8b60e52e23afb54db56cd954ed559f755623856371571b368366c6d8b1372b2dcb39d7b138ec6e2ae366b8cf5663a3\
     5f9abfc4010002f9357e6b1cfad9f5b52cf52c746bf35a66afcd5f9f5b3eb67d6cfaa9f5f9ac335869b3a2ce8ad456a295363331\
     998ccc68ad456a2b51634d8ccc6663131a2ce8ad456a2c68b1998ccc624a24a78a78a24a25f0be4be494494f14f14f144be4be4b\
     e4bef14f14f14f144be4bf145145145145145145145145145145145145145145c4010002f9145145c0";

/// SRS 7 before its answer to a connect.
const SRS_ANSWERS: &str =
    "020000000000040500000000002625a0020000000000050600000000002625a0020200000000000401000000000000ea60";

/// SRS quotes this of FMLE: a message of type 3 behind one of type 0 adds its timestamp.
const FMLE_HEADERS: [&str; 2] = ["040000 1a 00009d 08 01000000", "c4"];
/// SRS quotes this of librtmp: a ping is the first on its chunk stream, with a header of type 1.
const LIBRTMP_PINGS: &str = "42 000000 000006 04 0006 00000d0f";

#[test]
fn reads_what_ffmpeg_publishes() {
    check_headers(
        FFMPEG_PUBLISHES,
        &[
            (3, Format::Full, kind::COMMAND_AMF0, 140, 0, 0),
            (2, Format::Full, kind::SET_CHUNK_SIZE, 4, 0, 0),
            (3, Format::SameStream, kind::COMMAND_AMF0, 31, 0, 0),
            (3, Format::SameStream, kind::COMMAND_AMF0, 27, 0, 0),
            (3, Format::SameStream, kind::COMMAND_AMF0, 25, 0, 0),
            (3, Format::SameStream, kind::COMMAND_AMF0, 21, 0, 0),
            (8, Format::Full, kind::COMMAND_AMF0, 32, 1, 0),
        ],
    );
}

#[test]
fn reads_what_rtmpdump_plays() {
    check_headers(
        RTMPDUMP_PLAYS,
        &[
            (2, Format::Full, kind::WINDOW_ACKNOWLEDGEMENT_SIZE, 4, 0, 0),
            (2, Format::SameStream, kind::USER_CONTROL, 10, 0, 0),
            (3, Format::SameStream, kind::COMMAND_AMF0, 25, 0, 0),
            (3, Format::Full, kind::COMMAND_AMF0, 21, 0, 0),
            (8, Format::Full, kind::COMMAND_AMF0, 40, 1, 0),
            (2, Format::Bare, kind::USER_CONTROL, 10, 0, 0),
            (3, Format::SameStream, kind::COMMAND_AMF0, 34, 0, 0),
        ],
    );
}

#[test]
fn reads_an_extended_delta_of_librtmp() {
    check_headers(
        LIBRTMP_EXTENDS,
        &[(4, Format::Full, kind::AUDIO, 7, 1, 0), (4, Format::SameStream, kind::AUDIO, 260, 1, 0x0100_02F9)],
    );
    let payload = &messages(&hex(LIBRTMP_EXTENDS))[1].payload;
    assert_eq!((&payload[..8], &payload[258..]), (&hex("af01de02004c6176")[..], &hex("45c0")[..]));
}

#[test]
fn reads_what_srs_answers() {
    check_headers(
        SRS_ANSWERS,
        &[
            (2, Format::Full, kind::WINDOW_ACKNOWLEDGEMENT_SIZE, 4, 0, 0),
            (2, Format::Full, kind::SET_PEER_BANDWIDTH, 5, 0, 0),
            (2, Format::Full, kind::SET_CHUNK_SIZE, 4, 0, 0),
        ],
    );
}

#[test]
fn a_bare_header_of_fmle_adds_the_timestamp_before() {
    let audio = "00".repeat(128);
    let rest = format!("c4 {}", "00".repeat(29));
    let [first, second] = FMLE_HEADERS.map(|header| format!("{header} {audio} {rest}"));
    check_headers(
        &[first, second].concat(),
        &[(4, Format::Full, kind::AUDIO, 157, 1, 26), (4, Format::Bare, kind::AUDIO, 157, 1, 52)],
    );
}

#[test]
fn a_chunk_stream_may_begin_as_librtmp_begins_it() {
    check_headers(LIBRTMP_PINGS, &[(2, Format::SameStream, kind::USER_CONTROL, 6, 0, 0)]);
}

#[test]
fn a_prefix_and_single_bytes_read_like_the_whole() {
    for capture in [FFMPEG_PUBLISHES, RTMPDUMP_PLAYS, LIBRTMP_EXTENDS, SRS_ANSWERS, LIBRTMP_PINGS] {
        let bytes = hex(&started(capture));
        let whole = messages(&bytes);
        for prefix in 0..=bytes.len() {
            assert_eq!(read(&bytes, &[prefix, 1]).0, whole, "after {prefix} bytes");
        }
    }
}

#[test]
fn a_relay_that_leaves_everything_alone_writes_what_it_reads() {
    for capture in [FFMPEG_PUBLISHES, RTMPDUMP_PLAYS, LIBRTMP_EXTENDS, SRS_ANSWERS] {
        let bytes = hex(&started(capture));
        for length in [1, 7, bytes.len()] {
            let (mut writer, mut out) = (Writer::new(LIMITS), vec![]);
            let (_, reader) = read_with(&bytes, &[length], |piece| writer.relay(piece, &mut out).unwrap());
            assert_eq!(out, bytes);
            assert_eq!(join::check(&reader, &writer), Ok(()));
        }
    }
}

/// The headers of a listing: chunk stream, format, type, length, message stream, timestamp.
#[track_caller]
fn check_headers(capture: &str, expected: &[(u32, Format, u8, u32, u32, u32)]) {
    let mut headers = vec![];
    read_with(&hex(&started(capture)), &[usize::MAX], |piece| {
        if piece.ends() {
            let Header { chunk_stream, format, state } = piece.header;
            headers.push((chunk_stream, format, state.kind, state.length, state.stream, state.timestamp));
        }
    });
    let expected: Vec<_> = started_headers(capture).into_iter().chain(expected.iter().copied()).collect();
    assert_eq!(headers, expected);
}

/// rtmpdump's excerpt refers to its connect: an empty one stands for it.
fn started(capture: &str) -> String {
    let connect = if capture == RTMPDUMP_PLAYS { "03 000000 000000 14 00000000" } else { "" };
    format!("{connect}{capture}")
}

fn started_headers(capture: &str) -> Vec<(u32, Format, u8, u32, u32, u32)> {
    let connect = (3, Format::Full, kind::COMMAND_AMF0, 0, 0, 0);
    if capture == RTMPDUMP_PLAYS { vec![connect] } else { vec![] }
}
