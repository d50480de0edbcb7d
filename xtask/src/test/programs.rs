//! Builds and runs the programs of tests.

use std::{path::PathBuf, process::Command, sync::Mutex, thread, time::Instant};

use anyhow::{Context as _, Result, bail};

use super::{Args, report::Report};
use crate::{
    privilege,
    shell::{self, Executable, cargo},
    suite::{self, Outcome},
};

/// Programs whose tests wait for most of their time: more of them run at once than there are CPUs, in lanes because one test
/// may last as long as all others of its program.
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
const LANES: usize = 2;
const WAITING_TESTS: u8 = 3;

fn libtest_arguments(args: &Args) -> Vec<&str> {
    let all = args.all.then_some("--include-ignored");
    all.into_iter().chain(args.filter.as_deref()).collect()
}

/// Builds as the user, then runs unit tests as the user and every program of kernel and end-to-end tests as root.
pub(super) fn run(report: &mut Report, args: &Args) {
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
        let counts = unit_tests
            .iter()
            .map(|test| run_one(test, Command::new(&test.path), args, &mut |line| shell::say(line)));
        counts.chain([suite::run(&mut examples(args), &mut |line| shell::say(line))]).sum()
    });
    let (waiting, busy): (Vec<_>, Vec<_>) =
        kernel_tests.iter().partition(|test| MOSTLY_WAITING.contains(&test.name.as_str()));
    let run = |test: &Executable, threads: Option<u8>, tell: &mut dyn FnMut(&str)| {
        let mut command = privilege::as_root(&test.path, "kernel and end-to-end tests")?;
        // What passing tests print: sizes, costs, and why something was left out.
        command.arg("--show-output").env("XPROXY_BIN", &proxy);
        command.args(threads.map(|threads| format!("--test-threads={threads}")));
        run_one(test, command, args, tell)
    };
    side_by_side(report, &waiting, |test, tell| run(test, Some(WAITING_TESTS), tell));
    for test in busy {
        report.step(&test.name, || run(test, None, &mut |line| shell::say(line)));
    }
}

/// Runs programs in lanes, and shows what each of them printed once it has ended.
fn side_by_side(
    report: &mut Report,
    tests: &[&Executable],
    run: impl Fn(&Executable, &mut dyn FnMut(&str)) -> Result<Outcome> + Sync,
) {
    let (queue, report) = (Mutex::new(tests.iter()), Mutex::new(report));
    let next = || queue.lock().expect("nobody panics with it").next();
    let lane = &|| {
        while let Some(test) = next() {
            let (start, mut said) = (Instant::now(), Vec::new());
            let outcome = run(test, &mut |line| said.push(line.to_owned()));
            let took = start.elapsed();
            let mut report = report.lock().expect("nobody panics with it");
            shell::announce(&test.name);
            said.iter().for_each(shell::say);
            report.add(&test.name, took, outcome);
        }
    };
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(lane);
        }
    });
}

/// As cargo runs a test.
fn run_one(
    test: &Executable,
    mut command: Command,
    args: &Args,
    tell: &mut dyn FnMut(&str),
) -> Result<Outcome> {
    let package = test.manifest.parent().context("a manifest lies in its package")?;
    command.args(libtest_arguments(args)).current_dir(package).env("CARGO_MANIFEST_DIR", package);
    suite::run(&mut command, tell)
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

#[cfg(test)]
mod tests {
    use super::*;

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
