use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use super::*;
use crate::rtmp::{
    Message,
    chunk::{Assembler, Limits, Piece},
    message::kind,
    reference::{self, Encoder, Step},
};

const LIMITS: Limits = Limits { message_length: 0xFF_FFFF, chunk_streams: 64, held: 1 << 20 };

type Rule = fn(&Reader, &Writer) -> bool;

/// What a relay does beside relaying, and where it ends doing so.
#[derive(Clone, Debug)]
struct Script {
    steps: Vec<Step>,
    terse: bool,
    /// The lengths of reads, in turn.
    reads: Vec<usize>,
    /// Whether a message is swallowed, in turn.
    swallowed: Vec<bool>,
    /// Messages of its own: after how many pieces, on which chunk stream, and how they differ from the last one there.
    injected: Vec<(usize, u32, Twist)>,
    /// The chunk size that it sets at first.
    chunk_size: Option<u32>,
    /// Which of the opportunities to join it takes.
    join: usize,
}

#[derive(Clone, Copy, Debug)]
enum Twist {
    Nothing,
    Timestamp,
    Length,
    Kind,
    Stream,
}

/// Relays messages until it may join, and bytes from then on.
struct Relay {
    reader: Reader,
    writer: Writer,
    assembler: Assembler,
    /// What the far side is sent.
    out: Vec<u8>,
    /// What it is to understand.
    expected: Vec<Message>,
    /// The number of messages that have been read.
    finished: usize,
    opportunities: usize,
    joined: bool,
}

impl Relay {
    fn new() -> Self {
        Self {
            reader: Reader::new(LIMITS),
            writer: Writer::new(LIMITS),
            assembler: Assembler::new(LIMITS),
            out: Vec::new(),
            expected: Vec::new(),
            finished: 0,
            opportunities: 0,
            joined: false,
        }
    }

    fn relay(&mut self, piece: &Piece<'_>) {
        self.writer.relay(piece, &mut self.out).unwrap();
        self.expected.extend(self.assembler.push(piece).unwrap());
    }

    /// Writes a message of its own like the last one that came, but for one thing.
    fn inject(&mut self, chunk_stream: u32, twist: Twist) {
        let state = self.reader.state(chunk_stream).copied().unwrap_or(State::full(0, 40, kind::VIDEO, 0));
        let mut length = state.length as usize;
        let State { mut timestamp, mut kind, mut stream, .. } = state;
        match twist {
            Twist::Nothing => {}
            Twist::Timestamp => timestamp ^= 1,
            Twist::Length => length ^= 1,
            Twist::Kind => kind = kind::DATA_AMF0,
            Twist::Stream => stream ^= 1,
        }
        self.write(&Message { chunk_stream, timestamp, kind, stream, payload: vec![0; length] });
    }

    fn write(&mut self, message: &Message) {
        if self.writer.write(message, &mut self.out).is_ok() {
            self.expected.push(message.clone());
        }
    }

    /// Sends the source's bytes through the relay.
    fn run(&mut self, script: &Script, bytes: &[u8], may_join: Rule) {
        let mut reads = script.reads.iter().cycle();
        let (mut unread, mut arrived, mut pieces) = (0, 0, 0);
        while arrived < bytes.len() {
            arrived = bytes.len().min(arrived + reads.next().unwrap());
            let mut input = &bytes[unread..arrived];
            while let Some(piece) = self.reader.read(&mut input).unwrap() {
                if !script.swallows(&piece) {
                    self.relay(&piece);
                }
                self.finished += usize::from(piece.ends());
                let due = script.injected.iter().filter(|(when, ..)| *when == pieces);
                due.for_each(|(_, chunk_stream, twist)| self.inject(*chunk_stream, *twist));
                pieces += 1;
                if may_join(&self.reader, &self.writer) && self.take(script.join) {
                    self.joined = true;
                    self.out.extend([input, &bytes[arrived..]].concat());
                    return;
                }
            }
            unread = arrived - input.len();
        }
    }

