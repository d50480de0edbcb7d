//! The handshake packet (draft-sharabayko-srt-01, section 3.2.1).

use std::net::IpAddr;

use thiserror::Error;

use super::{DATAGRAM, Extensions, HSV5, MAGIC, Rejection, peer_ip};
use crate::reader::{Reader, UnexpectedEnd};

/// Bytes of a handshake without extensions.
pub const HANDSHAKE_LEN: usize = 64;

/// A control packet (the first bit) of type 0.
const HANDSHAKE: u16 = 0x8000;
/// Where what a proxy changes is.
const COOKIE: std::ops::Range<usize> = 44..48;
const PEER_IP: std::ops::Range<usize> = 48..64;
/// What is added to a reason when it stands in the place of the type.
const REJECTIONS: u32 = 1000;
/// The bit of the extension field that tells of a stream id.
const HAS_CONFIG: u16 = 4;

/// Names a socket of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketId(pub u32);

/// What a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first request of a caller, or the answer to it with the cookie.
    Induction,
    /// The second request of a caller, which carries the cookie, or the answer to it.
    Conclusion,
    /// A refusal.
    Rejection(Rejection),
    /// Rendezvous (0, -2), or nothing known.
    Other(u32),
}

/// Why bytes are no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// It ends too early.
    #[error(transparent)]
    Truncated(#[from] UnexpectedEnd),
    /// Another packet.
    #[error("not a handshake packet")]
    NotAHandshake,
    /// libsrt refuses such a stream id.
    #[error("stream id is empty or longer than 512 bytes")]
    StreamId,
}

/// A handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake<'a> {
    /// Microseconds since the sender began.
    pub timestamp: u32,
    /// Whom it is for: 0 for a listener.
    pub destination: SocketId,
    /// 4 or 5.
    pub version: u32,
    /// Which cipher the sender wants.
    pub encryption: u16,
    /// Which extensions follow, or a magic number.
    pub extension_field: u16,
    /// Of the first data packet.
    pub initial_sequence: u32,
    /// Longest packet.
    pub mtu: u32,
    /// Most packets in flight.
    pub window: u32,
    /// What it is.
    pub kind: Kind,
    /// The sender's socket.
    pub socket: SocketId,
    /// 0 in the first request.
    pub cookie: u32,
    /// The receiver's address, as the sender sees it.
    pub peer_ip: IpAddr,
    /// What follows.
    pub extensions: &'a [u8],
}

impl Kind {
    fn from_wire(word: u32) -> Self {
        match word {
            1 => Self::Induction,
            u32::MAX => Self::Conclusion,
            // Negative numbers are no reasons.
            REJECTIONS..0x8000_0000 => Self::Rejection(Rejection(word - REJECTIONS)),
            word => Self::Other(word),
        }
    }

    fn to_wire(self) -> u32 {
        match self {
            Self::Induction => 1,
            Self::Conclusion => u32::MAX,
            Self::Rejection(Rejection(reason)) => reason.saturating_add(REJECTIONS),
            Self::Other(word) => word,
        }
    }
}

impl<'a> Handshake<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    ///
    /// Fails if it is another packet, or ends too early.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new(datagram);
        if reader.u16()? != HANDSHAKE {
            return Err(HandshakeError::NotAHandshake);
        }
        // A subtype and a word that handshakes do not use.
        reader.bytes(6)?;
        Ok(Self {
            timestamp: reader.u32()?,
            destination: SocketId(reader.u32()?),
            version: reader.u32()?,
            encryption: reader.u16()?,
            extension_field: reader.u16()?,
            initial_sequence: reader.u32()?,
            mtu: reader.u32()?,
            window: reader.u32()?,
            kind: Kind::from_wire(reader.u32()?),
            socket: SocketId(reader.u32()?),
            cookie: reader.u32()?,
            peer_ip: peer_ip::from_wire(reader.array()?),
            extensions: reader.remaining(),
        })
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HANDSHAKE_LEN + self.extensions.len());
        let words = |out: &mut Vec<u8>, words: &[u32]| {
            out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        };
        words(&mut out, &[u32::from(HANDSHAKE) << 16, 0, self.timestamp, self.destination.0, self.version]);
        out.extend(self.encryption.to_be_bytes());
        out.extend(self.extension_field.to_be_bytes());
        words(&mut out, &[self.initial_sequence, self.mtu, self.window, self.kind.to_wire(), self.socket.0]);
        words(&mut out, &[self.cookie]);
        out.extend(peer_ip::to_wire(self.peer_ip));
        out.extend(self.extensions);
        out
    }

    /// The stream id of a conclusion, if the caller sent one.
    ///
    /// # Errors
    ///
    /// Fails if libsrt would refuse the extensions.
    pub fn stream_id(&self) -> Result<Option<String>, HandshakeError> {
        if self.extension_field & HAS_CONFIG == 0 {
            return Ok(None);
        }
        Extensions::new(self.extensions).stream_id()
    }

    /// What a listener answers to a first request of a caller at `caller`: the version, and a cookie for the next one.
    #[must_use]
    pub fn induced(&self, cookie: u32, caller: IpAddr, timestamp: u32) -> Handshake<'static> {
        Handshake {
            version: HSV5,
            extension_field: MAGIC,
            cookie,
            ..self.answer(self.kind, caller, timestamp)
        }
    }

    /// What a listener answers to a request of a caller at `caller` that it refuses.
    #[must_use]
    pub fn rejected(&self, reason: Rejection, caller: IpAddr, timestamp: u32) -> Handshake<'static> {
        Handshake {
            version: HSV5,
            extension_field: 0,
            cookie: self.cookie,
            ..self.answer(Kind::Rejection(reason), caller, timestamp)
        }
    }

    /// The first request to a listener at `listener`, in the name of the caller whose second request this is.
    #[must_use]
    pub fn inducing(&self, listener: IpAddr) -> Handshake<'static> {
        Handshake {
            version: 4,
            extension_field: DATAGRAM,
            cookie: 0,
            destination: SocketId(0),
            ..self.answer(Kind::Induction, listener, self.timestamp)
        }
    }

    fn answer(&self, kind: Kind, peer_ip: IpAddr, timestamp: u32) -> Handshake<'static> {
        Handshake {
            timestamp,
            destination: self.socket,
            encryption: 0,
            kind,
            peer_ip: peer_ip.to_canonical(),
            extensions: &[],
            version: self.version,
            extension_field: self.extension_field,
            initial_sequence: self.initial_sequence,
            mtu: self.mtu,
            window: self.window,
            socket: self.socket,
            cookie: self.cookie,
        }
    }
}

/// The same handshake for a receiver at another address, which knows the sender by another cookie; every other byte stays.
#[must_use]
pub fn readdress(datagram: &[u8], cookie: u32, receiver: IpAddr) -> Option<Vec<u8>> {
    let mut datagram = datagram.to_vec();
    datagram.get_mut(PEER_IP)?.copy_from_slice(&peer_ip::to_wire(receiver.to_canonical()));
    datagram.get_mut(COOKIE)?.copy_from_slice(&cookie.to_be_bytes());
    Some(datagram)
}
