//! From pieces to whole messages.

use std::collections::BTreeMap;

use super::{
    Limits, Piece, RelayError,
    control::{Control, Value},
};
use crate::rtmp::Message;

/// Puts the pieces of messages together.
///
/// A caller gives it the pieces of those messages that it wants whole, each from the first piece on.
#[derive(Debug)]
pub struct Assembler {
    limit: usize,
    held: usize,
    parts: BTreeMap<u32, Vec<u8>>,
}

impl Assembler {
    /// Without any piece.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limit: limits.held, held: 0, parts: BTreeMap::new() }
    }

    /// Adds a piece; gives the message if it is the last.
    ///
    /// A piece that begins a message takes the place of what there is of another on its chunk stream: that one was
    /// aborted.
    ///
    /// # Errors
    ///
    /// Fails if too much would be held, or if pieces are missing. The piece has not been added then.
    pub fn push(&mut self, piece: &Piece<'_>) -> Result<Option<Message>, RelayError> {
        let chunk_stream = piece.header.chunk_stream;
        if piece.begins() {
            self.forget(chunk_stream);
        }
        let present = self.parts.get(&chunk_stream).map_or(0, Vec::len);
        if present != piece.offset {
            return Err(RelayError::Gap { chunk_stream, offset: piece.offset });
        }
        if self.held + piece.bytes.len() > self.limit {
            return Err(RelayError::Held);
        }
        if piece.ends() {
            return Ok(Some(self.finish(piece)));
        }
        self.parts.entry(chunk_stream).or_default().extend(piece.bytes);
        self.held += piece.bytes.len();
        Ok(None)
    }

    fn finish(&mut self, last: &Piece<'_>) -> Message {
        let mut payload = self.forget(last.header.chunk_stream);
        payload.extend(last.bytes);

        let mut value = Value::default();
        value.take(&Piece { offset: 0, bytes: &payload, ..*last });
        if let Some(Control::Abort(aborted)) = value.control(&last.header) {
            self.forget(aborted);
        }
        let state = &last.header.state;
        Message {
            chunk_stream: last.header.chunk_stream,
            timestamp: state.timestamp,
            kind: state.kind,
            stream: state.stream,
            payload,
        }
    }

    fn forget(&mut self, chunk_stream: u32) -> Vec<u8> {
        let parts = self.parts.remove(&chunk_stream).unwrap_or_default();
        self.held -= parts.len();
        parts
    }
}
