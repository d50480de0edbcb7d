//! What a player that comes late needs first: metadata, sequence headers, and everything since the last key frame, as SRS
//! keeps it with `gop_cache` on.

use super::frame::{Frame, Kind};
use super::queue;

/// The most that is kept since a key frame.
const LIMIT: usize = queue::LIMIT / 2;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    metadata: Option<Frame>,
    video_header: Option<Frame>,
    audio_header: Option<Frame>,
    since_key: Vec<Frame>,
    bytes: usize,
}

impl Backlog {
    pub(super) fn push(&mut self, frame: &Frame) {
        let place = match frame.kind {
            Kind::Data if frame.is_metadata() => &mut self.metadata,
            Kind::Video if frame.is_sequence_header() => &mut self.video_header,
            Kind::Audio if frame.is_sequence_header() => &mut self.audio_header,
            Kind::Data | Kind::Video | Kind::Audio => return self.keep(frame),
        };
        *place = Some(frame.clone());
    }

    /// A frame that goes on with a group of pictures, or begins one.
    fn keep(&mut self, frame: &Frame) {
        if frame.is_key() {
            self.forget();
        } else if self.since_key.is_empty() {
            return;
        }
        self.bytes += frame.payload.len();
        self.since_key.push(frame.clone());
        if self.bytes > LIMIT {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.since_key.clear();
        self.bytes = 0;
    }

    /// Everything, in the order in which SRS sends it.
    pub(super) fn frames(&self) -> impl Iterator<Item = &Frame> {
        let headers = [&self.metadata, &self.audio_header, &self.video_header];
        headers.into_iter().flatten().chain(&self.since_key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::frame;
    use super::*;

    const METADATA: &[u8] = b"\x02\x00\x0aonMetaData\x05";

    fn of(frames: &[Frame]) -> Vec<Frame> {
        let mut backlog = Backlog::default();
        frames.iter().for_each(|frame| backlog.push(frame));
        backlog.frames().cloned().collect()
    }

    #[test]
    fn a_late_player_gets_headers_and_begins_with_the_newest_key_frame() {
        let key = |at| frame(Kind::Video, at, &[0x17, 1, 0, 0, 0]);
        let [metadata, avc, aac] = [
            frame(Kind::Data, 0, METADATA),
            frame(Kind::Video, 0, &[0x17, 0, 0, 0, 0]),
            frame(Kind::Audio, 0, &[0xaf, 0, 0x12, 0x10]),
        ];
        let [inter, sound] = [frame(Kind::Video, 50, &[0x27, 1]), frame(Kind::Audio, 60, &[0xaf, 1])];
        let pushed = [
            inter.clone(),
            aac.clone(),
            key(0),
            sound.clone(),
            avc.clone(),
            metadata.clone(),
            key(40),
            inter.clone(),
            sound.clone(),
        ];
        assert_eq!(of(&pushed), [metadata, aac, avc, key(40), inter, sound]);
    }

    #[test]
    fn a_group_of_pictures_that_is_too_long_is_forgotten() {
        let key = frame(Kind::Video, 0, &[0x17, 1]);
        let long = frame(Kind::Video, 40, &vec![0x27; LIMIT]);
        assert_eq!(of(&[key.clone(), long.clone()]), []);
        assert_eq!(of(&[key.clone(), long, key.clone()]), [key]);
    }
}
