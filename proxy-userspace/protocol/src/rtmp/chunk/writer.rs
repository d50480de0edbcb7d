//! From messages and pieces of them to chunks.

use std::collections::BTreeMap;

use super::{
    Format, Header, INITIAL_CHUNK_SIZE, Limits, MAX_MESSAGE_LENGTH, Piece, RelayError, State,
    control::{self, Control, Value},
    header::CHUNK_STREAMS,
};
use crate::rtmp::{
    Message,
    message::{CONTROL_CHUNK_STREAM, CONTROL_STREAM, kind},
};

/// Writes the chunks of one direction of a connection.
///
/// Messages of our own get full headers. Relayed ones keep the header they came with if the far side understands the
/// same from it, which needs that nothing was left out or put in on their chunk stream since its last full header.
/// Otherwise they get as much of a header as is needed. The states of both sides of the relay grow equal that way.
///
/// Chunks on different chunk streams do not overlap, so what comes of a chunk is held until it is full: of each chunk
/// stream at most a chunk, and nothing at the end of a message.
#[derive(Debug)]
pub struct Writer {
    limit: usize,
    held: usize,
    chunk_size: u32,
    streams: BTreeMap<u32, Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    /// What the far side remembers.
    state: Option<State>,
    partial: Option<Partial>,
}

/// A message of which not everything is written.
#[derive(Debug)]
struct Partial {
    header: Header,
    written: usize,
    held: Vec<u8>,
    value: Value,
}

impl Writer {
    /// Before the first chunk.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limit: limits.held, held: 0, chunk_size: INITIAL_CHUNK_SIZE, streams: BTreeMap::new() }
    }

    /// The size of the chunks that are written.
    #[must_use]
    pub const fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// A chunk stream that is in the middle of a message, if there is one.
    #[must_use]
    pub fn unfinished(&self) -> Option<u32> {
        self.streams.iter().find(|(_, stream)| stream.partial.is_some()).map(|(id, _)| *id)
    }

    /// What the far side remembers of a chunk stream.
    #[must_use]
    pub fn state(&self, chunk_stream: u32) -> Option<&State> {
        self.streams.get(&chunk_stream)?.state.as_ref()
    }

    /// The chunk streams that have been used.
    pub fn states(&self) -> impl Iterator<Item = (u32, &State)> {
        self.streams.iter().filter_map(|(id, stream)| Some((*id, stream.state.as_ref()?)))
    }

    /// Appends a message of our own to `out`.
    ///
    /// # Errors
    ///
    /// Fails if no header can describe the message, or if a relayed message is being written on its chunk stream.
    pub fn write(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<(), RelayError> {
        let length = u32::try_from(message.payload.len()).unwrap_or(u32::MAX);
        let state = State::full(message.timestamp, length, message.kind, message.stream);
        let header = Header { chunk_stream: message.chunk_stream, format: Format::Full, state };
        check(&header)?;
        check_chunk_size(message)?;
        let later = self.set_aside(message.chunk_stream)?;
        self.relay(&Piece { header, offset: 0, bytes: &message.payload }, out)?;
        if let Some(stream) = self.streams.get_mut(&message.chunk_stream) {
            stream.partial = later;
        }
        Ok(())
    }

    /// Appends the chunks that `piece` fills to `out`.
    ///
    /// A piece that begins a message in the middle of another aborts that one.
    ///
    /// # Errors
    ///
    /// Fails if too much would be held, if pieces are missing, or if no header can describe the message. What has
    /// been appended is whole chunks.
    pub fn relay(&mut self, piece: &Piece<'_>, out: &mut Vec<u8>) -> Result<(), RelayError> {
        let chunk_stream = piece.header.chunk_stream;
        check(&piece.header)?;
        if piece.begins() {
            self.begin(piece.header, out)?;
        }
        let gap = RelayError::Gap { chunk_stream, offset: piece.offset };
        let stream = self.streams.get_mut(&chunk_stream).ok_or(gap)?;
        let partial = stream.partial.as_mut().filter(|partial| partial.is_followed_by(piece)).ok_or(gap)?;

        let chunk_size = self.chunk_size as usize;
        let others = self.held - partial.held.len();
        if others + partial.held_after(piece, chunk_size) > self.limit {
            return Err(RelayError::Held);
        }
        partial.value.take(piece);
        partial.push(&mut stream.state, chunk_size, piece.bytes, out);
        self.held = others + partial.held.len();
        if piece.ends() {
            let control = partial.value.control(&partial.header);
            stream.partial = None;
            self.obey(control);
        }
        Ok(())
    }

    /// Appends Set Chunk Size to `out`; what follows is written in chunks of that size.
    ///
    /// # Errors
    ///
    /// Fails if SRS does not accept the size.
    pub fn set_chunk_size(&mut self, size: u32, out: &mut Vec<u8>) -> Result<(), RelayError> {
        self.write(&control_message(kind::SET_CHUNK_SIZE, size), out)
    }

    /// Takes away what is held of a message of which nothing is written: a message of our own may go before it.
    fn set_aside(&mut self, chunk_stream: u32) -> Result<Option<Partial>, RelayError> {
        if self.is_writing(chunk_stream) {
            return Err(RelayError::Busy(chunk_stream));
        }
        Ok(self.streams.get_mut(&chunk_stream).and_then(|stream| stream.partial.take()))
    }

    fn begin(&mut self, header: Header, out: &mut Vec<u8>) -> Result<(), RelayError> {
        let chunk_stream = header.chunk_stream;
        if let Some(aborted) = self.forget(chunk_stream) {
            self.abort(chunk_stream, &aborted, out)?;
        }
        let partial = Partial { header, written: 0, held: Vec::new(), value: Value::default() };
        self.streams.entry(chunk_stream).or_default().partial = Some(partial);
        Ok(())
    }

    /// Tells the far side of the end of a message that it has the beginning of, if possible where it looks for that.
    fn abort(&mut self, chunk_stream: u32, aborted: &Partial, out: &mut Vec<u8>) -> Result<(), RelayError> {
        if aborted.written == 0 {
            return Ok(());
        }
        let free = CHUNK_STREAMS.into_iter().find(|id| *id != chunk_stream && !self.is_writing(*id));
        let news = control_message(kind::ABORT, chunk_stream);
        self.write(&Message { chunk_stream: free.unwrap_or(CONTROL_CHUNK_STREAM), ..news }, out)
    }

    fn is_writing(&self, chunk_stream: u32) -> bool {
        let partial = self.streams.get(&chunk_stream).and_then(|stream| stream.partial.as_ref());
        partial.is_some_and(|partial| partial.written > 0)
    }

    fn forget(&mut self, chunk_stream: u32) -> Option<Partial> {
        let partial = self.streams.get_mut(&chunk_stream)?.partial.take()?;
        self.held -= partial.held.len();
        Some(partial)
    }

    fn obey(&mut self, control: Option<Control>) {
        match control {
            Some(Control::ChunkSize(size)) => self.chunk_size = size,
            Some(Control::Abort(aborted)) => drop(self.forget(aborted)),
            None => {}
        }
    }
}

