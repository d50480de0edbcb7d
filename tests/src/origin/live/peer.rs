//! A connection that speaks RTMP: bytes on one side, messages on the other.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, BytesMut};
use proxy_protocol::rtmp::{
    Message,
    chunk::{Assembler, Limits, Reader, Writer},
    control::{Control, Event},
    handshake::{RANDOM_LEN, Server},
};
use rand::RngCore as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// What a client may have an origin remember.
const LIMITS: Limits = Limits { message_length: 4 << 20, chunk_streams: 64, held: 4 << 20 };
const READ: usize = 64 << 10;
/// Nobody who takes nothing for so long is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// One client.
#[derive(Debug)]
pub(super) struct Peer {
    socket: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
    reader: Reader,
    writer: Writer,
    assembler: Assembler,
    received: u32,
    acknowledged: u32,
    window: Option<u32>,
}

impl Peer {
    /// Shakes hands.
    pub(super) async fn accept(socket: TcpStream) -> Result<Self> {
        socket.set_nodelay(true)?;
        let mut random = [0; RANDOM_LEN];
        rand::rng().fill_bytes(&mut random);
        let mut peer = Self {
            socket,
            input: BytesMut::new(),
            output: Vec::new(),
            reader: Reader::new(LIMITS),
            writer: Writer::new(LIMITS),
            assembler: Assembler::new(LIMITS),
            received: 0,
            acknowledged: 0,
            window: None,
        };
        let mut server = Server::new(random);
        loop {
            let mut rest = &peer.input[..];
            let is_done = server.read(&mut rest, &mut peer.output)?;
            let taken = peer.input.len() - rest.len();
            peer.input.advance(taken);
            peer.flush().await?;
            if is_done {
                return Ok(peer);
            }
            peer.fill().await?;
        }
    }

    /// Tells the client what has come, each time that it is so much more.
    pub(super) fn acknowledge_every(&mut self, window: Option<u32>) {
        self.window = window.filter(|window| *window > 0);
    }

    /// The next message; nothing is lost if nobody waits for it to the end.
    pub(super) async fn message(&mut self) -> Result<Message> {
        loop {
            while let Some(message) = self.next_message()? {
                match Control::parse(&message) {
                    Ok(Control::UserControl(Event::PingRequest { timestamp })) => {
                        self.send(&Control::UserControl(Event::PingResponse { timestamp }).to_message())?;
                    }
                    // The reader has obeyed what is about chunks.
                    Ok(_) => {}
                    Err(_) => return Ok(message),
                }
            }
            self.flush().await?;
            self.fill().await?;
        }
    }

    fn next_message(&mut self) -> Result<Option<Message>> {
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
    pub(super) fn send(&mut self, message: &Message) -> Result<()> {
        Ok(self.writer.write(message, &mut self.output)?)
    }

    /// What waits for the next flush, in bytes.
    pub(super) fn unsent(&self) -> usize {
        self.output.len()
    }

    /// Sends everything that is to be sent; what is left if nobody waits for it to the end goes out with the next flush.
    pub(super) async fn flush(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            let written = timeout(PATIENCE, self.socket.write(&self.output)).await;
            let written = written.context("the client takes nothing")??;
            self.output.drain(..written);
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<()> {
        self.input.reserve(READ);
        let bytes = self.socket.read_buf(&mut self.input).await?;
        ensure!(bytes > 0, "the client has left");
        self.received = self.received.wrapping_add(u32::try_from(bytes)?);
        let is_due = |window| self.received.wrapping_sub(self.acknowledged) >= window;
        if self.window.is_some_and(is_due) {
            self.acknowledged = self.received;
            self.send(&Control::Acknowledgement(self.received).to_message())?;
            self.flush().await?;
        }
        Ok(())
    }
}
