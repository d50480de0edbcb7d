//! What joining TCP connections costs: `cargo xtask bench join`.
//!
//! The proxy as it is shipped stands between clients and an origin, in namespaces that virtual links join. Both ends are one
//! thread each and touch no byte, so that what is between them is most of what is measured. The same load goes over a link
//! past the proxy, through its namespace as a router, through the proxy, and through a proxy of tokio's `copy_bidirectional`,
//! in turns, because a machine is not equally fast all the time.

mod compare;
mod cpu;
mod crowd;
mod gates;
mod handshakes;
mod idle;
mod line;
mod memory;
mod origin;
mod plain;
mod players;
mod poll;
mod rtmp_origin;
mod site;
mod stall;
mod trial;
mod viewers;
mod worker;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    compare::Compared,
    gates::Gate,
    idle::{Idle, Protocol},
    site::Site,
    trial::{Between, Load},
};
use crate::interrupt::Interrupt;

const ONE: Load =
    Load { name: "one connection", stream: "bulk", viewers: 1, warm_up: Duration::from_millis(500) };
const MANY: Load =
    Load { name: "100 connections", stream: "bulk", viewers: 100, warm_up: Duration::from_millis(500) };
const LIVE: Load = Load {
    name: "1000 live streams of 1 Mbit/s, 5 KB every 40 ms",
    stream: "paced",
    viewers: 1000,
    warm_up: Duration::from_millis(1000),
};
const BULK_CONTENDERS: [Between; 6] = [
    Between::Nothing,
    Between::Router,
    Between::Proxy("splice"),
    Between::Proxy("auto"),
    Between::Proxy("copy"),
    Between::Plain,
];
const LIVE_CONTENDERS: [Between; 6] = [
    Between::Nothing,
    Between::Router,
    Between::Proxy("auto"),
    Between::Proxy("copy"),
    Between::Proxy("splice"),
    Between::Plain,
];
/// Viewers of one origin by RTMP: two descriptors each in the proxy, which may have 20000 where nobody allows more.
const CROWD: usize = 5500;
const IDLE: usize = 3000;

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    turns: usize,
    window: Duration,
    turns_of_idle: usize,
    crowd_window: Duration,
}

impl Effort {
    const FULL: Self = Self {
        turns: 5,
        window: Duration::from_secs(2),
        turns_of_idle: 3,
        crowd_window: Duration::from_secs(5),
    };
    const QUICK: Self = Self {
        turns: 1,
        window: Duration::from_secs(1),
        turns_of_idle: 1,
        crowd_window: Duration::from_secs(2),
    };
}

/// What is measured; all of it if nothing is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// One connection and a hundred, as fast as they go.
    Bulk,
    /// Paced live streams.
    Live,
    /// A viewer that stalls.
    Stall,
    /// Idle connections.
    Idle,
    /// One origin's viewers.
    Crowd,
    /// Handshakes among clients that do not finish theirs.
    Handshakes,
}

/// Measures and prints tables and what must hold.
///
/// # Errors
/// When the machine cannot run it, and when something that must hold does not.
pub fn run(quick: bool, parts: &[Part]) -> Result<()> {
    let start = Instant::now();
    let bench = Bench {
        effort: if quick { Effort::QUICK } else { Effort::FULL },
        interrupt: Interrupt::watch()?,
        site: Site::new()?,
    };
    raise_descriptor_limit()?;
    let all = [Part::Bulk, Part::Live, Part::Stall, Part::Idle, Part::Crowd, Part::Handshakes];
    let mut gates = Vec::new();
    for part in if parts.is_empty() { &all[..] } else { parts } {
        gates.extend(bench.measure(*part)?);
    }
    let seconds = start.elapsed().as_secs_f64();
    say(&format!("\nmedians and extremes of turns; {seconds:.0} s\n"));
    gates.iter().for_each(|gate| say(&gate.to_string()));
    let missed: Vec<_> = gates.iter().filter(|gate| !gate.holds).map(Gate::to_string).collect();
    if !missed.is_empty() {
        bail!("{}", missed.join("\n"));
    }
    Ok(())
}

struct Bench {
    effort: Effort,
    interrupt: Interrupt,
    site: Site,
}

impl Bench {
    fn measure(&self, part: Part) -> Result<Vec<Gate>> {
        match part {
            Part::Bulk => {
                let [one, many] = [ONE, MANY].map(|load| self.compare(load, &BULK_CONTENDERS));
                let (one, many) = (gates::bulk(ONE.name, &one?, gates::BULK), many?);
                Ok(one.into_iter().chain(gates::bulk(MANY.name, &many, gates::BULK_OF_MANY)).collect())
            }
            Part::Live => Ok(vec![gates::paced(&self.compare(LIVE, &LIVE_CONTENDERS)?)]),
            Part::Stall => ["copy", "splice"].map(|means| self.stall(means)).into_iter().collect(),
            Part::Idle => Protocol::ALL.map(|protocol| self.idle(protocol)).into_iter().collect(),
            Part::Crowd => {
                let crowd = crowd::run(&self.site, CROWD, self.effort.crowd_window, &self.interrupt)?;
                Ok(vec![said(gates::crowd(&crowd))])
            }
            Part::Handshakes => Ok(vec![said(gates::handshakes(&handshakes::run(&self.site)?))]),
        }
    }

    fn compare(&self, load: Load, contenders: &[Between]) -> Result<Compared> {
        let mut compared = Compared::new(load, contenders);
        for _ in 0..self.effort.turns {
            compared.measure(&self.site, self.effort.window, &self.interrupt)?;
        }
        say(&compared.table());
        Ok(compared)
    }

    fn stall(&self, means: &'static str) -> Result<Gate> {
        let stalled = stall::run(&self.site, means, &self.interrupt)?;
        Ok(said(gates::stalled(means, &stalled)))
    }

    fn idle(&self, protocol: Protocol) -> Result<Gate> {
        let mut idle = Idle::default();
        for _ in 0..self.effort.turns_of_idle {
            idle::measure(&self.site, protocol, IDLE, &mut idle, &self.interrupt)?;
        }
        Ok(said(gates::idle(protocol, &idle)))
    }
}

/// Both ends of thousands of connections are in this process.
fn raise_descriptor_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

fn said(gate: Gate) -> Gate {
    say(&gate.to_string());
    gate
}

#[expect(clippy::print_stdout, reason = "the figures are the program's output")]
fn say(text: &str) {
    println!("{text}");
}
