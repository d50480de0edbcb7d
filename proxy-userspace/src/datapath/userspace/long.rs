//! Datagrams that are long enough not to fit somewhere, as relay workers notice them.
//!
//! A worker knows neither what fits nor whether the sender forbade to fragment; the thread of ICMP errors finds out. It is told
//! of one datagram a second for each direction of a session, and of none that fits everywhere.

use std::{
    io, mem,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use proxy_protocol::icmp::Version;

use super::reactor::Bell;
use crate::net::icmp::FITS;

/// Of IPv6 and UDP.
const HEADERS: usize = 48;
const UDP_HEADER: usize = 8;
const AGAIN_MS: u64 = 1000;
const QUEUE: usize = 1024;

/// A datagram as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongDatagram {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) payload: usize,
}

impl LongDatagram {
    /// From the IP header on.
    pub(super) fn length(&self) -> usize {
        self.payload + UDP_HEADER + Version::of(self.from.ip()).header()
    }
}

/// What workers noticed.
#[derive(Debug)]
pub(super) struct LongDatagrams {
    bell: Bell,
    noticed: Mutex<Vec<LongDatagram>>,
}

/// When a long datagram of one direction of a session was last noticed, by the relay's clock.
#[derive(Debug, Default)]
pub(super) struct LastLong(AtomicU64);

impl LastLong {
    fn is_due(&self, now: u64) -> bool {
        // The clock began with 0, which is no moment here.
        let now = now.saturating_add(AGAIN_MS);
        let last = self.0.load(Relaxed);
        now >= last.saturating_add(AGAIN_MS) && self.0.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }
}

impl LongDatagrams {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { bell: Bell::new()?, noticed: Mutex::new(room()) })
    }

    /// Is ready while there is something to take.
    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Tells of a datagram `from` there `to` here, unless it is short or one was told of a moment ago.
    pub(super) fn notice(
        &self,
        last: &LastLong,
        payload: usize,
        now: u64,
        (from, to): (SocketAddr, SocketAddr),
    ) {
        if payload + HEADERS > FITS as usize && last.is_due(now) {
            self.tell(LongDatagram { from, to, payload });
        }
    }

    /// More than the thread keeps up with are forgotten; the room for them is never enlarged.
    fn tell(&self, datagram: LongDatagram) {
        let mut noticed = self.noticed.lock();
        if noticed.len() < QUEUE {
            noticed.push(datagram);
        }
        let is_first = noticed.len() == 1;
        drop(noticed);
        if is_first {
            self.bell.ring();
        }
    }

    /// What was noticed since the last time, in place of what `taken` held, which [`room`] made.
    pub(super) fn take(&self, taken: &mut Vec<LongDatagram>) {
        taken.clear();
        self.bell.silence();
        mem::swap(&mut *self.noticed.lock(), taken);
    }
}

/// Room for as many datagrams as are kept.
pub(super) fn room() -> Vec<LongDatagram> {
    Vec::with_capacity(QUEUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noticed(lengths_and_times: &[(usize, u64)]) -> Vec<usize> {
        let (long, last, any) =
            (LongDatagrams::new().unwrap(), LastLong::default(), ([192, 0, 2, 1], 1).into());
        for (payload, now) in lengths_and_times {
            long.notice(&last, *payload, *now, (any, any));
        }
        let mut taken = room();
        long.take(&mut taken);
        taken.iter().map(|datagram| datagram.payload).collect()
    }

    #[test]
    fn one_long_datagram_a_second_is_noticed_and_no_short_one() {
        assert_eq!(noticed(&[(1232, 0), (1233, 0), (1300, 999), (1400, 1000)]), [1233, 1400]);
    }

    #[test]
    fn what_was_noticed_is_told_once_and_bounded_in_room_made_before() {
        let (long, any) = (LongDatagrams::new().unwrap(), ([192, 0, 2, 1], 1).into());
        let mut taken = room();
        for _ in 0..3 {
            (0..2 * QUEUE).for_each(|_| long.notice(&LastLong::default(), 1400, 0, (any, any)));
            long.take(&mut taken);
            assert_eq!((taken.len(), taken.capacity()), (QUEUE, QUEUE));
        }
        long.take(&mut taken);
        assert_eq!(taken, []);
    }

    #[test]
    fn its_descriptor_is_ready_while_something_was_noticed() {
        let (long, any) = (LongDatagrams::new().unwrap(), ([192, 0, 2, 1], 1).into());
        let is_ready = || long.bell().silence();
        assert!(!is_ready());
        (0..2).for_each(|_| long.notice(&LastLong::default(), 1400, 0, (any, any)));
        assert!(is_ready());
        long.take(&mut room());
        assert!(!is_ready());
        long.notice(&LastLong::default(), 1400, 0, (any, any));
        assert!(is_ready());
    }
}
