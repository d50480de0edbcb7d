//! Connections of media over TCP without media stacks: every frame is the test's own.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proxy_protocol::rfc4571::{self, Frame};

const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(5);
const LIMIT: usize = u16::MAX as usize;

/// One end of a connection.
#[derive(Debug)]
pub struct Frames {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Frames {
    /// Connects from the calling thread's network namespace.
    ///
    /// # Errors
    /// When nobody accepts.
    pub fn connect(to: SocketAddr) -> Result<Self> {
        Self::on(TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connecting to {to}"))?)
    }

    /// The next connection to `listener`.
    ///
    /// # Errors
    /// When none comes.
    pub fn accept(listener: &TcpListener) -> Result<Self> {
        Self::accept_within(listener, PATIENCE)?.context("no connection came")
    }

    /// The next connection to `listener`, if one comes in time.
    ///
    /// # Errors
    /// When the listener fails.
    pub fn accept_within(listener: &TcpListener, limit: Duration) -> Result<Option<Self>> {
        listener.set_nonblocking(true)?;
        let end = Instant::now() + limit;
        loop {
            match listener.accept() {
                Ok((stream, _)) => return Self::on(stream).map(Some),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) if Instant::now() >= end => return Ok(None),
                Err(_) => std::thread::sleep(STEP),
            }
        }
    }

    fn on(stream: TcpStream) -> Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, input: Vec::new() })
    }

    /// This end's address.
    ///
    /// # Errors
    /// When the socket has none.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// Sends a packet in a frame.
    ///
    /// # Errors
    /// When it is too long, or not taken.
    pub fn send(&mut self, packet: &[u8]) -> Result<()> {
        let mut frame = Vec::new();
        rfc4571::write(packet, &mut frame)?;
        self.send_bytes(&frame)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When they are not taken.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The packet of the next frame.
    ///
    /// # Errors
    /// When none comes.
    pub fn receive(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(frame) = Frame::parse(&self.input, LIMIT)? {
                let (packet, length) = (frame.packet().to_vec(), frame.length());
                self.input.drain(..length);
                return Ok(packet);
            }
            let mut more = [0; 16 << 10];
            let length = self.read(&mut more).context("no frame came")?;
            ensure!(length > 0, "the connection ended");
            self.input.extend_from_slice(&more[..length]);
        }
    }

    /// A signal ends a read that has a time limit.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// Waits until the other end has closed the connection, in whichever way.
    ///
    /// # Errors
    /// When it does not, or sends something.
    pub fn wait_for_end(mut self) -> Result<()> {
        match self.read(&mut [0; 64]) {
            Ok(0) => Ok(()),
            Ok(length) => bail!("{length} bytes came instead of the end"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error).context("the connection did not end"),
        }
    }
}
