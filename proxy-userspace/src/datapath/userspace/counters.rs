//! What the relay counts: one enum of reasons with the kernel, one metric family told apart by `datapath`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proxy_common::verdict::Reason;

/// Relay-wide counters, shared by all workers.
#[derive(Debug)]
pub(super) struct Counters {
    to_origin: Direction,
    to_client: Direction,
    reasons: [AtomicU64; Reason::ALL.len()],
}

#[derive(Debug, Default)]
struct Direction {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// What the relay did since it started.
#[derive(Clone, Debug)]
pub struct RelayTotals {
    /// Packets and payload bytes relayed client to origin.
    pub to_origin: (u64, u64),
    /// Packets and payload bytes relayed origin to client.
    pub to_client: (u64, u64),
    /// Datagrams not relayed, by reason.
    pub reasons: Vec<(Reason, u64)>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            to_origin: Direction::default(),
            to_client: Direction::default(),
            reasons: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Counters {
    pub(super) fn to_origin(&self, bytes: usize) {
        self.to_origin.add(bytes);
    }

    pub(super) fn to_client(&self, bytes: usize) {
        self.to_client.add(bytes);
    }

    pub(super) fn count(&self, reason: Reason) {
        if let Some(counter) = self.reasons.get(reason as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn totals(&self) -> RelayTotals {
        let count = |reason: Reason| self.reasons.get(reason as usize).map_or(0, |c| c.load(Relaxed));
        RelayTotals {
            to_origin: self.to_origin.get(),
            to_client: self.to_client.get(),
            reasons: Reason::ALL.into_iter().map(|reason| (reason, count(reason))).collect(),
        }
    }
}

impl Direction {
    fn add(&self, bytes: usize) {
        self.packets.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}
