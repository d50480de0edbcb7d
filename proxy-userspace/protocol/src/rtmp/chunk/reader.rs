//! From bytes to pieces of messages.

use std::collections::BTreeMap;

use super::{
    Format, Header, INITIAL_CHUNK_SIZE, Limits, Piece, ReadError, State,
    control::{self, Control, Value},
    header,
};
use crate::reader::{Reader as Cursor, UnexpectedEnd};

/// Reads the chunks of one direction of a connection.
///
/// It keeps a state for each chunk stream and no bytes at all: what [`Reader::read`] leaves of its input is the
/// beginning of a header, and the caller's to keep.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    chunk_size: u32,
    streams: BTreeMap<u32, Stream>,
    /// The chunk whose payload comes next.
    open: Option<Open>,
}

#[derive(Debug)]
struct Stream {
    state: State,
    partial: Option<Partial>,
}

/// A message of which chunks are still to come.
#[derive(Clone, Copy, Debug)]
struct Partial {
    format: Format,
    received: usize,
    value: Value,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    header: Header,
    partial: Partial,
    left: usize,
}

impl Reader {
    /// Before the first chunk.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, chunk_size: INITIAL_CHUNK_SIZE, streams: BTreeMap::new(), open: None }
    }

    /// Takes the next piece off `input`.
    ///
    /// `None` means that more bytes are needed. They must follow those that are left in `input` then: at most 17, the
    /// beginning of a header.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are no chunks or exceed a limit. Nothing can be read after that.
    pub fn read<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, ReadError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => match self.next_chunk(input)? {
                Some(open) => open,
                None => return Ok(None),
            },
        };
        if open.left > 0 && input.is_empty() {
            self.open = Some(open);
            return Ok(None);
        }
        let (bytes, rest) = input.split_at(open.left.min(input.len()));
        *input = rest;
        self.take(open, bytes).map(Some)
    }

    /// The size of the chunks that come.
    #[must_use]
    pub const fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// A chunk stream that is in the middle of a message, if there is one.
    #[must_use]
    pub fn unfinished(&self) -> Option<u32> {
        let open = self.open.as_ref().map(|open| open.header.chunk_stream);
        open.or_else(|| self.streams.iter().find(|(_, stream)| stream.partial.is_some()).map(|(id, _)| *id))
    }

    /// What is known of a chunk stream.
    #[must_use]
    pub fn state(&self, chunk_stream: u32) -> Option<&State> {
        self.streams.get(&chunk_stream).map(|stream| &stream.state)
    }

    /// The chunk streams that have been used.
    pub fn states(&self) -> impl Iterator<Item = (u32, &State)> {
        self.streams.iter().map(|(id, stream)| (*id, &stream.state))
    }

    /// Reads the header of a chunk, and keeps nothing unless it is whole.
    fn next_chunk(&mut self, input: &mut &[u8]) -> Result<Option<Open>, ReadError> {
        let mut cursor = Cursor::new(input);
        let Ok((format, chunk_stream)) = header::read_basic(&mut cursor) else { return Ok(None) };
        let stream = self.streams.get(&chunk_stream);
        let chunk = match stream.and_then(|stream| Some((stream.state, stream.partial?))) {
            Some((state, partial)) => Self::go_on(&mut cursor, format, chunk_stream, (state, partial))?,
            None => self.begin(&mut cursor, format, chunk_stream)?,
        };
        let Some((state, partial)) = chunk else { return Ok(None) };
        *input = cursor.remaining();
        self.streams.insert(chunk_stream, Stream { state, partial: Some(partial) });

        let header = Header { chunk_stream, format: partial.format, state };
        let left = (header.length() - partial.received).min(self.chunk_size as usize);
        Ok(Some(Open { header, partial, left }))
    }

    fn go_on(
        cursor: &mut Cursor<'_>,
        format: Format,
        chunk_stream: u32,
        (state, partial): (State, Partial),
    ) -> Result<Option<(State, Partial)>, ReadError> {
        if format != Format::Bare {
            return Err(ReadError::Interrupted(chunk_stream));
        }
        let skipped = header::skip_repeated(cursor, &state);
        Ok(skipped.is_ok().then_some((state, partial)))
    }

    fn begin(
        &self,
        cursor: &mut Cursor<'_>,
        format: Format,
        chunk_stream: u32,
    ) -> Result<Option<(State, Partial)>, ReadError> {
        let before = self.state_before(format, chunk_stream)?;
        let state = match header::read_message(cursor, format, &before) {
            Ok(state) => state,
            Err(UnexpectedEnd) => return Ok(None),
        };
        if state.length > self.limits.message_length {
            return Err(ReadError::MessageLength(state.length));
        }
        Ok(Some((state, Partial { format, received: 0, value: Value::default() })))
    }

    fn state_before(&self, format: Format, chunk_stream: u32) -> Result<State, ReadError> {
        if let Some(stream) = self.streams.get(&chunk_stream) {
            return Ok(stream.state);
        }
        if matches!(format, Format::TimeOnly | Format::Bare) {
            return Err(ReadError::NoHeaderBefore(chunk_stream));
        }
        if self.streams.len() >= self.limits.chunk_streams {
            return Err(ReadError::ChunkStreams(chunk_stream));
        }
        Ok(State::FRESH)
    }

    fn take<'a>(&mut self, mut open: Open, bytes: &'a [u8]) -> Result<Piece<'a>, ReadError> {
        let piece = Piece { header: open.header, offset: open.partial.received, bytes };
        open.partial.value.take(&piece);
        open.partial.received += bytes.len();
        open.left -= bytes.len();
        if open.left > 0 {
            self.open = Some(open);
            return Ok(piece);
        }
        if let Some(stream) = self.streams.get_mut(&open.header.chunk_stream) {
            stream.partial = (!piece.ends()).then_some(open.partial);
        }
        if piece.ends() {
            self.obey(&open)?;
        }
        Ok(piece)
    }

    fn obey(&mut self, whole: &Open) -> Result<(), ReadError> {
        let header = &whole.header;
        if control::is_control(header) && header.length() < 4 {
            return Err(ReadError::NoValue(header.state.kind));
        }
        match whole.partial.value.control(header) {
            Some(Control::ChunkSize(size)) if !control::is_chunk_size(size) => {
                return Err(ReadError::ChunkSize(size));
            }
            Some(Control::ChunkSize(size)) => self.chunk_size = size,
            Some(Control::Abort(aborted)) => {
                if let Some(stream) = self.streams.get_mut(&aborted) {
                    stream.partial = None;
                }
            }
            None => {}
        }
        Ok(())
    }
}
