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
    /// Messages of its own, each after a number of pieces.
    injected: Vec<(usize, Message)>,
    /// Which of the opportunities to join it takes.
    join: usize,
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

    fn inject(&mut self, message: &Message) {
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
                let due = script.injected.iter().filter(|(when, _)| *when == pieces);
                due.for_each(|(_, message)| self.inject(message));
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
    let swallowed = prop_oneof![Just(vec![]), prop::collection::vec(prop::bool::weighted(0.2), 1..9),];
    let message = (prop::sample::select(vec![2, 3, 4, 6]), 0..3_u32, 0..300_usize, 0..2_u32);
    let message = message.prop_map(|(chunk_stream, timestamp, length, stream)| Message {
        chunk_stream,
        timestamp: timestamp * 0x00FF_FFF0,
        kind: kind::COMMAND_AMF0,
        stream,
        payload: vec![0xAB; length],
    });
    let injected = prop::collection::vec((0..60_usize, message), 0..4);
    let reads = prop::collection::vec(1..400_usize, 1..6);
    (reference::steps(), any::<bool>(), reads, swallowed, injected, 0..12_usize).prop_map(
        |(steps, terse, reads, swallowed, injected, join)| Script {
            steps,
            terse,
            reads,
            swallowed,
            injected,
            join,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

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
