//! The demo: real clients publish and play through the real proxy by every protocol, WebRTC first with the kernel path held
//! off, then with it, and everything is counted at the two ends of the network. What it promises is judged at the end.

mod cast;
mod chart;
mod counters;
mod files;
mod fleet;
mod host_link;
mod numbers;
mod performer;
mod promises;
mod protocols;
mod report;
mod restart;
mod sample;
mod srt_cast;
mod stage;
mod svg;
mod table;
mod take;
mod tcp_cast;
mod tcp_player;
mod timeline;
mod watch;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::interrupt::{Interrupt, Interrupted};
use crate::netns::PREFIX;
use crate::proxy::Engine;
use crate::residue::{Places, Residue};

pub use fleet::{Fleet, run as run_fleet};
use report::Report;
pub use restart::{Restart, run as run_restart};

/// What is shown.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The engines, one run each.
    pub engines: Vec<Engine>,
    /// How many streams.
    pub streams: usize,
    /// How many decoding viewers each stream has.
    pub viewers: usize,
    /// How long the kernel path is held off at first.
    pub before: Duration,
    /// How long it is used.
    pub after: Duration,
    /// Synthetic sessions on top.
    pub load: usize,
    /// Whether the last run goes on until it is interrupted.
    pub keep: bool,
    /// Where the chart goes.
    pub chart: PathBuf,
}

/// Where the demo writes its chart and the logs of its processes.
#[must_use]
pub fn directory() -> PathBuf {
    workspace().join("target/demo")
}

/// Shows everything and judges it: success means that every promise held.
#[must_use]
pub fn run(plan: &Plan) -> ExitCode {
    judge(|interrupt| perform(plan, interrupt))
}

/// Runs a show, which returns the promises that did not hold, and judges them together with what it left behind.
fn judge(show: impl FnOnce(&Interrupt) -> Result<Vec<String>>) -> ExitCode {
    let outcome = Interrupt::watch().and_then(|interrupt| {
        files::prepare(&directory())?;
        show(&interrupt)
    });
    let left: Vec<_> = residue().iter().map(|residue| format!("left behind: {residue}")).collect();
    match outcome {
        Ok(broken) => conclude(&[broken, left].concat()),
        Err(error) if error.is::<Interrupted>() => farewell(&left),
        Err(error) => give_up(&error, &left),
    }
}

/// Judges a show of each engine; one that cannot go on keeps none from the next.
fn judge_each(engines: &[Engine], take: impl Fn(Engine, &Interrupt) -> Result<Vec<String>>) -> ExitCode {
    judge(|interrupt| {
        let broken = engines.iter().map(|engine| match take(*engine, interrupt) {
            Err(error) if !error.is::<Interrupted>() => {
                Ok(vec![format!("engine {}: {error:#}", engine.as_str())])
            }
            outcome => outcome,
        });
        Ok(broken.collect::<Result<Vec<_>>>()?.concat())
    })
}

fn perform(plan: &Plan, interrupt: &Interrupt) -> Result<Vec<String>> {
    let mut reports = Vec::new();
    for (at, engine) in plan.engines.iter().enumerate() {
        let keeps = plan.keep && at + 1 == plan.engines.len();
        let show = |report: &Report| show(plan, &reports, report);
        let report = take::run(plan, *engine, keeps, interrupt, show)?;
        reports.push(report);
    }
    Ok(reports.into_iter().flat_map(|report| report.broken).collect())
}

fn show(plan: &Plan, earlier: &[Report], newest: &Report) -> Result<()> {
    say(format!("\n{}", table::table(newest)));
    let reports: Vec<_> = earlier.iter().chain([newest]).collect();
    files::write(&plan.chart, &chart::chart(&reports))?;
    say(format!("\nthe same as a chart: {}\n", plan.chart.display()));
    Ok(())
}

fn conclude(broken: &[String]) -> ExitCode {
    if broken.is_empty() {
        say("every promise held; all processes, namespaces and programs are gone");
        return ExitCode::SUCCESS;
    }
    say(format!("{} of the promises did not hold:", broken.len()));
    broken.iter().for_each(|broken| say(format!("  - {broken}")));
    say(format!("the logs are in {}", directory().display()));
    ExitCode::FAILURE
}

fn farewell(left: &[String]) -> ExitCode {
    say("interrupted before the end; everything was stopped and removed");
    left.iter().for_each(say);
    ExitCode::from(130)
}

fn give_up(error: &anyhow::Error, left: &[String]) -> ExitCode {
    say(format!("the demo cannot go on: {error:#}"));
    left.iter().for_each(say);
    say(format!("the logs are in {}", directory().display()));
    ExitCode::FAILURE
}

/// What carries this process's own name: others may run beside it.
fn residue() -> Vec<Residue> {
    let ours = format!("{PREFIX}{}", std::process::id());
    let is_ours = |residue: &Residue| match residue {
        Residue::Namespace(name) | Residue::Link(name) => name.starts_with(&ours),
        Residue::Pin(path) => path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&ours)),
        // Only found in a namespace that is left over, which is told already.
        Residue::Process { .. } => false,
    };
    Places::default().residue().into_iter().filter(is_ours).collect()
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace")
}

fn tool(path: &str) -> Result<PathBuf> {
    let tool = workspace().join(path);
    tool.exists().then_some(tool).with_context(|| format!("{path} is missing: run `cargo xtask setup`"))
}

fn say(text: impl AsRef<str>) {
    // A terminal that is gone is no reason to leave namespaces behind.
    let _ = writeln!(std::io::stdout(), "{}", text.as_ref());
}
