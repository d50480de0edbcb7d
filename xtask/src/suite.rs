//! Test programs of libtest: their output passes through, their results are counted.

use std::{
    io::{BufRead as _, BufReader},
    iter::Sum,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::shell;

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

/// Runs `command` to its end; one that fails without saying which test did counts as one failure.
pub(crate) fn run(command: &mut Command) -> Result<Counts> {
    shell::say(format!("$ {}", shell::shown(command)));
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("failed to start {}", shell::shown(command)))?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().context("stdout is piped")?).lines() {
        let line = line.context("a test printed no UTF-8")?;
        counts.count(&line);
        shell::say(line);
    }
    let status = child.wait().context("failed to wait for a test")?;
    if !status.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
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
        let counts = run(&mut Command::new("false")).expect("starts");
        assert_eq!(counts, Counts::of(false));
    }

    #[test]
    fn skipped_tests_are_not_good() {
        assert!(Counts { passed: 1, long: 1, ..Counts::default() }.is_good());
        assert!(!Counts { passed: 1, skipped: 1, ..Counts::default() }.is_good());
    }
}
