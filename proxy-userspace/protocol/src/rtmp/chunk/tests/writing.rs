use proptest::prelude::*;

use super::*;

#[test]
fn a_message_of_our_own_has_a_full_header() {
    check_written(&message(4, 26, &[1, 2]), "04 00001a 000002 09 01000000 0102");
}

#[test]
fn a_message_without_payload_is_a_header() {
    check_written(&message(4, 26, &[]), "04 00001a 000000 09 01000000");
}

#[test]
fn chunk_stream_ids_are_written_as_short_as_can_be() {
    for (id, basic) in [(63, "3f"), (64, "0000"), (319, "00ff"), (320, "010001"), (65_599, "01ffff")] {
        check_written(&message(id, 0, &[9]), &format!("{basic} 000000 000001 09 01000000 09"));
    }
}

#[test]
fn an_extended_timestamp_is_repeated_in_every_chunk() {
    check_written(&message(4, 0xFF_FFFE, &[9]), "04 fffffe 000001 09 01000000 09");
    let parts = ["08".repeat(128), "08".repeat(128), "08".repeat(4)];
    let [first, second, third] = &parts;
    for (time, field) in [(0x00FF_FFFF_u32, "00ffffff"), (u32::MAX, "ffffffff")] {
        check_written(
            &message(4, time, &[8; 260]),
            &format!("04 ffffff 000104 09 01000000 {field} {first} c4 {field} {second} c4 {field} {third}"),
        );
    }
}

#[test]
fn a_chunk_size_counts_from_the_message_after_it_on() {
    let (mut writer, mut out) = (Writer::new(LIMITS), vec![]);
    writer.set_chunk_size(60_000, &mut out).unwrap();
    writer.write(&message(4, 0, &[7; 300]), &mut out).unwrap();
    let expected =
        format!("02 000000 000004 01 00000000 0000ea60 04 000000 00012c 09 01000000 {}", "07".repeat(300));
    assert_eq!((out, writer.chunk_size()), (hex(&expected), 60_000));
}

#[test]
fn what_cannot_be_written_has_its_reason() {
    let (mut writer, mut out) = (Writer::new(LIMITS), vec![]);
    let length = MAX_MESSAGE_LENGTH as usize + 1;
    for (message, reason) in [
        (message(1, 0, &[]), RelayError::ChunkStream(1)),
        (message(65_600, 0, &[]), RelayError::ChunkStream(65_600)),
        (message(4, 0, &vec![0; length]), RelayError::MessageLength(length)),
        (Message { kind: kind::SET_CHUNK_SIZE, ..message(2, 0, &[0, 0, 0, 1]) }, RelayError::ChunkSize(1)),
        (Message { kind: kind::SET_CHUNK_SIZE, ..message(2, 0, &[1]) }, RelayError::ChunkSize(0)),
    ] {
        assert_eq!(writer.write(&message, &mut out), Err(reason));
    }
    assert_eq!((out, writer.states().count()), (vec![], 0));
}

#[test]
fn a_piece_is_passed_on_before_its_message_is_whole() {
    let (mut writer, mut out) = (Writer::new(LIMITS), vec![]);
    let header = header(&message(4, 0, &[5; 1000]));
    writer.relay(&Piece { header, offset: 0, bytes: &[5; 100] }, &mut out).unwrap();
    assert_eq!(out.len(), 0);
    writer.relay(&Piece { header, offset: 100, bytes: &[5; 200] }, &mut out).unwrap();
    assert_eq!(out.len(), 12 + 128 + 1 + 128);
    assert_eq!(writer.unfinished(), Some(4));
    writer.relay(&Piece { header, offset: 300, bytes: &[5; 700] }, &mut out).unwrap();
    assert_eq!(
        (reference::decode(&out).unwrap(), writer.unfinished()),
        (vec![message(4, 0, &[5; 1000])], None)
    );
}

#[test]
fn no_more_is_held_than_the_limit() {
    let (mut writer, mut out) = (Writer::new(Limits { held: 150, ..LIMITS }), vec![]);
    for (chunk_stream, expected) in [(4, Ok(())), (5, Err(RelayError::Held))] {
        let header = header(&message(chunk_stream, 0, &[5; 1000]));
        assert_eq!(writer.relay(&Piece { header, offset: 0, bytes: &[5; 100] }, &mut out), expected);
    }
}

#[test]
fn a_writer_has_room_again_after_a_message() {
    let (mut writer, mut out) = (Writer::new(Limits { held: 150, ..LIMITS }), vec![]);
    let whole = message(4, 0, &[5; 120]);
    let abort = Message { kind: kind::ABORT, stream: 0, ..message(2, 0, &[0, 0, 0, 5]) };
    for _ in 0..3 {
        writer.relay(&Piece { header: header(&whole), offset: 0, bytes: &[5; 100] }, &mut out).unwrap();
        writer.relay(&Piece { header: header(&whole), offset: 100, bytes: &[5; 20] }, &mut out).unwrap();
        let given_up = header(&message(5, 0, &[6; 120]));
        writer.relay(&Piece { header: given_up, offset: 0, bytes: &[6; 100] }, &mut out).unwrap();
        writer.relay(&Piece { header: header(&abort), offset: 0, bytes: &abort.payload }, &mut out).unwrap();
    }
    assert_eq!((writer.unfinished(), reference::decode(&out).unwrap().len()), (None, 6));
}

