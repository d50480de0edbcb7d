use proptest::prelude::*;

use super::*;

/// A message of two bytes on a chunk stream of its own.
const SHORT: &str = "05 000001 000002 09 01000000 abcd";

#[test]
fn chunk_stream_ids_have_one_to_three_bytes() {
    for (basic, id) in [
        ("02", 2),
        ("3f", 63),
        ("0000", 64),
        ("00ff", 319),
        ("010000", 64),
        ("01ff00", 319),
        ("010001", 320),
        ("01ffff", 65_599),
    ] {
        let bytes = hex(&format!("{basic} 000001 000002 09 01000000 abcd"));
        assert_eq!(messages(&bytes), [message(id, 1, &[0xAB, 0xCD])], "{basic}");
    }
}

#[test]
fn timestamps_and_extended_deltas_wrap() {
    let bytes = hex("05 ffffff 000001 09 01000000 fffffff0 aa  85 000020 bb  85 ffffff fffffffe cc");
    let times: Vec<_> = messages(&bytes).iter().map(|message| message.timestamp).collect();
    assert_eq!(times, [0xFFFF_FFF0, 0x10, 0x0E]);
}

#[test]
fn an_extended_timestamp_may_be_repeated_or_not() {
    let payload = "77".repeat(128);
    for (repeated, last) in
        [("01000000", "99"), ("", "99"), ("", "010000"), ("01000000", "01000000aa"), ("", "88888888")]
    {
        let length = 128 + last.len() / 2;
        let text =
            format!("05 ffffff 0000{length:02x} 09 01000000 01000000 {payload} c5 {repeated} {last} {SHORT}");
        let text = text.replace("05 000001", "06 000001");
        let expected = [[0x77; 128].to_vec(), hex(last)].concat();
        let expected = [message(5, 0x0100_0000, &expected), message(6, 1, &[0xAB, 0xCD])];
        for length in [1, 2, 3, usize::MAX] {
            assert_eq!(read(&hex(&text), &[length]), (expected.to_vec(), 0), "{text}");
        }
    }
}

#[test]
fn a_bare_header_that_begins_a_message_repeats_an_extended_time() {
    let timestamp = hex("05 ffffff 000001 09 01000000 01000000 aa  c5 01000000 bb");
    assert_eq!(messages(&timestamp).last(), Some(&message(5, 0x0100_0000, &[0xBB])));
    let delta = hex("05 000005 000001 09 01000000 aa  85 ffffff 01000000 bb  c5 01000000 cc");
    assert_eq!(messages(&delta).last(), Some(&message(5, 0x0200_0005, &[0xCC])));
}

#[test]
fn a_message_comes_in_pieces_as_its_bytes_do() {
    let bytes = hex(&format!("04 000007 0000c8 09 01000000 {} c4 {}", "11".repeat(128), "22".repeat(72)));
    let mut pieces = vec![];
    read_with(&bytes, &[12, 1, 100, 40], |piece| {
        pieces.push((piece.offset, piece.bytes.len(), piece.begins(), piece.ends()));
    });
    assert_eq!(
        pieces,
        [
            (0, 1, true, false),
            (1, 100, false, false),
            (101, 27, false, false),
            (128, 12, false, false),
            (140, 40, false, false),
            (180, 20, false, true),
        ]
    );
}

#[test]
fn a_chunk_of_the_largest_size_is_not_waited_for() {
    let bytes = hex("02 000000 000004 01 00000000 7fffffff  04 000000 ffffff 09 01000000 aabb");
    let (mut reader, mut input, mut last) = (Reader::new(LIMITS), &bytes[..], None);
    while let Some(piece) = reader.read(&mut input).unwrap() {
        last = Some((piece.bytes.to_vec(), piece.ends()));
    }
    assert_eq!(last, Some((vec![0xAA, 0xBB], false)));
    assert_eq!((reader.chunk_size(), reader.unfinished()), (MAX_CHUNK_SIZE, Some(4)));
}

#[test]
fn a_chunk_size_counts_from_the_next_chunk_on() {
    let (first, second) = ("33".repeat(128), "33".repeat(172));
    let size = "02 000000 000004 01 00000000 000000ac";
    let bytes = hex(&format!("04 000000 00012c 09 01000000 {first} {size} c4 {second}"));
    assert_eq!(messages(&bytes).last(), Some(&message(4, 0, &[0x33; 300])));
}

