//! The table at the end, and what must hold for the shipped layout to be the choice.

use std::fmt;

use super::{
    churn::Churn,
    fill::{FLOOR, LIMIT, RIVAL},
    measure::{Direction, Figures},
    memory::Latency,
    product::PRODUCT,
};
use crate::samples::Samples;

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

/// How many times what the product takes its rival takes, in one direction.
#[derive(Clone, Debug)]
struct Comparison {
    flows: u32,
    direction: Direction,
    product: Samples,
    rival: Samples,
    /// Whole frames, generator and sink included. With one flow at their best: what else the machine does only adds.
    whole: f64,
    /// What the proxy does with a frame, its redirect included: each turn's, above what the measurement itself takes.
    forwarding: Samples,
    /// What is added to a redirect, which no layout changes.
    added: Samples,
}

impl Comparison {
    fn of(report: &Report, flows: u32, direction: Direction) -> Self {
        let samples = |name| report.samples(flows, direction, name).cloned().unwrap_or_default();
        let [product, rival, floor, limit] = [PRODUCT, RIVAL, FLOOR, LIMIT].map(samples);
        let above = |base: &Samples| {
            let above = |samples: &Samples| samples.zip(base, |nanos, base| nanos - base);
            above(&rival).zip(&above(&product), |rival, product| rival / product)
        };
        let (forwarding, added) = (above(&floor), above(&limit));
        let whole = match flows {
            1 => rival.least() / product.least(),
            _ => rival.zip(&product, |rival, product| rival / product).median(),
        };
        Self { flows, direction, whole, forwarding, added, product, rival }
    }

    /// What is asked for: with one flow a frame takes no longer, with a million the proxy is through with it in half the time.
    fn holds(&self) -> bool {
        match self.flows {
            1 => self.whole >= 1.0 / SLACK,
            _ => self.forwarding.median() >= GAIN,
        }
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

    fn comparisons(&self) -> Vec<Comparison> {
        let pairs =
            [1, MILLION].map(|flows| [Direction::ToOrigin, Direction::ToClient].map(|way| (flows, way)));
        pairs.into_iter().flatten().map(|(flows, way)| Comparison::of(self, flows, way)).collect()
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
        writeln!(
            f,
            "\nasked for: no slower than {RIVAL} with 1 flow, forwarding {GAIN} times as fast with {MILLION};"
        )?;
        writeln!(f, "so many times what {PRODUCT} takes does {RIVAL} take:")?;
        self.comparisons().iter().try_for_each(|comparison| writeln!(f, "  {comparison}"))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flows, direction, product, rival, whole, forwarding, added } = self;
        let holds = if self.holds() { "holds" } else { "MISSED" };
        let (way, flows) = (direction.name(), *flows);
        write!(
            f,
            "{holds:<6} {way} with {flows} flows: {PRODUCT} {product} ns, {RIVAL} {rival} ns, {whole:.2} times;"
        )?;
        let (forwarding, added) = (forwarding.ratio(), added.ratio());
        write!(f, " without generator and sink {forwarding} times, without the redirect too {added} times")
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

    /// The failures of a run in which the measurement takes 100 ns and a redirect 50, but for the one that no churn was measured.
    fn failures(product: f64, rival: f64) -> usize {
        let figures = |name, nanos: f64| {
            let mut samples = <[Samples; 3]>::default();
            samples.iter_mut().for_each(|samples| samples.push(nanos));
            Figures { name, bytes_per_flow: 64, samples }
        };
        let candidates = || {
            [figures(FLOOR, 100.0), figures(LIMIT, 150.0), figures(PRODUCT, product), figures(RIVAL, rival)]
        };
        let mut report = Report::default();
        report.add(1, candidates().to_vec());
        report.add(MILLION, candidates().to_vec());
        report.failures().len() - 1
    }

    #[test]
    fn forwarding_twice_as_fast_is_good_enough() {
        assert_eq!(failures(300.0, 500.0), 0);
    }

    #[test]
    fn less_fails_in_each_direction() {
        assert_eq!(failures(301.0, 500.0), 2);
    }

    #[test]
    fn slower_with_one_flow_fails_too() {
        assert_eq!(failures(220.0, 209.0), 4);
    }

    #[test]
    fn nothing_measured_is_nothing_proved() {
        assert_eq!(Report::default().failures().len(), 5);
    }
}
