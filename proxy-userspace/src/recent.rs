//! Names that are remembered for a while, so that what was found out of them need not be found out again.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

/// Names, each for a while. Of too many the oldest give way.
#[derive(Debug)]
pub struct Recent<K> {
    hold: Duration,
    most: usize,
    since: HashMap<K, Instant>,
    /// In the order of time; of a name that came again the last one counts.
    order: VecDeque<(Instant, K)>,
}

impl<K: Clone + Eq + Hash> Recent<K> {
    /// Remembers each name for `hold`, and at most `most` of them.
    pub fn new(hold: Duration, most: usize) -> Self {
        Self { hold, most, since: HashMap::new(), order: VecDeque::new() }
    }

    /// Remembers `name` from `now` on.
    pub fn insert(&mut self, name: K, now: Instant) {
        self.since.insert(name.clone(), now);
        self.order.push_back((now, name));
        while self.order.len() > self.most || self.has_expired(now) {
            self.drop_oldest();
        }
    }

    /// Whether `name` is remembered.
    pub fn contains(&self, name: &K, now: Instant) -> bool {
        self.since.get(name).is_some_and(|since| now.saturating_duration_since(*since) < self.hold)
    }

    fn has_expired(&self, now: Instant) -> bool {
        self.order.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= self.hold)
    }

    fn drop_oldest(&mut self) {
        let Some((inserted, name)) = self.order.pop_front() else { return };
        if self.since.get(&name) == Some(&inserted) {
            self.since.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(2);

    #[test]
    fn a_name_is_remembered_for_as_long_as_it_was_to_be_since_it_came_last() {
        let (mut recent, start) = (Recent::new(HOLD, 8), Instant::now());
        recent.insert("a", start);
        assert!(recent.contains(&"a", start) && !recent.contains(&"b", start));
        assert!(!recent.contains(&"a", start + HOLD));
        recent.insert("a", start + HOLD / 2);
        recent.insert("b", start + HOLD);
        assert!(recent.contains(&"a", start + HOLD));
        assert!(!recent.contains(&"a", start + HOLD * 2));
    }

    #[test]
    fn memory_is_bounded_and_freed() {
        let (mut recent, start) = (Recent::new(HOLD, 8), Instant::now());
        (0..1000).for_each(|name| recent.insert(name, start));
        assert_eq!((recent.since.len(), recent.order.len()), (8, 8));
        assert!(recent.contains(&999, start) && !recent.contains(&1, start));
        recent.insert(0, start + HOLD);
        assert_eq!((recent.since.len(), recent.order.len()), (1, 1));
    }
}
