//! What arrived of one RTP stream, judged by sequence numbers alone: RTP headers are in the clear, so this
//! counts what the wire delivered, whatever the media stack repairs afterwards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Losses kept with their time; beyond it only their number is known.
const REMEMBERED: usize = 100_000;

/// The counters of one stream.
#[derive(Debug, Clone)]
pub struct Sequence {
    highest: u64,
    packets: u64,
    bytes: u64,
    duplicates: u64,
    reordered: u64,
    forgotten: u64,
    missing: BTreeMap<u64, Instant>,
    last_arrival: Instant,
    longest_silence: Duration,
    silence_ended: Instant,
}

impl Sequence {
    /// Starts with the first packet.
    #[must_use]
    pub fn start(sequence: u16, bytes: usize, now: Instant) -> Self {
        Self {
            // One cycle up, so that late packets from before the first have a number too.
            highest: u64::from(sequence) + (1 << 16),
            packets: 1,
            bytes: bytes as u64,
            duplicates: 0,
            reordered: 0,
            forgotten: 0,
            missing: BTreeMap::new(),
            last_arrival: now,
            longest_silence: Duration::ZERO,
            silence_ended: now,
        }
    }

    /// Counts one more packet.
    pub fn record(&mut self, sequence: u16, bytes: usize, now: Instant) {
        self.packets += 1;
        self.bytes += bytes as u64;
        self.record_silence(now);
        let distance = sequence.wrapping_sub(self.highest as u16).cast_signed();
        let number = self.highest.saturating_add_signed(distance.into());
        if number > self.highest {
            self.advance(number, now);
        } else if self.missing.remove(&number).is_some() {
            self.reordered += 1;
        } else {
            self.duplicates += 1;
        }
    }

    fn record_silence(&mut self, now: Instant) {
        let silence = now.duration_since(self.last_arrival);
        if silence > self.longest_silence {
            (self.longest_silence, self.silence_ended) = (silence, now);
        }
        self.last_arrival = now;
    }

    fn advance(&mut self, number: u64, now: Instant) {
        for missing in self.highest + 1..number {
            if self.missing.len() < REMEMBERED {
                self.missing.insert(missing, now);
            } else {
                self.forgotten += 1;
            }
        }
        self.highest = number;
    }

    /// All packets, duplicates included.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// All bytes of their datagrams.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Packets that came twice, or from before the first.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Packets that came after a later one.
    #[must_use]
    pub fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Numbers that never came.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing.len() as u64 + self.forgotten
    }

    /// Numbers that never came and were noticed within the window.
    #[must_use]
    pub fn missing_between(&self, from: Instant, to: Instant) -> u64 {
        self.missing.values().filter(|noticed| (from..=to).contains(*noticed)).count() as u64
    }

    /// The longest time between two packets, and when it ended.
    #[must_use]
    pub fn longest_silence(&self) -> (Duration, Instant) {
        (self.longest_silence, self.silence_ended)
    }

    /// When the newest packet came.
    #[must_use]
    pub fn last_arrival(&self) -> Instant {
        self.last_arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    fn of(sequence: &[u16]) -> (Sequence, Instant) {
        let start = Instant::now();
        let mut stream = Sequence::start(sequence[0], 100, start);
        for (index, number) in (1..).zip(&sequence[1..]) {
            stream.record(*number, 100, start + STEP * index);
        }
        (stream, start)
    }

    #[track_caller]
    fn check(sequence: &[u16], missing: u64, reordered: u64, duplicates: u64) {
        let (stream, _) = of(sequence);
        assert_eq!(
            (stream.missing(), stream.reordered(), stream.duplicates()),
            (missing, reordered, duplicates)
        );
    }

    #[test]
    fn counts_gaps_reorders_and_duplicates() {
        check(&[1, 2, 3], 0, 0, 0);
        check(&[1, 4, 5], 2, 0, 0);
        check(&[1, 3, 2, 4], 0, 1, 0);
        check(&[1, 2, 2, 3], 0, 0, 1);
        check(&[65_534, 65_535, 0, 2], 1, 0, 0);
        check(&[0, 65_535, 1], 0, 0, 1);
    }

    #[test]
    fn tells_when_a_gap_was_noticed() {
        let (stream, start) = of(&[1, 2, 4, 5, 8]);
        assert_eq!(stream.missing_between(start, start + STEP * 3), 1);
        assert_eq!(stream.missing_between(start + STEP * 3, start + STEP * 4), 2);
    }
}
