//! Whether the shipped table ages: flows come and go a hundred times the capacity of the table, and what a look-up costs in
//! the kernel, and how many insertions fail, must stay what it was. How many rows a look-up looks at, a unit test tells.

use std::{fmt, time::Duration};

use anyhow::{Result, bail};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    candidate::{Candidate, Engine},
    flows,
    generator::{End, Generator},
    measure::{self, Direction, Effort},
    product::Product,
    site::Site,
};
use crate::{interrupt::Interrupt, samples::Samples};

/// How much more a look-up may cost afterwards.
const AGEING: f64 = 1.3;
/// How many insertions may fail: what sixteen rows at half load come to.
const FAILING: f64 = 0.005;
const TURNS: u32 = 100;
/// Parts of a table that are replaced at once, between grace periods.
const PARTS: usize = 8;

/// What became of the table.
#[derive(Clone, Debug)]
pub(super) struct Churn {
    flows: u32,
    /// Share of insertions that failed in each tenth of the turns.
    failed: Vec<f64>,
    before: Costs,
    after: Costs,
}

/// What the kernel pays.
#[derive(Clone, Debug, Default)]
struct Costs {
    hit: Samples,
    miss: Samples,
}

/// Measures what the kernel pays, churns, and measures it again.
pub(super) fn run(site: &Site, effort: Effort, interrupt: &Interrupt) -> Result<Churn> {
    let flows = effort.churned_flows;
    let mut candidate = Product::candidate(site, flows)?;
    let strangers = Generator::new(site, End::Client, &measure::strangers())?;
    let before = costs(site, &mut candidate, &strangers, effort, interrupt)?;
    let Engine::Product(product) = &mut candidate.engine else { bail!("the product is a layout") };
    let failed = turn_over(product, flows, interrupt)?;
    product.check()?;
    let sent = product.installed().to_origin.into_iter().map(|(tuple, _)| tuple).collect();
    candidate.from_client = Generator::new(site, End::Client, &flows::shuffled(sent))?;
    let after = costs(site, &mut candidate, &strangers, effort, interrupt)?;
    Ok(Churn { flows, failed, before, after })
}

fn costs(
    site: &Site,
    candidate: &mut Candidate,
    strangers: &Generator,
    effort: Effort,
    interrupt: &Interrupt,
) -> Result<Costs> {
    let mut costs = Costs::default();
    candidate.attach(site)?;
    for _ in 0..effort.repeats {
        costs.hit.push(measure::run(site, candidate, Direction::ToOrigin, effort, interrupt)?);
        costs.miss.push(measure::miss(site, strangers, effort, interrupt)?);
    }
    candidate.detach();
    Ok(costs)
}

/// Removes random flows and installs new clients in their places, again and again: the load stays what it is.
fn turn_over(product: &mut Product, flows: u32, interrupt: &Interrupt) -> Result<Vec<f64>> {
    let mut random = StdRng::seed_from_u64(0xc1);
    let mut newcomers = flows..;
    let mut failed = Vec::new();
    for _ in 0..10 {
        let (mut failures, mut attempts) = (0_u32, 0_u32);
        for _ in 0..TURNS / 10 * u32::try_from(PARTS)? {
            // Nobody waits here, but whoever wants the end gets it.
            interrupt.sleep(Duration::ZERO)?;
            let part = product.flows.len() / PARTS;
            let left: Vec<_> =
                (0..part).map(|_| product.remove(random.random_range(0..product.flows.len()))).collect();
            product.settle();
            for flow in left {
                // One that finds no row stays in userspace in the proxy; here the next one takes its place.
                for number in newcomers.by_ref() {
                    attempts += 1;
                    if product.install(flow.with_client_of(number))? {
                        break;
                    }
                    failures += 1;
                }
            }
            product.settle();
        }
        failed.push(f64::from(failures) / f64::from(attempts.max(1)));
    }
    Ok(failed)
}

impl Churn {
    /// What got worse.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let Self { before, after, .. } = self;
        for (what, before, after) in [("hit", &before.hit, &after.hit), ("miss", &before.miss, &after.miss)] {
            if after.median() > AGEING * before.median() {
                failures.push(format!("churn makes a {what} cost {after} ns, was {before} ns"));
            }
        }
        if self.failed.iter().any(|failed| *failed > FAILING) {
            failures.push(format!("churn makes more than {} % of insertions fail", FAILING * 100.0));
        }
        failures
    }
}

impl fmt::Display for Churn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flows, failed, before, after } = self;
        let percent: Vec<_> = failed.iter().map(|failed| format!("{:.2}", failed * 100.0)).collect();
        writeln!(f, "the product's {flows} flows replaced {TURNS} times, the table as full as it may be:")?;
        writeln!(f, "  insertions that fail in each tenth of it: {} %", percent.join(" "))?;
        writeln!(f, "  in the kernel, before: a hit {} ns, a miss {} ns", before.hit, before.miss)?;
        write!(f, "  in the kernel, after:  a hit {} ns, a miss {} ns", after.hit, after.miss)
    }
}
