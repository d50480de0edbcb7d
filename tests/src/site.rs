//! A proxy between clients and two test origins, ready for sessions.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;

use crate::{
    load::{Client, ClientOptions, Swarm},
    netns::{Family, Namespace, Routed},
    origin::{Heartbeat, Origin, OriginConfig, RtcTcp},
    proxy::{Engine, Proxy, Status},
};

/// Long enough for a busy machine, short enough to fail before the suite's patience ends.
const PATIENCE: Duration = Duration::from_secs(15);

/// Everything that runs in a [`Routed`] network.
#[derive(Debug)]
pub struct Site<'a> {
    /// The proxy under test.
    pub proxy: Proxy<'a>,
    /// Both origins; one that is taken out has died.
    pub origins: [Option<Origin>; 2],
    pub(crate) swarm: Arc<Swarm>,
    pub(crate) client: &'a Namespace,
}

impl<'a> Site<'a> {
    /// Starts the proxy and both origins and waits until they know each other.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(network: &'a Routed, engine: Engine, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_between(network, engine, [Family::V4; 2], settings)
    }

    /// Does the same with one IP version towards clients and one towards origins.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start_between(
        network: &'a Routed,
        engine: Engine,
        [client, inside]: [Family; 2],
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let proxy = Proxy::start(&network.proxy, client.of(Routed::PROXY), engine, settings)?;
        let on = |namespace, ip| origin(namespace, inside.of(ip), inside.of(Routed::PROXY_INSIDE));
        let origins = [on(&network.origin_a, Routed::ORIGIN_A)?, on(&network.origin_b, Routed::ORIGIN_B)?];
        Self::of(network, proxy, origins)
    }

    /// Takes what runs already and waits until the parts know each other.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn of(network: &'a Routed, proxy: Proxy<'a>, origins: [Origin; 2]) -> Result<Self> {
        proxy.wait_for_origins(origins.len())?;
        Ok(Self {
            proxy,
            origins: origins.map(Some),
            swarm: Arc::new(Swarm::start()?),
            client: &network.client,
        })
    }

    /// Publishes `stream` by WHIP.
    ///
    /// # Errors
    /// When the proxy refuses.
    pub fn publish(&self, stream: &str) -> Result<Client> {
        self.connect(ClientOptions::publish(&self.proxy.whip(stream))?)
    }

    /// Plays `stream` by WHEP.
    ///
    /// # Errors
    /// When the proxy refuses.
    pub fn play(&self, stream: &str) -> Result<Client> {
        self.connect(ClientOptions::play(&self.proxy.whep(stream))?)
    }

    /// Connects from the client's namespace.
    ///
    /// # Errors
    /// When the proxy refuses.
    pub fn connect(&self, options: ClientOptions) -> Result<Client> {
        self.client.enter(|| Client::connect(&self.swarm, options))
    }

    /// Waits until every session is where `engine` puts it.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn settled(&self, engine: Engine, sessions: usize) -> Result<Status> {
        let offloaded = if engine.is_kernel() { sessions } else { 0 };
        self.proxy.wait(PATIENCE, |status| {
            let live = status.sessions.iter().filter(|session| session.state != "waiting").count();
            live == sessions && status.totals.offloaded == offloaded
        })
    }

    /// Which of the origins has `stream`.
    ///
    /// # Errors
    /// When no session has it.
    pub fn origin_of(&self, stream: &str) -> Result<usize> {
        let status = self.proxy.status()?;
        let session = status.sessions.iter().find(|session| session.stream.ends_with(&format!("/{stream}")));
        let media: SocketAddr =
            session.ok_or_else(|| anyhow::anyhow!("no session of {stream}"))?.media.parse()?;
        Ok(usize::from(Family::ALL.iter().all(|family| family.of(Routed::ORIGIN_A) != media.ip())))
    }
}

/// A test origin on `ip` that registers with the proxy at `proxy`.
///
/// # Errors
/// When it does not start.
pub fn origin(namespace: &Namespace, ip: impl Into<IpAddr>, proxy: impl Into<IpAddr>) -> Result<Origin> {
    origin_with(namespace, ip, proxy, |_| {})
}

/// The same, with other settings.
///
/// # Errors
/// When it does not start.
pub fn origin_with(
    namespace: &Namespace,
    ip: impl Into<IpAddr>,
    proxy: impl Into<IpAddr>,
    adjust: impl FnOnce(&mut OriginConfig),
) -> Result<Origin> {
    let ip = ip.into();
    let mut config = OriginConfig::on(ip);
    config.heartbeat = Some(Heartbeat::every_second(Proxy::register_url(proxy), "origin", ip));
    adjust(&mut config);
    namespace.enter(|| Origin::start(config))
}

/// As [`origin`], and takes media over TCP there.
///
/// # Errors
/// When it does not start.
pub fn origin_over(
    namespace: &Namespace,
    ip: impl Into<IpAddr>,
    proxy: impl Into<IpAddr>,
    rtc_tcp: RtcTcp,
) -> Result<Origin> {
    origin_with(namespace, ip, proxy, |config| config.rtc_tcp = rtc_tcp)
}
