//! RTMP, as "Adobe's Real Time Messaging Protocol" 1.0 describes it and SRS, ffmpeg and OBS speak it.
//!
//! A connection begins with a [`handshake`]; then each side sends chunks, and the chunks carry [`message`]s.

pub mod handshake;
pub mod message;

pub use message::Message;
