//! The streams of an origin: one publisher each, and everyone who plays it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use proxy_protocol::rtmp::Message;

use super::{
    backlog::Backlog,
    frame::Frame,
    hls::{Hls, HlsSettings},
    queue::{Feed, Queue, Refused, queue},
};
use crate::origin::{random_id, stats::LiveStats};

/// The most streams that are remembered.
const MAX_STREAMS: usize = 4096;
/// The most contexts of HLS players.
const MAX_CONTEXTS: usize = 65_536;
/// The length of a context.
const CONTEXT: usize = 8;

/// By what a player gets its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Rtmp,
    HttpFlv,
    HttpTs,
}

/// All streams; clones share them.
#[derive(Debug, Clone)]
pub(in super::super) struct Hub {
    settings: Arc<HlsSettings>,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    streams: BTreeMap<String, Stream>,
    contexts: BTreeSet<String>,
}

#[derive(Debug)]
struct Stream {
    is_published: bool,
    backlog: Backlog,
    hls: Hls,
    players: Vec<(By, Feed)>,
    stats: LiveStats,
}

/// What an HLS player is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Playlist {
    /// A playlist for itself, under this context.
    Context(String),
    /// The segments.
    Media(String),
}

/// A stream that is being published; it ends when dropped.
#[derive(Debug)]
pub(super) struct Publication {
    hub: Hub,
    stream: String,
}

impl Hub {
    pub(super) fn new(settings: HlsSettings) -> Self {
        Self { settings: Arc::new(settings), table: Arc::default() }
    }

    /// Begins a stream; `None` if it has a publisher already.
    pub(super) fn publish(&self, name: &str) -> Option<Publication> {
        let mut table = self.table.lock();
        let stream = table.stream(name, &self.settings)?;
        if stream.is_published {
            return None;
        }
        stream.is_published = true;
        stream.stats.begin();
        Some(Publication { hub: self.clone(), stream: name.to_owned() })
    }

    /// Everything of a stream from the last key frame on, or from its beginning once it has a publisher; `None` if there
    /// are too many streams.
    pub(super) fn play(&self, name: &str, by: By) -> Option<Queue> {
        let mut table = self.table.lock();
        let stream = table.stream(name, &self.settings)?;
        let (feed, queue) = queue();
        stream.players.retain(|(_, feed)| feed.has_player());
        for frame in stream.backlog.frames() {
            feed.push(frame).ok()?;
        }
        stream.players.push((by, feed));
        Some(queue)
    }

    /// The playlist of a stream for a player with or without a context; `None` if there is none yet.
    pub(super) fn playlist(&self, name: &str, context: Option<&str>) -> Option<Playlist> {
        let mut table = self.table.lock();
        let file = name.rsplit('/').next()?;
        if !self.settings.contexts {
            return table.streams.get(name)?.hls.playlist(file, "").map(Playlist::Media);
        }
        let query = context.map(|context| format!("?hls_ctx={context}")).unwrap_or_default();
        let media = table.streams.get(name)?.hls.playlist(file, &query)?;
        match context {
            Some(context) if table.contexts.contains(context) => Some(Playlist::Media(media)),
            _ => Some(Playlist::Context(table.begin_context(context))),
        }
    }

    /// A segment of a stream, if it is still there.
    pub(super) fn segment(&self, name: &str, number: u64) -> Option<Bytes> {
        self.table.lock().streams.get(name)?.hls.segment(number)
    }

    /// What has become of the streams.
    pub(in super::super) fn stats(&self) -> Vec<LiveStats> {
        let mut table = self.table.lock();
        table.streams.iter_mut().map(|(name, stream)| stream.stats(name)).collect()
    }
}

impl Table {
    fn stream(&mut self, name: &str, settings: &HlsSettings) -> Option<&mut Stream> {
        if self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(name) {
            self.streams.retain(|_, stream| stream.is_used());
        }
        let is_full = self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(name);
        (!is_full).then(|| self.streams.entry(name.to_owned()).or_insert_with(|| Stream::new(settings)))
    }

    /// A context that is not known goes on as one: a player may come from another origin.
    fn begin_context(&mut self, asked: Option<&str>) -> String {
        if self.contexts.len() >= MAX_CONTEXTS {
            self.contexts.clear();
        }
        let context = asked.map_or_else(|| random_id(CONTEXT), str::to_owned);
        self.contexts.insert(context.clone());
        context
    }
}

impl Stream {
    fn new(settings: &HlsSettings) -> Self {
        Self {
            is_published: false,
            backlog: Backlog::default(),
            hls: Hls::new(settings),
            players: Vec::new(),
            stats: LiveStats::default(),
        }
    }

    fn is_used(&self) -> bool {
        self.is_published || self.players.iter().any(|(_, feed)| feed.has_player())
    }

