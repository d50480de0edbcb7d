//! Packets on a byte stream (RFC 4571): ICE over TCP puts a 16-bit length in front of each.
//!
//! A connection belongs to no session until its first frame has said which one: a STUN request whose USERNAME names it
//! (RFC 6544, section 10.1). SRS demands the same on its TCP endpoint. So the first frame is read by
//! [`first_request`], which refuses a stranger by the first bytes that tell, and everything after it by
//! [`Frame::parse`], which looks at lengths alone.

use thiserror::Error;

use crate::{
    reader::Reader,
    stun::{self, Class, Message, Method, StunError},
};

const LENGTH_LEN: usize = 2;

/// Type, length and cookie of a STUN message.
const COOKIE_END: usize = 8;

/// The first two bytes of a binding request.
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];

/// Why a stream carries no frames that the proxy passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A frame announces more bytes than the limit, or a packet has more than a frame can hold.
    #[error("frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// The bytes of the packet.
        length: usize,
        /// The bytes that are allowed.
        limit: usize,
    },
    /// The first frame is no STUN binding request.
    #[error("first frame is no stun request")]
    NoRequest,
    /// The first frame is a STUN request that is malformed.
    #[error("first frame is malformed: {0}")]
    Request(#[from] StunError),
    /// The first frame names no session.
    #[error("first frame has no username")]
    NoUsername,
}

/// One packet and where it ends on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    packet: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `buffer`; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// Fails, as soon as the length is there, if the packet would exceed `limit`. The stream is lost then.
    pub fn parse(buffer: &'a [u8], limit: usize) -> Result<Option<Self>, FrameError> {
        let mut reader = Reader::new(buffer);
        let Ok(length) = reader.u16() else { return Ok(None) };
        let length = usize::from(length);
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        Ok(reader.bytes(length).ok().map(|packet| Self { packet }))
    }

    /// The packet; an empty one means nothing and is to be passed over (RFC 4571, section 2).
    #[must_use]
    pub const fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// The bytes of the frame on the stream.
    #[must_use]
    pub const fn length(&self) -> usize {
        LENGTH_LEN + self.packet.len()
    }
}

/// The frames at the start of `buffer`, without empty ones, and how many bytes of it they fill.
///
/// # Errors
///
/// Fails if a packet exceeds `limit`.
pub fn frames(buffer: &[u8], limit: usize) -> Result<(Vec<Frame<'_>>, usize), FrameError> {
    let mut reader = Reader::new(buffer);
    let mut frames = Vec::new();
    while let Some(frame) = Frame::parse(reader.remaining(), limit)? {
        frames.extend(Some(frame).filter(|frame| !frame.packet.is_empty()));
        reader.bytes(frame.length()).expect("a frame lies within the buffer it was read from");
    }
    Ok((frames, reader.position()))
}

/// Appends `packet` to `stream` as a frame.
///
/// # Errors
///
/// Fails, and appends nothing, if the packet has more than 65,535 bytes.
pub fn write(packet: &[u8], stream: &mut Vec<u8>) -> Result<(), FrameError> {
    let length = u16::try_from(packet.len())
        .map_err(|_| FrameError::TooLong { length: packet.len(), limit: usize::from(u16::MAX) })?;
    stream.extend_from_slice(&length.to_be_bytes());
    stream.extend_from_slice(packet);
    Ok(())
}

/// The binding request of a session that a new connection starts with, and the bytes of its frame; `None` if more bytes are
/// needed.
///
/// Whether it is signed with the session's password is for the caller to check.
///
/// # Errors
///
/// Fails as early as the bytes tell that this is no such request: ICE over TCP shares its port with HTTP at some origins.
pub fn first_request(buffer: &[u8], limit: usize) -> Result<Option<(Message<'_>, usize)>, FrameError> {
    check_beginning(buffer)?;
    let Some(frame) = Frame::parse(buffer, limit)? else { return Ok(None) };
    let message = Message::parse(frame.packet)?;
    if message.class() != Class::Request || message.method() != Method::BINDING {
        return Err(FrameError::NoRequest);
    }
    message.username().filter(|username| !username.is_empty()).ok_or(FrameError::NoUsername)?;
    Ok(Some((message, frame.length())))
}

/// What a connection speaks on a port that HTTP has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// More bytes are needed.
    Undecided,
    /// Frames, the first being as [`first_request`] wants it as far as its cookie.
    Frames,
    /// Something else.
    Other,
}

/// Tells frames from everything else by the first bytes of a connection, of which the first request may have `limit`.
///
/// No method of HTTP is held up: a letter is the first byte of a length that no such request has.
#[must_use]
pub fn beginning(buffer: &[u8], limit: usize) -> Beginning {
    if buffer.first().is_some_and(|high| usize::from(*high) << 8 > limit) {
        return Beginning::Other;
    }
    match first_request(buffer, limit) {
        Err(FrameError::NoRequest | FrameError::TooLong { .. }) => Beginning::Other,
        Ok(None) if buffer.len() < LENGTH_LEN + COOKIE_END => Beginning::Undecided,
        Ok(_) | Err(FrameError::Request(_) | FrameError::NoUsername) => Beginning::Frames,
    }
}

/// Looks at what is there of length, type and cookie.
fn check_beginning(buffer: &[u8]) -> Result<(), FrameError> {
    let mut reader = Reader::new(buffer);
    let Ok(length) = reader.u16() else { return Ok(()) };
    if usize::from(length) < stun::HEADER_LEN {
        return Err(FrameError::NoRequest);
    }
    let is_begun = |expected: &[u8], found: &[u8]| expected.iter().zip(found).all(|(a, b)| a == b);
    let message_type = reader.remaining();
    let cookie = message_type.split_at_checked(4).unwrap_or_default().1;
    if is_begun(&BINDING_REQUEST, message_type) && is_begun(&stun::MAGIC_COOKIE.to_be_bytes(), cookie) {
        Ok(())
    } else {
        Err(FrameError::NoRequest)
    }
}

#[cfg(test)]
mod tests;
