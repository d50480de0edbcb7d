//! The two messages that are about chunks themselves (RTMP 1.0, sections 5.4.1 and 5.4.2).

use super::{Header, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE, Piece};
use crate::rtmp::message::kind;

/// What a message tells whoever reads chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// Chunks have at most this many bytes of payload from now on.
    ChunkSize(u32),
    /// The message that this chunk stream is in the middle of does not go on.
    Abort(u32),
}

/// The first four bytes of a message as its pieces come: all that such a message has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Value([u8; 4]);

impl Value {
    /// Keeps what `piece` has of it.
    pub(super) fn take(&mut self, piece: &Piece<'_>) {
        let places = self.0.iter_mut().skip(piece.offset);
        places.zip(piece.bytes).for_each(|(place, byte)| *place = *byte);
    }

    /// What the message says, now that it is whole.
    pub(super) const fn control(self, header: &Header) -> Option<Control> {
        let value = u32::from_be_bytes(self.0);
        match header.state.kind {
            kind::SET_CHUNK_SIZE => Some(Control::ChunkSize(value)),
            kind::ABORT => Some(Control::Abort(value)),
            _ => None,
        }
    }
}

/// Whether messages with this header are about chunks.
pub(super) const fn is_control(header: &Header) -> bool {
    matches!(header.state.kind, kind::SET_CHUNK_SIZE | kind::ABORT)
}

/// Whether SRS accepts this chunk size.
pub(super) const fn is_chunk_size(size: u32) -> bool {
    MIN_CHUNK_SIZE <= size && size <= MAX_CHUNK_SIZE
}
