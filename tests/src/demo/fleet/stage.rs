//! What runs: Redis, proxies behind addresses of their own, and origins, each in its pod.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::super::{directory, files};
use crate::{
    fleet::{Gates, Grounds},
    netns::{Cluster, Pod, Process},
    proxy::{Engine, ListedOrigin, Proxy},
    redis::Redis,
};

/// For a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(20);
const KEY: &str = "a key of the demo, known to every proxy";

#[derive(Debug)]
pub(super) struct Stage<'a> {
    grounds: &'a Grounds<'a>,
    gates: Gates<'a>,
    redis: Redis<'a>,
    /// One that was killed is none.
    proxies: Vec<Option<Proxy<'a>>>,
    origins: Vec<Process>,
}

impl<'a> Stage<'a> {
    pub(super) fn start(cluster: &'a Cluster, grounds: &'a Grounds<'a>, engine: Engine) -> Result<Self> {
        let gates = Gates::open(cluster, &grounds.proxies)?;
        let redis = grounds.start_redis()?;
        let proxies = (0..grounds.proxies.len()).map(|index| {
            let mut command = grounds.proxy_command(engine)?;
            let log = files::create(&directory().join(format!("fleet-proxy-{index}.log")))?;
            // Ctrl-C is for the demo, which ends everything.
            command.stderr(log).process_group(0);
            command.envs([("PROXY_FLEET_KEY", KEY), ("PROXY_ON_STOP", "keep")]);
            let pod = grounds.proxies.get(index).context("there is no such pod")?;
            Proxy::spawn(&pod.namespace, Gates::address(index), command).map(Some)
        });
        let proxies = proxies.collect::<Result<Vec<_>>>()?;
        let origins = grounds.origins.iter().enumerate();
        let gates_of_proxies = proxies.len();
        let origins = origins.map(|(index, pod)| origin(pod, index, index % gates_of_proxies));
        let stage = Self { grounds, gates, redis, proxies, origins: origins.collect::<Result<_>>()? };
        stage.proxies().try_for_each(|proxy| proxy.wait_for_origins(stage.origins.len()))?;
        Ok(stage)
    }

    /// Has new streams go to those origins alone that are `wanted`.
    pub(super) fn place(&self, wanted: impl Fn(usize) -> bool) -> Result<()> {
        let teller = self.proxies.first().and_then(Option::as_ref).context("the first proxy is gone")?;
        let mut drained = 0;
        for (index, pod) in self.grounds.origins.iter().enumerate() {
            let method = if wanted(index) { "DELETE" } else { "POST" };
            drained += usize::from(!wanted(index));
            teller.drain(method, pod.address)?;
        }
        let end = Instant::now() + PATIENCE;
        while !self.are_in_state("draining", drained)? {
            ensure!(Instant::now() < end, "not every proxy knows which origins drain");
            std::thread::sleep(STEP);
        }
        Ok(())
    }

    pub(super) fn kill_redis(&mut self) -> Result<()> {
        self.redis.kill()
    }

    pub(super) fn restart_redis(&mut self) -> Result<()> {
        self.redis.restart()
    }

    pub(super) fn kill_origin(&mut self, index: usize) -> Result<()> {
        let origin = self.origins.get_mut(index).context("there is no such origin")?;
        origin.signal(Signal::KILL)?;
        origin.wait(PATIENCE).map(drop)
    }

    pub(super) fn kill_proxy(&mut self, index: usize) -> Result<()> {
        self.proxies.get_mut(index).and_then(Option::take).context("there is no such proxy")?.kill()
    }

    pub(super) fn move_address(&mut self, gate: usize, to: usize) -> Result<()> {
        self.gates.lead_to(gate, to)
    }

    /// Whether every proxy is, without reserve.
    pub(super) fn are_ready(&self) -> bool {
        self.proxies().all(|proxy| proxy.get("/readyz").is_ok_and(|answer| answer == "ready\n"))
    }

    /// Whether every proxy has so many origins that are up.
    pub(super) fn are_up(&self, origins: usize) -> Result<bool> {
        self.are_in_state("up", origins)
    }

    /// Sessions that a proxy took over from another one.
    pub(super) fn resumed(&self, proxy: usize) -> Result<u64> {
        let proxy = self.proxies.get(proxy).and_then(Option::as_ref).context("the proxy is gone")?;
        Ok(proxy.status()?.totals.resumed.values().sum())
    }

    /// Ends the proxies, which must have nothing to complain of.
    pub(super) fn end(self) -> Result<()> {
        let mut proxies = self.proxies.into_iter().flatten();
        proxies.try_for_each(|proxy| proxy.interrupt().context("a proxy did not end cleanly"))
    }

    fn proxies(&self) -> impl Iterator<Item = &Proxy<'a>> {
        self.proxies.iter().flatten()
    }

    /// Whether every proxy knows of so many streams of an origin.
    pub(super) fn have_streams(&self, origin: usize, streams: usize) -> Result<bool> {
        let pod = self.grounds.origins.get(origin).context("there is no such origin")?;
        self.do_all_list(streams, |origins| {
            origins.iter().filter(|origin| origin.ip == pod.address).map(|origin| origin.streams).sum()
        })
    }

    /// Whether so many origins are in a state, at every proxy.
    fn are_in_state(&self, wanted: &str, count: usize) -> Result<bool> {
        self.do_all_list(count, |origins| origins.iter().filter(|origin| origin.state == wanted).count())
    }

    fn do_all_list(&self, wanted: usize, count: impl Fn(&[ListedOrigin]) -> usize) -> Result<bool> {
        let counts = self.proxies().map(|proxy| Ok(count(&proxy.origins()?)));
        Ok(counts.collect::<Result<Vec<_>>>()?.iter().all(|count| *count == wanted))
    }
}

/// Starts an origin that registers at an address of the fleet.
fn origin(pod: &Pod<'_>, index: usize, gate: usize) -> Result<Process> {
    let program = std::env::current_exe().context("the program has no path")?.with_file_name("test-origin");
    ensure!(program.exists(), "{} is not built", program.display());
    let ip = pod.address;
    let mut command = Command::new(program);
    for (option, port) in
        [("--api", 1985), ("--rtc", 8000), ("--rtmp", 1935), ("--http", 8080), ("--srt", 10080)]
    {
        command.args([option, &format!("{ip}:{port}")]);
    }
    command.args(["--candidate", &ip.to_string(), "--device-id", &format!("origin{index}")]);
    command.args(["--heartbeat", &Proxy::register_url(Gates::address(gate)), "--heartbeat-interval", "1000"]);
    let log = files::create(&directory().join(format!("fleet-origin-{index}.log")))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    pod.namespace.spawn(command)
}
