//! A fleet: proxies and origins that know each other by one Redis, and its clients, as pods of one node.

mod gates;

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    load::{Client, ClientOptions, Swarm},
    netns::{Cluster, Namespace, Pod},
    origin::Origin,
    proxy::{Engine, Proxy},
    redis::Redis,
    site,
};

pub use self::gates::Gates;

const PATIENCE: Duration = Duration::from_secs(20);
const REDIS_PORT: u16 = 6379;

/// The pods.
#[derive(Debug)]
pub struct Grounds<'a> {
    /// Redis is here.
    pub redis: Pod<'a>,
    /// A proxy in each.
    pub proxies: Vec<Pod<'a>>,
    /// An origin in each.
    pub origins: Vec<Pod<'a>>,
    /// Clients.
    pub client: Pod<'a>,
}

impl<'a> Grounds<'a> {
    /// Makes them.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn new(cluster: &'a Cluster, proxies: usize, origins: usize) -> Result<Self> {
        let pods = |count| (0..count).map(|_| cluster.pod()).collect::<Result<Vec<_>>>();
        Ok(Self {
            redis: cluster.pod()?,
            proxies: pods(proxies)?,
            origins: pods(origins)?,
            client: cluster.pod()?,
        })
    }

    /// Starts Redis where proxies look for it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_redis(&self) -> Result<Redis<'_>> {
        Redis::start_open(&self.redis.namespace, REDIS_PORT, &[])
    }

    /// Starts one of the proxies.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_proxy(&self, index: usize, engine: Engine, settings: &[(&str, &str)]) -> Result<Proxy<'_>> {
        let pod = self.proxies.get(index).context("there is no such pod")?;
        let mut command = self.proxy_command(engine)?;
        command.envs(settings.iter().copied());
        Proxy::spawn(&pod.namespace, pod.address, command)
    }

    /// Any of the proxies, before it is started.
    ///
    /// # Errors
    /// When the binary is not found.
    pub fn proxy_command(&self, engine: Engine) -> Result<Command> {
        let mut command = Proxy::command(engine)?;
        let redis = format!("redis://{}:{REDIS_PORT}", self.redis.address);
        command.env("PROXY_LOAD_BALANCER_TYPE", "redis").env("PROXY_REDIS_URL", redis);
        Ok(command)
    }

    /// Starts one of the origins, which tells only one of the proxies of itself.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_origin(&self, index: usize, proxy: usize) -> Result<Origin> {
        let pod = self.origins.get(index).context("there is no such pod")?;
        site::origin(&pod.namespace, pod.address, self.proxy_address(proxy)?)
    }

    fn proxy_address(&self, index: usize) -> Result<Ipv4Addr> {
        Ok(self.proxies.get(index).context("there is no such pod")?.address)
    }
}

/// Everything that runs there.
#[derive(Debug)]
pub struct Fleet<'a> {
    /// Redis.
    pub redis: Redis<'a>,
    /// The proxies; one that is taken out is gone.
    pub proxies: Vec<Option<Proxy<'a>>>,
    /// The origins, each of which registers with another proxy.
    pub origins: Vec<Option<Origin>>,
    swarm: Arc<Swarm>,
    client: &'a Namespace,
}

impl<'a> Fleet<'a> {
    /// Starts everything and waits until every proxy knows every origin.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(grounds: &'a Grounds<'a>, engine: Engine, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_with(grounds.start_redis()?, grounds, engine, settings)
    }

    /// The same, with a Redis that runs already.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start_with(
        redis: Redis<'a>,
        grounds: &'a Grounds<'a>,
        engine: Engine,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let proxies = (0..grounds.proxies.len()).map(|index| grounds.start_proxy(index, engine, settings));
        let proxies = proxies.map(|proxy| proxy.map(Some)).collect::<Result<Vec<_>>>()?;
        let origins = (0..grounds.origins.len())
            .map(|index| grounds.start_origin(index, index % grounds.proxies.len()).map(Some))
            .collect::<Result<Vec<_>>>()?;
        let fleet = Self {
            redis,
            proxies,
            origins,
            swarm: Arc::new(Swarm::start()?),
            client: &grounds.client.namespace,
        };
        for proxy in fleet.proxies.iter().flatten() {
            proxy.wait_for_origins(fleet.origins.len())?;
        }
        Ok(fleet)
    }

    /// One of the proxies.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn proxy(&self, index: usize) -> &Proxy<'a> {
        self.proxies.get(index).and_then(Option::as_ref).expect("the proxy runs")
    }

    /// Publishes by WHIP at one of the proxies.
    ///
    /// # Errors
    /// When it refuses.
    pub fn publish(&self, proxy: usize, stream: &str) -> Result<Client> {
        self.connect(ClientOptions::publish(&self.proxy(proxy).whip(stream))?)
    }

    /// Plays by WHEP at one of the proxies.
    ///
    /// # Errors
    /// When it refuses.
    pub fn play(&self, proxy: usize, stream: &str) -> Result<Client> {
        self.connect(ClientOptions::play(&self.proxy(proxy).whep(stream))?)
    }

    /// Connects from where clients are.
    ///
    /// # Errors
    /// When the proxy refuses.
    pub fn connect(&self, options: ClientOptions) -> Result<Client> {
        self.client.enter(|| Client::connect(&self.swarm, options))
    }

    /// Which origins have sessions of `stream` at a proxy.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub fn origins_of(&self, proxy: usize, stream: &str) -> Result<Vec<IpAddr>> {
        let status = self.proxy(proxy).status()?;
        let of_stream = status.sessions.iter().filter(|s| s.stream.ends_with(&format!("/{stream}")));
        let media = of_stream.map(|session| Ok(session.media.parse::<std::net::SocketAddr>()?.ip()));
        media.collect()
    }
}

/// Waits until media has come to a player since it is asked.
///
/// # Errors
/// When none does.
pub fn media_flows(player: &Client) -> Result<Duration> {
    let (asked, before) = (Instant::now(), player.stats().received());
    player.wait(PATIENCE, |stats| stats.received() > before + 10)?;
    Ok(asked.elapsed())
}
