//! `cargo xtask test`: every check and every test, with a table of results at the end. Later steps run although earlier
//! ones failed: one run tells everything.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    privilege, residue,
    setup::{self, BpfToolchain, Part},
    shell::{self, Executable, cargo},
    suite::{self, Counts, Outcome},
    tidy,
};

/// Programs whose tests wait for most of their time: more of them run at once than there are CPUs.
const MOSTLY_WAITING: [&str; 24] = [
    "attachments",
    "capacity",
    "cluster",
    "delivery",
    "faults",
    "fleet",
    "fleet_redis",
    "fleet_webrtc",
    "host_firewall",
    "next_hops",
    "origin_streams",
    "pinned",
    "redis_store",
    "relay",
    "restart",
    "routes",
    "rtc_tcp",
    "srt",
    "stream_abuse",
    "stream_origins",
    "stream_peers",
    "stream_tiers",
    "tcp_streams",
    "webrtc",
];
const WAITING_TESTS: u8 = 6;

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
    run_tests(&mut report, args);
    report.check("nothing left behind", || match residue::left_since(&before) {
        left if left.is_empty() => Ok(()),
        left => bail!("left behind:\n  {}", left.join("\n  ")),
    });
    report.conclude()
}

fn checks(report: &mut Report) {
    report.check("format", || shell::check(&mut cargo(["fmt", "--all", "--check"])));
    report.check("clippy", || {
        let targets = ["clippy", "--workspace", "--all-targets", "--all-features"];
        shell::check(without_objects(cargo(targets).args(["--", "--deny", "warnings"])))
    });
    report.check("clippy for the BPF target", lint_programs);
    report.check("documentation", || {
        let mut command = cargo(["doc", "--workspace", "--all-features", "--no-deps"]);
        shell::check(without_objects(command.env("RUSTDOCFLAGS", "--deny warnings")))
    });
    report.check("tidy", tidy::check);
}

/// Cargo keeps what build scripts make for it to check apart from what they make for a build: objects would be built for
/// nothing, and what is built later is not built anew.
fn without_objects(command: &mut Command) -> &mut Command {
    command.env("AYA_BUILD_SKIP", "1")
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
    let mut command = cargo([channel.as_str(), tool, "--release", "--bins"]);
    // Where `proxy-userspace/build/objects.rs` builds the same programs: macros and build scripts are compiled once for both.
    command
        .args(["--package", "proxy-ebpf", "--package", "bench-ebpf", "--all-features"])
        .args(["--target", "bpfel-unknown-none"])
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_BUILD_BUILD_DIR", shell::root().join("target/debug/ebpf"));
    if toolchain == BpfToolchain::Nightly {
        command.arg("-Zbuild-std=core");
    }
    shell::check(&mut command)
}

fn libtest_arguments(args: &Args) -> Vec<&str> {
    let all = args.all.then_some("--include-ignored");
    all.into_iter().chain(args.filter.as_deref()).collect()
}

/// Builds as the user, then runs unit tests as the user and every program of kernel and end-to-end tests as root.
fn run_tests(report: &mut Report, args: &Args) {
    let mut built = None;
    report.check("build of the tests", || {
        built = Some(build()?);
        Ok(())
    });
    let Some((proxy, tests)) = built else { return };
    let package = shell::root().join("tests/Cargo.toml");
    let (kernel_tests, unit_tests): (Vec<_>, Vec<_>) =
        tests.into_iter().partition(|test| test.manifest == package);
    report.step("unit tests", || {
        let counts = unit_tests.iter().map(|test| run_one(test, Command::new(&test.path), args));
        counts.chain([suite::run(&mut examples(args))]).sum()
    });
    for test in &kernel_tests {
        report.step(&test.name, || {
            let mut command = privilege::as_root(&test.path, "kernel and end-to-end tests")?;
            // What passing tests print: sizes, costs, and why something was left out.
            command.arg("--show-output").args(threads(test)).env("XPROXY_BIN", &proxy);
            run_one(test, command, args)
        });
    }
}

/// As cargo runs a test.
fn run_one(test: &Executable, mut command: Command, args: &Args) -> Result<Outcome> {
    let package = test.manifest.parent().context("a manifest lies in its package")?;
    command.args(libtest_arguments(args)).current_dir(package).env("CARGO_MANIFEST_DIR", package);
    suite::run(&mut command)
}

fn threads(test: &Executable) -> Vec<String> {
    let waits = MOSTLY_WAITING.contains(&test.name.as_str());
    waits.then(|| format!("--test-threads={WAITING_TESTS}")).into_iter().collect()
}

/// Tests in documentation.
fn examples(args: &Args) -> Command {
    let mut command = cargo(["test", "--workspace", "--doc", "--no-fail-fast", "--"]);
    command.args(libtest_arguments(args));
    command
}

/// One build for all: programs and tests that are built apart would need some dependencies twice, for their features.
fn build() -> Result<(PathBuf, Vec<Executable>)> {
    let built = shell::executables(&mut cargo(["build", "--workspace", "--all-targets"]))?;
    let (tests, programs): (Vec<_>, Vec<_>) = built.into_iter().partition(|executable| executable.is_test);
    let Some(proxy) = programs.into_iter().find(|program| program.name == "srs-xproxy") else {
        bail!("cargo built no srs-xproxy");
    };
    Ok((proxy.path, tests))
}

/// What came of each step.
#[derive(Default)]
struct Report(Vec<Row>);

struct Row {
    step: String,
    took: Duration,
    outcome: Outcome,
}

impl Report {
    /// A step that is one check.
    fn check(&mut self, step: &str, check: impl FnOnce() -> Result<()>) {
        self.step(step, || check().map(|()| Counts::of(true).into()));
    }

    fn step(&mut self, step: &str, run: impl FnOnce() -> Result<Outcome>) {
        shell::announce(step);
        let start = Instant::now();
        let outcome = run().unwrap_or_else(|error| {
            shell::say(format!("{step} failed: {error:#}"));
            Outcome::failed(format!("{error:#}"))
        });
        self.0.push(Row { step: step.to_owned(), took: start.elapsed(), outcome });
    }

    fn conclude(&self) -> Result<()> {
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

    #[test]
    fn programs_that_wait_are_tests() {
        for name in MOSTLY_WAITING {
            assert!(shell::root().join(format!("tests/tests/{name}.rs")).exists(), "{name}");
        }
    }

    #[test]
    fn long_tests_run_on_demand_alone() {
        let args = |all| Args { all, filter: Some("flow".to_owned()) };
        assert_eq!(libtest_arguments(&args(false)), ["flow"]);
        assert_eq!(libtest_arguments(&args(true)), ["--include-ignored", "flow"]);
    }
}
