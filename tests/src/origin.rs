//! An origin in the shape of SRS: WHIP, WHEP and the older JSON API in front of one UDP port that speaks real
//! ICE-lite, DTLS and SRTP; RTMP, and what is published by it as HTTP-FLV, HTTP-TS and HLS; SRT; plus the heartbeat by which
//! origins register with a proxy.
//!
//! Packets keep the publisher's sequence numbers on their way to each player, so that whoever counts gaps at a
//! player counts what was lost anywhere between the two ends.
//!
//! Shapes (answers, headers, JSON members, time-outs) are those of SRS 7; see the modules for each.

mod answer;
mod api;
mod console;
mod heartbeat;
mod live;
mod media;
mod player;
mod routes;
mod session;
mod stats;
mod streams;
mod tcp;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::Rng as _;

use crate::http::Server;
use crate::mailbox::{Sender, mailbox};
use crate::srt::{SrtOrigin, SrtSession};
use live::Live;
use media::{Command, Media};

pub use heartbeat::{Heartbeat, HeartbeatFormat};
pub use live::HlsSettings;
pub use stats::{LiveStats, OriginStats, SessionStats};

/// How SRS names itself: in `Server`, in `User-Agent` and in the origin line of its answers.
const SIGNATURE: &str = "SRS/7.0.18(Hang)";

/// How an origin listens and what it claims to be.
#[derive(Debug, Clone)]
pub struct OriginConfig {
    /// Where the HTTP API listens; port 0 picks one.
    pub api: SocketAddr,
    /// Where media is received; port 0 picks one.
    pub rtc: SocketAddr,
    /// Where media over TCP is received.
    pub rtc_tcp: RtcTcp,
    /// Where RTMP is served, if it is. Proxies ask for it at registration.
    pub rtmp: Option<SocketAddr>,
    /// Where HTTP-FLV, HTTP-TS and HLS are served, if they are.
    pub http: Option<SocketAddr>,
    /// Where SRT is served, if it is.
    pub srt: Option<SocketAddr>,
    /// What HLS players find.
    pub hls: HlsSettings,
    /// The addresses in answers besides those that the request names; without a port, that of `rtc`.
    pub candidates: Vec<Candidate>,
    /// The proxy to register with.
    pub heartbeat: Option<Heartbeat>,
    /// A session ends this long after its last datagram.
    pub session_timeout: Duration,
    /// Datagrams from a bound address always go to the session bound to it, STUN with another user name
    /// included, as in SRS: it shows a proxy that uses one source port for two sessions.
    pub address_first: bool,
    /// What origins are told apart by: kept by SRS over restarts.
    pub server_id: String,
    /// New at every start.
    pub service_id: String,
}

/// Where an origin takes media over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtcTcp {
    /// Nowhere: its answers list UDP alone.
    Off,
    /// On a port of its own; 0 picks one.
    At(SocketAddr),
    /// On the port of the HTTP API.
    WithApi,
}

/// An address for candidate lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The address.
    pub ip: IpAddr,
    /// The port, if it differs from the media port.
    pub port: Option<u16>,
}

impl Candidate {
    /// An address with the media port.
    #[must_use]
    pub fn at(ip: impl Into<IpAddr>) -> Self {
        Self { ip: ip.into(), port: None }
    }
}

impl std::str::FromStr for Candidate {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<SocketAddr>() {
            Ok(address) => Ok(Self { ip: address.ip(), port: Some(address.port()) }),
            Err(_) => text.parse().map(|ip| Self { ip, port: None }),
        }
    }
}

impl OriginConfig {
    /// An origin on `ip` with ports chosen by the system, without heartbeat.
    #[must_use]
    pub fn on(ip: impl Into<IpAddr>) -> Self {
        let ip = ip.into();
        let any_port = SocketAddr::new(ip, 0);
        Self {
            api: any_port,
            rtc: any_port,
            rtc_tcp: RtcTcp::Off,
            rtmp: Some(any_port),
            http: Some(any_port),
            srt: None,
            hls: HlsSettings::default(),
            candidates: vec![Candidate::at(ip)],
            heartbeat: None,
            session_timeout: Duration::from_secs(30),
            address_first: false,
            server_id: format!("vid-{}", random_id(7)),
            service_id: random_id(8),
        }
    }
}

