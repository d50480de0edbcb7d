//! A connection of RTMP that never waits: bytes in and out, messages in and out.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

use anyhow::Result;
use proxy_protocol::rtmp::{
    Message,
    chunk::{Assembler, Limits, MAX_MESSAGE_LENGTH, Reader, Writer},
    handshake::HandshakeError,
};

const LIMITS: Limits = Limits { message_length: MAX_MESSAGE_LENGTH, chunk_streams: 64, held: 4 << 20 };

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: TcpStream,
    pub(super) output: Vec<u8>,
    input: Vec<u8>,
    reader: Reader,
    writer: Writer,
    assembler: Assembler,
}

impl Line {
    /// Of a connection that does not block.
    pub(super) fn new(stream: TcpStream) -> Self {
        let (reader, writer, assembler) = (Reader::new(LIMITS), Writer::new(LIMITS), Assembler::new(LIMITS));
        Self { stream, output: Vec::new(), input: Vec::new(), reader, writer, assembler }
    }

    /// Takes what has come; the end of it is an error.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    self.input.extend_from_slice(&buffer[..bytes]);
                    if bytes < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes on with a handshake, which takes its input from the first argument and puts its output into the second.
    pub(super) fn shake_hands(
        &mut self,
        mut read: impl FnMut(&mut &[u8], &mut Vec<u8>) -> Result<bool, HandshakeError>,
    ) -> Result<bool> {
        let mut rest = &self.input[..];
        let is_done = read(&mut rest, &mut self.output)?;
        let taken = self.input.len() - rest.len();
        self.input.drain(..taken);
        Ok(is_done)
    }

    /// The next message of what has come.
    pub(super) fn message(&mut self) -> Result<Option<Message>> {
        let mut rest = &self.input[..];
        let mut message = None;
        while message.is_none() {
            let Some(piece) = self.reader.read(&mut rest)? else { break };
            message = self.assembler.push(&piece)?;
        }
        let taken = self.input.len() - rest.len();
        self.input.drain(..taken);
        Ok(message)
    }

    /// Has a message sent with the next flush.
    pub(super) fn send(&mut self, message: &Message) -> Result<()> {
        Ok(self.writer.write(message, &mut self.output)?)
    }

    /// Sends what the socket takes, which is everything as long as there is little.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A frame of audio that tells its place in the stream.
pub(super) mod frame {
    use proxy_protocol::rtmp::{Message, client_session::STREAM, message::kind};

    /// AAC, no sequence header; then the number.
    const HEAD: [u8; 2] = [0xAF, 1];
    const LENGTH: usize = 200;
    const CHUNK_STREAM: u32 = 6;

    /// The frame of that number.
    pub(in crate::join_bench) fn make(number: u32, milliseconds: u32) -> Message {
        let mut payload = [HEAD.as_slice(), &number.to_be_bytes()].concat();
        payload.resize(LENGTH, number as u8);
        Message {
            chunk_stream: CHUNK_STREAM,
            timestamp: milliseconds,
            kind: kind::AUDIO,
            stream: STREAM,
            payload,
        }
    }

    /// The number of a frame, if it is as it was made.
    pub(in crate::join_bench) fn number(message: &Message) -> Option<u32> {
        let number = u32::from_be_bytes(message.payload.get(HEAD.len()..HEAD.len() + 4)?.try_into().ok()?);
        (make(number, message.timestamp).payload == message.payload).then_some(number)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_frame_tells_its_number_unless_it_was_damaged() {
            let mut message = make(77, 5);
            assert_eq!(number(&message), Some(77));
            message.payload[100] ^= 1;
            assert_eq!(number(&message), None);
        }
    }
}
