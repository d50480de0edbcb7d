//! The table at the end, and what must hold for the shipped layout to be the choice.

use std::fmt;

use super::{
    churn::Churn,
    fill::{LIMIT, RIVAL},
    measure::{Direction, Figures, Samples},
    memory::Latency,
    product::PRODUCT,
};

/// How much slower than the rival the product may be with one flow: the noise of a machine that is not quiet.
const SLACK: f64 = 1.05;
/// How much faster it must be with a million.
const GAIN: f64 = 2.0;
const MILLION: u32 = 1 << 20;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    runs: Vec<(u32, Vec<Figures>)>,
    pub(super) misses: Vec<(&'static str, Samples)>,
    pub(super) latency: Option<Latency>,
    pub(super) churn: Option<Churn>,
}

/// How the product stands to the rival in one direction.
#[derive(Clone, Copy, Debug)]
struct Comparison {
    flows: u32,
    direction: Direction,
    product: f64,
    rival: f64,
    limit: f64,
}

impl Comparison {
    /// How much faster whole frames pass.
    fn whole(&self) -> f64 {
        self.rival / self.product
    }

    /// How much less is added to a redirect, which no layout changes.
    fn added(&self) -> f64 {
        (self.rival - self.limit) / (self.product - self.limit)
    }

    /// What is asked for holds of whole frames: with one flow the product is no slower, with a million twice as fast.
    fn holds(&self) -> bool {
        self.whole() >= if self.flows == MILLION { GAIN } else { 1.0 / SLACK }
    }
}

impl Report {
    pub(super) fn add(&mut self, flows: u32, figures: Vec<Figures>) {
        self.runs.push((flows, figures));
    }

    /// What does not hold.
    pub(super) fn failures(&self) -> Vec<String> {
        let comparisons = self.comparisons();
        let misses = comparisons.iter().filter(|comparison| !comparison.holds()).map(ToString::to_string);
        let aged =
            self.churn.as_ref().map_or_else(|| vec!["no churn was measured".to_owned()], Churn::failures);
        misses.chain(aged).collect()
    }

    /// With one flow whole frames are compared at their best: what else the machine does only adds.
    fn comparisons(&self) -> Vec<Comparison> {
        let mut comparisons = Vec::new();
        for (flows, best) in [(1, true), (MILLION, false)] {
            for direction in [Direction::ToOrigin, Direction::ToClient] {
                let nanos = |name| {
                    let of = |samples: &Samples| if best { samples.least() } else { samples.median() };
                    self.samples(flows, direction, name).map_or(f64::NAN, of)
                };
                let (product, rival, limit) = (nanos(PRODUCT), nanos(RIVAL), nanos(LIMIT));
                comparisons.push(Comparison { flows, direction, product, rival, limit });
            }
        }
        comparisons
    }

    fn median(&self, flows: u32, direction: Direction, name: &str) -> f64 {
        self.samples(flows, direction, name).map_or(f64::NAN, Samples::median)
    }

    fn samples(&self, flows: u32, direction: Direction, name: &str) -> Option<&Samples> {
        let (_, figures) = self.runs.iter().find(|(number, _)| *number == flows)?;
        Some(figures.iter().find(|figures| figures.name == name)?.of_direction(direction))
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, direction: Direction) -> fmt::Result {
        write!(f, "\n{name:<12} {:<10}", direction.name())?;
        for (flows, _) in &self.runs {
            let median = |name| self.median(*flows, direction, name);
            write!(f, " {:>8.1} {:>5.2}", median(name), median(LIMIT) / median(name))?;
        }
        Ok(())
    }

    fn write_rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n\nunknown tuples with {MILLION} flows installed, ns a frame:")?;
        self.misses.iter().try_for_each(|(name, samples)| writeln!(f, "  {name:<12} {samples}"))?;
        if let Some(latency) = &self.latency {
            writeln!(f, "\n{latency}")?;
        }
        if let Some(churn) = &self.churn {
            writeln!(f, "\n{churn}")?;
        }
        writeln!(f, "\nasked for: no slower than {RIVAL} with 1 flow, {GAIN} times as fast with {MILLION}:")?;
        self.comparisons().iter().try_for_each(|comparison| writeln!(f, "  {comparison}"))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flows, direction, product, rival, limit } = self;
        let holds = if self.holds() { "holds" } else { "MISSED" };
        write!(
            f,
            "{holds:<6} {} with {flows} flows: {PRODUCT} {product:.0} ns, {RIVAL} {rival:.0} ns,",
            direction.name()
        )?;
        write!(
            f,
            " {:.2} times as fast; above the {limit:.0} ns of a redirect {:.2} times",
            self.whole(),
            self.added()
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\nns a frame, generator and sink included, and the rate as a share of a bare redirect's:\n"
        )?;
        write!(f, "{:<23}", "active flows")?;
        for (flows, _) in &self.runs {
            write!(f, " {flows:>14}")?;
        }
        let Some((_, last)) = self.runs.last() else { return Ok(()) };
        for figures in last {
            for direction in Direction::ALL {
                self.row(f, figures.name, direction)?;
            }
            write!(f, "   {} B a flow", figures.bytes_per_flow)?;
        }
        self.write_rest(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The failures of a run in which a redirect takes 100 ns, but for the one that no churn was measured.
    fn failures(product: f64, rival: f64) -> usize {
        let figures = |name, nanos: f64| {
            let mut samples = <[Samples; 3]>::default();
            samples.iter_mut().for_each(|samples| samples.push(nanos));
            Figures { name, bytes_per_flow: 64, samples }
        };
        let candidates =
            || [figures(LIMIT, 100.0), figures(PRODUCT, product), figures(RIVAL, rival)].to_vec();
        let mut report = Report::default();
        report.add(1, candidates());
        report.add(MILLION, candidates());
        report.failures().len() - 1
    }

    #[test]
    fn twice_as_fast_is_good_enough() {
        assert_eq!(failures(200.0, 400.0), 0);
    }

    #[test]
    fn less_fails_in_each_direction() {
        assert_eq!(failures(201.0, 400.0), 2);
    }

    #[test]
    fn slower_with_one_flow_fails_too() {
        assert_eq!(failures(120.0, 114.0), 4);
    }

    #[test]
    fn nothing_measured_is_nothing_proved() {
        assert_eq!(Report::default().failures().len(), 5);
    }
}
