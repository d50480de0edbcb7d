//! Build, set-up, run, demo and test commands of the workspace: `cargo xtask --help`.
//!
//! Builds run as the user; only what needs it, installing packages and touching the kernel, runs as root.

mod bench;
mod demo;
mod packages;
mod privilege;
mod residue;
mod run;
mod setup;
mod shell;
mod suite;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about)]
enum Command {
    /// Install what is missing on this machine; does nothing the second time
    Setup(setup::Args),
    /// Build srs-xproxy and run it as root, with .env and PROXY_* variables as they are here
    Run(run::Args),
    /// Run every check and every test
    Test(test::Args),
    /// Check the rules of the code base that no compiler checks
    Tidy(tidy::Args),
    /// Measure what the proxy promises to be fast
    Bench(bench::Args),
    /// Show the whole thing on one machine
    Demo(demo::Args),
}

fn main() -> ExitCode {
    let command = Command::parse();
    match privilege::refuse_to_build_as_someone_else().and_then(|()| run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shell::say(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup(args) => setup::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Tidy(args) => tidy::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Demo(args) => demo::run(&args),
    }
}
