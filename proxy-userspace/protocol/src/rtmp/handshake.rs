//! The handshake (RTMP 1.0, section 5.2), and the one with digests that Flash players from 9.0.115 on want for H.264.
//!
//! A client sends C0 (the version), C1 and C2, a server S0, S1 and S2; of the last four each is 1536 bytes. In the
//! simple form C1 and S1 are random bytes and C2 and S2 copies of them. In the other one, which no specification has,
//! C1 and S1 carry a digest of themselves, at a place that they tell in one of two ways, and S2 is signed with a key
//! that comes from the digest of C1. SRS answers whichever form the client uses, and so do we.
//!
//! What a peer makes of what we sent is its affair: real clients send anything as C2, and it is not looked at.
//!
//! Both sides take their input off a slice and leave there what follows the handshake. What is too short to be
//! taken stays there too, at most 1535 bytes, and must be the beginning of the next input.

mod client;
mod digest;
mod server;

use std::net::Ipv4Addr;

use thiserror::Error;

pub use self::{client::Client, server::Server};
use crate::reader::{Reader, UnexpectedEnd};

/// How many random bytes a side needs.
pub const RANDOM_LEN: usize = PACKET_LEN - 8;

/// The length of C1, C2, S1 and S2.
const PACKET_LEN: usize = 1536;
/// The version of plain RTMP.
const VERSION: u8 = 3;

/// What a proxy may say before C0, for SRS to log who its client is: 0xF3, the length of what follows in 16 bits, and the
/// IPv4 address (SRS 7, `SrsHandshakeBytes::read_c0c1`).
#[must_use]
pub fn real_ip(client: Ipv4Addr) -> [u8; 7] {
    let [a, b, c, d] = client.octets();
    [0xF3, 0, 4, a, b, c, d]
}

/// Why a peer's first bytes are no handshake of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The peer wants RTMPE.
    #[error("the peer asks for encrypted rtmp (version {0}), and only plain rtmp is spoken here")]
    Encrypted(u8),
    /// The peer speaks a version of RTMP that is not in use.
    #[error("the peer speaks version {0} of rtmp, not version 3")]
    Version(u8),
    /// TLS, HTTP, or whatever else has a first byte that RTMP leaves to others.
    #[error("the peer does not speak rtmp: its first byte is 0x{0:02x}")]
    NotRtmp(u8),
}

/// Takes a version byte; `None` until it is there.
fn take_version(input: &mut &[u8]) -> Result<Option<()>, HandshakeError> {
    let mut reader = Reader::new(input);
    let Ok(version) = reader.u8() else { return Ok(None) };
    *input = reader.remaining();
    match version {
        VERSION => Ok(Some(())),
        6 | 8 | 9 => Err(HandshakeError::Encrypted(version)),
        0..0x16 | 0x17..0x20 => Err(HandshakeError::Version(version)),
        // The first byte of TLS is within the range that RTMP keeps for its future.
        0x16 | 0x20.. => Err(HandshakeError::NotRtmp(version)),
    }
}

/// Takes C1 or S1; `None` until it is whole.
fn take_packet(input: &mut &[u8]) -> Option<[u8; PACKET_LEN]> {
    let mut reader = Reader::new(input);
    let packet = match reader.array() {
        Ok(packet) => packet,
        Err(UnexpectedEnd) => return None,
    };
    *input = reader.remaining();
    Some(packet)
}

/// Takes bytes that are not looked at off the input, and gives how many of `left` are still to come.
fn skip(input: &mut &[u8], left: usize) -> usize {
    let (skipped, rest) = input.split_at(left.min(input.len()));
    *input = rest;
    left - skipped.len()
}

#[cfg(test)]
mod tests;
