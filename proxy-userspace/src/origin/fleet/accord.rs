//! Whether the fleet can be taken to know by Redis what each of its proxies has decided.

use std::time::{Duration, Instant};

/// How long proxies need to notice that Redis answers, and to write down what they decided without it.
const WRITING: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Accord {
    #[default]
    Whole,
    /// Redis does not answer.
    Lost,
    /// It does, since then, or was asked in vain then.
    Back(Instant),
}

impl Accord {
    pub(super) fn lose(&mut self) {
        *self = Self::Lost;
    }

    pub(super) fn come_back(&mut self, now: Instant) {
        if matches!(self, Self::Lost) {
            *self = Self::Back(now);
        }
    }

    /// A call was refused, or not answered in time.
    pub(super) fn fail(&mut self, now: Instant) {
        if !matches!(self, Self::Lost) {
            *self = Self::Back(now);
        }
    }

    /// Whether others may have decided what is not written down.
    pub(super) fn is_doubtful(&self, now: Instant) -> bool {
        match self {
            Self::Whole => false,
            Self::Lost => true,
            Self::Back(since) => now.saturating_duration_since(*since) < WRITING,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_need_some_time_after_redis_came_back() {
        let (start, mut accord) = (Instant::now(), Accord::default());
        accord.come_back(start);
        assert!(!accord.is_doubtful(start), "that was the start");
        accord.lose();
        accord.fail(start);
        assert!(accord.is_doubtful(start + 60 * WRITING));
        accord.come_back(start + 60 * WRITING);
        assert!(accord.is_doubtful(start + 60 * WRITING));
        assert!(!accord.is_doubtful(start + 61 * WRITING));
    }

    #[test]
    fn a_call_in_vain_makes_doubt_for_as_long() {
        let (start, mut accord) = (Instant::now(), Accord::default());
        accord.fail(start);
        assert!(accord.is_doubtful(start));
        assert!(!accord.is_doubtful(start + WRITING));
    }
}
