//! Origins: what they register, which one a stream is on, whether they live.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use proxy_protocol::stream_url::StreamKey;
use serde::{Deserialize, Serialize};

pub mod connector;
pub mod endpoint;
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

/// Why no origin could be picked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// None is registered, or none is up.
    #[error("no server available for {0}")]
    NoOrigin(StreamKey),
    /// The registry did not answer.
    #[error("registry is unavailable: {0}")]
    Unavailable(String),
}

impl PickError {
    /// What a client is told. Why the registry does not answer is for the log alone.
    pub fn tell(&self) -> &'static str {
        match self {
            Self::NoOrigin(_) => "no origin is up for this stream",
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
    /// Records a heartbeat.
    async fn register(&self, origin: Origin) -> Result<(), PickError>;
    /// The stream's origin; chosen once, atomically, if it has none that lives.
    async fn pick(&self, stream: &StreamKey) -> Result<Arc<Origin>, PickError>;
    /// The stream's origin, if it has one that serves; chooses none.
    async fn picked(&self, stream: &StreamKey) -> Option<Arc<Origin>>;
    /// The origins that serve what they have.
    async fn serving(&self) -> Vec<Arc<Origin>>;
    /// The origin that takes streams and whose RTMP is at this address.
    async fn at_rtmp(&self, address: SocketAddr) -> Option<Arc<Origin>>;
    /// Tells that a stream is in use, so that its pick does not expire.
    async fn refresh(&self, stream: &StreamKey);
    /// Reports that `origin` could not be reached; the next pick avoids it until it answers a probe.
    async fn report_failure(&self, origin: &OriginId);
    /// Every known origin with its state, for people.
    async fn list(&self) -> Vec<OriginStatus>;
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
    /// `probing`, `up`, `down`.
    pub state: &'static str,
    /// Why it is not up.
    pub reason: Option<String>,
    /// Seconds since the last heartbeat.
    pub heartbeat_age: f64,
    /// Streams picked to it.
    pub streams: usize,
}
