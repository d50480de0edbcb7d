//! Helpers of the tests below.

mod captures;
mod reading;
mod writing;

use super::*;
use crate::rtmp::{
    Message, join,
    message::kind,
    reference::{self, Encoder, hex},
};

const LIMITS: Limits = Limits { message_length: MAX_MESSAGE_LENGTH, chunk_streams: 64, held: 1 << 20 };

/// The messages in `bytes`.
fn messages(bytes: &[u8]) -> Vec<Message> {
    read(bytes, &[usize::MAX]).0
}

/// The messages in `bytes` that come in reads of these lengths, of which the last recurs, and how many bytes are left.
fn read(bytes: &[u8], reads: &[usize]) -> (Vec<Message>, usize) {
    let (mut messages, mut assembler) = (vec![], Assembler::new(LIMITS));
    let (unread, _) = read_with(bytes, reads, |piece| messages.extend(assembler.push(piece).unwrap()));
    (messages, unread)
}

/// Shows `each` the pieces in `bytes`; gives how many bytes are left, and the reader.
fn read_with(bytes: &[u8], reads: &[usize], mut each: impl FnMut(&Piece<'_>)) -> (usize, Reader) {
    let mut reader = Reader::new(LIMITS);
    let mut lengths = reads.iter().chain(std::iter::repeat(reads.last().unwrap()));
    let (mut unread, mut arrived) = (0, 0);
    while arrived < bytes.len() {
        arrived = bytes.len().min(arrived.saturating_add(*lengths.next().unwrap()));
        let mut input = &bytes[unread..arrived];
        while let Some(piece) = reader.read(&mut input).unwrap() {
            each(&piece);
        }
        assert!(input.len() < 18, "a header is longer than {} bytes", input.len());
        unread = arrived - input.len();
    }
    (bytes.len() - unread, reader)
}

/// What reading `bytes` fails with.
fn failure(bytes: &[u8], limits: Limits) -> ReadError {
    let (mut reader, mut input) = (Reader::new(limits), bytes);
    loop {
        match reader.read(&mut input) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("{} bytes are left", input.len()),
            Err(error) => return error,
        }
    }
}

fn message(chunk_stream: u32, timestamp: u32, payload: &[u8]) -> Message {
    Message { chunk_stream, timestamp, kind: kind::VIDEO, stream: 1, payload: payload.to_vec() }
}