    fn take(&mut self, wanted: usize) -> bool {
        self.opportunities += 1;
        self.opportunities > wanted
    }
}

impl Script {
    /// Every piece of a message has the same answer.
    fn swallows(&self, piece: &Piece<'_>) -> bool {
        let state = &piece.header.state;
        let turn = state.timestamp ^ state.length ^ piece.header.chunk_stream;
        !self.swallowed.is_empty() && self.swallowed[turn as usize % self.swallowed.len()]
    }
}

/// Whether the far side understands what was relayed and what the source sent after the join, and nothing else.
fn hold(script: &Script, may_join: Rule) -> Result<Relay, TestCaseError> {
    let source = Encoder::run(&script.steps, script.terse);
    let mut relay = Relay::new();
    if let Some(size) = script.chunk_size {
        relay.write(&Message {
            chunk_stream: 2,
            timestamp: 0,
            kind: kind::SET_CHUNK_SIZE,
            stream: 0,
            payload: size.to_be_bytes().to_vec(),
        });
    }
    relay.run(script, &source.bytes, may_join);
    let mut expected = relay.expected.clone();
    if relay.joined {
        expected.extend_from_slice(&source.messages[relay.finished..]);
    }
    // A swallowed Abort is made up for by one of the writer's.
    expected.retain(|message| message.kind != kind::ABORT);
    let mut understood = reference::decode(&relay.out).map_err(TestCaseError::fail)?;
    understood.retain(|message| message.kind != kind::ABORT);
    prop_assert_eq!(understood, expected);
    Ok(relay)
}

fn by_the_rule(reader: &Reader, writer: &Writer) -> bool {
    check(reader, writer).is_ok()
}

fn scripts() -> impl Strategy<Value = Script> {
    let swallowed = prop_oneof![Just(vec![]), prop::collection::vec(prop::bool::weighted(0.2), 1..9)];
    let twists = [Twist::Nothing, Twist::Timestamp, Twist::Length, Twist::Kind, Twist::Stream];
    let twist = prop::sample::select(twists.to_vec());
    let injected = prop::collection::vec((0..20_usize, prop::sample::select(vec![2, 3, 4, 6]), twist), 0..4);
    let reads = prop::collection::vec(1..400_usize, 1..6);
    let chunk_size = prop::option::weighted(0.2, 128..400_u32);
    (reference::steps(), any::<bool>(), reads, swallowed, injected, chunk_size, 0..12_usize).prop_map(
        |(steps, terse, reads, swallowed, injected, chunk_size, join)| Script {
            steps,
            terse,
            reads,
            swallowed,
            injected,
            chunk_size,
            join,
        },
    )
}

#[test]
fn every_difference_between_the_sides_is_an_obstacle() {
    // Timestamp 20, then a delta of 20.
    let source = reference::hex("04 000014 000002 09 01000000 aaaa  84 000014 bbbb");
    let last = |timestamp, kind, stream, length| Message {
        chunk_stream: 4,
        timestamp,
        kind,
        stream,
        payload: vec![0; length],
    };
    for (ours, other, obstacle) in [
        (last(40, 9, 1, 2), None, Some(4)),
        (last(20, 9, 1, 2), None, Some(4)),
        (last(20, 9, 1, 2), Some("84 000014 cccc"), None),
        (last(21, 9, 1, 2), Some("84 000014 cccc"), Some(4)),
        (last(20, 8, 1, 2), Some("84 000014 cccc"), Some(4)),
        (last(20, 9, 2, 2), Some("84 000014 cccc"), Some(4)),
        (last(20, 9, 1, 3), Some("84 000014 cccccc"), Some(4)),
        (Message { chunk_stream: 5, ..last(1, 9, 0, 2) }, None, Some(4)),
    ] {
        let mut writer = writer_after(&ours, other);
        let (mut reader, mut input) = (Reader::new(LIMITS), &source[..]);
        while reader.read(&mut input).unwrap().is_some() {}
        let expected = obstacle.map_or(Ok(()), |id| Err(Obstacle::State(id)));
        assert_eq!(check(&reader, &writer), expected, "{ours:?} {other:?}");

        writer.set_chunk_size(129, &mut vec![]).unwrap();
        assert_eq!(check(&reader, &writer), Err(Obstacle::ChunkSize { read: 128, written: 129 }));
    }
}

