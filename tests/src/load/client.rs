//! A session as its owner sees it.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::path::Over;
use super::peer::{self, Peer, Plan};
use super::signalling::{self, Api, Exchange};
use super::stats::{ClientStats, Role};
use super::swarm::{Command, PeerId, Swarm};
use crate::http::Url;

/// What to connect to, and how.
#[derive(Debug)]
pub struct ClientOptions {
    /// The WHIP, WHEP or legacy address, complete with its query.
    pub url: Url,
    /// Which of the interfaces that address is.
    pub api: Api,
    /// Publisher or player.
    pub role: Role,
    /// Bits per second of a publisher's video.
    pub bitrate: u32,
    /// Whether there is an audio line beside video.
    pub audio: bool,
    /// The local address of media and HTTP; by default the one that reaches the server.
    pub bind: Option<IpAddr>,
    /// Which candidates of the answer are used.
    pub over: Over,
    /// A socket to use for media instead of a fresh one.
    pub socket: Option<UdpSocket>,
}

impl ClientOptions {
    /// A publisher of 1 Mbit/s by WHIP.
    ///
    /// # Errors
    /// When the address cannot be parsed.
    pub fn publish(url: &str) -> Result<Self> {
        Self::new(url, Role::Publisher)
    }

    /// A player by WHEP.
    ///
    /// # Errors
    /// When the address cannot be parsed.
    pub fn play(url: &str) -> Result<Self> {
        Self::new(url, Role::Player)
    }

    fn new(url: &str, role: Role) -> Result<Self> {
        let url = Url::parse(url)?;
        let (bitrate, over) = (1_000_000, Over::Udp);
        Ok(Self { url, api: Api::Whip, role, bitrate, audio: true, bind: None, over, socket: None })
    }

    /// Uses SRS's JSON API with this stream instead of WHIP.
    #[must_use]
    pub fn legacy(mut self, stream_url: impl Into<String>) -> Self {
        self.api = Api::Legacy { stream_url: stream_url.into() };
        self
    }

    /// Uses these candidates of the answer.
    #[must_use]
    pub fn over(mut self, over: Over) -> Self {
        self.over = over;
        self
    }

    /// Uses this socket, bound to a definite address, for media.
    #[must_use]
    pub fn socket(mut self, socket: UdpSocket) -> Self {
        self.socket = Some(socket);
        self
    }

    fn bound_socket(&mut self) -> Result<UdpSocket> {
        if let Some(socket) = self.socket.take() {
            return Ok(socket);
        }
        let ip = self.bind.map_or_else(|| signalling::local_address_towards(&self.url), Ok)?;
        peer::bind(ip)
    }
}

/// A running session. Dropped, it is abandoned: no DELETE, no alert, only silence.
#[derive(Debug)]
pub struct Client {
    id: PeerId,
    swarm: Arc<Swarm>,
    exchange: Exchange,
    bind: Option<IpAddr>,
}

impl Client {
    /// Exchanges offer and answer and starts the session on `swarm`. Sockets and the HTTP connection are those
    /// of the calling thread's network namespace.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or answers something unusable.
    pub fn connect(swarm: &Arc<Swarm>, mut options: ClientOptions) -> Result<Self> {
        let socket = match options.over {
            Over::Udp => Some(options.bound_socket()?),
            Over::Tcp | Over::TcpAt(_) => None,
        };
        let plan = Plan { role: options.role, bitrate: options.bitrate, audio: options.audio };
        let (mut peer, pending, offer) = Peer::offer(socket, plan)?;
        let posted = Instant::now();
        let exchange = signalling::exchange(&options.api, &options.url, &offer, options.bind)?;
        let answer = match options.over {
            Over::Udp => exchange.answer.clone(),
            Over::Tcp => peer.connect(&exchange.answer, None, options.bind)?,
            Over::TcpAt(address) => peer.connect(&exchange.answer, Some(address), options.bind)?,
        };
        peer.accept(pending, &answer, posted)?;
        let peer = Box::new(peer);
        let id =
            swarm.commands().ask(|reply| Command::Add { peer, reply }).context("the swarm has stopped")?;
        Ok(Self { id, swarm: Arc::clone(swarm), exchange, bind: options.bind })
    }

    /// The answer and the resource that the server gave.
    #[must_use]
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// What the session has done and seen so far.
    ///
    /// # Panics
    /// When the swarm's thread has panicked.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        let id = self.id;
        let stats = self.swarm.commands().ask(|reply| Command::Stats { id, reply });
        stats.flatten().expect("a session stays in its swarm until its client is gone")
    }

    /// Waits until `condition` holds.
    ///
    /// # Errors
    /// When it does not within `limit`; the error shows the last state.
    pub fn wait(&self, limit: Duration, condition: impl Fn(&ClientStats) -> bool) -> Result<ClientStats> {
        let end = Instant::now() + limit;
        loop {
            let stats = self.stats();
            if condition(&stats) {
                return Ok(stats);
            }
            if Instant::now() > end {
                bail!("still waiting after {limit:?}: {stats:?}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Goes on from `socket`, as a client that has changed networks: connectivity checks from there, and the old
    /// address is dead.
    pub fn migrate_to(&self, socket: UdpSocket) {
        self.swarm.commands().send(Command::Migrate { id: self.id, socket });
    }

    /// Goes on from a new port of the same address, in the calling thread's network namespace.
    ///
    /// # Errors
    /// When no socket can be bound.
    pub fn migrate(&self) -> Result<()> {
        self.migrate_to(peer::bind(self.stats().local.ip())?);
        Ok(())
    }

    /// Ends the session as a browser does: DELETE on its resource, then a DTLS alert.
    ///
    /// # Errors
    /// When DELETE fails.
    pub fn stop(self) -> Result<()> {
        let deleted =
            self.exchange.resource.as_ref().map_or(Ok(()), |url| signalling::delete(url, self.bind));
        self.swarm.commands().send(Command::Close { id: self.id });
        deleted
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.swarm.commands().send(Command::Abandon { id: self.id });
    }
}
