//! One measurement: processor time of the generating threads over frames that arrived.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use bench_tables::Tuple;

use super::{
    candidate::Candidate,
    fill,
    flows::{self, Flow},
    generator::{End, Generator, Running},
    site::Site,
};
use crate::{interrupt::Interrupt, samples::Samples};

/// Which generators run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToOrigin,
    ToClient,
    /// Each on a CPU of its own.
    Both,
}

impl Direction {
    pub(super) const ALL: [Self; 3] = [Self::ToOrigin, Self::ToClient, Self::Both];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ToOrigin => "to origin",
            Self::ToClient => "to client",
            Self::Both => "both",
        }
    }
}

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    pub(super) repeats: usize,
    window: Duration,
    pub(super) churned_flows: u32,
}

impl Effort {
    pub(super) const QUICK: Self =
        Self { repeats: 3, window: Duration::from_millis(150), churned_flows: 1 << 13 };
    pub(super) const FULL: Self =
        Self { repeats: 7, window: Duration::from_millis(200), churned_flows: 1 << 17 };
    const ATTEMPTS: usize = 5;
    /// Long enough for caches to hold of this table what they can, which takes a look at every flow.
    const WARM_UP: Duration = Duration::from_millis(80);
    const LONGEST_WARM_UP: Duration = Duration::from_millis(600);
}

/// What was measured of a candidate with one number of flows.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) name: &'static str,
    pub(super) bytes_per_flow: u64,
    /// Nanoseconds a frame, of every repeat.
    pub(super) samples: [Samples; Direction::ALL.len()],
}

impl Figures {
    pub(super) fn of(candidate: &Candidate) -> Self {
        let bytes_per_flow = candidate.bytes / candidate.flows as u64;
        Self { name: candidate.name, bytes_per_flow, samples: Default::default() }
    }

    pub(super) fn push(&mut self, direction: Direction, sample: f64) {
        self.samples[direction as usize].push(sample);
    }

    pub(super) fn of_direction(&self, direction: Direction) -> &Samples {
        &self.samples[direction as usize]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<12}", self.name)?;
        for direction in Direction::ALL {
            write!(f, "  {} {} ns", direction.name(), self.samples[direction as usize])?;
        }
        Ok(())
    }
}

/// Nanoseconds a frame, generator and sink included.
pub(super) fn run(
    site: &Site,
    candidate: &Candidate,
    direction: Direction,
    effort: Effort,
    interrupt: &Interrupt,
) -> Result<f64> {
    let generators = candidate.generators(direction);
    if candidate.name == fill::FLOOR {
        return unforwarded(site, &generators, effort, interrupt);
    }
    let arrived = || site.arrived();
    let mut lost = String::new();
    for _ in 0..Effort::ATTEMPTS {
        let (time, [sent, arrived]) = observe(site, &generators, arrived, effort, interrupt)?;
        // What is on its way between two readings is less than a batch; more is loss, which happens when a device is
        // polled on another CPU than its frames come from, and is no measurement.
        if arrived as f64 > 0.99 * sent as f64 {
            return Ok(nanos(time) / arrived as f64);
        }
        lost = format!("{arrived} of {sent} frames arrived");
    }
    bail!("{} forwards too little {}: {lost}", candidate.name, direction.name())
}

/// What a frame costs that no flow is for, each from another tuple, with the tables as full as they are.
pub(super) fn misses(
    site: &Site,
    candidates: &mut [Candidate],
    effort: Effort,
    interrupt: &Interrupt,
) -> Result<Vec<(&'static str, Samples)>> {
    let strangers = Generator::new(site, End::Client, &strangers())?;
    let mut figures = Vec::new();
    for candidate in candidates {
        // These know no misses.
        if [fill::FLOOR, fill::LIMIT].contains(&candidate.name) {
            continue;
        }
        candidate.attach(site)?;
        let mut samples = Samples::default();
        for _ in 0..effort.repeats {
            samples.push(miss(site, &strangers, effort, interrupt)?);
        }
        candidate.detach();
        figures.push((candidate.name, samples));
    }
    Ok(figures)
}

/// Nanoseconds for a frame that is not forwarded.
pub(super) fn miss(site: &Site, strangers: &Generator, effort: Effort, interrupt: &Interrupt) -> Result<f64> {
    unforwarded(site, &[strangers], effort, interrupt)
}

/// Nanoseconds for a frame of which nothing may arrive.
fn unforwarded(site: &Site, generators: &[&Generator], effort: Effort, interrupt: &Interrupt) -> Result<f64> {
    let arrived = || site.arrived();
    let (time, [sent, arrived]) = observe(site, generators, arrived, effort, interrupt)?;
    ensure!(arrived == 0, "{arrived} of {sent} datagrams were forwarded that should not be");
    Ok(nanos(time) / sent as f64)
}

/// Numbers of flows that no table has.
pub(super) const OTHERS: u32 = 1 << 26;

/// As many tuples as the biggest table has flows, none of which it has.
pub(super) fn strangers() -> Vec<Tuple> {
    flows::shuffled((OTHERS..OTHERS + (1 << 20)).map(|number| Flow::number(number).sent()).collect())
}

/// Processor time, and frames sent and arrived, while generators run.
fn observe(
    site: &Site,
    generators: &[&Generator],
    arrived: impl Fn() -> Result<u64>,
    effort: Effort,
    interrupt: &Interrupt,
) -> Result<(Duration, [u64; 2])> {
    let running: Vec<_> =
        generators.iter().zip(0..).map(|(generator, cpu)| generator.start(&site.network, cpu)).collect();
    let look = || -> Result<_> {
        let time = running.iter().map(Running::time).sum::<Result<Duration>>()?;
        let sent = generators.iter().map(|generator| generator.sent()).sum::<Result<u64>>()?;
        Ok((time, sent, arrived()?))
    };
    let first = generators.iter().map(|generator| generator.sent()).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    interrupt.sleep(Effort::WARM_UP)?;
    while start.elapsed() < Effort::LONGEST_WARM_UP && !are_through(generators, &first)? {
        interrupt.sleep(Effort::WARM_UP / 4)?;
    }
    let before = look()?;
    interrupt.sleep(effort.window)?;
    let after = look()?;
    running.into_iter().try_for_each(Running::stop)?;
    Ok((after.0 - before.0, [after.1 - before.1, after.2 - before.2]))
}

/// Whether each generator has sent all its tuples since then.
fn are_through(generators: &[&Generator], first: &[u64]) -> Result<bool> {
    for (generator, first) in generators.iter().zip(first) {
        if generator.sent()? - first < generator.tuples() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
