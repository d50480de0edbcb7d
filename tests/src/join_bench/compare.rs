//! One load, with one after another between the ends, in turns.

use std::{fmt::Write as _, time::Duration};

use anyhow::Result;

use super::{
    site::Site,
    trial::{self, Between, Load},
};
use crate::{interrupt::Interrupt, samples::Samples};

/// What was measured under one load.
#[derive(Clone, Debug)]
pub(super) struct Compared {
    load: Load,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    between: Between,
    /// Gbit/s.
    rate: Samples,
    /// Processor seconds for a GB.
    cost: Samples,
    relay: Samples,
}

impl Compared {
    pub(super) fn new(load: Load, contenders: &[Between]) -> Self {
        let row = |between: &Between| Row {
            between: *between,
            rate: Samples::default(),
            cost: Samples::default(),
            relay: Samples::default(),
        };
        Self { load, rows: contenders.iter().map(row).collect() }
    }

    /// One more turn of each.
    pub(super) fn measure(&mut self, site: &Site, window: Duration, interrupt: &Interrupt) -> Result<()> {
        for row in &mut self.rows {
            let outcome = trial::run(site, row.between, self.load, window, interrupt)?;
            row.rate.push(outcome.rate());
            row.cost.push(outcome.cost());
            row.relay.push(outcome.cost_of_relay());
        }
        Ok(())
    }

    /// Throughput of the one as a share of the other's, in each turn.
    pub(super) fn rates(&self, one: Between, other: Between) -> Samples {
        self.of(one).rate.zip(&self.of(other).rate, |one, other| one / other)
    }

    /// Processor time of the one as a share of the other's.
    pub(super) fn costs(&self, one: Between, other: Between) -> Samples {
        self.of(one).cost.zip(&self.of(other).cost, |one, other| one / other)
    }

    /// As [`Self::costs`], above what the ends take with a link alone between them.
    pub(super) fn extra_costs(&self, one: Between, other: Between) -> Samples {
        self.extra(one).zip(&self.extra(other), |one, other| one / other)
    }

    fn extra(&self, between: Between) -> Samples {
        self.of(between).cost.zip(&self.of(Between::Nothing).cost, |cost, link| cost - link)
    }

    /// Empty if it did not take part, so that no gate holds.
    fn of(&self, between: Between) -> Row {
        let row = self.rows.iter().find(|row| row.between == between).cloned();
        row.unwrap_or_else(|| Self::new(self.load, &[between]).rows.remove(0))
    }

    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "{}\n  {:<8} {:>22} {:>24} {:>24} {:>24}\n",
            self.load.name, "", "Gbit/s", "CPU s/GB", "above the link", "of the relay itself"
        );
        for row in &self.rows {
            let extra = self.extra(row.between);
            let line = writeln!(
                table,
                "  {:<8} {:>22} {:>24} {:>24} {:>24}",
                row.between.name(),
                row.rate.spread(2),
                row.cost.spread(3),
                extra.spread(3),
                row.relay.spread(3)
            );
            line.expect("writing to a string cannot fail");
        }
        table
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::join_bench) const LOAD: Load =
        Load { name: "a load", stream: "bulk", viewers: 1, warm_up: Duration::ZERO };

    /// Two turns of each: rate and cost, and then both half as much.
    pub(in crate::join_bench) fn compared(figures: &[(Between, f64, f64)]) -> Compared {
        let contenders: Vec<_> = figures.iter().map(|(between, ..)| *between).collect();
        let mut compared = Compared::new(LOAD, &contenders);
        for (row, (_, rate, cost)) in compared.rows.iter_mut().zip(figures) {
            for part in [1.0, 0.5] {
                row.rate.push(rate * part);
                row.cost.push(cost * part);
                row.relay.push(cost * part);
            }
        }
        compared
    }

    #[test]
    fn turns_are_compared_with_the_same_turns() {
        let splice = Between::Proxy("splice");
        let compared =
            compared(&[(Between::Nothing, 80.0, 0.1), (splice, 60.0, 0.2), (Between::Plain, 20.0, 0.5)]);
        assert_eq!(compared.rates(splice, Between::Nothing).ratio(), "0.75 [0.75..0.75]");
        assert_eq!(compared.costs(splice, Between::Plain).ratio(), "0.40 [0.40..0.40]");
        assert_eq!(compared.extra_costs(splice, Between::Plain).ratio(), "0.25 [0.25..0.25]");
    }

    #[test]
    fn who_did_not_take_part_has_no_figure() {
        let compared = compared(&[(Between::Nothing, 80.0, 0.1)]);
        assert!(compared.rates(Between::Plain, Between::Nothing).median().is_nan());
    }
}
