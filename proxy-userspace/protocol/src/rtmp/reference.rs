//! A reader and an encoder of chunks that share nothing with the ones they are compared with, and are as plain as can
//! be: the one sees all bytes at once, the other follows a script.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Message;

/// What an independent peer knows of a chunk stream.
#[derive(Clone, Default)]
struct Lane {
    timestamp: u32,
    field: u32,
    extended: bool,
    full: bool,
    length: usize,
    kind: u8,
    stream: u32,
    payload: Option<Vec<u8>>,
}

/// Reads the chunks of one direction; an unfinished end is left out.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Message>, String> {
    let (mut at, mut chunk_size, mut lanes, mut messages) = (0, 128, BTreeMap::<u32, Lane>::new(), vec![]);
    while let Some((format, id, length)) = basic_header(&bytes[at..]) {
        let fresh = !lanes.contains_key(&id);
        let lane = lanes.entry(id).or_default();
        if fresh && format > 1 || lane.payload.is_some() && format != 3 {
            return Err(format!("type {format} at {at}"));
        }
        let Some(next) = lane.take_header(format, bytes, at + length) else { break };
        let payload = lane.payload.get_or_insert_default();
        let size = chunk_size.min(lane.length - payload.len());
        let Some(part) = bytes.get(next..next + size) else { break };
        payload.extend(part);
        at = next + size;
        if payload.len() < lane.length {
            continue;
        }
        let message = lane.message(id);
        let value = message.payload.first_chunk().map(|value| u32::from_be_bytes(*value));
        match (message.kind, value) {
            (1, Some(size)) => chunk_size = size as usize,
            (2, Some(id)) => drop(lanes.get_mut(&id).and_then(|lane| lane.payload.take())),
            _ => {}
        }
        messages.push(message);
    }
    Ok(messages)
}

impl Lane {
    /// Reads what follows a basic header; gives where the payload begins.
    fn take_header(&mut self, format: usize, bytes: &[u8], mut next: usize) -> Option<usize> {
        let (begins, length) = (self.payload.is_none(), [11, 7, 3, 0][format]);
        let header = bytes.get(next..next + length)?;
        if format < 3 {
            self.field = u24(header);
            self.extended = self.field == 0xFF_FFFF;
            self.full = format == 0;
        }
        if format < 2 {
            (self.length, self.kind) = (u24(&header[3..]) as usize, header[6]);
        }
        if format == 0 {
            self.stream = u32::from_le_bytes(header[7..].try_into().unwrap());
        }
        next += length;
        if self.extended {
            match bytes[next..].first_chunk().map(|value| u32::from_be_bytes(*value)) {
                Some(value) if begins || value == self.field => (self.field, next) = (value, next + 4),
                None if begins => return None,
                Some(_) | None => {}
            }
        }
        if begins {
            let absolute = format == 0 || self.extended && self.full;
            self.timestamp = if absolute { 0 } else { self.timestamp }.wrapping_add(self.field);
        }
        Some(next)
    }

    fn message(&mut self, id: u32) -> Message {
        let payload = self.payload.take().unwrap();
        Message { chunk_stream: id, timestamp: self.timestamp, kind: self.kind, stream: self.stream, payload }
    }
}

/// The bytes of a listing.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn basic_header(bytes: &[u8]) -> Option<(usize, u32, usize)> {
    let format = usize::from(bytes.first()? >> 6);
    Some(match bytes[0] & 63 {
        0 => (format, 64 + u32::from(*bytes.get(1)?), 2),
        1 => (format, 64 + u32::from(*bytes.get(1)?) + 256 * u32::from(*bytes.get(2)?), 3),
        id => (format, u32::from(id), 1),
    })
}

fn u24(bytes: &[u8]) -> u32 {
    u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2])
}

/// What an encoder does next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Begins a message, after the one that is unfinished on its chunk stream.
    Begin { id: u32, format: u8, time: u32, length: usize, kind: u8, stream: u32, fill: u8 },
    /// Writes a chunk of one of the unfinished messages.
    GoOn(usize),
    /// Changes the chunk size.
    ChunkSize(u32),
    /// Gives one of the unfinished messages up.
    Abort(usize),
}

/// An encoder that uses everything that RTMP allows.
#[derive(Default)]
pub(super) struct Encoder {
    pub(super) bytes: Vec<u8>,
    /// What it sent, in the order in which it was finished.
    pub(super) messages: Vec<Message>,
    /// Whether extended timestamps are left out of the chunks that go on with a message.
    pub(super) terse: bool,
    chunk_size: usize,
    lanes: BTreeMap<u32, (Lane, usize)>,
}

