//! Somebody who publishes or plays, and connects again when it is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{Scope, sleep},
    time::{Duration, Instant},
};

use anyhow::Result;
use parking_lot::Mutex;

use super::seen::Seen;

const STEP: Duration = Duration::from_millis(10);
/// From a failed attempt to the next one.
const RETRY: Duration = Duration::from_millis(200);

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    WebRtc,
    Rtmp,
    HttpFlv,
    Srt,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::WebRtc, Self::Rtmp, Self::HttpFlv, Self::Srt];
    /// HTTP-FLV plays what RTMP publishes.
    pub(super) const PUBLISHED: [Self; 3] = [Self::WebRtc, Self::Rtmp, Self::Srt];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::WebRtc => "WebRTC",
            Self::Rtmp => "RTMP",
            Self::HttpFlv => "HTTP-FLV",
            Self::Srt => "SRT",
        }
    }
}

/// A connection that carries media.
pub(super) trait Media {
    /// What came so far and what is missing of it; none once the connection broke.
    fn count(&mut self) -> Option<(u64, u64)>;
}

/// Who plays, where, and what they got.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) kind: Kind,
    /// Which of the streams of a kind.
    pub(super) stream: usize,
    /// The address at which somebody asks.
    pub(super) gate: usize,
    pub(super) is_publisher: bool,
    pub(super) seen: Arc<Mutex<Seen>>,
}

/// What all parts heed.
#[derive(Debug, Default)]
pub(super) struct Rules {
    is_over: AtomicBool,
    /// How long each waits for media before it connects again, in milliseconds; forever if it is zero.
    patience: AtomicU64,
}

impl Rules {
    /// How long clients wait for media before they connect again; forever without.
    pub(super) fn set_patience(&self, patience: Option<Duration>) {
        let ms = patience.map_or(0, |patience| patience.as_millis().try_into().unwrap_or(u64::MAX));
        self.patience.store(ms, Relaxed);
    }

    fn patience(&self) -> Duration {
        match self.patience.load(Relaxed) {
            0 => Duration::MAX,
            ms => Duration::from_millis(ms),
        }
    }
}

/// Ends all parts, whatever happens to the one who has this.
pub(super) struct End<'r>(pub(super) &'r Rules);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Relaxed);
    }
}

impl Part {
    pub(super) fn publisher(kind: Kind, stream: usize, gate: usize) -> Self {
        Self { kind, stream, gate, is_publisher: true, seen: Arc::default() }
    }

    pub(super) fn player(kind: Kind, stream: usize, gate: usize) -> Self {
        Self { kind, stream, gate, is_publisher: false, seen: Arc::default() }
    }

    /// Connects by `connect`, again and again.
    pub(super) fn perform<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        rules: &'scope Rules,
        connect: impl Fn() -> Result<Box<dyn Media>> + Send + 'scope,
    ) {
        let seen = Arc::clone(&self.seen);
        scope.spawn(move || {
            while !rules.is_over.load(Relaxed) {
                match connect() {
                    Ok(mut media) => {
                        seen.lock().begin();
                        follow(media.as_mut(), rules, &seen);
                    }
                    Err(_) => sleep(RETRY),
                }
            }
        });
    }
}

/// Until the connection breaks or carries nothing for too long.
fn follow(media: &mut dyn Media, rules: &Rules, seen: &Mutex<Seen>) {
    let (mut before, mut heard) = (0, Instant::now());
    while !rules.is_over.load(Relaxed) && heard.elapsed() < rules.patience() {
        let Some((count, missing)) = media.count() else { return };
        if count > before {
            (before, heard) = (count, Instant::now());
            seen.lock().hear(heard, missing);
        }
        sleep(STEP);
    }
}
