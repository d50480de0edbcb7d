//! One end of an RTMP connection that says exactly what a test has it say, by the parsers that the proxy uses.

mod words;

use std::{
    io::{ErrorKind, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use proxy_protocol::rtmp::{
    Message,
    chunk::{Assembler, Limits, MAX_MESSAGE_LENGTH, Piece, Reader, Writer},
    client_session::{ClientEffect, ClientSession, ServerName},
    command::{Command, status::Status},
    handshake::{self, RANDOM_LEN},
    message::kind,
    request::Asked,
};

use crate::live::read_once;

pub use self::words::{connect, create_stream, media, play, publish, redirection, status};

/// How long a peer waits for the next byte of the other one.
pub const PATIENCE: Duration = Duration::from_secs(30);

const LIMITS: Limits = Limits { message_length: MAX_MESSAGE_LENGTH, chunk_streams: 65_536, held: 64 << 20 };
const RANDOM: [u8; RANDOM_LEN] = [0x5A; RANDOM_LEN];
const READ: usize = 256 << 10;

/// A connection after its handshake.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    reader: Reader,
    writer: Writer,
    assembler: Assembler,
}

/// What a client of an origin of ours asks for, until it is answered.
#[derive(Debug)]
pub struct Wish {
    /// As the origin got it.
    pub asked: Asked,
    /// The properties of `connect`.
    pub connect: Command,
    session: ClientSession,
}

impl Peer {
    /// Shakes hands as a client.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let mut peer = Self::new(TcpStream::connect_timeout(&address, PATIENCE)?)?;
        let mut hello = Vec::new();
        let mut client = handshake::Client::start(&RANDOM, None, &mut hello);
        peer.send_bytes(&hello)?;
        peer.shake_hands(|input, output| client.read(input, output))?;
        Ok(peer)
    }

    /// Shakes hands as a server.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn accept(stream: TcpStream) -> Result<Self> {
        let mut peer = Self::new(stream)?;
        let mut server = handshake::Server::new(RANDOM);
        peer.shake_hands(|input, output| server.read(input, output))?;
        Ok(peer)
    }

    /// A client that has connected to the app `live` and created its stream.
    ///
    /// # Errors
    /// When the server does not answer so.
    pub fn client(address: SocketAddr) -> Result<Self> {
        let mut peer = Self::connect(address)?;
        peer.send(&connect(address))?;
        peer.command("_result")?;
        peer.send(&create_stream())?;
        peer.command("_result")?;
        Ok(peer)
    }

    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            input: Vec::new(),
            reader: Reader::new(LIMITS),
            writer: Writer::new(LIMITS),
            assembler: Assembler::new(LIMITS),
        })
    }

    fn shake_hands(
        &mut self,
        mut read: impl FnMut(&mut &[u8], &mut Vec<u8>) -> Result<bool, handshake::HandshakeError>,
    ) -> Result<()> {
        loop {
            let (mut rest, mut output) = (self.input.as_slice(), Vec::new());
            let is_done = read(&mut rest, &mut output)?;
            let taken = self.input.len() - rest.len();
            self.input.drain(..taken);
            self.send_bytes(&output)?;
            if is_done {
                return Ok(());
            }
            ensure!(self.fill()?, "the peer left in the handshake");
        }
    }

    /// Answers a client until it wants to publish or to play.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn wish(&mut self) -> Result<Wish> {
        let server = ServerName { signature: "test".into(), version: "1".into(), connection: "1".into() };
        let (mut session, mut connect) = (ClientSession::new(server), None);
        loop {
            let message = self.message()?.context("the client left before it named its stream")?;
            for effect in session.apply(message)? {
                match effect {
                    ClientEffect::Send(message) => self.send(&message)?,
                    ClientEffect::Connected(connected) => connect = Some(connected.command().clone()),
                    ClientEffect::Requested(asked) => {
                        let connect = connect.context("a stream without a connection")?;
                        return Ok(Wish { asked, connect, session });
                    }
                }
            }
        }
    }

    /// Tells a client that its stream starts.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn start(&mut self, wish: Wish) -> Result<()> {
        let accepted = wish.session.accepted(Vec::new());
        accepted.to_client.iter().try_for_each(|message| self.send(message))
    }

    /// Serves a client until its stream has started.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn serve(stream: TcpStream) -> Result<Self> {
        let mut peer = Self::accept(stream)?;
        let wish = peer.wish()?;
        peer.start(wish)?;
        Ok(peer)
    }

    /// The size of the chunks that are sent from now on.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn set_chunk_size(&mut self, size: u32) -> Result<()> {
        let mut bytes = Vec::new();
        self.writer.set_chunk_size(size, &mut bytes)?;
        self.send_bytes(&bytes)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        let bytes = self.chunks(message)?;
        self.send_bytes(&bytes)
    }

    /// The chunks of a message that is about to be sent.
    ///
    /// # Errors
    /// When no header can describe it.
    pub fn chunks(&mut self, message: &Message) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.writer.write(message, &mut bytes)?;
        Ok(bytes)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The next message; none at the end of the connection.
    ///
    /// # Errors
    /// When the connection fails, or nothing comes for too long.
    pub fn message(&mut self) -> Result<Option<Message>> {
        loop {
            let (mut rest, mut message) = (self.input.as_slice(), None);
            while message.is_none() {
                let Some(piece) = self.reader.read(&mut rest)? else { break };
                message = self.assembler.push(&piece)?;
            }
            let taken = self.input.len() - rest.len();
            self.input.drain(..taken);
            if message.is_some() || !self.fill()? {
                return Ok(message);
            }
        }
    }

    /// Gives every piece of every message to `take` until that says that it was the last.
    ///
    /// # Errors
    /// When the connection fails or ends before.
    pub fn pieces(&mut self, mut take: impl FnMut(&Piece<'_>) -> bool) -> Result<()> {
        loop {
            let mut rest = self.input.as_slice();
            while let Some(piece) = self.reader.read(&mut rest)? {
                if take(&piece) {
                    let taken = self.input.len() - rest.len();
                    self.input.drain(..taken);
                    return Ok(());
                }
            }
            let taken = self.input.len() - rest.len();
            self.input.drain(..taken);
            ensure!(self.fill()?, "the connection ended too early");
        }
    }

    /// The next message of audio or video.
    ///
    /// # Errors
    /// When the connection fails or ends before.
    pub fn next_media(&mut self) -> Result<Message> {
        loop {
            let message = self.message()?.context("the connection ended before media came")?;
            if [kind::AUDIO, kind::VIDEO].contains(&message.kind) {
                return Ok(message);
            }
        }
    }

    /// The next command of this name.
    ///
    /// # Errors
    /// When the connection fails, ends, or says before that something is wrong.
    pub fn command(&mut self, name: &str) -> Result<Command> {
        loop {
            let message = self.message()?.with_context(|| format!("the end instead of {name}"))?;
            if message.kind != kind::COMMAND_AMF0 {
                continue;
            }
            let command = Command::parse(&message)?;
            if command.name == name {
                return Ok(command);
            }
            if let Some(status) = Status::of(&command).filter(Status::is_error) {
                bail!("{:?}: {:?}", status.code(), status.description());
            }
        }
    }

    /// Waits for the status with this code.
    ///
    /// # Errors
    /// When the connection fails, ends, or another one says that something is wrong.
    pub fn status(&mut self, code: &str) -> Result<()> {
        loop {
            let command = self.command("onStatus")?;
            let status = Status::of(&command).context("a status without a code")?;
            if status.code().is_some_and(|said| *said == code) {
                return Ok(());
            }
            ensure!(!status.is_error(), "{:?}: {:?}", status.code(), status.description());
        }
    }

    /// The connection.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Receives more; false at the end, however it comes.
    fn fill(&mut self) -> Result<bool> {
        let before = self.input.len();
        self.input.resize(before + READ, 0);
        let read = read_once(&mut self.stream, &mut self.input[before..]);
        self.input.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(bytes) => Ok(bytes > 0),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
