//! The network, the proxy and the origins of one run.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{directory, files};
use crate::live::{self, Connection, HTTP_PORT, rtmp_url};
use crate::netns::{Namespace, Routed};
use crate::origin::{LiveStats, Origin, OriginStats};
use crate::proxy::{Engine, Proxy, Status};
use crate::site;
use crate::srt::SRT_PORT;

const END: Duration = Duration::from_secs(5);
/// What the origins' ids begin with.
pub(super) const SERVER_IDS: [&str; 2] = ["vid-a", "vid-b"];

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
        let [a, b] = SERVER_IDS;
        let origins = [
            origin(&network.origin_a, Routed::ORIGIN_A, a)?,
            origin(&network.origin_b, Routed::ORIGIN_B, b)?,
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

    pub(super) fn rtmp(&self, stream: &str) -> String {
        rtmp_url(Routed::PROXY, stream)
    }

    pub(super) fn http(&self, file: &str) -> String {
        format!("http://{}/live/{file}", SocketAddr::from((Routed::PROXY, HTTP_PORT)))
    }

    /// Where callers of SRT call.
    pub(super) fn srt(&self) -> SocketAddr {
        SocketAddr::from((Routed::PROXY, SRT_PORT))
    }

    /// The streams over TCP that the proxy carries.
    pub(super) fn connections(&self) -> Result<Vec<Connection>> {
        live::connections(&self.proxy)
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

    /// Whether so many streams over TCP can be played by HLS too.
    pub(super) fn has_segments(&self, streams: usize) -> bool {
        let stats = self.origin_stats();
        stats.iter().flat_map(|origin| &origin.live).filter(|live| live.segments > 0).count() >= streams
    }

    /// Holds the kernel path off, or lets it be used.
    pub(super) fn switch_offload(&self, on: bool) -> Result<()> {
        self.proxy.switch_offload(on)
    }

    /// Ends the proxy once its sessions are over at both sides, and tells what was not clean.
    pub(super) fn end(self) -> Vec<String> {
        let over = self.proxy.wait(END, |status| {
            let idle = status.sessions.is_empty() && status.totals.ports_leased == 0;
            idle && self.origins_are_idle() && self.connections().is_ok_and(|listed| listed.is_empty())
        });
        let over = over.map(drop);
        let over = over.context("sessions, connections or ports are left over at the proxy or an origin");
        let stopped = self.proxy.stop().context("the proxy did not end cleanly");
        [over, stopped].into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect()
    }

    fn origins_are_idle(&self) -> bool {
        let live = |stats: &LiveStats| {
            stats.is_published || stats.rtmp_players + stats.http_flv_players + stats.http_ts_players > 0
        };
        self.origin_stats().iter().all(|stats| stats.sessions.is_empty() && !stats.live.iter().any(live))
    }
}

fn origin(namespace: &Namespace, ip: Ipv4Addr, server_id: &str) -> Result<Origin> {
    site::origin_with(namespace, ip, Routed::PROXY_INSIDE, |config| {
        server_id.clone_into(&mut config.server_id);
        config.srt = Some(SocketAddr::from((ip, 0)));
    })
}
