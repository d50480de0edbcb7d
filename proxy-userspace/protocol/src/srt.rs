//! SRT handshakes as a proxy needs them: who calls, which stream, and the few fields that differ between its two sides.
//!
//! Everything behind a handshake (draft-sharabayko-srt-01) is end to end and opaque: socket ids, sequence numbers and keys are
//! those of caller and origin. A handshake is too, but for its cookie and the address of its receiver, which each side has
//! from the proxy.

mod cookie;
mod extension;
mod handshake;
mod peer_ip;
mod rejection;
mod shutdown;

pub use self::{
    cookie::{CookieKey, SLICE_SECONDS},
    extension::{Extension, Extensions},
    handshake::{HANDSHAKE_LEN, Handshake, HandshakeError, Kind, SocketId, readdress},
    rejection::Rejection,
    shutdown::shutdown,
};

/// The version of handshakes with extensions; callers say 4 until they know better.
pub const HSV5: u32 = 5;
/// What a listener says in its first answer to tell that it knows [`HSV5`].
pub const MAGIC: u16 = 0x4A17;
/// What a caller says in the same place: datagrams.
pub const DATAGRAM: u16 = 2;

#[cfg(test)]
mod tests;
