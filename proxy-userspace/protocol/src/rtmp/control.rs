//! What the two ends tell each other about the connection itself (RTMP 1.0, sections 5.4 and 7.1.7).

mod event;

use thiserror::Error;

pub use self::event::Event;
use super::message::{CONTROL_CHUNK_STREAM, CONTROL_STREAM, Message, kind};
use crate::reader::{Reader, UnexpectedEnd};

/// Why a message is none of [`Control`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ControlError {
    /// The message is of another kind.
    #[error("message kind {0} is not of protocol control")]
    Kind(u8),
    /// The message ends within a field.
    #[error("control message is truncated")]
    Truncated,
    /// A chunk size is zero or has its highest bit set.
    #[error("chunk size 0x{0:08x} is not allowed")]
    ChunkSize(u32),
}

impl From<UnexpectedEnd> for ControlError {
    fn from(UnexpectedEnd: UnexpectedEnd) -> Self {
        Self::Truncated
    }
}

/// How firm a [`Control::SetPeerBandwidth`] is (RTMP 1.0, section 5.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BandwidthLimit {
    /// The window shall be this one.
    Hard,
    /// The window shall be this one or a smaller one that holds already.
    Soft,
    /// Hard if the one before was hard, and nothing otherwise. SRS sends this.
    Dynamic,
    /// A number without a meaning.
    Other(u8),
}

impl From<u8> for BandwidthLimit {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Hard,
            1 => Self::Soft,
            2 => Self::Dynamic,
            other => Self::Other(other),
        }
    }
}

impl From<BandwidthLimit> for u8 {
    fn from(limit: BandwidthLimit) -> Self {
        match limit {
            BandwidthLimit::Hard => 0,
            BandwidthLimit::Soft => 1,
            BandwidthLimit::Dynamic => 2,
            BandwidthLimit::Other(other) => other,
        }
    }
}

/// A protocol control message or a user control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// The sender's chunks have this size from now on.
    SetChunkSize(u32),
    /// The sender will not finish the message it began on this chunk stream.
    Abort {
        /// Which one.
        chunk_stream: u32,
    },
    /// The sender has received so many bytes, modulo 2^32.
    Acknowledgement(u32),
    /// The sender expects an acknowledgement after so many bytes.
    WindowAcknowledgementSize(u32),
    /// The sender wants the receiver to have at most so many bytes unacknowledged.
    SetPeerBandwidth {
        /// How many.
        window: u32,
        /// How firmly.
        limit: BandwidthLimit,
    },
    /// An event of a stream or of the connection.
    UserControl(Event),
}

impl Control {
    /// Reads a message. What follows its fields is ignored, as SRS does.
    ///
    /// # Errors
    ///
    /// Fails if the message is of another kind or malformed.
    pub fn parse(message: &Message) -> Result<Self, ControlError> {
        let mut reader = Reader::new(&message.payload);
        match message.kind {
            kind::SET_CHUNK_SIZE => Ok(Self::SetChunkSize(chunk_size(reader.u32()?)?)),
            kind::ABORT => Ok(Self::Abort { chunk_stream: reader.u32()? }),
            kind::ACKNOWLEDGEMENT => Ok(Self::Acknowledgement(reader.u32()?)),
            kind::WINDOW_ACKNOWLEDGEMENT_SIZE => Ok(Self::WindowAcknowledgementSize(reader.u32()?)),
            kind::SET_PEER_BANDWIDTH => {
                Ok(Self::SetPeerBandwidth { window: reader.u32()?, limit: reader.u8()?.into() })
            }
            kind::USER_CONTROL => Ok(Self::UserControl(Event::parse(&mut reader)?)),
            other => Err(ControlError::Kind(other)),
        }
    }

    /// The message, on the streams that control messages belong on: strict encoders accept no others.
    #[must_use]
    pub fn to_message(&self) -> Message {
        let mut payload = Vec::new();
        match self {
            Self::SetChunkSize(number)
            | Self::Abort { chunk_stream: number }
            | Self::Acknowledgement(number)
            | Self::WindowAcknowledgementSize(number) => payload.extend(number.to_be_bytes()),
            Self::SetPeerBandwidth { window, limit } => {
                payload.extend(window.to_be_bytes());
                payload.push((*limit).into());
            }
            Self::UserControl(event) => event.write(&mut payload),
        }
        Message {
            chunk_stream: CONTROL_CHUNK_STREAM,
            timestamp: 0,
            kind: self.kind(),
            stream: CONTROL_STREAM,
            payload,
        }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::SetChunkSize(_) => kind::SET_CHUNK_SIZE,
            Self::Abort { .. } => kind::ABORT,
            Self::Acknowledgement(_) => kind::ACKNOWLEDGEMENT,
            Self::WindowAcknowledgementSize(_) => kind::WINDOW_ACKNOWLEDGEMENT_SIZE,
            Self::SetPeerBandwidth { .. } => kind::SET_PEER_BANDWIDTH,
            Self::UserControl(_) => kind::USER_CONTROL,
        }
    }
}

const fn chunk_size(size: u32) -> Result<u32, ControlError> {
    if size == 0 || size > u32::MAX >> 1 { Err(ControlError::ChunkSize(size)) } else { Ok(size) }
}

#[cfg(test)]
mod tests;
