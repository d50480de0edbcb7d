//! Chunks (RTMP 1.0, section 5.3): messages cut into parts, so that a long one does not hold up the others.
//!
//! A chunk names the chunk stream it belongs to and gives of its message's header only what differs from the message
//! before on that stream, so both sides remember one [`State`] for each. [`Reader`] turns bytes into [`Piece`]s of
//! messages as they come, and keeps no payload. [`Assembler`] puts pieces together where a whole [`Message`] is
//! wanted. [`Writer`] turns pieces and messages into chunks of a size of its own.
//!
//! Where the specification and encoders disagree, what is read is what SRS reads:
//!
//! * A chunk stream may begin with a type 1 header: librtmp's first ping does.
//! * A type 3 header that begins a message adds the time of the header before it once more, even if that was of type
//!   0 (FMLE).
//! * Some encoders repeat an extended timestamp in the type 3 headers of the same message, some do not. The four bytes
//!   are compared with those of the message's first header, and are payload if they differ.
//! * Chunk sizes below 128 are refused, those above 65536 are not.
//!
//! In two respects it is the specification that is followed: an extended timestamp in a header of type 1 or 2 is a
//! delta, and timestamps have 32 bits.
//!
//! Set Chunk Size and Abort are applied by each of the three to itself, and are messages like others beside that.
//!
//! [`Message`]: super::Message

mod assembler;
mod control;
mod header;
mod reader;
mod writer;

use thiserror::Error;

pub use self::{
    assembler::Assembler,
    header::{Format, Header, State},
    reader::Reader,
    writer::Writer,
};

/// The chunk size of both directions until Set Chunk Size.
pub const INITIAL_CHUNK_SIZE: u32 = 128;
/// The smallest chunk size that SRS accepts.
pub const MIN_CHUNK_SIZE: u32 = 128;
/// The largest chunk size: 31 bits. No message is as long, and no memory is set aside for it.
pub const MAX_CHUNK_SIZE: u32 = 0x7FFF_FFFF;
/// The longest message that a header can announce.
pub const MAX_MESSAGE_LENGTH: u32 = 0xFF_FFFF;

/// What a peer may make us remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The length of a message.
    pub message_length: u32,
    /// The number of chunk streams.
    pub chunk_streams: usize,
    /// The bytes that an [`Assembler`] or a [`Writer`] keeps of messages that are not whole, each of them. An assembler
    /// makes no longer message than that, and a writer may need a chunk of each chunk stream.
    pub held: usize,
}

/// A part of a message, as much as has come of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The header of the message, the same in all its pieces.
    pub header: Header,
    /// Where in the message the part begins.
    pub offset: usize,
    /// The part; empty in a message without payload.
    pub bytes: &'a [u8],
}

impl Piece<'_> {
    /// Whether the message begins here.
    #[must_use]
    pub const fn begins(&self) -> bool {
        self.offset == 0
    }

    /// Whether the message ends here.
    #[must_use]
    pub const fn ends(&self) -> bool {
        self.offset + self.bytes.len() >= self.header.length()
    }
}

/// Why bytes are not chunks that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// There is nothing that the header could refer to.
    #[error("chunk stream {0} begins with a header that refers to an earlier one")]
    NoHeaderBefore(u32),
    /// A chunk does not go on with the message that its chunk stream is in the middle of.
    #[error("chunk stream {0} begins a message in the middle of another")]
    Interrupted(u32),
    /// A message is longer than the limit.
    #[error("a message of {0} bytes is too long")]
    MessageLength(u32),
    /// The chunk stream is one more than the limit.
    #[error("chunk stream {0} is one too many")]
    ChunkStreams(u32),
    /// Set Chunk Size with a size that SRS does not accept.
    #[error("chunk size {0} is not between 128 and 2147483647")]
    ChunkSize(u32),
    /// Set Chunk Size or Abort without its four bytes.
    #[error("a message of type {0} has no value")]
    NoValue(u8),
}

/// Why a piece or a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RelayError {
    /// More would be kept of unfinished messages than the limit.
    #[error("too many bytes of unfinished messages")]
    Held,
    /// The pieces before it are missing.
    #[error("a piece at {offset} of a message on chunk stream {chunk_stream} does not follow the one before")]
    Gap {
        /// The chunk stream.
        chunk_stream: u32,
        /// Where the piece begins.
        offset: usize,
    },
    /// The chunk stream is in the middle of another message.
    #[error("chunk stream {0} is in the middle of a message")]
    Busy(u32),
    /// No basic header can name the chunk stream.
    #[error("there is no chunk stream {0}")]
    ChunkStream(u32),
    /// No header can announce the message.
    #[error("a message of {0} bytes cannot be written")]
    MessageLength(usize),
    /// Set Chunk Size with a size that SRS does not accept.
    #[error("chunk size {0} cannot be set")]
    ChunkSize(u32),
}

#[cfg(test)]
mod tests;
