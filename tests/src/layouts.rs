//! Table layouts in comparison, on one machine and in one run: `cargo xtask bench layout`.
//!
//! A live test run makes frames in the client's or the origin's namespace, a program in the proxy's namespace forwards
//! them, and a sink at the other end counts and drops them: all in the softirq of one CPU, so the processor time of
//! the generating thread is that of the whole path. Candidates take turns, because a machine is not equally fast all the
//! time.
//!
//! `product` is the shipped program and its tables, `hash` the same program over BPF hashes: what lies between them is the
//! layout alone. `redirect` is the limit. The bare ones do less than a proxy must, and tell what the rest of it costs.

mod candidate;
mod churn;
mod fill;
pub mod flood;
mod flows;
mod generator;
mod mapping;
mod measure;
mod memory;
mod object;
mod product;
mod report;
mod site;
mod thread;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::interrupt::Interrupt;

use self::{
    candidate::Candidate,
    measure::{Direction, Effort, Figures},
    report::Report,
    site::Site,
};

/// Numbers of flows that are all active, in random order.
const ALL_FLOWS: [u32; 4] = [1, 1 << 14, 1 << 17, MOST];
const QUICK_FLOWS: [u32; 2] = [1, MOST];
const MOST: u32 = 1 << 20;

/// Measures every layout and prints one table.
///
/// # Errors
/// When the machine cannot run it, and when the shipped layout is not what it was chosen for.
pub fn run(quick: bool) -> Result<()> {
    let start = Instant::now();
    let interrupt = Interrupt::watch()?;
    let effort = if quick { Effort::QUICK } else { Effort::FULL };
    let site = Site::new()?;
    let mut report = Report::default();
    for &flows in if quick { &QUICK_FLOWS[..] } else { &ALL_FLOWS[..] } {
        say(&format!("{flows} flows: filling tables"));
        let mut candidates = candidate::all(&site, flows)?;
        report.add(flows, compare(&site, &mut candidates, effort, &interrupt)?);
        if flows == MOST {
            say("unknown tuples");
            report.misses = measure::misses(&site, &mut candidates, effort, &interrupt)?;
        }
    }
    report.latency = Some(memory::Latency::measure()?);
    say("churn");
    report.churn = Some(churn::run(&site, effort, &interrupt)?);
    say(&format!("{report}\n{:.0} s", start.elapsed().as_secs_f64()));
    let failures = report.failures();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

/// All candidates in turn, as often as the effort says.
fn compare(
    site: &Site,
    candidates: &mut [Candidate],
    effort: Effort,
    interrupt: &Interrupt,
) -> Result<Vec<Figures>> {
    let mut figures: Vec<_> = candidates.iter().map(Figures::of).collect();
    for _ in 0..effort.repeats {
        for (candidate, figures) in candidates.iter_mut().zip(&mut figures) {
            candidate.attach(site)?;
            for direction in Direction::ALL {
                figures.push(direction, measure::run(site, candidate, direction, effort, interrupt)?);
            }
            candidate.detach();
        }
    }
    figures.iter().for_each(|figures| say(&figures.to_string()));
    Ok(figures)
}

#[expect(clippy::print_stdout, reason = "the figures are the program's output")]
fn say(text: &str) {
    println!("{text}");
}
