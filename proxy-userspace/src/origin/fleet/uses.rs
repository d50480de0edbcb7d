//! Streams that this proxy has, as far as the fleet has to know.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use proxy_protocol::stream_url::StreamKey;

use crate::origin::OriginId;

/// A stream that was not said to be in use for so long is not; those in use are said to be every 20 s.
const LIFE: Duration = Duration::from_secs(60);
/// Streams at most, of each kind.
const MAX: usize = 1 << 18;

#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Streams in use, and when that was said.
    used: HashMap<StreamKey, Instant>,
    /// Streams whose publishers came to this proxy, while they are in use.
    published: HashMap<StreamKey, Instant>,
    /// What was decided while Redis did not answer.
    unwritten: HashMap<StreamKey, OriginId>,
}

impl Uses {
    pub(super) fn used(&mut self, streams: &[StreamKey], now: Instant) {
        for stream in streams {
            if self.used.len() < MAX || self.used.contains_key(stream) {
                self.used.insert(stream.clone(), now);
            }
            if let Some(said) = self.published.get_mut(stream) {
                *said = now;
            }
        }
        let lives = |_: &StreamKey, said: &mut Instant| now < *said + LIFE;
        self.used.retain(lives);
        self.published.retain(lives);
    }

    /// Somebody is about to use a stream, which is said only later.
    pub(super) fn asked(&mut self, stream: &StreamKey, now: Instant) {
        if self.used.len() < MAX {
            self.used.insert(stream.clone(), now);
        }
    }

    pub(super) fn published(&mut self, stream: &StreamKey, now: Instant) {
        if self.published.len() < MAX {
            self.published.insert(stream.clone(), now);
        }
    }

    pub(super) fn unwritten(&mut self, stream: &StreamKey, origin: &OriginId) {
        if self.unwritten.len() < MAX {
            self.unwritten.insert(stream.clone(), origin.clone());
        }
    }

    /// Whether the publisher of a stream came to this proxy, which nobody else may know yet.
    pub(super) fn insists_on(&self, stream: &StreamKey) -> bool {
        self.unwritten.contains_key(stream) && self.published.contains_key(stream)
    }

    pub(super) fn in_use(&self) -> Vec<StreamKey> {
        self.used.keys().cloned().collect()
    }

    /// What is to be written down: what wins over what others say, and what does not.
    pub(super) fn take_unwritten(&mut self) -> Unwritten {
        let all = std::mem::take(&mut self.unwritten);
        let (published, guessed) =
            all.into_iter().partition(|(stream, _)| self.published.contains_key(stream));
        Unwritten { published, guessed }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unwritten {
    pub(super) published: Vec<(StreamKey, OriginId)>,
    pub(super) guessed: Vec<(StreamKey, OriginId)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamKey {
        format!("__defaultVhost__/live/{name}").parse().unwrap()
    }

    #[test]
    fn streams_are_in_use_while_that_is_said() {
        let (mut uses, start) = (Uses::default(), Instant::now());
        uses.used(&[stream("a"), stream("b")], start);
        uses.used(&[stream("b")], start + LIFE / 2);
        assert_eq!(uses.in_use().len(), 2);
        uses.used(&[], start + LIFE);
        assert_eq!(uses.in_use(), [stream("b")]);
    }

    #[test]
    fn what_was_decided_meanwhile_is_written_once_and_publishers_win() {
        let (mut uses, start) = (Uses::default(), Instant::now());
        let origin = OriginId::new("a", "s", "1");
        uses.unwritten(&stream("watched"), &origin);
        uses.unwritten(&stream("sent"), &origin);
        uses.published(&stream("sent"), start);
        assert!(uses.insists_on(&stream("sent")) && !uses.insists_on(&stream("watched")));
        let written = Unwritten {
            published: vec![(stream("sent"), origin.clone())],
            guessed: vec![(stream("watched"), origin)],
        };
        assert_eq!(uses.take_unwritten(), written);
        assert_eq!(uses.take_unwritten(), Unwritten::default());
        assert!(!uses.insists_on(&stream("sent")), "everybody may know");
    }

    #[test]
    fn a_publisher_that_left_wins_nothing() {
        let (mut uses, start) = (Uses::default(), Instant::now());
        uses.published(&stream("sent"), start);
        uses.used(&[], start + LIFE);
        uses.unwritten(&stream("sent"), &OriginId::new("a", "s", "1"));
        assert_eq!(uses.take_unwritten().published, []);
    }
}
