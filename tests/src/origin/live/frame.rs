//! One message of a stream: audio, video or data, in the form that FLV and RTMP share.

use bytes::Bytes;
use proxy_protocol::rtmp::{
    Message,
    amf0::{self, Value},
    message::kind::{AUDIO, DATA_AMF0, DATA_AMF3, VIDEO},
};

use crate::origin::SIGNATURE;

/// What encoders put before the metadata that servers are to keep.
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";
const ON_METADATA: &[u8] = b"\x02\x00\x0aonMetaData";

const VERSION: &str = "7.0.18";

const CODEC_AVC: u8 = 7;
const FORMAT_AAC: u8 = 10;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Audio,
    Video,
    Data,
}

/// A frame; clones share the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Milliseconds, modulo 2^32.
    pub(super) timestamp: u32,
    pub(super) payload: Bytes,
}

impl Frame {
    /// What a publisher sent, if players are to get it.
    pub(super) fn of(message: Message) -> Option<Self> {
        let Message { kind, timestamp, payload, .. } = message;
        let payload = Bytes::from(payload);
        let (kind, payload) = match kind {
            AUDIO => (Kind::Audio, payload),
            VIDEO => (Kind::Video, payload),
            DATA_AMF0 => (Kind::Data, data(&payload)),
            DATA_AMF3 => (Kind::Data, data(&payload.slice(payload.len().min(1)..))),
            _ => return None,
        };
        (!payload.is_empty()).then_some(Self { kind, timestamp, payload })
    }

    /// H.264 video.
    pub(super) fn is_avc(&self) -> bool {
        self.kind == Kind::Video && self.payload.first().is_some_and(|byte| byte & 0x0f == CODEC_AVC)
    }

    /// AAC audio.
    pub(super) fn is_aac(&self) -> bool {
        self.kind == Kind::Audio && self.payload.first().is_some_and(|byte| byte >> 4 == FORMAT_AAC)
    }

    /// How the codec of what follows is set up.
    pub(super) fn is_sequence_header(&self) -> bool {
        (self.is_avc() || self.is_aac()) && self.payload.get(1) == Some(&0)
    }

    /// A picture: no sequence header, and no end of a sequence, which FFmpeg sends at its end.
    pub(super) fn is_picture(&self) -> bool {
        self.kind == Kind::Video && (!self.is_avc() || self.payload.get(1) == Some(&1))
    }

    /// A picture that can be decoded without an earlier one.
    pub(super) fn is_key(&self) -> bool {
        self.is_picture() && self.payload.first().is_some_and(|byte| byte >> 4 == 1)
    }

    /// What the stream says of itself.
    pub(super) fn is_metadata(&self) -> bool {
        self.kind == Kind::Data && self.payload.starts_with(ON_METADATA)
    }
}

fn data(payload: &Bytes) -> Bytes {
    let is_for_server = payload.starts_with(SET_DATA_FRAME);
    let payload = payload.slice(if is_for_server { SET_DATA_FRAME.len() } else { 0 }..);
    if payload.starts_with(ON_METADATA) { with_server(&payload).unwrap_or(payload) } else { payload }
}

/// Metadata as an object that says whose server it was at, as SRS passes it on.
fn with_server(metadata: &[u8]) -> Option<Bytes> {
    let mut values = amf0::decode(metadata).ok()?;
    let mut properties = values.get(1)?.properties()?.clone();
    for (name, value) in [("server", SIGNATURE), ("server_version", VERSION)] {
        properties.push(name.into(), value.into());
    }
    *values.get_mut(1)? = Value::Object(properties);
    let mut written = Vec::new();
    amf0::encode(&values, &mut written);
    Some(written.into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn frame(kind: Kind, timestamp: u32, payload: &[u8]) -> Frame {
        Frame { kind, timestamp, payload: Bytes::copy_from_slice(payload) }
    }

    #[test]
    fn headers_keys_and_metadata_are_told_apart() {
        let facts = |frame: Frame| [frame.is_sequence_header(), frame.is_key(), frame.is_metadata()];
        let video = |bytes: &[u8]| facts(frame(Kind::Video, 0, bytes));
        assert_eq!(video(&[0x17, 0, 0, 0, 0, 1]), [true, false, false]);
        assert_eq!(video(&[0x17, 1, 0, 0, 0, 1]), [false, true, false]);
        assert_eq!(video(&[0x27, 1, 0, 0, 0, 1]), [false; 3]);
        assert_eq!(video(&[0x17, 2, 0, 0, 0]), [false; 3]);
        assert!(!frame(Kind::Video, 0, &[0x17, 2, 0, 0, 0]).is_picture());
        assert_eq!(facts(frame(Kind::Audio, 0, &[0xaf, 0, 0x12])), [true, false, false]);
        assert_eq!(facts(frame(Kind::Audio, 0, &[0xaf, 1, 0x12])), [false; 3]);
        assert_eq!(facts(frame(Kind::Data, 0, ON_METADATA)), [false, false, true]);
    }

    #[test]
    fn what_is_for_the_server_alone_does_not_reach_players() {
        let sent = [SET_DATA_FRAME, ON_METADATA].concat();
        let message = Message { chunk_stream: 4, timestamp: 7, kind: DATA_AMF0, stream: 1, payload: sent };
        assert_eq!(Frame::of(message), Some(frame(Kind::Data, 7, ON_METADATA)));
    }

    #[test]
    fn metadata_says_at_last_whose_server_it_was_at() {
        let sent = b"\x02\0\x0aonMetaData\x08\0\0\0\x01\0\x05width\0\x40\x74\0\0\0\0\0\0\0\0\x09";
        let read = b"\x02\0\x0aonMetaData\x03\0\x05width\0\x40\x74\0\0\0\0\0\0\0\x06server\x02\0\x10SRS/7.0.18(Hang)\
            \0\x0eserver_version\x02\0\x067.0.18\0\0\x09";
        assert_eq!(data(&Bytes::from_static(sent)), &read[..]);
    }
}
