//! Origins: what they register, which one a stream is on, whether they live.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use proxy_protocol::{ice::UfragPair, stream_url::StreamKey};
use serde::{Deserialize, Serialize};

use self::{balance::Terms, registry::Refusal};

pub mod balance;
pub mod connector;
pub mod endpoint;
pub mod fleet;
pub mod memory;
pub mod probe;
pub mod registration;
pub mod registry;
pub mod store;

/// Identity of one run of an origin: `<server>-<service>-<pid>`, as the Go proxy forms it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OriginId(pub Arc<str>);

impl OriginId {
    /// Joins the server id, which survives restarts, with the service id and process id, which do not.
    pub fn new(server: &str, service: &str, pid: &str) -> Self {
        Self(format!("{server}-{service}-{pid}").into())
    }
}

impl fmt::Display for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A registered origin, endpoints parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Which run of which server.
    pub id: OriginId,
    /// The server id: the same for every run of one server.
    pub server: String,
    /// Operator's label.
    pub device_id: String,
    /// The address all endpoints share.
    pub ip: IpAddr,
    /// RTMP, TCP.
    pub rtmp: Option<SocketAddr>,
    /// HTTP streams, TCP.
    pub http: Option<SocketAddr>,
    /// HTTP API, TCP.
    pub api: Option<SocketAddr>,
    /// SRT, UDP.
    pub srt: Option<SocketAddr>,
    /// WebRTC, UDP.
    pub rtc: Option<SocketAddr>,
    /// WebRTC over TCP.
    pub rtc_tcp: Option<SocketAddr>,
}

#[cfg(test)]
impl Origin {
    /// One that serves nothing.
    pub(crate) fn bare(server: &str, id: OriginId, ip: IpAddr) -> Self {
        Self {
            id,
            server: server.into(),
            device_id: server.into(),
            ip,
            rtmp: None,
            http: None,
            api: None,
            srt: None,
            rtc: None,
            rtc_tcp: None,
        }
    }
}

/// Why no origin could be picked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// None is registered, or none is up.
    #[error("no server available for {0}")]
    NoOrigin(StreamKey),
    /// Those that are up take no new streams.
    #[error("no origin takes {stream}: {reason}")]
    NotTaken {
        /// The stream.
        stream: StreamKey,
        /// Why not.
        reason: Refusal,
    },
    /// The registry did not answer.
    #[error("registry is unavailable: {0}")]
    Unavailable(String),
}

impl PickError {
    /// What a client is told. Why the registry does not answer is for the log alone.
    pub fn tell(&self) -> &'static str {
        match self {
            Self::NoOrigin(_) => "no origin is up for this stream",
            Self::NotTaken { .. } => "every origin is full or drains",
            Self::Unavailable(reason) => {
                tracing::warn!(%reason, "failed to pick an origin");
                "the registry of origins is unavailable"
            }
        }
    }
}

/// Something that changed an origin's fitness; the control plane ends sessions of origins that went down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginEvent {
    /// Takes new streams.
    Up(Arc<Origin>),
    /// Takes nothing; what it had is gone.
    Down(OriginId),
    /// Another proxy was told that this session ended.
    Ended(UfragPair),
    /// The publisher of a stream is on this origin: who waits for it elsewhere waits for nothing.
    Moved {
        /// The stream.
        stream: StreamKey,
        /// Where it is.
        to: OriginId,
    },
}

/// What a registry leaves to that of the next process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Origins that serve.
    pub origins: Vec<Arc<Origin>>,
    /// Which one each stream is on.
    pub picks: Vec<(StreamKey, OriginId)>,
}

/// Where streams are found: one implementation per kind of fleet.
#[async_trait::async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Records a heartbeat, and what the origin says it is to take.
    async fn register(&self, origin: Origin, terms: Terms) -> Result<(), PickError>;
    /// The stream's origin; chosen once, atomically, if it has none that lives.
    async fn pick(&self, stream: &StreamKey) -> Result<Arc<Origin>, PickError>;
    /// The stream's origin, if it has one that serves; chooses none.
    async fn picked(&self, stream: &StreamKey) -> Option<Arc<Origin>>;
    /// Tells that an origin has taken the publisher of a stream: that is where it is, whatever players were told before.
    async fn published(&self, stream: &StreamKey, origin: &OriginId);
    /// The origins that serve what they have.
    async fn serving(&self) -> Vec<Arc<Origin>>;
    /// The origin that takes streams and whose RTMP is at this address.
    async fn at_rtmp(&self, address: SocketAddr) -> Option<Arc<Origin>>;
    /// Tells which streams are in use, so that their picks do not expire.
    async fn refresh(&self, streams: Vec<StreamKey>);
    /// Tells how many sessions this proxy has at each origin.
    async fn carry(&self, sessions: HashMap<OriginId, u64>);
    /// Reports that `origin` could not be reached; the next pick avoids it until it answers a probe.
    async fn report_failure(&self, origin: &OriginId);
    /// Gives the origins that `name` names no new streams, or takes that back; tells which ones those are. A name is an
    /// id, a server id, a device id or an address.
    async fn drain(&self, name: &str, on: bool) -> Result<Vec<OriginId>, PickError>;
    /// Every known origin with its state, for people.
    async fn list(&self) -> Vec<OriginStatus>;
    /// What it cannot do at the moment.
    fn trouble(&self) -> Option<Trouble> {
        None
    }
    /// What it did so far.
    fn counts(&self) -> RegistryCounts {
        RegistryCounts::default()
    }
}

/// What a registry cannot do at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What, since when, and why.
    pub what: String,
    /// Whether no stream can be found at all.
    pub is_fatal: bool,
}

/// What a registry did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryCounts {
    /// Streams whose origin was known here.
    pub known: u64,
    /// Streams that the fleet was asked for.
    pub asked: u64,
    /// Streams whose origin every proxy worked out for itself, because the fleet could not be asked.
    pub agreed: u64,
    /// Streams that were written down when the fleet could be asked again.
    pub written_back: u64,
    /// Calls to what the fleet shares that failed.
    pub failures: u64,
}

/// Where an origin serves what, as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct Endpoints {
    /// RTMP, TCP.
    pub rtmp: Option<SocketAddr>,
    /// HTTP streams, TCP.
    pub http: Option<SocketAddr>,
    /// HTTP API, TCP.
    pub api: Option<SocketAddr>,
    /// SRT, UDP.
    pub srt: Option<SocketAddr>,
    /// WebRTC, UDP.
    pub rtc: Option<SocketAddr>,
}

/// An origin as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct OriginStatus {
    /// Identity.
    pub id: OriginId,
    /// Operator's label.
    pub device_id: String,
    /// Address.
    pub ip: IpAddr,
    /// What it registered.
    pub endpoints: Endpoints,
    /// `probing`, `up`, `draining`, `down`.
    pub state: &'static str,
    /// Why it takes no new streams.
    pub reason: Option<String>,
    /// Seconds since the last heartbeat.
    pub heartbeat_age: f64,
    /// Streams picked to it.
    pub streams: usize,
    /// Sessions and TCP streams that all proxies have there.
    pub sessions: u64,
    /// Its share of new streams.
    pub weight: u32,
    /// Sessions from which on it gets no new stream.
    pub capacity: Option<u32>,
}
