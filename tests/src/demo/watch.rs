//! One line per second for the person who watches, and the same numbers for the chart.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::numbers::{cpu, grouped, megabits};
use super::sample::{Cpu, Sample, Window};
use super::say;
use super::stage::Stage;
use super::tcp_player::{Pictures, Protocol};
use crate::interrupt::Interrupt;
use crate::proxy::Engine;

const SECOND: Duration = Duration::from_secs(1);

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Clients come.
    Starting,
    /// Userspace relays everything.
    Before,
    /// The kernel forwards.
    Kernel,
    /// There is no kernel path.
    Userspace,
}

impl Phase {
    /// The one in which everything is counted.
    pub(super) fn counted(engine: Engine) -> Self {
        if engine.is_kernel() { Self::Kernel } else { Self::Userspace }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Starting => "clients connect",
            Self::Before => "kernel path off",
            Self::Kernel => "kernel path on",
            Self::Userspace => "userspace",
        }
    }
}

/// One second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tick {
    pub(super) phase: Phase,
    /// Seconds since the first look.
    pub(super) at: f64,
    pub(super) sessions: usize,
    pub(super) offloaded: usize,
    /// Packets per second that the kernel forwarded.
    pub(super) kernel: f64,
    /// Packets per second that userspace relayed.
    pub(super) userspace: f64,
    pub(super) bits: f64,
    pub(super) cpu: Cpu,
    /// Pictures per second that came to players of each protocol over TCP.
    pub(super) pictures: [f64; Protocol::ALL.len()],
}

/// Looks once per second.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    stage: &'a Stage<'a>,
    interrupt: &'a Interrupt,
    started: Instant,
    last: Sample,
    ticks: Vec<Tick>,
    pictures: Pictures,
    pictures_before: [u64; Protocol::ALL.len()],
}

impl<'a> Watch<'a> {
    pub(super) fn start(stage: &'a Stage<'a>, interrupt: &'a Interrupt, pictures: Pictures) -> Result<Self> {
        let last = Sample::take(stage)?;
        let pictures_before = pictures.counted();
        let (started, ticks) = (last.at, Vec::new());
        Ok(Self { stage, interrupt, started, last, ticks, pictures, pictures_before })
    }

    /// Watches for a time and returns the counters at its end.
    pub(super) fn during(&mut self, phase: Phase, duration: Duration) -> Result<Sample> {
        let end = Instant::now() + duration;
        self.until(phase, duration, || Instant::now() + SECOND / 2 > end)?;
        Ok(self.last.clone())
    }

    /// Watches until `condition` holds, or for no longer than `limit`.
    pub(super) fn until(
        &mut self,
        phase: Phase,
        limit: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        while !condition() && Instant::now() < end {
            self.second(phase)?;
        }
        Ok(())
    }

    /// Waits long enough not to flood a terminal, then tells what went on meanwhile.
    pub(super) fn now_and_then(&mut self, phase: Phase) -> Result<()> {
        self.interrupt.sleep(SECOND * 10)?;
        self.second(phase)
    }

    pub(super) fn last(&self) -> &Sample {
        &self.last
    }

    pub(super) fn ticks(&self) -> &[Tick] {
        &self.ticks
    }

    fn second(&mut self, phase: Phase) -> Result<()> {
        self.interrupt.sleep((self.last.at + SECOND).saturating_duration_since(Instant::now()))?;
        let sample = Sample::take(self.stage)?;
        let window = Window { first: &self.last, last: &sample };
        let pictures = self.pictures.counted();
        let before = std::mem::replace(&mut self.pictures_before, pictures);
        let pictures = std::array::from_fn(|at| pictures[at].saturating_sub(before[at]));
        let tick = Tick::new(phase, sample.at.duration_since(self.started), window, pictures);
        say(tick.line());
        self.ticks.push(tick);
        self.last = sample;
        Ok(())
    }
}

impl Tick {
    fn new(phase: Phase, at: Duration, window: Window<'_>, pictures: [u64; Protocol::ALL.len()]) -> Self {
        let seconds = window.duration().as_secs_f64();
        let totals = &window.last.status.totals;
        Self {
            phase,
            at: at.as_secs_f64(),
            sessions: totals.sessions,
            offloaded: totals.offloaded,
            kernel: window.packets("kernel") as f64 / seconds,
            userspace: window.packets("userspace") as f64 / seconds,
            bits: window.bits_per_second(),
            cpu: window.cpu(),
            pictures: pictures.map(|pictures| pictures as f64 / seconds),
        }
    }

    fn line(&self) -> String {
        format!(
            "{:>4.0} s  {:<15}  {:>3} sessions  {:>3} offloaded   kernel {:>7}/s   userspace {:>7}/s   \
             TCP {:>4} pictures/s  {:>14}   proxy {:>7}  machine {:>7}",
            self.at,
            self.phase.name(),
            self.sessions,
            self.offloaded,
            grouped(self.kernel as u64),
            grouped(self.userspace as u64),
            self.pictures.iter().sum::<f64>().round(),
            megabits(self.bits),
            cpu(self.cpu.process),
            cpu(self.cpu.machine),
        )
    }
}
