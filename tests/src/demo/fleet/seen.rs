//! When media came to somebody, and for how long it did not.

use std::time::{Duration, Instant};

/// A shorter time without media is none: pictures are 40 ms apart, and machines have better things to do.
pub(super) const NOTICED: Duration = Duration::from_millis(500);

/// What somebody got so far, over all connections.
#[derive(Debug, Default)]
pub(super) struct Seen {
    last: Option<Instant>,
    /// When media did not come, from its last piece to the next.
    silences: Vec<(Instant, Instant)>,
    /// What is missing on connections that are over.
    missed: u64,
    /// The same on the one that is not.
    missing: u64,
}

impl Seen {
    pub(super) fn begin(&mut self) {
        self.missed += std::mem::take(&mut self.missing);
    }

    pub(super) fn hear(&mut self, now: Instant, missing: u64) {
        self.missing = missing;
        if let Some(last) = self.last.replace(now)
            && now.duration_since(last) >= NOTICED
        {
            self.silences.push((last, now));
        }
    }

    /// Whether any media came.
    pub(super) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// Whether media came after `since`, and comes still.
    pub(super) fn has_media(&self, since: Instant, now: Instant) -> bool {
        self.last.is_some_and(|last| last > since && now.duration_since(last) < NOTICED)
    }

    /// What is missing so far.
    pub(super) fn missing(&self) -> u64 {
        self.missed + self.missing
    }

    /// The longest time without media that ended after `since`, or lasts; zero if it is not to be noticed.
    pub(super) fn stopped(&self, since: Instant, now: Instant) -> Duration {
        let lasting = self.last.map(|last| (last, now));
        let all = self.silences.iter().copied().chain(lasting).filter(|(_, end)| *end > since);
        let longest = all.map(|(begin, end)| end.duration_since(begin)).max().unwrap_or_default();
        if longest < NOTICED { Duration::ZERO } else { longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn the_longest_silence_counts_once_it_is_noticed() {
        let (start, mut seen) = (Instant::now(), Seen::default());
        for ms in [0, 40, 539, 1600, 1640, 2300] {
            seen.hear(at(start, ms), 0);
        }
        assert_eq!(seen.stopped(start, at(start, 2300)), Duration::from_millis(1061));
        assert_eq!(seen.stopped(at(start, 1600), at(start, 2300)), Duration::from_millis(660));
        assert_eq!(seen.stopped(at(start, 2300), at(start, 2799)), Duration::ZERO);
        assert_eq!(seen.stopped(at(start, 2300), at(start, 2800)), Duration::from_millis(500));
    }

    #[test]
    fn media_is_there_if_it_came_since_and_just_now() {
        let (start, mut seen) = (Instant::now(), Seen::default());
        assert!(!seen.has_media(start, start));
        seen.hear(at(start, 100), 0);
        assert!(seen.has_media(start, at(start, 200)));
        assert!(!seen.has_media(at(start, 100), at(start, 200)));
        assert!(!seen.has_media(start, at(start, 600)));
    }

    #[test]
    fn what_is_missing_adds_up_over_connections() {
        let mut seen = Seen::default();
        for missing in [2, 3] {
            seen.begin();
            seen.hear(Instant::now(), missing);
        }
        assert_eq!(seen.missing(), 5);
    }
}
