//! One turn: somebody between the two ends, or nobody, under one load.

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    cpu::{Clock, Used},
    origin::Origin,
    plain::{self, Plain},
    site::{HTTP, Site},
    viewers::Viewers,
};
use crate::{
    interrupt::Interrupt,
    live::{HTTP_PORT, register},
    netns::Direct,
    proxy::{Engine, Proxy},
};

/// What is between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Between {
    /// A link.
    Nothing,
    /// A router.
    Router,
    /// tokio's `copy_bidirectional`.
    Plain,
    /// The proxy, joining by that `PROXY_TCP_JOIN`.
    Proxy(&'static str),
}

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) name: &'static str,
    /// As the origin understands it.
    pub(super) stream: &'static str,
    pub(super) viewers: usize,
    pub(super) warm_up: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) bytes: u64,
    pub(super) lasted: Duration,
    pub(super) used: Used,
}

/// Runs until it is dropped.
enum Running<'a> {
    Nothing,
    Plain { _plain: Plain },
    Proxy(Proxy<'a>),
}

impl Between {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "link",
            Self::Router => "router",
            Self::Plain => "tokio",
            Self::Proxy(means) => means,
        }
    }

    fn start(self, site: &Site) -> Result<(Running<'_>, SocketAddr)> {
        let at_proxy = |port| SocketAddr::from((Direct::PROXY, port));
        Ok(match self {
            Self::Nothing => (Running::Nothing, site.beside()),
            Self::Router => (Running::Nothing, site.routed()),
            Self::Plain => {
                let plain = site.network.proxy.enter(|| Plain::start(site.routed()))?;
                (Running::Plain { _plain: plain }, at_proxy(plain::PORT))
            }
            Self::Proxy(means) => {
                // What is probed as RTMP has to accept connections, and no more.
                let proxy = proxy(site, [HTTP, HTTP], &[("PROXY_TCP_JOIN", means)])?;
                (Running::Proxy(proxy), at_proxy(HTTP_PORT))
            }
        })
    }
}

/// The proxy as it is shipped, with an origin at these ports; it logs as usual, to nobody.
pub(super) fn proxy<'a>(
    site: &'a Site,
    [rtmp, http]: [u16; 2],
    settings: &[(&str, &str)],
) -> Result<Proxy<'a>> {
    let mut command = Proxy::command(Engine::Userspace)?;
    command.envs(settings.iter().copied()).stderr(Stdio::null());
    let proxy = Proxy::spawn(&site.network.proxy, Direct::PROXY, command)?;
    register(&site.network.proxy, Direct::ORIGIN, rtmp, http)?;
    proxy.wait_for_origins(1)?;
    Ok(proxy)
}

/// Carries a load for so long.
pub(super) fn run(
    site: &Site,
    between: Between,
    load: Load,
    window: Duration,
    interrupt: &Interrupt,
) -> Result<Outcome> {
    let _origin = Origin::start(&site.network.origin)?;
    let (running, to) = between.start(site)?;
    let viewers = Viewers::start(&site.network.client, to, load.stream, load.viewers)?;
    let clock = Clock::new(running.proxy())?;
    interrupt.sleep(load.warm_up)?;
    let (begin, bytes, used) = (Instant::now(), viewers.bytes(), clock.read()?);
    interrupt.sleep(window)?;
    let (lasted, bytes, used) = (begin.elapsed(), viewers.bytes() - bytes, clock.read()? - used);
    viewers.check()?;
    Ok(Outcome { bytes, lasted, used })
}

impl Running<'_> {
    fn proxy(&self) -> Option<u32> {
        match self {
            Self::Nothing | Self::Plain { .. } => None,
            Self::Proxy(proxy) => Some(proxy.id()),
        }
    }
}

impl Outcome {
    /// Gbit/s.
    pub(super) fn rate(&self) -> f64 {
        self.bytes as f64 * 8e-9 / self.lasted.as_secs_f64()
    }

    /// Processor seconds of both ends and all between them for a GB.
    pub(super) fn cost(&self) -> f64 {
        self.used.total().as_secs_f64() / (self.bytes as f64 * 1e-9)
    }

    /// That of the relay's own threads.
    pub(super) fn cost_of_relay(&self) -> f64 {
        self.used.relay.as_secs_f64() / (self.bytes as f64 * 1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_cost_are_of_the_bytes_that_arrived() {
        let seconds = |ends, relay, kernel| {
            let [ends, relay, kernel] = [ends, relay, kernel].map(Duration::from_secs);
            Used { ends, relay, kernel }
        };
        let lasted = Duration::from_secs(2);
        let outcome = Outcome { bytes: 4_000_000_000, lasted, used: seconds(2, 1, 1) };
        assert_eq!((outcome.rate(), outcome.cost(), outcome.cost_of_relay()), (16.0, 1.0, 0.25));
    }
}
