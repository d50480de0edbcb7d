//! The demo of a restart: real WebRTC plays while the proxy is killed, is gone for a while, comes back, and is replaced by
//! another process. Loss is judged by the sequence numbers that viewers see.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{directory, files, judge_each, say};
use crate::{
    interrupt::Interrupt,
    load::Client,
    netns::Routed,
    pins::Pins,
    proxy::{Engine, Proxy, Runtime},
    residue,
    site::{self, Site},
};

/// For a busy machine.
const PATIENCE: Duration = Duration::from_secs(25);
/// A viewer that comes after a start has media within this time.
const NEWCOMER: Duration = Duration::from_secs(2);
const CALM: Duration = Duration::from_secs(2);

/// What is shown.
#[derive(Debug, Clone)]
pub struct Restart {
    /// The engines, one run each.
    pub engines: Vec<Engine>,
    /// How many viewers play from the beginning.
    pub viewers: usize,
    /// How long nobody runs.
    pub outage: Duration,
}

/// One row of the table.
struct Act {
    name: String,
    newcomer: Duration,
    received: u64,
    missing: u64,
    duplicates: u64,
}

/// Shows everything and judges it: success means that nothing was lost.
#[must_use]
pub fn run(plan: &Restart) -> ExitCode {
    judge_each(&plan.engines, |engine, interrupt| take(plan, engine, interrupt))
}

fn take(plan: &Restart, engine: Engine, interrupt: &Interrupt) -> Result<Vec<String>> {
    let network = Routed::new()?;
    let pins = Pins::of(&network.proxy)?;
    say(format!("engine {}: one publisher and {} viewers in the kernel", engine.as_str(), plan.viewers));
    let runtime = Runtime::new();
    let proxy = next(&network, engine, &runtime, "first")?;
    let on = |namespace, ip| site::origin(namespace, ip, Routed::PROXY_INSIDE);
    let origins = [on(&network.origin_a, Routed::ORIGIN_A)?, on(&network.origin_b, Routed::ORIGIN_B)?];
    let site = Site::of(&network, proxy, origins)?;
    let _publisher = site.publish("show")?;
    let mut viewers = (0..plan.viewers).map(|_| site.play("show")).collect::<Result<Vec<_>>>()?;
    for viewer in &viewers {
        viewer.wait(PATIENCE, |stats| stats.received() > 50)?;
    }
    site.settled(engine, plan.viewers + 1)?;
    let mut acts = Vec::new();

    say(format!("kill -9, and nobody runs for {:?}", plan.outage));
    let Site { proxy, origins, swarm, client } = site;
    proxy.kill()?;
    interrupt.sleep(plan.outage)?;
    let began = Instant::now();
    let proxy = next(&network, engine, &runtime, "second")?;
    let mut site = Site { proxy, origins, swarm, client };
    acts.push(act("killed, started again", &site, &mut viewers, (began, interrupt))?);

    say("an upgrade: another process takes over from the one that runs");
    let began = Instant::now();
    let heir = next(&network, engine, &runtime, "third")?;
    std::mem::replace(&mut site.proxy, heir).wait_for_end()?;
    acts.push(act("replaced by another", &site, &mut viewers, (began, interrupt))?);

    say(table(&acts));
    let mut broken: Vec<String> = acts.iter().flat_map(Act::broken).collect();
    drop(viewers);
    site.proxy.interrupt().context("the proxy did not end cleanly")?;
    broken.extend(residue::attached(&network.proxy)?.into_iter().map(|left| format!("left behind: {left}")));
    if !pins.is_empty() {
        broken.push(format!("left behind: {}", pins.path().display()));
    }
    Ok(broken)
}

fn next<'a>(network: &'a Routed, engine: Engine, runtime: &Arc<Runtime>, which: &str) -> Result<Proxy<'a>> {
    let mut command: Command = Proxy::command(engine)?;
    let log = files::create(&directory().join(format!("proxy-{}-{which}.log", engine.as_str())))?;
    // Ctrl-C is for the demo, which ends the proxy. Where nobody runs, a take-over is a plain start.
    command.stderr(log).process_group(0).envs([("PROXY_ON_STOP", "keep"), ("PROXY_TAKE_OVER", "on")]);
    Proxy::spawn_in(&network.proxy, Routed::PROXY, command, Arc::clone(runtime))
}

/// A viewer more, and what those before it have lost.
fn act(
    name: &str,
    site: &Site<'_>,
    viewers: &mut Vec<Client>,
    (began, interrupt): (Instant, &Interrupt),
) -> Result<Act> {
    let newcomer = site.play("show").context("a new viewer is refused")?;
    newcomer.wait(PATIENCE, |stats| stats.received() > 0).context("a new viewer gets nothing")?;
    let took = began.elapsed();
    interrupt.sleep(CALM)?;
    let stats: Vec<_> = viewers.iter().map(Client::stats).collect();
    viewers.push(newcomer);
    Ok(Act {
        name: name.to_owned(),
        newcomer: took,
        received: stats.iter().map(|stats| stats.received()).sum(),
        missing: stats.iter().map(|stats| stats.missing()).sum(),
        duplicates: stats.iter().map(|stats| stats.duplicates()).sum(),
    })
}

impl Act {
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.missing > 0 || self.duplicates > 0 {
            let figures = (self.missing, self.duplicates);
            broken.push(format!("{}: {} packets missing, {} twice", self.name, figures.0, figures.1));
        }
        if self.newcomer > NEWCOMER {
            broken.push(format!("{}: a new viewer waited {:?}", self.name, self.newcomer));
        }
        broken
    }
}

fn table(acts: &[Act]) -> String {
    let head = format!(
        "\n{:<24}{:>14}{:>10}{:>8}{:>22}",
        "the proxy was", "RTP received", "missing", "twice", "new viewer has media"
    );
    let rows = acts.iter().map(|act| {
        let Act { name, newcomer, received, missing, duplicates } = act;
        format!("\n{name:<24}{received:>14}{missing:>10}{duplicates:>8}{:>20} ms", newcomer.as_millis())
    });
    std::iter::once(head).chain(rows).chain(["\n".to_owned()]).collect()
}
