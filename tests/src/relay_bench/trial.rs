//! One relay under one load: how much it takes without loss, and what a packet costs it.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::nice;

use super::generator::{BURST, Generator};
use super::ours::{self, Ours};
use super::plain::{self, Plain};
use super::stage::Stage;
use super::{Buffers, Case, first_cpu, run_on};
use crate::frame::{Checksum, Frame, put};

/// Who relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    Ours,
    Plain,
}

#[derive(Debug)]
pub(super) struct Trial<'a> {
    stage: &'a Stage,
    case: Case,
    contender: Contender,
    /// Of the plain relay.
    buffers: Buffers,
}

/// A relay that runs until it is dropped.
#[derive(Debug)]
enum Running {
    Ours { _relay: Ours },
    Plain { _relay: Plain },
}

/// What came of an offer.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    offered: u64,
    arrived: u64,
    /// What was offered in a second.
    rate: f64,
    /// CPU time of the relay.
    cpu: Duration,
}

/// Rates between which is searched, and how often the gap is halved on the scale of ratios: to within 4 %.
pub(super) const SLOWEST: f64 = 10_000.0;
const FASTEST: f64 = 1_200_000.0;
const HALVINGS: usize = 7;
/// What counts as loss-free: noise of the machine is not the relay's loss.
const LOSS: f64 = 0.001;
const OFFER: Duration = Duration::from_millis(500);
/// The last datagrams are through by then.
const SETTLE: Duration = Duration::from_millis(40);
/// Generator and relays go before what else runs on the machine.
const NICE: i32 = -10;

impl<'a> Trial<'a> {
    pub(super) fn new(stage: &'a Stage, case: Case, contender: Contender, buffers: Buffers) -> Self {
        Self { stage, case, contender, buffers }
    }

    /// The highest rate without loss; `bounded` becomes true if the generator could not offer more.
    pub(super) fn loss_free(&self, bounded: &mut bool) -> Result<f64> {
        let _running = self.start()?;
        let (mut below, mut above, mut best) = (SLOWEST, FASTEST, 0.0);
        for _ in 0..HALVINGS {
            let rate = (below * above).sqrt();
            let outcome = self.offer_twice(rate)?;
            if outcome.is_loss_free() {
                best = f64::max(best, outcome.rate);
                below = rate;
                *bounded |= outcome.rate < 0.9 * rate;
            } else {
                above = rate;
            }
        }
        Ok(best)
    }

    /// CPU nanoseconds of a packet at `rate`.
    pub(super) fn cost(&self, rate: f64) -> Result<f64> {
        let _running = self.start()?;
        let outcome = self.offer(rate)?;
        Ok(outcome.cpu.as_nanos() as f64 / outcome.arrived.max(1) as f64)
    }

    fn start(&self) -> Result<Running> {
        let running = self.stage.network.proxy.enter(|| {
            nice(NICE)?;
            anyhow::Ok(match self.contender {
                Contender::Ours => Running::Ours { _relay: Ours::start()? },
                Contender::Plain => Running::Plain { _relay: Plain::start(self.buffers)? },
            })
        })?;
        // A thread takes its name once it runs.
        for _ in 0..1000 {
            if self.cpu_time().is_ok() {
                break;
            }
            sleep(Duration::from_millis(1));
        }
        Ok(running)
    }

    /// A loss may be another process's doing: it counts if it happens again.
    fn offer_twice(&self, rate: f64) -> Result<Outcome> {
        let first = self.offer(rate)?;
        if first.is_loss_free() { Ok(first) } else { self.offer(rate) }
    }

    fn offer(&self, rate: f64) -> Result<Outcome> {
        let cpu = first_cpu()?;
        let (near, far) = self.stage.counts(self.case.direction)?;
        let used = self.cpu_time()?;
        let (namespace, mac) = self.stage.sender(self.case.direction);
        namespace.enter(|| {
            run_on(cpu)?;
            nice(NICE)?;
            rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
            Generator::new("eth0", self.frames(mac))?.send(rate, OFFER)?;
            anyhow::Ok(())
        })?;
        sleep(SETTLE);
        let (near_after, far_after) = self.stage.counts(self.case.direction)?;
        let offered = near_after - near;
        Ok(Outcome {
            offered,
            arrived: far_after - far,
            rate: offered as f64 / OFFER.as_secs_f64(),
            cpu: self.cpu_time()? - used,
        })
    }

    /// Whole bursts, with a run of each flow in turn.
    fn frames(&self, mac: [u8; 6]) -> Vec<Vec<u8>> {
        let Case { direction, flows, run, payload, .. } = self.case;
        let rtp: Vec<u8> = [0x80, 96].into_iter().chain((2..payload).map(|i| i as u8)).collect();
        let frame = |flow| {
            let (from, to) = self.stage.ends(direction, flow);
            let mut bytes = Frame::udp(from, to, &rtp).checksum(Checksum::Partial).bytes();
            put(&mut bytes, 0, &mac);
            bytes
        };
        let all = (0..flows).flat_map(|flow| std::iter::repeat_n(flow, run));
        let round = usize::from(flows) * run;
        all.cycle().take(round.next_multiple_of(BURST)).map(frame).collect()
    }

    /// CPU time of the relay's threads.
    fn cpu_time(&self) -> Result<Duration> {
        let name = match self.contender {
            Contender::Ours => ours::THREAD,
            Contender::Plain => plain::THREAD,
        };
        let mut ran = Vec::new();
        for task in fs::read_dir("/proc/self/task")? {
            let path = task?.path();
            // A thread may have ended since.
            if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with(name)) {
                let times = fs::read_to_string(path.join("schedstat"))?;
                let figure = times.split_whitespace().next().context("schedstat has figures")?;
                ran.push(Duration::from_nanos(figure.parse()?));
            }
        }
        ensure!(!ran.is_empty(), "no thread {name}");
        Ok(ran.into_iter().sum())
    }
}

impl Outcome {
    fn is_loss_free(&self) -> bool {
        self.offered > 0 && self.arrived as f64 >= self.offered as f64 * (1.0 - LOSS)
    }
}
