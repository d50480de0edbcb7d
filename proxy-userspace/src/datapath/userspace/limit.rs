//! How often ICMP errors are sent: each is an answer to something that anybody may send.

use std::{collections::HashMap, net::IpAddr, time::Instant};

/// Errors a second, and at once.
const IN_ALL: f64 = 1000.0;
/// The same for one receiver.
const EACH: f64 = 20.0;
/// Receivers remembered at once.
const RECEIVERS: usize = 4096;

/// Buckets for all receivers together and for each.
#[derive(Debug, Default)]
pub(super) struct Limit {
    all: Option<Bucket>,
    each: HashMap<IpAddr, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Limit {
    /// Whether `receiver` may be sent another one.
    pub(super) fn allows(&mut self, receiver: IpAddr, now: Instant) -> bool {
        if self.each.len() >= RECEIVERS && !self.each.contains_key(&receiver) {
            self.each.retain(|_, bucket| bucket.refilled(EACH, now).tokens < EACH);
        }
        if self.each.len() >= RECEIVERS {
            return false;
        }
        let full = |rate| Bucket { tokens: rate, filled: now };
        let each = self.each.entry(receiver).or_insert_with(|| full(EACH));
        let all = self.all.get_or_insert_with(|| full(IN_ALL));
        (*each, *all) = (each.refilled(EACH, now), all.refilled(IN_ALL, now));
        if each.tokens < 1.0 || all.tokens < 1.0 {
            return false;
        }
        each.tokens -= 1.0;
        all.tokens -= 1.0;
        true
    }
}

impl Bucket {
    fn refilled(self, rate: f64, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        Self { tokens: (self.tokens + passed * rate).min(rate), filled: now }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    fn receiver(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    fn allowed(limit: &mut Limit, receivers: impl Iterator<Item = u32>, now: Instant) -> usize {
        receivers.filter(|number| limit.allows(receiver(*number), now)).count()
    }

    #[test]
    fn a_receiver_has_its_own_budget_which_comes_back() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        assert_eq!(allowed(&mut limit, [1; 100].into_iter(), now), 20);
        assert_eq!(allowed(&mut limit, [2; 10].into_iter(), now), 10);
        assert_eq!(allowed(&mut limit, [1; 100].into_iter(), now + Duration::from_millis(500)), 10);
    }

    #[test]
    fn all_receivers_share_one_budget_and_bounded_memory() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        assert_eq!(allowed(&mut limit, 0..100_000, now), 1000);
        assert!(limit.each.len() <= RECEIVERS);
        assert!(limit.allows(receiver(200_000), now + Duration::from_secs(1)));
    }
}
