//! RTMP, as "Adobe's Real Time Messaging Protocol" 1.0 describes it and SRS, ffmpeg and OBS speak it.
//!
//! A connection begins with a [`handshake`]; then each side sends [`chunk`]s, and the chunks carry [`message`]s.
//! [`client_session`] and [`origin_session`] say what is to be answered until a stream has started, and [`join`] when the
//! chunks of one connection may go on into another as they are.

pub mod amf0;
pub mod chunk;
pub mod client_session;
pub mod command;
pub mod control;
mod filler;
pub mod handshake;
pub mod join;
pub mod message;
pub mod origin_session;
pub mod request;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod transcript;

pub use client_session::ClientSession;
pub use message::Message;
pub use origin_session::OriginSession;
