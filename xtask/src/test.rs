//! `cargo xtask test`: every check and every test, with a table of results at the end. Later steps run although earlier
//! ones failed: one run tells everything.

use std::process::Command;

use anyhow::{Result, bail};

use self::report::Report;
use crate::{
    residue,
    setup::{self, BpfToolchain, Part},
    shell::{self, cargo},
    tidy,
};

mod programs;
mod report;

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
    programs::run(&mut report, args);
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
