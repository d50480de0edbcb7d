//! What becomes of ICMP errors, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What became of an error, or of a datagram that may not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Told the sender of the datagram, who is on the other leg.
    Translated,
    /// Told the sender what fits.
    ToldTooBig,
    /// About a datagram of no session.
    NoSession,
    /// The legs are of different families.
    OtherFamily,
    /// Told who calls the origin in a caller's name.
    Unreachable,
    /// Not an error about a UDP datagram.
    Malformed,
    /// Told too often.
    Limited,
    /// The socket refused.
    Unsent,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Translated,
        Self::ToldTooBig,
        Self::NoSession,
        Self::OtherFamily,
        Self::Unreachable,
        Self::Malformed,
        Self::Limited,
        Self::Unsent,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::ToldTooBig => "told_too_big",
            Self::NoSession => "no_session",
            Self::OtherFamily => "other_family",
            Self::Unreachable => "origin_unreachable",
            Self::Malformed => "malformed_icmp",
            Self::Limited => "limited",
            Self::Unsent => "unsent",
        }
    }
}

/// Errors by what became of them.
#[derive(Debug, Default)]
pub(super) struct Outcomes([AtomicU64; Outcome::ALL.len()]);

impl Outcomes {
    pub(super) fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.0.get(outcome as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn totals(&self) -> Vec<(&'static str, u64)> {
        let words = Outcome::ALL.into_iter().map(Outcome::as_str);
        words.zip(self.0.iter().map(|counter| counter.load(Relaxed))).collect()
    }
}
