//! Segments of a stream and the playlist that lists them (RFC 8216), as SRS writes them.

use std::{collections::VecDeque, fmt::Write as _, time::Duration};

use anyhow::Result;
use bytes::Bytes;

use super::{
    frame::{Frame, Kind},
    ts::Remuxer,
};

/// The most that a segment holds.
const LARGEST: usize = 32 << 20;
/// Segments that are still there after the playlist has forgotten them.
const KEPT: usize = 3;

/// How streams are cut, and what players find.
#[derive(Debug, Clone)]
pub struct HlsSettings {
    /// The least length of a segment; it ends before the next key frame. SRS: `hls_fragment`.
    pub fragment: Duration,
    /// The length of a playlist. SRS: `hls_window`.
    pub window: Duration,
    /// Whether each player gets a context, which is in all URLs that it is given. SRS: `hls_ctx` and `hls_ts_ctx`.
    pub contexts: bool,
}

impl Default for HlsSettings {
    /// Shorter segments than those of SRS, which has them of 10 seconds.
    fn default() -> Self {
        Self { fragment: Duration::from_secs(1), window: Duration::from_secs(12), contexts: true }
    }
}

/// One stream as segments.
#[derive(Debug)]
pub(super) struct Hls {
    fragment: u32,
    window: u32,
    remuxer: Remuxer,
    open: Option<Open>,
    next: u64,
    segments: VecDeque<Segment>,
    /// A publisher has ended, and whatever comes does not go on from there.
    is_interrupted: bool,
}

/// A segment that grows.
#[derive(Debug)]
struct Open {
    begin: u32,
    end: u32,
    has_video: bool,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    milliseconds: u32,
    is_interrupted: bool,
    bytes: Bytes,
}

