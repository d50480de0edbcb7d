//! When each of many sessions wants to be woken: a heap with one live entry per key. Moving a deadline later
//! costs nothing (the early entry is re-armed when it comes up), which is what packet traffic does all the time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// Deadlines by key.
#[derive(Debug)]
pub struct Deadlines<K> {
    queue: BinaryHeap<Reverse<(Instant, K)>>,
    armed: HashMap<K, Armed>,
}

#[derive(Debug, Clone, Copy)]
struct Armed {
    wanted: Instant,
    queued: Instant,
}

impl<K> Default for Deadlines<K>
where
    K: Ord,
{
    fn default() -> Self {
        Self { queue: BinaryHeap::new(), armed: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash + Ord> Deadlines<K> {
    /// Sets the deadline of `key`, replacing the one it had.
    pub fn set(&mut self, key: K, at: Instant) {
        match self.armed.get_mut(&key) {
            Some(armed) if armed.queued <= at => armed.wanted = at,
            Some(_) | None => self.enqueue(key, at),
        }
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: K) {
        self.armed.remove(&key);
    }

    /// Takes one key whose deadline has passed.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        while let Some(&Reverse((at, key))) = self.queue.peek()
            && at <= now
        {
            self.queue.pop();
            match self.armed.get(&key).copied() {
                Some(armed) if armed.queued != at => {}
                Some(armed) if armed.wanted > now => self.enqueue(key, armed.wanted),
                Some(_) => {
                    self.armed.remove(&key);
                    return Some(key);
                }
                None => {}
            }
        }
        None
    }

    /// A time before which nothing is due.
    pub fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    fn enqueue(&mut self, key: K, at: Instant) {
        self.armed.insert(key, Armed { wanted: at, queued: at });
        self.queue.push(Reverse((at, key)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    #[test]
    fn pops_in_order_and_only_what_is_due() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.set(1, start + STEP * 2);
        deadlines.set(2, start + STEP);
        assert_eq!(deadlines.pop_due(start), None);
        assert_eq!(deadlines.pop_due(start + STEP * 3), Some(2));
        assert_eq!(deadlines.pop_due(start + STEP * 3), Some(1));
        assert_eq!(deadlines.pop_due(start + STEP * 3), None);
    }

    #[test]
    fn a_later_deadline_replaces_the_earlier_one() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.set(1, start + STEP);
        deadlines.set(1, start + STEP * 5);
        assert_eq!(deadlines.pop_due(start + STEP * 4), None);
        assert_eq!(deadlines.pop_due(start + STEP * 5), Some(1));
    }

    #[test]
    fn an_earlier_deadline_replaces_the_later_one() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.set(1, start + STEP * 5);
        deadlines.set(1, start + STEP);
        assert_eq!(deadlines.pop_due(start + STEP), Some(1));
        assert_eq!(deadlines.pop_due(start + STEP * 9), None);
    }

    #[test]
    fn a_removed_key_never_comes_up() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.set(1, start);
        deadlines.remove(1);
        assert_eq!(deadlines.pop_due(start + STEP), None);
    }
}
