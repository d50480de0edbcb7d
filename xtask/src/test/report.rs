//! What came of each step, as a table and once more in words.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{
    shell,
    suite::{Counts, Outcome},
};

/// What came of each step.
#[derive(Default)]
pub(super) struct Report(Vec<Row>);

struct Row {
    step: String,
    took: Duration,
    outcome: Outcome,
}

impl Report {
    /// A step that is one check.
    pub(super) fn check(&mut self, step: &str, check: impl FnOnce() -> Result<()>) {
        self.step(step, || check().map(|()| Counts::of(true).into()));
    }

    pub(super) fn step(&mut self, step: &str, run: impl FnOnce() -> Result<Outcome>) {
        shell::announce(step);
        let start = Instant::now();
        let outcome = run();
        self.add(step, start.elapsed(), outcome);
    }

    /// Adds a step that has ended.
    pub(super) fn add(&mut self, step: &str, took: Duration, outcome: Result<Outcome>) {
        let outcome = outcome.unwrap_or_else(|error| {
            shell::say(format!("{step} failed: {error:#}"));
            Outcome::failed(format!("{error:#}"))
        });
        self.0.push(Row { step: step.to_owned(), took, outcome });
    }

    pub(super) fn conclude(&self) -> Result<()> {
        shell::say(self.table());
        // Once more, where whoever looks at the end of a long log finds them.
        self.0.iter().flat_map(Row::failures).for_each(shell::say);
        let total = self.total();
        shell::say(format!("{} passed, {} failed", total.passed, total.failed + total.skipped));
        if !total.is_good() {
            bail!("not everything passed");
        }
        Ok(())
    }

    fn table(&self) -> String {
        let head = format!(
            "\n{:<28} {:>9} {:>7} {:>7} {:>8} {:>9}",
            "step", "time", "passed", "failed", "skipped", "long"
        );
        let rows = self.0.iter().map(Row::line);
        std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
    }

    fn total(&self) -> Counts {
        self.0.iter().map(|row| row.outcome.counts).sum()
    }
}

impl Row {
    fn failures(&self) -> Vec<String> {
        let said = self.outcome.failures.iter().map(|line| format!("  {line}"));
        let has_failed = (!self.outcome.failures.is_empty()).then(|| format!("\n{} failed:", self.step));
        has_failed.into_iter().chain(said).collect()
    }

    fn line(&self) -> String {
        let Counts { passed, failed, long, skipped } = self.outcome.counts;
        let seconds = self.took.as_secs_f64();
        let verdict = if self.outcome.counts.is_good() { "" } else { "  <- failed" };
        format!("{:<28} {seconds:>8.1}s {passed:>7} {failed:>7} {skipped:>8} {long:>9}{verdict}", self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_does_not_stop_the_others_and_fails_the_run() {
        let mut report = Report::default();
        report.check("first", || bail!("broken"));
        report.step("second", || Ok(Counts { passed: 3, ..Counts::default() }.into()));
        assert_eq!(report.total(), Counts { passed: 3, failed: 1, ..Counts::default() });
        assert!(report.table().contains("first"));
        assert!(report.conclude().is_err());
    }

    #[test]
    fn a_skipped_test_fails_the_run() {
        let mut report = Report::default();
        report.step("kernel", || Ok(Counts { skipped: 1, ..Counts::default() }.into()));
        assert!(report.conclude().is_err());
    }
}
