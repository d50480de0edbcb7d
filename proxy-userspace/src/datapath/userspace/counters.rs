//! What the relay counts: one enum of reasons with the kernel, one metric family told apart by `datapath`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proxy_common::verdict::Reason;

use crate::net::udp::Sent;

/// Counters of one thread, so that no other one takes their cache lines from it.
#[derive(Debug)]
#[repr(align(128))]
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
    /// ICMP errors by what became of them.
    pub errors: Vec<(&'static str, u64)>,
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
    pub(super) fn to_origin(&self, sent: &Sent) {
        self.sent(&self.to_origin, sent);
    }

    pub(super) fn to_client(&self, sent: &Sent) {
        self.sent(&self.to_client, sent);
    }

    pub(super) fn count(&self, reason: Reason) {
        self.count_all(reason, 1);
    }

    fn sent(&self, direction: &Direction, sent: &Sent) {
        if !sent.taken {
            return self.count_all(Reason::SendFailed, sent.datagrams as u64);
        }
        direction.packets.fetch_add(sent.datagrams as u64, Relaxed);
        direction.bytes.fetch_add(sent.bytes as u64, Relaxed);
    }

    fn count_all(&self, reason: Reason, datagrams: u64) {
        if let Some(counter) = self.reasons.get(reason as usize) {
            counter.fetch_add(datagrams, Relaxed);
        }
    }
}

impl RelayTotals {
    /// The sum of what each thread counted.
    pub(super) fn of<'a>(counters: impl Iterator<Item = &'a Counters>) -> Self {
        let mut totals = Self {
            to_origin: (0, 0),
            to_client: (0, 0),
            reasons: Reason::ALL.into_iter().map(|reason| (reason, 0)).collect(),
            errors: Vec::new(),
        };
        for counters in counters {
            counters.to_origin.add_to(&mut totals.to_origin);
            counters.to_client.add_to(&mut totals.to_client);
            let of_thread = counters.reasons.iter().map(|counter| counter.load(Relaxed));
            totals.reasons.iter_mut().zip(of_thread).for_each(|((_, sum), count)| *sum += count);
        }
        totals
    }
}

impl Direction {
    fn add_to(&self, (packets, bytes): &mut (u64, u64)) {
        *packets += self.packets.load(Relaxed);
        *bytes += self.bytes.load(Relaxed);
    }
}
