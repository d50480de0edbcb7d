//! RTMP, as "Adobe's Real Time Messaging Protocol" 1.0 describes it and SRS, ffmpeg and OBS speak it.
//!
//! A connection begins with a [`handshake`]; then each side sends [`chunk`]s, and the chunks carry [`message`]s.
//! [`join`] tells when the chunks of one connection may go on into another as they are.

pub mod chunk;
pub mod handshake;
pub mod join;
pub mod amf0;
pub mod client_session;
pub mod command;
pub mod control;
mod filler;
pub mod message;
pub mod origin_session;
pub mod request;

#[cfg(test)]
mod transcript;

pub use client_session::ClientSession;
pub use message::Message;

#[cfg(test)]
mod reference;
pub use origin_session::OriginSession;
