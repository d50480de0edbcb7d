//! `cargo xtask test`: every check and every test, with a table of results at the end. Later steps run although earlier
//! ones failed: one run tells everything.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    privilege, residue,
    setup::{self, BpfToolchain, Part},
    shell::{self, Executable, cargo},
    suite::{self, Counts},
    tidy,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run the long tests too
    #[arg(long)]
    all: bool,
    /// Run only tests whose name contains this, and no checks
    #[arg(long)]
    filter: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::install(&[Part::Build, Part::Test])?;
    let before = residue::find();
    before.iter().for_each(|thing| shell::announce(format!("there before the run: {thing}")));
    let mut report = Report::default();
    if args.filter.is_none() {
        checks(&mut report);
    }
    report.step("unit tests", || suite::run(unit_tests().args(libtest_arguments(args))));
    kernel_tests(&mut report, args);
    report.check("nothing left behind", || match residue::left_since(&before) {
        left if left.is_empty() => Ok(()),
        left => bail!("left behind:\n  {}", left.join("\n  ")),
    });
    report.conclude()
}

fn checks(report: &mut Report) {
    report.check("format", || shell::check(&mut cargo(["fmt", "--all", "--check"])));
    report.check("clippy", || {
        shell::check(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
    });
    report.check("clippy for the BPF target", lint_programs);
    report.check("documentation", || {
        shell::check(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings"))
    });
    report.check("tidy", tidy::check);
}

/// Clippy where the toolchain has it; a distribution's toolchain does not, there warnings of the compiler count.
fn lint_programs() -> Result<()> {
    let Some(toolchain) = setup::bpf_toolchain() else { bail!("no toolchain for the BPF target") };
    let channel = format!("+{}", toolchain.name());
    let tool = if shell::succeeds(&mut cargo([channel.as_str(), "clippy", "--version"])) {
        "clippy"
    } else {
        shell::announce(format!(
            "toolchain {} has no clippy: checking with the compiler alone",
            toolchain.name()
        ));
        "check"
    };
    let flags = ["--cfg=bpf_target_arch=\"x86_64\"", "--deny=warnings"].join("\u{1f}");
    // Dependencies are only looked at here: optimising them would take minutes.
    let unoptimised = "profile.dev.package.\"*\".opt-level=0";
    let mut command = cargo([channel.as_str(), tool, "--config", unoptimised, "--bins"]);
    command
        .args(["--package", "proxy-ebpf", "--package", "bench-ebpf", "--target", "bpfel-unknown-none"])
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    if toolchain == BpfToolchain::Nightly {
        command.arg("-Zbuild-std=core");
    }
    shell::check(&mut command)
}

fn unit_tests() -> Command {
    cargo(["test", "--workspace", "--exclude", "integration-tests", "--no-fail-fast"])
}

fn libtest_arguments(args: &Args) -> Vec<&str> {
    let all = args.all.then_some("--include-ignored");
    ["--"].into_iter().chain(all).chain(args.filter.as_deref()).collect()
}

/// Builds as the user, then runs each test program as root.
fn kernel_tests(report: &mut Report, args: &Args) {
    let mut built = None;
    report.check("build of the kernel tests", || {
        built = Some(build_kernel_tests()?);
        Ok(())
    });
    let Some((proxy, tests)) = built else { return };
    for test in &tests {
        report.step(&test.name, || {
            let mut command = privilege::as_root(&test.path, "kernel and end-to-end tests")?;
            let package = shell::root().join("tests");
            // What passing tests print: sizes, costs, and why something was left out.
            command.arg("--show-output").args(&libtest_arguments(args)[1..]).current_dir(&package);
            suite::run(command.env("CARGO_MANIFEST_DIR", &package).env("XPROXY_BIN", &proxy))
        });
    }
}

/// One build for all: programs and tests that are built apart would need some dependencies twice, for their features.
fn build_kernel_tests() -> Result<(PathBuf, Vec<Executable>)> {
    let built = shell::executables(&mut cargo(["build", "--workspace", "--all-targets"]))?;
    let package = shell::root().join("tests/Cargo.toml");
    let (tests, programs): (Vec<_>, Vec<_>) = built.into_iter().partition(|executable| executable.is_test);
    let Some(proxy) = programs.into_iter().find(|program| program.name == "srs-xproxy") else {
        bail!("cargo built no srs-xproxy");
    };
    Ok((proxy.path, tests.into_iter().filter(|test| test.manifest == package).collect()))
}

/// What came of each step.
#[derive(Default)]
struct Report(Vec<Row>);

struct Row {
    step: String,
    took: Duration,
    counts: Counts,
}

impl Report {
    /// A step that is one check.
    fn check(&mut self, step: &str, check: impl FnOnce() -> Result<()>) {
        self.step(step, || check().map(|()| Counts::of(true)));
    }

    fn step(&mut self, step: &str, run: impl FnOnce() -> Result<Counts>) {
        shell::announce(step);
        let start = Instant::now();
        let counts = run().unwrap_or_else(|error| {
            shell::say(format!("{step} failed: {error:#}"));
            Counts::of(false)
        });
        self.0.push(Row { step: step.to_owned(), took: start.elapsed(), counts });
    }

    fn conclude(&self) -> Result<()> {
        shell::say(self.table());
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
        let mut total = Counts::default();
        self.0.iter().for_each(|row| total.add(row.counts));
        total
    }
}

impl Row {
    fn line(&self) -> String {
        let Counts { passed, failed, long, skipped } = self.counts;
        let seconds = self.took.as_secs_f64();
        let verdict = if self.counts.is_good() { "" } else { "  <- failed" };
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
        report.step("second", || Ok(Counts { passed: 3, ..Counts::default() }));
        assert_eq!(report.total(), Counts { passed: 3, failed: 1, ..Counts::default() });
        assert!(report.table().contains("first"));
        assert!(report.conclude().is_err());
    }

    #[test]
    fn a_skipped_test_fails_the_run() {
        let mut report = Report::default();
        report.step("kernel", || Ok(Counts { skipped: 1, ..Counts::default() }));
        assert!(report.conclude().is_err());
    }

    #[test]
    fn long_tests_run_on_demand_alone() {
        let args = |all| Args { all, filter: Some("flow".to_owned()) };
        assert_eq!(libtest_arguments(&args(false)), ["--", "flow"]);
        assert_eq!(libtest_arguments(&args(true)), ["--", "--include-ignored", "flow"]);
    }
}