#[test]
fn an_aborted_message_makes_room_for_another() {
    let aborted = format!("04 000000 000100 09 01000000 {}", "44".repeat(128));
    let bytes =
        hex(&format!("{aborted} 02 000000 000004 02 00000000 00000004 {}", SHORT.replace("05", "04")));
    let messages = messages(&bytes);
    assert_eq!((messages[0].kind, &messages[1]), (kind::ABORT, &message(4, 1, &[0xAB, 0xCD])));
}

#[test]
fn what_is_no_chunk_has_its_reason() {
    let long = format!("04 000000 000100 09 01000000 {}", "55".repeat(128));
    for (text, reason) in [
        ("84 000000".to_owned(), ReadError::NoHeaderBefore(4)),
        ("c4".to_owned(), ReadError::NoHeaderBefore(4)),
        (format!("{long} 04"), ReadError::Interrupted(4)),
        (format!("{long} 44"), ReadError::Interrupted(4)),
        ("02 000000 000004 01 00000000 00000000".to_owned(), ReadError::ChunkSize(0)),
        ("02 000000 000004 01 00000000 0000007f".to_owned(), ReadError::ChunkSize(127)),
        ("02 000000 000004 01 00000000 80000000".to_owned(), ReadError::ChunkSize(0x8000_0000)),
        ("02 000000 000003 01 00000000 000001".to_owned(), ReadError::NoValue(kind::SET_CHUNK_SIZE)),
        ("02 000000 000000 02 00000000".to_owned(), ReadError::NoValue(kind::ABORT)),
    ] {
        assert_eq!(failure(&hex(&text), LIMITS), reason, "{text}");
    }
}

#[test]
fn a_peer_cannot_exceed_the_limits() {
    let limits = Limits { message_length: 1000, chunk_streams: 2, held: 128 };
    let second = SHORT.replace("05", "06");
    let third = SHORT.replace("05", "07");
    assert_eq!(failure(&hex(&format!("{SHORT}{second}{third}")), limits), ReadError::ChunkStreams(7));
    assert_eq!(failure(&hex("04 000000 0003e9 09 01000000"), limits), ReadError::MessageLength(1001));

    let (mut reader, mut assembler) = (Reader::new(limits), Assembler::new(limits));
    let bytes =
        hex(&format!("04 000000 0003e8 09 01000000 {} 05 000000 000002 09 01000000 66", "66".repeat(128)));
    let mut input = &bytes[..];
    let mut push = || assembler.push(&reader.read(&mut input).unwrap().unwrap());
    assert_eq!((push(), push()), (Ok(None), Err(RelayError::Held)));
}

#[test]
fn an_assembler_has_room_again_after_a_message() {
    let mut assembler = Assembler::new(Limits { held: 256, ..LIMITS });
    let part = |id| format!("{id:02x} 000000 000100 09 01000000 {}", "88".repeat(128));
    let abort = "02 000000 000004 02 00000000 00000004";
    let end = format!("c5 {}", "88".repeat(128));
    let bytes = hex(&[part(4).as_str(), abort, &part(5), &end, &part(6)].concat());
    let mut whole = vec![];
    read_with(&bytes, &[usize::MAX], |piece| {
        let message = assembler.push(piece).unwrap_or_else(|_| panic!("{}", piece.header.chunk_stream));
        whole.extend(message.map(|message| message.chunk_stream));
    });
    assert_eq!(whole, [2, 5]);
}

#[test]
fn an_assembler_wants_every_piece() {
    let bytes = hex(&format!("04 000000 000100 09 01000000 {} c4 00", "77".repeat(128)));
    let mut pushed = vec![];
    let mut assembler = Assembler::new(LIMITS);
    read_with(&bytes, &[100, 100], |piece| {
        if !piece.begins() {
            pushed.push(assembler.push(piece));
        }
    });
    assert_eq!(pushed[0], Err(RelayError::Gap { chunk_stream: 4, offset: 88 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn reads_whatever_an_encoder_may_send(
        steps in reference::steps(),
        terse in any::<bool>(),
        reads in prop::collection::vec(1..300_usize, 1..8),
    ) {
        let sent = Encoder::run(&steps, terse);
        prop_assert_eq!(&reference::decode(&sent.bytes).unwrap(), &sent.messages);
        prop_assert_eq!(read(&sent.bytes, &reads), (sent.messages, 0));
    }

    #[test]
    fn bytes_are_chunks_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let (mut reader, mut input) = (Reader::new(LIMITS), &bytes[..]);
        while let Ok(Some(_)) = reader.read(&mut input) {}
    }
}
