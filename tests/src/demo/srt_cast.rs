//! Everyone who publishes and plays by SRT: callers on libsrt, with numbered packets.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::numbers::percent;
use super::protocols::ProtocolRow;
use super::sample::{Window, offloaded};
use super::stage::Stage;
use crate::srt::{Caller, CallerOptions, Player, Publisher};

/// One for each origin.
const STREAMS: [&str; 2] = ["srt1", "srt2"];
/// About 2.5 Mbit/s.
const RATE: u32 = 240;
/// What a first packet may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The clients by SRT of one run; dropped, they shut down.
#[derive(Debug, Default)]
pub(super) struct SrtCast {
    publishers: Vec<Publisher>,
    players: Vec<(Player, f64)>,
}

/// What one side had at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SrtSeen {
    sent: Vec<u64>,
    received: Vec<u64>,
    missed: u64,
    sent_again: u64,
}

/// Publishers and players by SRT, with what did not hold.
#[derive(Debug, Clone, Default)]
pub(super) struct SrtRows {
    pub(super) rows: Vec<ProtocolRow>,
    /// Packets that one client should have got while everything was counted.
    pub(super) expected: u64,
    /// What each player got then.
    pub(super) received: Vec<u64>,
    /// The share of the kernel.
    pub(super) offloaded: Option<f64>,
}

impl SrtCast {
    pub(super) fn publish(&mut self, stage: &Stage<'_>) -> Result<()> {
        for stream in STREAMS {
            self.publishers.push(call(stage, stream, "publish")?.publish(RATE));
        }
        Ok(())
    }

    pub(super) fn play(&mut self, stage: &Stage<'_>) -> Result<()> {
        for stream in STREAMS {
            let started = Instant::now();
            let player = call(stage, stream, "request")?.play()?;
            player.wait_for(1, 0, PATIENCE)?;
            self.players.push((player, started.elapsed().as_secs_f64() * 1000.0));
        }
        Ok(())
    }

    pub(super) fn sessions(&self) -> usize {
        self.publishers.len() + self.players.len()
    }

    pub(super) fn seen(&self) -> SrtSeen {
        SrtSeen {
            sent: self.publishers.iter().map(Publisher::sent).collect(),
            received: self.players.iter().map(|(player, _)| player.received().packets).collect(),
            missed: self.missed(),
            sent_again: self.sent_again(),
        }
    }

    /// What never came, over the whole run, and what libsrt missed while everything was counted: at the change from one path to
    /// the other a packet may overtake another one, which libsrt takes for a loss and asks for again.
    fn missing(&self, first: &SrtSeen) -> u64 {
        let never = |player: &Player| {
            let dropped = u64::from(player.counts().dropped.unsigned_abs());
            player.received().gaps.max(dropped)
        };
        let never: u64 = self.players.iter().map(|(player, _)| never(player)).sum();
        never + self.missed().saturating_sub(first.missed)
    }

    fn missed(&self) -> u64 {
        self.players.iter().map(|(player, _)| u64::from(player.counts().lost.unsigned_abs())).sum()
    }

    /// What publishers had to send again.
    fn sent_again(&self) -> u64 {
        self.publishers.iter().map(|publisher| u64::from(publisher.counts().sent_again.unsigned_abs())).sum()
    }

    pub(super) fn rows(&self, window: Window<'_>, first: &SrtSeen) -> SrtRows {
        let last = self.seen();
        let since = |last: &[u64], first: &[u64]| -> Vec<u64> {
            last.iter().zip(first).map(|(last, first)| last.saturating_sub(*first)).collect()
        };
        let (sent, received) = (since(&last.sent, &first.sent), since(&last.received, &first.received));
        let row = |publishes: bool, packets: &[u64], missing, first_frames| {
            let traffic = window.srt(publishes);
            let share = offloaded(traffic.userspace, traffic.kernel + traffic.userspace);
            let carried =
                share.filter(|_| traffic.kernel > 0).map(|share| format!("kernel, {}", percent(share)));
            ProtocolRow {
                name: if publishes { "SRT publish" } else { "SRT play" },
                clients: packets.len(),
                origins: traffic.origins,
                received: packets.iter().sum(),
                unit: "packets",
                missing,
                carried: carried.unwrap_or_else(|| "userspace".to_owned()),
                first_frames,
            }
        };
        let first_frames = self.players.iter().map(|(_, first)| *first).collect();
        let all = [true, false].map(|publishes| window.srt(publishes));
        let [kernel, userspace] =
            [|t: &super::sample::Traffic| t.kernel, |t: &super::sample::Traffic| t.userspace]
                .map(|count| all.iter().map(count).sum::<u64>());
        SrtRows {
            rows: vec![
                row(true, &sent, last.sent_again.saturating_sub(first.sent_again), Vec::new()),
                row(false, &received, self.missing(first), first_frames),
            ],
            expected: (window.duration().as_secs_f64() * f64::from(RATE)) as u64,
            received,
            offloaded: offloaded(userspace, kernel + userspace),
        }
    }
}

impl SrtRows {
    /// Every promise that did not hold: everyone gets its stream, nothing is lost, and the kernel carries it.
    pub(super) fn broken(&self, least: Option<f64>) -> Vec<String> {
        let mut broken = Vec::new();
        let both: BTreeSet<_> = ['A', 'B'].into();
        for row in &self.rows {
            if row.missing > 0 {
                broken.push(format!("{}: {} packets were lost on the way", row.name, row.missing));
            }
            if row.origins != both {
                broken.push(format!("{}: not every origin has some", row.name));
            }
        }
        let slow = self.received.iter().filter(|received| **received * 2 < self.expected).count();
        if slow > 0 {
            broken.push(format!("SRT play: {slow} clients got less than half of their packets"));
        }
        if let (Some(least), share) = (least, self.offloaded.unwrap_or(0.0))
            && share < least
        {
            broken.push(format!("SRT: {} offloaded, promised are {}", percent(share), percent(least)));
        }
        broken
    }
}

fn call(stage: &Stage<'_>, stream: &str, mode: &str) -> Result<Caller> {
    let options = CallerOptions::new(stage.srt(), format!("#!::r=live/{stream},m={mode}"));
    stage.network.client.enter(|| Caller::taken(&options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(missing: u64, origins: &[char], received: Vec<u64>, offloaded: f64) -> SrtRows {
        let row = ProtocolRow {
            name: "SRT play",
            missing,
            origins: origins.iter().copied().collect(),
            ..ProtocolRow::default()
        };
        SrtRows { rows: vec![row], expected: 100, received, offloaded: Some(offloaded) }
    }

    #[test]
    fn every_client_by_srt_must_get_its_stream_without_loss_and_through_the_kernel() {
        let both = ['A', 'B'];
        assert_eq!(rows(0, &both, vec![100, 99], 1.0).broken(Some(0.99)), [""; 0]);
        assert_eq!(rows(0, &both, vec![100, 99], 0.0).broken(None), [""; 0]);
        let faults = [
            ("SRT play: 3 packets were lost on the way", rows(3, &both, vec![100], 1.0)),
            ("SRT play: not every origin has some", rows(0, &['A'], vec![100], 1.0)),
            ("SRT play: 1 clients got less than half of their packets", rows(0, &both, vec![100, 49], 1.0)),
            ("SRT: 50.00 % offloaded, promised are 99.00 %", rows(0, &both, vec![100], 0.5)),
        ];
        for (expected, rows) in faults {
            assert_eq!(rows.broken(Some(0.99)), [expected]);
        }
    }
}