#[test]
fn a_message_goes_on_where_it_was() {
    let (mut writer, mut out) = (Writer::new(LIMITS), vec![]);
    let header = header(&message(4, 0, &[5; 1000]));
    for (offset, length) in [(10, 1), (0, 1001)] {
        let gap = Err(RelayError::Gap { chunk_stream: 4, offset });
        assert_eq!(writer.relay(&Piece { header, offset, bytes: &vec![5; length] }, &mut out), gap);
    }
    assert_eq!(out, [0_u8; 0]);
}

#[test]
fn a_message_of_our_own_goes_before_one_of_which_nothing_is_written() {
    let (mut writer, mut out) = (Writer::new(LIMITS), vec![]);
    let (ours, theirs) = (message(4, 1, &[1]), message(4, 2, &[2; 200]));
    let header = header(&theirs);
    writer.relay(&Piece { header, offset: 0, bytes: &[2; 50] }, &mut out).unwrap();
    writer.write(&ours, &mut out).unwrap();
    writer.relay(&Piece { header, offset: 50, bytes: &[2; 100] }, &mut out).unwrap();
    assert_eq!(writer.write(&ours, &mut out), Err(RelayError::Busy(4)));
    writer.relay(&Piece { header, offset: 150, bytes: &[2; 50] }, &mut out).unwrap();
    assert_eq!(reference::decode(&out).unwrap(), [ours, theirs]);
}

#[test]
fn a_message_that_another_takes_the_place_of_is_aborted() {
    for chunk_stream in [2, 4] {
        let (mut writer, mut out) = (Writer::new(LIMITS), vec![]);
        let (given_up, other) = (message(chunk_stream, 0, &[3; 200]), message(chunk_stream, 1, &[4]));
        writer.relay(&Piece { header: header(&given_up), offset: 0, bytes: &[3; 150] }, &mut out).unwrap();
        writer.relay(&Piece { header: header(&other), offset: 0, bytes: &other.payload }, &mut out).unwrap();
        let understood = reference::decode(&out).unwrap();
        let abort = (kind::ABORT, &[0, 0, 0, chunk_stream as u8][..]);
        assert_eq!((understood[0].kind, &understood[0].payload[..]), abort);
        assert_eq!(understood[1..], [other]);
    }
}

#[test]
fn a_header_is_kept_unless_something_was_left_out_before() {
    let text = "04 000005 000001 08 01000000 aa  44 000017 000001 08 bb  c4 cc  84 000018 dd  c4 ee";
    for (swallowed, formats) in
        [(usize::MAX, "0 1 3 2 3"), (0, "0 1 2 3"), (1, "0 0 2 3"), (2, "0 1 0 1"), (3, "0 1 3 0")]
    {
        let (mut writer, mut out, mut count) = (Writer::new(LIMITS), vec![], 0);
        read_with(&hex(text), &[1], |piece| {
            if count != swallowed {
                writer.relay(piece, &mut out).unwrap();
            }
            count += 1;
        });
        let mut written = vec![];
        read_with(&out, &[1], |piece| written.push(format!("{}", piece.header.format as u8)));
        assert_eq!(written.join(" "), formats, "without {swallowed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_relay_with_another_chunk_size_sends_the_same_messages(
        steps in reference::steps(),
        terse in any::<bool>(),
        read in 1..300_usize,
        chunk_size in 128..1000_u32,
    ) {
        let sent = Encoder::run(&steps, terse);
        let (mut writer, mut out) = (Writer::new(LIMITS), vec![]);
        writer.set_chunk_size(chunk_size, &mut out).unwrap();
        read_with(&sent.bytes, &[read], |piece| {
            if piece.header.state.kind != kind::SET_CHUNK_SIZE {
                writer.relay(piece, &mut out).unwrap();
            }
        });
        let mut expected = sent.messages;
        expected.retain(|message| message.kind != kind::SET_CHUNK_SIZE);
        prop_assert_eq!(&reference::decode(&out).unwrap()[1..], &expected[..]);
        prop_assert_eq!(writer.unfinished(), None);
    }

    #[test]
    fn what_is_written_is_read(
        chunk_stream in 2..65_600_u32,
        timestamp in any::<u32>(),
        kind in 3..23_u8,
        stream in any::<u32>(),
        payload in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        let message = Message { chunk_stream, timestamp, kind, stream, payload };
        let (mut writer, mut out) = (Writer::new(LIMITS), vec![]);
        writer.write(&message, &mut out).unwrap();
        writer.write(&message, &mut out).unwrap();
        prop_assert_eq!(messages(&out), [message.clone(), message]);
    }
}

#[track_caller]
fn check_written(message: &Message, expected: &str) {
    let mut out = vec![];
    Writer::new(LIMITS).write(message, &mut out).unwrap();
    assert_eq!(out, hex(expected));
}

fn header(message: &Message) -> Header {
    let state = State::full(message.timestamp, message.payload.len() as u32, message.kind, message.stream);
    Header { chunk_stream: message.chunk_stream, format: Format::Full, state }
}
