//! One of the two connections while its messages are read: bytes in, messages out, and the other way round.

use std::{io, net::Ipv4Addr};

use bytes::{Buf as _, Bytes, BytesMut};
use proxy_protocol::rtmp::{
    Message,
    chunk::{Assembler, Limits, MAX_MESSAGE_LENGTH, Reader, Writer},
    handshake::{self, RANDOM_LEN},
};
use rand::RngCore as _;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::Failure;

/// What a peer may have us remember.
const LIMITS: Limits = Limits { message_length: MAX_MESSAGE_LENGTH, chunk_streams: 64, held: 4 << 20 };
/// What is read at once.
const READ: usize = 64 << 10;

/// A connection and where its chunk streams stand.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) stream: TcpStream,
    /// What was received and not taken.
    pub(super) input: BytesMut,
    /// What is to be sent.
    pub(super) output: Vec<u8>,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) assembler: Assembler,
}

impl Leg {
    /// Shakes hands with a client.
    pub(super) async fn of_client(stream: TcpStream) -> Result<Self, Failure> {
        let mut leg = Self::new(stream);
        let mut server = handshake::Server::new(random());
        leg.shake_hands(|input, output| server.read(input, output)).await?;
        Ok(leg)
    }

    /// Shakes hands with an origin, which may be told who its client is.
    pub(super) async fn of_origin(stream: TcpStream, told: Option<Ipv4Addr>) -> Result<Self, Failure> {
        let mut leg = Self::new(stream);
        leg.output.extend(told.map(handshake::real_ip).into_iter().flatten());
        let mut client = handshake::Client::start(&random(), None, &mut leg.output);
        leg.shake_hands(|input, output| client.read(input, output)).await?;
        Ok(leg)
    }

    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: Vec::new(),
            reader: Reader::new(LIMITS),
            writer: Writer::new(LIMITS),
            assembler: Assembler::new(LIMITS),
        }
    }

    async fn shake_hands(
        &mut self,
        mut read: impl FnMut(&mut &[u8], &mut Vec<u8>) -> Result<bool, handshake::HandshakeError>,
    ) -> Result<(), Failure> {
        loop {
            let mut rest = &self.input[..];
            let is_done = read(&mut rest, &mut self.output)?;
            let taken = self.input.len() - rest.len();
            self.input.advance(taken);
            self.flush().await?;
            if is_done {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// The next message, once it is there. What is to be sent leaves first.
    pub(super) async fn message(&mut self) -> Result<Message, Failure> {
        loop {
            if let Some(message) = self.next_message()? {
                return Ok(message);
            }
            self.flush().await?;
            self.fill().await?;
        }
    }

    /// The next message of what was received.
    fn next_message(&mut self) -> Result<Option<Message>, Failure> {
        let mut rest = &self.input[..];
        let mut message = None;
        while message.is_none() {
            let Some(piece) = self.reader.read(&mut rest)? else { break };
            message = self.assembler.push(&piece)?;
        }
        let taken = self.input.len() - rest.len();
        self.input.advance(taken);
        Ok(message)
    }

    /// Has a message sent with the next flush.
    pub(super) fn send(&mut self, message: &Message) -> Result<(), Failure> {
        Ok(self.writer.write(message, &mut self.output)?)
    }

    /// Sends everything that is to be sent.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        let sent = self.stream.write_all(&self.output).await;
        self.output.clear();
        Ok(sent?)
    }

    /// Receives more; the end is an error.
    async fn fill(&mut self) -> Result<(), Failure> {
        loop {
            self.stream.readable().await?;
            if self.receive()? > 0 {
                return Ok(());
            }
        }
    }

    /// Receives what there is; the end is an error.
    pub(super) fn receive(&mut self) -> Result<usize, Failure> {
        self.input.reserve(READ);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(Failure::Left),
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what the connection takes.
    pub(super) fn transmit(&mut self) -> Result<(), Failure> {
        match self.stream.try_write(&self.output) {
            Ok(sent) => drop(self.output.drain(..sent)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The connection, and what was received and not taken.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.stream, self.input.freeze())
    }
}

fn random() -> [u8; RANDOM_LEN] {
    let mut random = [0; RANDOM_LEN];
    rand::rng().fill_bytes(&mut random);
    random
}
