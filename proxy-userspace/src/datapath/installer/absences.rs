//! Programs that somebody else detached: when they are attached again.
//!
//! An accident is mended at once. Somebody who detaches them again means it, and is left alone for longer each time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(300);
/// Programs that stayed for this long were detached by accident.
const FORGIVEN: Duration = Duration::from_secs(600);

/// Interfaces that lost programs.
#[derive(Debug, Default)]
pub(super) struct Absences {
    by_device: HashMap<u32, Absence>,
    count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Absence {
    /// Attached again, or to be attached again then.
    again: Instant,
    wait: Duration,
    is_over: bool,
}

impl Absences {
    /// Notes a loss and says how long the interface is left alone.
    pub(super) fn begin(&mut self, ifindex: u32, now: Instant) -> Duration {
        self.count += 1;
        self.defer(ifindex, now)
    }

    /// Notes that the programs could not be attached again, or were detached again.
    pub(super) fn defer(&mut self, ifindex: u32, now: Instant) -> Duration {
        let recent = self.by_device.get(&ifindex).filter(|before| now < before.again + FORGIVEN);
        let wait = recent.map_or(Duration::ZERO, |before| (before.wait * 2).clamp(SHORTEST, LONGEST));
        self.by_device.insert(ifindex, Absence { again: now + wait, wait, is_over: false });
        wait
    }

    /// Interfaces that are not left alone any longer.
    pub(super) fn due(&self, now: Instant) -> Vec<u32> {
        let is_due = |absence: &Absence| !absence.is_over && now >= absence.again;
        self.by_device.iter().filter(|(_, absence)| is_due(absence)).map(|(ifindex, _)| *ifindex).collect()
    }

    /// Notes that the programs are attached again.
    pub(super) fn end(&mut self, ifindex: u32, now: Instant) {
        if let Some(absence) = self.by_device.get_mut(&ifindex) {
            (absence.is_over, absence.again) = (true, now);
        }
    }

    /// Whether an interface is left alone.
    pub(super) fn is_left_alone(&self, ifindex: u32) -> bool {
        self.by_device.get(&ifindex).is_some_and(|absence| !absence.is_over)
    }

    /// Forgets an interface that is gone.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.by_device.remove(&ifindex);
    }

    /// Losses so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accident_is_mended_at_once_and_a_habit_later_each_time() {
        let (mut absences, mut now) = (Absences::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..10 {
            let wait = absences.begin(2, now);
            assert!(absences.is_left_alone(2));
            now += wait;
            assert_eq!(absences.due(now), [2]);
            absences.end(2, now);
            assert!(absences.due(now).is_empty() && !absences.is_left_alone(2));
            now += Duration::from_secs(1);
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [0, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(absences.begin(2, now + FORGIVEN), Duration::ZERO);
        assert_eq!(absences.count(), 11);
    }

    #[test]
    fn what_cannot_be_mended_is_tried_later_each_time() {
        let (mut absences, now) = (Absences::default(), Instant::now());
        assert_eq!(absences.begin(2, now), Duration::ZERO);
        assert_eq!(absences.defer(2, now), SHORTEST);
        assert!(absences.due(now).is_empty());
        assert_eq!(absences.due(now + SHORTEST), [2]);
        absences.forget(2);
        assert!(absences.due(now + SHORTEST).is_empty());
        assert_eq!(absences.count(), 1);
    }
}