/// A running origin; it stops when dropped.
#[derive(Debug)]
pub struct Origin {
    endpoints: Endpoints,
    commands: Sender<Command>,
    media: Option<JoinHandle<()>>,
    live: Live,
    srt: Option<SrtOrigin>,
    _api: Server,
    _tcp: Option<Server>,
    _heartbeat: Option<heartbeat::Beating>,
}

/// Where a running origin listens.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints {
    /// The HTTP API.
    pub api: SocketAddr,
    /// Media.
    pub rtc: SocketAddr,
    /// Media over TCP.
    pub rtc_tcp: Option<SocketAddr>,
    /// RTMP.
    pub rtmp: Option<SocketAddr>,
    /// HTTP-FLV, HTTP-TS and HLS.
    pub http: Option<SocketAddr>,
    /// SRT.
    pub srt: Option<SocketAddr>,
}

impl Origin {
    /// Starts an origin whose sockets belong to the calling thread's network namespace.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub fn start(config: OriginConfig) -> Result<Self> {
        let config = Arc::new(config);
        let socket = bind_media(config.rtc).with_context(|| format!("failed to bind udp {}", config.rtc))?;
        let rtc = socket.local_addr()?;
        let (commands, mailbox) = mailbox()?;
        let api = api::serve(&config, commands.clone())
            .with_context(|| format!("failed to listen on tcp {}", config.api))?;
        let tcp = match config.rtc_tcp {
            RtcTcp::At(address) => Some(tcp::listen(address, &commands)?),
            RtcTcp::Off | RtcTcp::WithApi => None,
        };
        let rtc_tcp = match config.rtc_tcp {
            RtcTcp::Off => None,
            RtcTcp::At(_) => tcp.as_ref().map(Server::address),
            RtcTcp::WithApi => Some(api.address()),
        };
        let media = Media::new(Arc::clone(&config), socket, rtc_tcp, mailbox)?;
        let live = Live::start(config.rtmp, config.http, config.hls.clone())?;
        let srt = config.srt.map(SrtOrigin::start).transpose()?;
        let endpoints = Endpoints {
            api: api.address(),
            rtc,
            rtc_tcp,
            rtmp: live.rtmp,
            http: live.http,
            srt: srt.as_ref().map(SrtOrigin::address),
        };
        let beating =
            config.heartbeat.clone().map(|heartbeat| heartbeat.start(&config, endpoints)).transpose()?;
        let media = Some(thread::spawn(move || media.run()));
        Ok(Self { endpoints, commands, media, live, srt, _api: api, _tcp: tcp, _heartbeat: beating })
    }

    /// Where the origin listens.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    /// Everybody whom SRT accepted.
    #[must_use]
    pub fn srt_sessions(&self) -> Vec<SrtSession> {
        self.srt.as_ref().map(SrtOrigin::sessions).unwrap_or_default()
    }

    /// What happened so far; sessions that ended are not listed any more.
    ///
    /// # Panics
    /// When the media thread has panicked.
    #[must_use]
    pub fn stats(&self) -> OriginStats {
        let sessions = self.commands.ask(|reply| Command::Stats { reply });
        let sessions = sessions.expect("the media thread lives as long as the origin");
        OriginStats { live: self.live.stats(), ..sessions }
    }

    /// The API address as clients write it: `http://ip:port`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.endpoints.api)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.commands.send(Command::Stop);
        if let Some(media) = self.media.take() {
            let _ = media.join();
        }
    }
}

const SOCKET_BUFFER: usize = 8 << 20;

fn bind_media(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    // Beyond the system's limit only with privilege; a smaller buffer still works.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER);
    Ok(socket)
}

/// SRS draws its ids from this alphabet.
fn random_id(length: usize) -> String {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}