impl Encoder {
    pub(super) fn run(steps: &[Step], terse: bool) -> Self {
        let mut encoder = Self { terse, chunk_size: 128, ..Self::default() };
        for step in steps {
            encoder.step(step);
        }
        while let Some(id) = encoder.unfinished(0) {
            encoder.chunk(id);
        }
        encoder
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Begin { id, format, time, length, kind, stream, fill } => {
                let payload = (0..length).map(|n| fill.wrapping_mul(31).wrapping_add(n as u8)).collect();
                self.begin(id, format, time, kind, stream, payload);
            }
            Step::GoOn(choice) => drop(self.unfinished(choice).map(|id| self.chunk(id))),
            Step::ChunkSize(size) => {
                self.begin(2, 0, 0, 1, 0, size.to_be_bytes().to_vec());
                self.chunk_size = size as usize;
            }
            Step::Abort(choice) => {
                if let Some(id) = self.unfinished(choice).filter(|id| *id != 2) {
                    self.begin(2, 1, 0, 2, 0, id.to_be_bytes().to_vec());
                    self.lanes.get_mut(&id).unwrap().0.payload = None;
                }
            }
        }
    }

    fn unfinished(&self, choice: usize) -> Option<u32> {
        let open: Vec<_> = self.lanes.iter().filter(|(_, (lane, _))| lane.payload.is_some()).collect();
        open.get(choice % open.len().max(1)).map(|(id, _)| **id)
    }

    /// Writes the first chunk of a message that is like the one before where `format` says nothing. What is about
    /// chunks is not repeated that way.
    fn begin(&mut self, id: u32, format: u8, time: u32, kind: u8, stream: u32, mut payload: Vec<u8>) {
        while self.lanes.get(&id).is_some_and(|(lane, _)| lane.payload.is_some()) {
            self.chunk(id);
        }
        let inherits = self.lanes.get(&id).is_some_and(|(lane, _)| lane.kind >= 3);
        let format = if inherits { format } else { format % 2 };
        let (lane, written) = self.lanes.entry(id).or_default();
        if format < 3 {
            (lane.field, lane.extended, lane.full) = (time, time >= 0xFF_FFFF, format == 0);
        }
        if format < 2 {
            (lane.length, lane.kind) = (payload.len(), kind);
        }
        if format == 0 {
            lane.stream = stream;
        }
        payload.resize(lane.length, 7);
        *written = 0;
        let absolute = format == 0 || lane.extended && lane.full;
        lane.timestamp = if absolute { 0 } else { lane.timestamp }.wrapping_add(lane.field);
        lane.payload = Some(payload);
        self.header(id, format);
        self.payload(id);
    }

    fn header(&mut self, id: u32, format: u8) {
        let bits = format << 6;
        match id {
            0..64 => self.bytes.push(bits | id as u8),
            64..320 if id.is_multiple_of(2) => self.bytes.extend([bits, (id - 64) as u8]),
            _ => self.bytes.extend([bits | 1, (id - 64) as u8, ((id - 64) >> 8) as u8]),
        }
        let lane = &self.lanes[&id].0;
        if format < 3 {
            self.bytes.extend(&lane.field.min(0xFF_FFFF).to_be_bytes()[1..]);
        }
        if format < 2 {
            self.bytes.extend(&(lane.length as u32).to_be_bytes()[1..]);
            self.bytes.push(lane.kind);
        }
        if format == 0 {
            self.bytes.extend(lane.stream.to_le_bytes());
        }
        if lane.extended {
            self.bytes.extend(lane.field.to_be_bytes());
        }
    }

    fn chunk(&mut self, id: u32) {
        self.header(id, 3);
        if self.terse && self.lanes[&id].0.extended {
            self.bytes.truncate(self.bytes.len() - 4);
        }
        self.payload(id);
    }

    fn payload(&mut self, id: u32) {
        let (lane, written) = self.lanes.get_mut(&id).unwrap();
        let payload = lane.payload.as_ref().unwrap();
        let end = payload.len().min(*written + self.chunk_size);
        self.bytes.extend(&payload[*written..end]);
        *written = end;
        if end < payload.len() {
            return;
        }
        self.messages.push(lane.message(id));
    }
}

/// Scripts in which chunk streams, times and lengths recur, so that headers of all types mean something.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = prop::sample::select(vec![2, 3, 4, 4, 4, 4, 6, 6, 6, 63, 64, 319, 320, 65_599]);
    let time =
        prop::sample::select(vec![0, 0, 20, 20, 23, 40, 0xFF_FFFE, 0xFF_FFFF, 0x0100_0000, 0xFFFF_FFF0]);
    let length = prop_oneof![Just(0_usize), Just(40_usize), 100..140_usize, 200..900_usize];
    let kind = prop::sample::select(vec![8, 9, 9, 20]);
    let begin = (id, 0..4_u8, time, length, kind, 0..2_u32, any::<u8>()).prop_map(
        |(id, format, time, length, kind, stream, fill)| Step::Begin {
            id,
            format,
            time,
            length,
            kind,
            stream,
            fill,
        },
    );
    let step = prop_oneof![
        8 => begin,
        7 => any::<usize>().prop_map(Step::GoOn),
        1 => (128..400_u32).prop_map(Step::ChunkSize),
        1 => any::<usize>().prop_map(Step::Abort),
    ];
    prop::collection::vec(step, 1..40)
}
