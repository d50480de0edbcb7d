//! How often strangers may have something done: token buckets for each of them, and for all.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Strangers remembered at once. Once there are as many, full buckets make room: they say nothing.
const REMEMBERED: usize = 65_536;
/// Between two looks for full buckets: a crowd of strangers must not make each of them cost a look.
const LOOK: Duration = Duration::from_secs(1);

/// So many a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// A second.
    pub per_second: f64,
    /// At once.
    pub burst: f64,
}

/// Which budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// That of who asks.
    Own,
    /// That of all together.
    All,
}

/// Buckets for each, and for all together.
#[derive(Debug)]
pub struct RateLimit<K> {
    each: Rate,
    all: Rate,
    in_all: Option<Bucket>,
    buckets: HashMap<K, Bucket>,
    looked: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl<K: Copy + Eq + Hash> RateLimit<K> {
    /// At most `each` for one, and `all` for all together.
    pub fn new(each: Rate, all: Rate) -> Self {
        Self { each, all, in_all: None, buckets: HashMap::new(), looked: None }
    }

    /// Takes a token of `who`, if there is one.
    pub fn take(&mut self, who: K, now: Instant) -> Result<(), Exceeded> {
        let has_room = self.has_room(who, now);
        let in_all = self.all.bucket(self.in_all, now);
        let own = self.each.bucket(self.buckets.get(&who).copied(), now);
        if in_all.tokens < 1.0 || !has_room {
            return Err(Exceeded::All);
        }
        if own.tokens < 1.0 {
            return Err(Exceeded::Own);
        }
        self.in_all = Some(in_all.less_one());
        self.buckets.insert(who, own.less_one());
        Ok(())
    }

    fn has_room(&mut self, who: K, now: Instant) -> bool {
        if self.buckets.len() < REMEMBERED || self.buckets.contains_key(&who) {
            return true;
        }
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return false;
        }
        self.looked = Some(now);
        let each = self.each;
        self.buckets.retain(|_, bucket| each.bucket(Some(*bucket), now).tokens < each.burst);
        self.buckets.len() < REMEMBERED
    }
}

impl Rate {
    /// What is in a bucket by now.
    fn bucket(self, bucket: Option<Bucket>, now: Instant) -> Bucket {
        let tokens = bucket.map_or(self.burst, |Bucket { tokens, filled }| {
            let passed = now.saturating_duration_since(filled).as_secs_f64();
            (tokens + passed * self.per_second).min(self.burst)
        });
        Bucket { tokens, filled: now }
    }
}

impl Bucket {
    fn less_one(self) -> Self {
        Self { tokens: self.tokens - 1.0, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EACH: Rate = Rate { per_second: 10.0, burst: 20.0 };

    fn taken(limit: &mut RateLimit<u32>, who: impl Iterator<Item = u32>, now: Instant) -> usize {
        who.filter(|who| limit.take(*who, now).is_ok()).count()
    }

    #[test]
    fn each_has_its_own_budget_which_comes_back() {
        let now = Instant::now();
        let mut limit = RateLimit::new(EACH, Rate { per_second: 100.0, burst: 1000.0 });
        assert_eq!(taken(&mut limit, [1; 100].into_iter(), now), 20);
        assert_eq!(limit.take(1, now), Err(Exceeded::Own));
        assert_eq!(taken(&mut limit, [2; 10].into_iter(), now), 10);
        assert_eq!(taken(&mut limit, [1; 100].into_iter(), now + Duration::from_secs(1)), 10);
    }

    #[test]
    fn all_share_one_budget_which_refusals_do_not_spend() {
        let now = Instant::now();
        let mut limit = RateLimit::new(EACH, Rate { per_second: 100.0, burst: 1000.0 });
        assert_eq!(taken(&mut limit, [0; 10_000].into_iter(), now), 20);
        assert_eq!(taken(&mut limit, 1..200_000, now), 980);
        assert_eq!(limit.take(1 << 20, now), Err(Exceeded::All));
        assert!(limit.take(1 << 20, now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_freed() {
        let now = Instant::now();
        let mut limit = RateLimit::new(EACH, Rate { per_second: 1e9, burst: 1e9 });
        assert_eq!(taken(&mut limit, 0..200_000, now), REMEMBERED);
        assert!(limit.take(1 << 20, now + Duration::from_secs(1)).is_ok());
        assert_eq!(limit.buckets.len(), 1);
    }
}