impl Hls {
    pub(super) fn new(settings: &HlsSettings) -> Self {
        let milliseconds = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Self {
            fragment: milliseconds(settings.fragment),
            window: milliseconds(settings.window),
            remuxer: Remuxer::default(),
            open: None,
            next: 0,
            segments: VecDeque::new(),
            is_interrupted: false,
        }
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// When it cannot be written as MPEG-TS.
    pub(super) fn push(&mut self, frame: &Frame) -> Result<()> {
        if frame.kind == Kind::Data || frame.is_sequence_header() {
            return self.remuxer.push(frame, &mut Vec::new());
        }
        if self.open.as_ref().is_some_and(|open| open.ends_before(frame, self.fragment)) {
            self.close(frame.timestamp);
        }
        // Without a key frame nothing can be decoded; a stream without video has none.
        if self.open.is_none() && (frame.is_key() || frame.kind == Kind::Audio) {
            self.remuxer.restart();
            self.open = Some(Open::new(frame.timestamp));
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.end = frame.timestamp;
        open.has_video |= frame.kind == Kind::Video;
        self.remuxer.push(frame, &mut open.bytes)?;
        if open.bytes.len() > LARGEST {
            self.open = None;
        }
        Ok(())
    }

    /// The publisher has ended.
    pub(super) fn interrupt(&mut self) {
        if let Some(end) = self.open.as_ref().map(|open| open.end) {
            self.close(end);
        }
        self.remuxer = Remuxer::default();
        self.is_interrupted = true;
    }

    fn close(&mut self, end: u32) {
        let Some(open) = self.open.take().filter(|open| !open.bytes.is_empty()) else { return };
        let milliseconds = end.wrapping_sub(open.begin);
        let is_interrupted = std::mem::take(&mut self.is_interrupted);
        let bytes = Bytes::from(open.bytes);
        self.segments.push_back(Segment { number: self.next, milliseconds, is_interrupted, bytes });
        self.next += 1;
        while self.segments.len() > self.listed().len() + KEPT {
            self.segments.pop_front();
        }
    }

    /// The newest segments that together are no longer than the window, and one at least.
    fn listed(&self) -> Vec<&Segment> {
        let mut length = 0_u32;
        let fits = |segment: &&Segment| {
            let is_first = length == 0;
            length = length.saturating_add(segment.milliseconds);
            is_first || length <= self.window
        };
        let mut listed: Vec<_> = self.segments.iter().rev().take_while(fits).collect();
        listed.reverse();
        listed
    }

    /// The playlist, once there is a segment; `stream` is what its segments are called before their numbers, and `query`
    /// what is behind their names.
    pub(super) fn playlist(&self, stream: &str, query: &str) -> Option<String> {
        let listed = self.listed();
        let first = listed.first()?.number;
        let longest = listed.iter().map(|segment| segment.milliseconds.div_ceil(1000)).max().unwrap_or(0);
        let mut text = format!(
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-TARGETDURATION:{longest}\n"
        );
        for segment in listed {
            let (number, seconds) = (segment.number, f64::from(segment.milliseconds) / 1000.0);
            let mark = if segment.is_interrupted { "#EXT-X-DISCONTINUITY\n" } else { "" };
            let written = write!(text, "{mark}#EXTINF:{seconds:.3}, no desc\n{stream}-{number}.ts{query}\n");
            written.expect("a string takes everything");
        }
        Some(text)
    }

    /// The bytes of a segment that is still there.
    pub(super) fn segment(&self, number: u64) -> Option<Bytes> {
        let found = self.segments.iter().find(|segment| segment.number == number);
        found.map(|segment| segment.bytes.clone())
    }

    /// How many segments there have been.
    pub(super) fn written(&self) -> u64 {
        self.next
    }
}

impl Open {
    fn new(begin: u32) -> Self {
        Self { begin, end: begin, has_video: false, bytes: Vec::new() }
    }

    /// Whether it is long enough, and the frame one that a segment may begin with.
    fn ends_before(&self, frame: &Frame, fragment: u32) -> bool {
        let begins = frame.is_key() || !self.has_video && frame.kind == Kind::Audio;
        begins && frame.timestamp.wrapping_sub(self.begin) >= fragment
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::frame;
    use super::*;

    const AVC: &[u8] = &[0x17, 0, 0, 0, 0, 1, 0x42, 0, 0x1e, 0xff, 0xe1, 0, 3, 0x67, 1, 2, 1, 0, 2, 0x68, 3];

    fn picture(at: u32) -> Frame {
        let kind = if at.is_multiple_of(1000) { 0x17 } else { 0x27 };
        frame(Kind::Video, at, &[kind, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 9])
    }

    /// A stream of so many seconds with a key frame in each.
    fn stream(seconds: u32) -> Hls {
        let settings =
            HlsSettings { fragment: Duration::from_secs(2), window: Duration::from_secs(6), contexts: true };
        let mut hls = Hls::new(&settings);
        go_on(&mut hls, 0, seconds);
        hls
    }

    fn go_on(hls: &mut Hls, from: u32, to: u32) {
        hls.push(&frame(Kind::Video, from * 1000, AVC)).unwrap();
        for at in (from * 1000..to * 1000).step_by(40) {
            hls.push(&picture(at)).unwrap();
        }
    }

    #[test]
    fn the_playlist_is_that_of_srs() {
        assert_eq!(stream(2).playlist("cam", ""), None);
        let recorded = include_str!("../../../../proxy-userspace/protocol/tests/data/srs_hls_media.m3u8");
        let mut hls = stream(27);
        hls.window = 12_000;
        let playlist = hls.playlist("cam-1", "?hls_ctx=336vqi2o").unwrap();
        assert_eq!(playlist, recorded);
    }

    #[test]
    fn segments_that_players_may_still_want_are_kept_and_no_others() {
        let hls = stream(27);
        let playlist = hls.playlist("cam", "").unwrap();
        assert!(playlist.contains("#EXT-X-MEDIA-SEQUENCE:10\n"), "{playlist}");
        let there: Vec<_> = (0..20).filter(|number| hls.segment(*number).is_some()).collect();
        assert_eq!(there, (7..13).collect::<Vec<_>>());
    }

    #[test]
    fn a_segment_can_be_decoded_by_itself() {
        let hls = stream(27);
        for number in 10..13 {
            let bytes = hls.segment(number).unwrap();
            let packets: Vec<_> =
                bytes.chunks(188).map(|packet| (packet[0], packet[1] & 0x1f, packet[2])).collect();
            assert_eq!(packets[..3], [(0x47, 0, 0), (0x47, 0x10, 1), (0x47, 1, 0)]);
        }
    }

    #[test]
    fn what_comes_after_an_interruption_says_so_and_the_numbers_go_on() {
        let mut hls = stream(5);
        hls.interrupt();
        go_on(&mut hls, 0, 3);
        let playlist = hls.playlist("cam", "").unwrap();
        let end = "cam-1.ts\n#EXTINF:0.960, no desc\ncam-2.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:2.000, no desc\ncam-3.ts\n";
        assert!(playlist.ends_with(end), "{playlist}");
    }

    #[test]
    fn sound_alone_is_cut_too() {
        let mut hls = stream(0);
        hls.push(&frame(Kind::Audio, 0, &[0xaf, 0, 0x12, 0x10])).unwrap();
        for at in (0..5000).step_by(23) {
            hls.push(&frame(Kind::Audio, at, &[0xaf, 1, 1, 2])).unwrap();
        }
        assert_eq!(hls.written(), 2);
    }
}
