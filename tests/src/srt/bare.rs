//! A caller without a library: what it says is what a test makes it say, and it repeats nothing.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use proxy_protocol::srt::{DATAGRAM, HSV5, Handshake, Kind, SocketId};

/// The type of the extension with the versions, flags and latency, as libsrt 1.5.1 sends it.
const CAPABILITIES: [u8; 16] = [0, 1, 0, 3, 0, 1, 5, 1, 0, 0, 0, 0xbf, 0, 0x78, 0, 0];

/// A caller.
#[derive(Debug)]
pub struct BareCaller {
    socket: UdpSocket,
    id: SocketId,
    stream_id: String,
}

impl BareCaller {
    /// Calls nobody yet. `id` is the number of its socket.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(to: SocketAddr, id: u32, stream_id: impl Into<String>) -> Result<Self> {
        let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        Self::from(any, to, id, stream_id)
    }

    /// The same, from this address.
    ///
    /// # Errors
    /// When it is not to be had.
    pub fn from(from: SocketAddr, to: SocketAddr, id: u32, stream_id: impl Into<String>) -> Result<Self> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok(Self { socket, id: SocketId(id), stream_id: stream_id.into() })
    }

    /// Makes the first request.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn induce(&self) -> Result<()> {
        self.say(&Handshake {
            kind: Kind::Induction,
            version: 4,
            extension_field: DATAGRAM,
            ..self.nothing()
        })
    }

    /// Makes the second request, of this version of handshakes.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn conclude(&self, cookie: u32, version: u32) -> Result<()> {
        let extensions = [&CAPABILITIES[..], &stream_id(&self.stream_id)].concat();
        let (kind, extension_field) = (Kind::Conclusion, 5);
        let request = Handshake { kind, version, extension_field, cookie, ..self.nothing() };
        self.say(&Handshake { extensions: if version == HSV5 { &extensions } else { &[] }, ..request })
    }

    /// The next handshake for it: its kind and cookie.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn hear(&self, limit: Duration) -> Result<(Kind, u32)> {
        let end = Instant::now() + limit;
        let mut buffer = [0; 2048];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no answer within {limit:?}");
            self.socket.set_read_timeout(Some(left))?;
            let length = self.socket.recv(&mut buffer).context("no answer")?;
            let heard = buffer.get(..length).unwrap_or_default();
            // Somebody who was taken is kept alive.
            let Ok(answer) = Handshake::parse(heard) else { continue };
            ensure!(answer.destination == self.id, "an answer for {:?}", answer.destination);
            return Ok((answer.kind, answer.cookie));
        }
    }

    fn nothing(&self) -> Handshake<'static> {
        Handshake {
            timestamp: 0,
            destination: SocketId(0),
            version: HSV5,
            encryption: 0,
            extension_field: 0,
            initial_sequence: 1000,
            mtu: 1500,
            window: 8192,
            kind: Kind::Induction,
            socket: self.id,
            cookie: 0,
            peer_ip: [127, 0, 0, 1].into(),
            extensions: &[],
        }
    }

    fn say(&self, handshake: &Handshake<'_>) -> Result<()> {
        self.socket.send(&handshake.encode())?;
        Ok(())
    }
}

/// The extension with a stream id.
fn stream_id(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let words = u16::try_from(bytes.len() / 4).unwrap_or(u16::MAX);
    let content = bytes.as_chunks::<4>().0.iter().flat_map(|[a, b, c, d]| [*d, *c, *b, *a]);
    [0, 5].into_iter().chain(words.to_be_bytes()).chain(content).collect()
}