impl Partial {
    fn is_followed_by(&self, piece: &Piece<'_>) -> bool {
        let end = piece.offset + piece.bytes.len();
        piece.offset == self.written + self.held.len() && end <= self.header.length()
    }

    fn held_after(&self, piece: &Piece<'_>, chunk_size: usize) -> usize {
        if piece.ends() { 0 } else { (self.held.len() + piece.bytes.len()) % chunk_size }
    }

    fn push(&mut self, state: &mut Option<State>, chunk_size: usize, mut bytes: &[u8], out: &mut Vec<u8>) {
        loop {
            let size = (self.header.length() - self.written).min(chunk_size);
            if self.held.len() + bytes.len() < size {
                self.held.extend(bytes);
                return;
            }
            self.write_header(state, out);
            let first = self.held.len().min(size);
            out.extend(self.held.drain(..first));
            let (second, rest) = bytes.split_at(size - first);
            out.extend(second);
            bytes = rest;
            self.written += size;
            if self.written == self.header.length() {
                return;
            }
        }
    }

    fn write_header(&mut self, state: &mut Option<State>, out: &mut Vec<u8>) {
        if self.written > 0 {
            return self.header.go_on(out);
        }
        self.header = self.header.understood_by(state.as_ref());
        *state = Some(self.header.state);
        self.header.begin(out);
    }
}

fn control_message(kind: u8, value: u32) -> Message {
    Message {
        chunk_stream: CONTROL_CHUNK_STREAM,
        timestamp: 0,
        kind,
        stream: CONTROL_STREAM,
        payload: value.to_be_bytes().to_vec(),
    }
}

/// Whether there is a way to write the header.
fn check(header: &Header) -> Result<(), RelayError> {
    if !CHUNK_STREAMS.contains(&header.chunk_stream) {
        return Err(RelayError::ChunkStream(header.chunk_stream));
    }
    if header.state.length > MAX_MESSAGE_LENGTH {
        return Err(RelayError::MessageLength(header.length()));
    }
    Ok(())
}

fn check_chunk_size(message: &Message) -> Result<(), RelayError> {
    if message.kind != kind::SET_CHUNK_SIZE {
        return Ok(());
    }
    let size = message.payload.first_chunk().map_or(0, |value| u32::from_be_bytes(*value));
    if control::is_chunk_size(size) { Ok(()) } else { Err(RelayError::ChunkSize(size)) }
}
