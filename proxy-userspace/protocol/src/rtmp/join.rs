//! When the chunks of one connection may go on into another byte by byte.
//!
//! A relay that reads messages on one side and writes them on the other can stop doing so, and have the kernel carry
//! the bytes, once the far side is in the state that it would be in had it read the near side's chunks all along. For
//! a [`Reader`] and a [`Writer`] of one direction that means:
//!
//! * No message is unfinished, on any chunk stream.
//! * Both have the same chunk size.
//! * Every chunk stream that the near side has used is in the same state on both sides: a later header of type 1, 2
//!   or 3 refers to it. That includes the message stream, and the timestamp, which is that of the last message no
//!   matter what the two sides counted from before.
//! * A chunk stream that only we have used on the far side counts from zero on message stream 0: the near side may
//!   begin it with a header of type 1, as librtmp does.
//!
//! Whoever joins forwards first what the reader left of its input, the beginning of a chunk.
//!
//! The states grow equal by relaying; what has to be seen to is the messages that are not relayed. One of ours makes
//! a chunk stream equal again if it has the timestamp, length, type and message stream of the last one that came on
//! that chunk stream. Set Chunk Size has to be passed on, or a size of ours be set, until both are the same.
//!
//! Nothing is said here of acknowledgements: each side's counts are of the bytes of its own connection.

use thiserror::Error;

use super::chunk::{Reader, State, Writer};

/// What stands between a reader and a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Obstacle {
    /// A message has not been read to its end.
    #[error("chunk stream {0} is in the middle of a message that is being read")]
    Reading(u32),
    /// A message has not been written to its end.
    #[error("chunk stream {0} is in the middle of a message that is being written")]
    Writing(u32),
    /// The chunk sizes differ.
    #[error("chunks of {read} bytes are read and such of {written} bytes written")]
    ChunkSize {
        /// What is read.
        read: u32,
        /// What is written.
        written: u32,
    },
    /// The far side would understand a header of the chunk stream in another way.
    #[error("chunk stream {0} is not in the same state on both sides")]
    State(u32),
}

/// Whether what follows the last message that `reader` read may go where `writer` wrote its last one.
///
/// # Errors
///
/// Fails with the first obstacle.
pub fn check(reader: &Reader, writer: &Writer) -> Result<(), Obstacle> {
    if let Some(chunk_stream) = reader.unfinished() {
        return Err(Obstacle::Reading(chunk_stream));
    }
    if let Some(chunk_stream) = writer.unfinished() {
        return Err(Obstacle::Writing(chunk_stream));
    }
    let (read, written) = (reader.chunk_size(), writer.chunk_size());
    if read != written {
        return Err(Obstacle::ChunkSize { read, written });
    }
    match differing(reader, writer) {
        Some(chunk_stream) => Err(Obstacle::State(chunk_stream)),
        None => Ok(()),
    }
}

fn differing(reader: &Reader, writer: &Writer) -> Option<u32> {
    let used = reader.states().find(|(id, state)| writer.state(*id) != Some(*state));
    let ours = || writer.states().find(|(id, state)| reader.state(*id).is_none() && !is_like_unused(state));
    used.or_else(ours).map(|(id, _)| id)
}

/// Whether a type 1 header means the same after `state` as at the beginning: it inherits these two and no more.
const fn is_like_unused(state: &State) -> bool {
    state.timestamp == 0 && state.stream == 0
}

#[cfg(test)]
mod tests;
