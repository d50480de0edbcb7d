//! Test programs of libtest: their output passes through, their results are counted.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader},
    iter::Sum,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::shell;

/// What is kept of what a program says of its failures.
const MAX_FAILURE_LINES: usize = 60;

/// What a run of tests came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Not run on purpose: `#[ignore = "long: …"]`.
    pub(crate) long: usize,
    /// Not run for another reason; nobody should have any.
    pub(crate) skipped: usize,
}

impl Counts {
    /// The result of something that is one check.
    pub(crate) fn of(succeeded: bool) -> Self {
        Self { passed: usize::from(succeeded), failed: usize::from(!succeeded), ..Self::default() }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.failed == 0 && self.skipped == 0
    }

    fn count(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.passed += number_before(rest, " passed");
            self.failed += number_before(rest, " failed");
        } else if let Some((_, reason)) = ignored(line) {
            let kind = if reason.starts_with("long") { &mut self.long } else { &mut self.skipped };
            *kind += 1;
        } else if line.starts_with("SKIP") {
            self.skipped += 1;
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, counts| Self {
            passed: sum.passed + counts.passed,
            failed: sum.failed + counts.failed,
            long: sum.long + counts.long,
            skipped: sum.skipped + counts.skipped,
        })
    }
}

/// What a run of tests came to, and what it said of those that failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    pub(crate) failures: VecDeque<String>,
}

impl Outcome {
    /// One failure, and why.
    pub(crate) fn failed(why: String) -> Self {
        Self { counts: Counts::of(false), failures: [why].into() }
    }

    fn remember(&mut self, line: &str) {
        if self.failures.len() == MAX_FAILURE_LINES {
            self.failures.pop_front();
        }
        self.failures.push_back(line.to_owned());
    }
}

impl From<Counts> for Outcome {
    fn from(counts: Counts) -> Self {
        Self { counts, ..Self::default() }
    }
}

impl Sum for Outcome {
    fn sum<I: Iterator<Item = Self>>(outcomes: I) -> Self {
        outcomes.fold(Self::default(), |mut sum, outcome| {
            sum.counts = [sum.counts, outcome.counts].into_iter().sum();
            sum.failures.extend(outcome.failures);
            sum
        })
    }
}

/// Runs `command` to its end and tells the lines that it prints; one that fails without saying which test did counts as one
/// failure.
pub(crate) fn run(command: &mut Command, tell: &mut dyn FnMut(&str)) -> Result<Outcome> {
    tell(&format!("$ {}", shell::shown(command)));
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("failed to start {}", shell::shown(command)))?;
    let mut outcome = Outcome::default();
    let mut is_about_failures = false;
    for line in BufReader::new(child.stdout.take().context("stdout is piped")?).lines() {
        let line = line.context("a test printed no UTF-8")?;
        outcome.counts.count(&line);
        is_about_failures = speaks_of_failures(&line).unwrap_or(is_about_failures);
        if is_about_failures && !line.is_empty() {
            outcome.remember(&line);
        }
        tell(&line);
    }
    let status = child.wait().context("failed to wait for a test")?;
    if !status.success() && outcome.counts.failed == 0 {
        outcome.counts.failed = 1;
        outcome.remember(&format!("{status}"));
    }
    Ok(outcome)
}

/// Whether what follows is about tests that failed, if the line is where that changes.
fn speaks_of_failures(line: &str) -> Option<bool> {
    match line {
        "failures:" => Some(true),
        "successes:" => Some(false),
        _ => line.starts_with("test result: ").then_some(false),
    }
}

fn number_before(text: &str, word: &str) -> usize {
    let number = text.split(word).next().and_then(|before| before.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Name and reason of `test NAME ... ignored, REASON`.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let reason = outcome.strip_prefix("ignored")?;
    Some((name, reason.trim_start_matches([',', ' '])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_libtest_prints() {
        let lines = [
            "running 4 tests",
            "test a ... ok",
            "test b ... FAILED",
            "test c ... ignored",
            "test d ... ignored, long: a million flows",
            "SKIP e: no permission",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.18s",
        ];
        let mut counts = Counts::default();
        lines.iter().for_each(|line| counts.count(line));
        assert_eq!(counts, Counts { passed: 12, failed: 1, long: 1, skipped: 2 });
        assert!(!counts.is_good());
    }

    #[test]
    fn a_program_that_dies_counts_as_a_failure() {
        let outcome = run(&mut Command::new("false"), &mut |_| {}).expect("starts");
        assert_eq!(outcome.counts, Counts::of(false));
        assert_eq!(outcome.failures, ["exit status: 1"]);
    }

    #[test]
    fn what_is_said_of_failures_is_kept() {
        let said = "successes:\n\n---- a stdout ----\nfine\n\nfailures:\n\n---- b stdout ----\npanicked at b\n\n\
                    failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\nafterwards";
        let outcome = run(Command::new("echo").arg(said), &mut |_| {}).expect("starts");
        assert_eq!(outcome.counts, Counts { passed: 1, failed: 1, ..Counts::default() });
        let expected = ["failures:", "---- b stdout ----", "panicked at b", "failures:", "    b"];
        assert_eq!(outcome.failures, expected);
    }

    #[test]
    fn skipped_tests_are_not_good() {
        assert!(Counts { passed: 1, long: 1, ..Counts::default() }.is_good());
        assert!(!Counts { passed: 1, skipped: 1, ..Counts::default() }.is_good());
    }
}
