//! Frames as an FLV file that does not end ("Adobe Flash Video File Format Specification" 10.1, annex E).

use proxy_protocol::rtmp::message::kind::{AUDIO, DATA_AMF0, VIDEO};

use super::frame::{Frame, Kind};

const TAG_HEADER: usize = 11;

/// What a file begins with; it says that there are audio and video, as SRS does while it does not know.
pub(super) const HEADER: [u8; 9] = *b"FLV\x01\x05\0\0\0\x09";
/// The length of the tag before the first one, which comes behind the header.
pub(super) const NO_TAG: [u8; 4] = [0; 4];

/// Appends a tag and its length.
pub(super) fn tag(frame: &Frame, out: &mut Vec<u8>) {
    let length = frame.payload.len();
    let [high, time @ ..] = frame.timestamp.to_be_bytes();
    out.push(match frame.kind {
        Kind::Audio => AUDIO,
        Kind::Video => VIDEO,
        Kind::Data => DATA_AMF0,
    });
    out.extend(u24(length));
    out.extend(time);
    out.extend([high, 0, 0, 0]);
    out.extend_from_slice(&frame.payload);
    let written = u32::try_from(TAG_HEADER + length).unwrap_or(u32::MAX);
    out.extend(written.to_be_bytes());
}

/// A message of RTMP has no more than 2^24 - 1 bytes.
fn u24(length: usize) -> [u8; 3] {
    let [_, rest @ ..] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    rest
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::frame;
    use super::*;

    #[test]
    fn a_tag_has_its_type_its_length_and_the_fourth_byte_of_time_apart() {
        let mut out = Vec::new();
        tag(&frame(Kind::Audio, 0x0102_0304, &[0xaf, 1, 9]), &mut out);
        assert_eq!(out, [8, 0, 0, 3, 2, 3, 4, 1, 0, 0, 0, 0xaf, 1, 9, 0, 0, 0, 14]);
    }
}