#[test]
fn an_unfinished_message_is_an_obstacle() {
    let bytes = reference::hex("04 000000 000002 09 01000000 aabb");
    let (mut reader, mut writer, mut out) = (Reader::new(LIMITS), Writer::new(LIMITS), vec![]);
    let (mut first, mut second) = bytes.split_at(13);
    let piece = reader.read(&mut first).unwrap().unwrap();
    assert_eq!(check(&reader, &writer), Err(Obstacle::Reading(4)));
    writer.relay(&piece, &mut out).unwrap();
    let piece = reader.read(&mut second).unwrap().unwrap();
    assert_eq!(check(&reader, &writer), Err(Obstacle::Writing(4)));
    writer.relay(&piece, &mut out).unwrap();
    assert_eq!(check(&reader, &writer), Ok(()));
}

#[test]
fn a_chunk_stream_that_is_ours_alone_counts_from_zero() {
    let reader = Reader::new(LIMITS);
    for (timestamp, stream, expected) in [(0, 0, Ok(())), (1, 0, Err(3)), (0, 1, Err(3))] {
        let ours =
            Message { chunk_stream: 3, timestamp, kind: kind::COMMAND_AMF0, stream, payload: vec![0; 9] };
        let mut writer = Writer::new(LIMITS);
        writer.write(&ours, &mut vec![]).unwrap();
        assert_eq!(check(&reader, &writer), expected.map_err(Obstacle::State));
    }
}

/// A writer that wrote a message of ours and relayed one with a header of type 2 after it.
fn writer_after(ours: &Message, relayed: Option<&str>) -> Writer {
    let (mut writer, mut out) = (Writer::new(LIMITS), vec![]);
    writer.write(ours, &mut out).unwrap();
    out.extend(reference::hex(relayed.unwrap_or_default()));
    let (mut reader, mut input, mut writer) = (Reader::new(LIMITS), &out[..], Writer::new(LIMITS));
    while let Some(piece) = reader.read(&mut input).unwrap() {
        writer.relay(&piece, &mut vec![]).unwrap();
    }
    writer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_far_side_understands_what_a_relay_sends_that_joins_by_the_rule(script in scripts()) {
        hold(&script, by_the_rule)?;
    }
}

#[test]
fn the_far_side_misunderstands_what_a_relay_sends_that_joins_in_spite_of_an_obstacle() {
    let ignoring: [(&str, Rule); 4] = [
        ("reading", |r, w| matches!(check(r, w), Ok(()) | Err(Obstacle::Reading(_)))),
        ("writing", |r, w| matches!(check(r, w), Ok(()) | Err(Obstacle::Writing(_)))),
        ("chunk size", |r, w| matches!(check(r, w), Ok(()) | Err(Obstacle::ChunkSize { .. }))),
        ("state", |r, w| matches!(check(r, w), Ok(()) | Err(Obstacle::State(_)))),
    ];
    for (obstacle, may_join) in ignoring {
        let mut misunderstood = sample(20_000).filter(|script| hold(script, may_join).is_err());
        assert!(misunderstood.next().is_some(), "{obstacle}");
    }
}

#[test]
fn most_relays_get_to_join() {
    let scripts = sample(500).map(|script| Script { join: 0, ..script });
    let joined = scripts.filter(|script| hold(script, by_the_rule).unwrap().joined);
    assert!(joined.count() > 100);
}

fn sample(count: usize) -> impl Iterator<Item = Script> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(move |_| scripts().new_tree(&mut runner).unwrap().current())
}
