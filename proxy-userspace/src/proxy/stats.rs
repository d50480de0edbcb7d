//! What the control plane counts.

use std::collections::HashMap;

use crate::session::{EndReason, RelayReason};

/// Totals since the start.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Sessions whose client got an answer.
    pub admitted: u64,
    /// Sessions taken over from an earlier process.
    pub adopted: u64,
    /// Flows installed.
    pub offloads: u64,
    /// Return paths moved.
    pub migrations: u64,
    /// Tuples refused because the session had too many.
    pub tuples_refused: u64,
    ends: HashMap<EndReason, u64>,
    relayed: HashMap<RelayReason, u64>,
}

impl Stats {
    /// Counts an end.
    pub fn count_end(&mut self, reason: EndReason) {
        *self.ends.entry(reason).or_default() += 1;
    }

    /// Counts a flow that was not installed or was removed.
    pub fn count_relayed(&mut self, reason: RelayReason) {
        *self.relayed.entry(reason).or_default() += 1;
    }

    /// Ends by reason.
    pub fn ends(&self) -> impl Iterator<Item = (EndReason, u64)> {
        EndReason::ALL.into_iter().map(|reason| (reason, self.ends.get(&reason).copied().unwrap_or_default()))
    }

    /// Flows not installed or removed, by reason.
    pub fn relayed(&self) -> impl Iterator<Item = (RelayReason, u64)> {
        RelayReason::ALL
            .into_iter()
            .map(|reason| (reason, self.relayed.get(&reason).copied().unwrap_or_default()))
    }
}
