//! Events of user control messages (RTMP 1.0, section 7.1.7).

use super::ControlError;
use crate::reader::Reader;

/// Event types.
mod event_type {
    pub(super) const STREAM_BEGIN: u16 = 0;
    pub(super) const STREAM_EOF: u16 = 1;
    pub(super) const STREAM_DRY: u16 = 2;
    pub(super) const SET_BUFFER_LENGTH: u16 = 3;
    pub(super) const STREAM_IS_RECORDED: u16 = 4;
    pub(super) const PING_REQUEST: u16 = 6;
    pub(super) const PING_RESPONSE: u16 = 7;
}

/// What happened, or is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server begins to send a stream.
    StreamBegin {
        /// The message stream.
        stream: u32,
    },
    /// The stream is at its end.
    StreamEof {
        /// The message stream.
        stream: u32,
    },
    /// Nothing comes for a while.
    StreamDry {
        /// The message stream.
        stream: u32,
    },
    /// The client buffers so much.
    SetBufferLength {
        /// The message stream.
        stream: u32,
        /// How much it buffers.
        milliseconds: u32,
    },
    /// The stream is a recorded one.
    StreamIsRecorded {
        /// The message stream.
        stream: u32,
    },
    /// The server asks whether the client is there.
    PingRequest {
        /// The server's time.
        timestamp: u32,
    },
    /// The client is there.
    PingResponse {
        /// From the request.
        timestamp: u32,
    },
    /// An event that RTMP 1.0 does not describe, such as those about the player's file.
    Other {
        /// Which one.
        event_type: u16,
        /// The rest.
        body: Vec<u8>,
    },
}

impl Event {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ControlError> {
        Ok(match reader.u16()? {
            event_type::STREAM_BEGIN => Self::StreamBegin { stream: reader.u32()? },
            event_type::STREAM_EOF => Self::StreamEof { stream: reader.u32()? },
            event_type::STREAM_DRY => Self::StreamDry { stream: reader.u32()? },
            event_type::SET_BUFFER_LENGTH => {
                Self::SetBufferLength { stream: reader.u32()?, milliseconds: reader.u32()? }
            }
            event_type::STREAM_IS_RECORDED => Self::StreamIsRecorded { stream: reader.u32()? },
            event_type::PING_REQUEST => Self::PingRequest { timestamp: reader.u32()? },
            event_type::PING_RESPONSE => Self::PingResponse { timestamp: reader.u32()? },
            event_type => Self::Other { event_type, body: reader.remaining().to_vec() },
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.event_type().to_be_bytes());
        match self {
            Self::StreamBegin { stream: number }
            | Self::StreamEof { stream: number }
            | Self::StreamDry { stream: number }
            | Self::StreamIsRecorded { stream: number }
            | Self::PingRequest { timestamp: number }
            | Self::PingResponse { timestamp: number } => out.extend(number.to_be_bytes()),
            Self::SetBufferLength { stream, milliseconds } => {
                out.extend(stream.to_be_bytes());
                out.extend(milliseconds.to_be_bytes());
            }
            Self::Other { event_type: _, body } => out.extend(body),
        }
    }

    const fn event_type(&self) -> u16 {
        match self {
            Self::StreamBegin { .. } => event_type::STREAM_BEGIN,
            Self::StreamEof { .. } => event_type::STREAM_EOF,
            Self::StreamDry { .. } => event_type::STREAM_DRY,
            Self::SetBufferLength { .. } => event_type::SET_BUFFER_LENGTH,
            Self::StreamIsRecorded { .. } => event_type::STREAM_IS_RECORDED,
            Self::PingRequest { .. } => event_type::PING_REQUEST,
            Self::PingResponse { .. } => event_type::PING_RESPONSE,
            Self::Other { event_type, .. } => *event_type,
        }
    }
}
