//! The network, the proxy and the origins of one run.

use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{directory, files};
use crate::netns::Routed;
use crate::origin::{Origin, OriginStats};
use crate::proxy::{Engine, Proxy, Status};
use crate::site;

const END: Duration = Duration::from_secs(5);

/// Everything but the clients.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) network: &'a Routed,
    proxy: Proxy<'a>,
    origins: [Origin; 2],
}

impl<'a> Stage<'a> {
    /// Starts the proxy, then the origins, which register with it.
    pub(super) fn start(network: &'a Routed, engine: Engine) -> Result<Self> {
        let mut command = Proxy::command(engine)?;
        let log = files::create(&directory().join(format!("proxy-{}.log", engine.as_str())))?;
        command.stderr(log).process_group(0);
        let proxy = Proxy::spawn(&network.proxy, Routed::PROXY, command)?;
        let origins = [
            site::origin(&network.origin_a, Routed::ORIGIN_A, Routed::PROXY_INSIDE)?,
            site::origin(&network.origin_b, Routed::ORIGIN_B, Routed::PROXY_INSIDE)?,
        ];
        proxy.wait_for_origins(origins.len())?;
        Ok(Self { network, proxy, origins })
    }

    pub(super) fn whip(&self, stream: &str) -> String {
        self.proxy.whip(stream)
    }

    pub(super) fn whep(&self, stream: &str) -> String {
        self.proxy.whep(stream)
    }

    pub(super) fn status(&self) -> Result<Status> {
        self.proxy.status()
    }

    pub(super) fn process(&self) -> u32 {
        self.proxy.id()
    }

    pub(super) fn origin_stats(&self) -> [OriginStats; 2] {
        self.origins.each_ref().map(Origin::stats)
    }

    /// Holds the kernel path off, or lets it be used.
    pub(super) fn switch_offload(&self, on: bool) -> Result<()> {
        self.proxy.switch_offload(on)
    }

    /// Ends the proxy once its sessions are over at both sides, and tells what was not clean.
    pub(super) fn end(self) -> Vec<String> {
        let over = self.proxy.wait(END, |status| {
            status.sessions.is_empty() && status.totals.ports_leased == 0 && self.origins_are_idle()
        });
        let over = over.map(drop).context("sessions or ports are left over at the proxy or an origin");
        let stopped = self.proxy.stop().context("the proxy did not end cleanly");
        [over, stopped].into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect()
    }

    fn origins_are_idle(&self) -> bool {
        self.origin_stats().iter().all(|stats| stats.sessions.is_empty())
    }
}