    fn push(&mut self, frame: &Frame) {
        self.stats.count(frame.is_picture(), frame.timestamp);
        self.backlog.push(frame);
        if self.hls.push(frame).is_err() {
            self.hls.interrupt();
        }
        let stats = &mut self.stats;
        self.players.retain(|(_, feed)| match feed.push(frame) {
            Ok(()) => true,
            Err(Refused::Gone) => false,
            Err(Refused::Slow) => {
                stats.left_behind += 1;
                false
            }
        });
    }

    /// Players by RTMP wait for the next publisher, as those of SRS do; the others are at the end of their answers.
    fn end(&mut self) {
        self.is_published = false;
        self.backlog = Backlog::default();
        self.hls.interrupt();
        self.players.retain(|(by, _)| *by == By::Rtmp);
    }

    fn stats(&mut self, name: &str) -> LiveStats {
        self.players.retain(|(_, feed)| feed.has_player());
        let by = |wanted| self.players.iter().filter(|(by, _)| *by == wanted).count();
        LiveStats {
            stream: name.to_owned(),
            is_published: self.is_published,
            rtmp_players: by(By::Rtmp),
            http_flv_players: by(By::HttpFlv),
            http_ts_players: by(By::HttpTs),
            segments: self.hls.written(),
            ..self.stats.clone()
        }
    }
}

impl Publication {
    /// Takes what the publisher sent to everyone who is to get it.
    pub(super) fn push(&self, message: Message) {
        let Some(frame) = Frame::of(message) else { return };
        if let Some(stream) = self.hub.table.lock().streams.get_mut(&self.stream) {
            stream.push(&frame);
        }
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        if let Some(stream) = self.hub.table.lock().streams.get_mut(&self.stream) {
            stream.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use proxy_protocol::rtmp::message::kind::VIDEO;

    use super::*;
    use crate::origin::live::queue;

    fn picture(timestamp: u32, first: u8) -> Message {
        let payload = vec![first, 1, 0, 0, 0, 0, 0, 0, 1, 0x65];
        Message { chunk_stream: 6, timestamp, kind: VIDEO, stream: 1, payload }
    }

    fn times(queue: &mut Queue) -> Vec<u32> {
        std::iter::from_fn(|| queue.try_next()).map(|frame| frame.timestamp).collect()
    }

    #[test]
    fn a_stream_has_one_publisher_and_any_number_of_players_that_begin_with_a_key_frame() {
        let hub = Hub::new(HlsSettings::default());
        let mut early = hub.play("live/s", By::Rtmp).unwrap();
        let publication = hub.publish("live/s").unwrap();
        assert!(hub.publish("live/s").is_none());
        for (at, first) in [(0, 0x17), (40, 0x27), (80, 0x17), (120, 0x27)] {
            publication.push(picture(at, first));
        }
        let mut late = hub.play("live/s", By::HttpFlv).unwrap();
        publication.push(picture(160, 0x27));
        assert_eq!((times(&mut early), times(&mut late)), (vec![0, 40, 80, 120, 160], vec![80, 120, 160]));
        let stats = hub.stats().remove(0);
        assert_eq!((stats.video_frames, stats.first_ms, stats.last_ms), (5, Some(0), 160));
        assert_eq!((stats.rtmp_players, stats.http_flv_players, stats.is_published), (1, 1, true));
        drop(publication);
        assert!(hub.publish("live/s").is_some());
        assert_eq!(hub.stats().remove(0).http_flv_players, 0, "its answer is at its end");
    }

    #[test]
    fn a_player_that_takes_nothing_is_left_behind_and_costs_the_others_nothing() {
        let hub = Hub::new(HlsSettings::default());
        let publication = hub.publish("live/s").unwrap();
        let (_slow, mut other) = (hub.play("live/s", By::Rtmp), hub.play("live/s", By::Rtmp).unwrap());
        let mut big = picture(0, 0x27);
        big.payload.resize(queue::LIMIT / 3, 0);
        for _ in 0..10 {
            publication.push(big.clone());
            assert_eq!(times(&mut other).len(), 1);
        }
        let stats = hub.stats().remove(0);
        assert_eq!((stats.left_behind, stats.rtmp_players), (1, 1));
    }

    #[test]
    fn streams_that_nobody_uses_make_room() {
        let hub = Hub::new(HlsSettings::default());
        let _kept = hub.publish("live/kept").unwrap();
        for number in 0..2 * MAX_STREAMS {
            assert!(hub.play(&format!("live/{number}"), By::HttpTs).is_some());
        }
        assert!(hub.table.lock().streams.contains_key("live/kept"));
        assert!(hub.table.lock().streams.len() <= MAX_STREAMS);
    }
}
