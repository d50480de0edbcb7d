//! Whether what a connection carries comes in bulk.

use super::buffer;
use crate::config::TcpJoin as Means;

/// From so many bytes a read on, splicing costs less than copying; the two are far enough apart for nothing to flap.
const BULK: usize = buffer::SIZE / 2;
const SMALL: usize = buffer::SIZE / 8;
/// A read counts for one in so many.
const WEIGHT: usize = 16;

/// The means in use and what speaks for the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    is_fixed: bool,
    splices: bool,
    average: usize,
}

impl Pace {
    pub(super) fn new(means: Means) -> Self {
        Self { is_fixed: means != Means::Auto, splices: means == Means::Splice, average: SMALL }
    }

    pub(super) fn splices(&self) -> bool {
        self.splices
    }

    /// A read brought so much.
    pub(super) fn note(&mut self, bytes: usize) {
        self.average = (self.average * (WEIGHT - 1) + bytes) / WEIGHT;
        if !self.is_fixed {
            self.splices = self.average >= if self.splices { SMALL } else { BULK };
        }
    }

    /// There is no pipe: a process may have so many only.
    pub(super) fn lacks_pipes(&mut self) {
        self.splices = false;
        self.average = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &mut Pace, reads: usize, bytes: usize) -> bool {
        (0..reads).for_each(|_| pace.note(bytes));
        pace.splices()
    }

    #[test]
    fn bulk_is_spliced_and_small_frames_are_copied() {
        let mut pace = Pace::new(Means::Auto);
        assert!(!after(&mut pace, 1000, 5000));
        assert!(after(&mut pace, 100, 64 << 10));
        assert!(after(&mut pace, 1000, 12 << 10), "between the two nothing changes");
        assert!(!after(&mut pace, 1000, 5000));
    }

    #[test]
    fn a_single_burst_changes_nothing() {
        let mut pace = Pace::new(Means::Auto);
        assert!(!after(&mut pace, 3, 64 << 10));
    }

    #[test]
    fn what_was_asked_for_stays() {
        let mut copies = Pace::new(Means::Copy);
        assert!(!after(&mut copies, 1000, 1 << 20));
        let mut splices = Pace::new(Means::Splice);
        assert!(after(&mut splices, 1000, 10));
        splices.lacks_pipes();
        assert!(!splices.splices());
    }
}
