//! `PROXY_HTTP_API`: WHIP, WHEP and SRS's JSON API, passed to the stream's origin.
//!
//! An exchange goes through as it is, except for one thing: the candidates of the origin's answer become ours, and the
//! [`SessionSink`] learns of the session before the client does.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    middleware::map_response,
    response::{IntoResponse as _, Response},
    routing::any,
};
use http::{Method, Request, StatusCode};
use ipnet::IpNet;
use parking_lot::Mutex;
use proxy_protocol::{ice::UfragPair, stream_url::StreamRules};
use serde_json::Value;
use tracing::info;

pub use self::candidate::Receiver;
use self::{candidate::Candidates, endpoint::Endpoint, forward::Forwarder};
use super::{
    ApiError, BodyLimits, cors::allow_all_origins, json_answer, resolve::Resolver, signature_members,
    srs_members,
};
use crate::{
    config::{self, Config},
    fleet::Fleet,
    origin::{Origin, Registry},
    rate_limit::{Rate, RateLimit},
    session::SessionOffer,
};

mod answer;
mod candidate;
mod endpoint;
mod exchange;
mod forward;
mod offer;

/// Why a session cannot be had; the client is told to come back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The client's network begins more sessions than it may.
    #[error("too many new sessions from this network")]
    TooManyOfSource,
    /// All clients together begin more sessions than they may.
    #[error("too many new sessions")]
    TooManyInAll,
    /// As many sessions as the proxy may have.
    #[error("the proxy has as many sessions as it may")]
    Full,
    /// No source port towards the origin is free.
    #[error("the proxy has no source port left towards the origin")]
    PortsExhausted,
    /// A live session has the same USERNAME.
    #[error("another session has the same ufrags")]
    DuplicateUfrag,
    /// The origin registered no WebRTC endpoint, or there is no route to it.
    #[error("the origin's WebRTC endpoint cannot be reached")]
    Unreachable,
    /// The proxy is about to end.
    #[error("the proxy is stopping")]
    Stopping,
}

impl OfferError {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooManyOfSource => "too_many_of_source",
            Self::TooManyInAll => "too_many_in_all",
            Self::Full => "full",
            Self::PortsExhausted => "ports_exhausted",
            Self::DuplicateUfrag => "duplicate_ufrag",
            Self::Unreachable => "origin_unreachable",
            Self::Stopping => "stopping",
        }
    }
}

/// Who keeps the sessions.
#[async_trait::async_trait]
pub trait SessionSink: Send + Sync + 'static {
    /// Takes a session; its client is answered only after that.
    async fn offered(&self, offer: SessionOffer) -> Result<(), OfferError>;
    /// Notes that a session was refused before anybody was asked.
    fn refused(&self, why: OfferError);
    /// Ends a session that the origin has deleted.
    async fn deleted(&self, ufrags: &UfragPair);
    /// The origin of a session that lives here.
    fn origin_of(&self, ufrags: &UfragPair) -> Option<Arc<Origin>>;
    /// The origin of a session of another proxy, if the fleet writes its sessions down.
    async fn origin_elsewhere(&self, _: &UfragPair) -> Option<Arc<Origin>> {
        None
    }
}

/// Where media is received.
#[derive(Clone, Copy, Debug)]
pub struct Receivers {
    /// Over UDP.
    pub udp: Receiver,
    /// Over TCP, if it is.
    pub tcp: Option<Receiver>,
}

/// What signalling works on.
pub struct Signalling {
    registry: Arc<dyn Registry>,
    sink: Arc<dyn SessionSink>,
    rules: StreamRules,
    limits: BodyLimits,
    /// By the client's network.
    beginners: Mutex<RateLimit<u64>>,
    trusted_proxies: Vec<IpNet>,
    candidates: Candidates,
    /// What chooses the ICE credentials of WHIP and WHEP sessions, if origins do not.
    fleet: Option<Arc<Fleet>>,
    forwarder: Forwarder,
}

impl std::fmt::Debug for Signalling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signalling").field("candidates", &self.candidates).finish_non_exhaustive()
    }
}

impl Signalling {
    /// Signalling as configured, with media received at `media`.
    pub fn new(
        config: &Config,
        media: Receivers,
        registry: Arc<dyn Registry>,
        sink: Arc<dyn SessionSink>,
        resolver: Arc<Resolver>,
        fleet: Option<Arc<Fleet>>,
    ) -> Self {
        let limits =
            BodyLimits { size: config.signalling.body_limit, time: config.signalling.client_timeout };
        Self {
            registry,
            sink,
            rules: config.streams.rules(),
            limits,
            beginners: Mutex::new(beginners(&config.signalling)),
            trusted_proxies: config.trusted_proxies.clone(),
            candidates: Candidates {
                configured: config.webrtc.candidates.clone(),
                allowed_hosts: config.webrtc.candidate_hosts.clone(),
                udp: media.udp,
                tcp: media.tcp,
                resolver,
            },
            fleet,
            forwarder: Forwarder::new(config.signalling.origin_timeout, limits.size),
        }
    }
}

/// How many sessions may begin.
fn beginners(config: &config::Signalling) -> RateLimit<u64> {
    /// A crowd that comes at once, as after a change of program.
    const BURST: f64 = 10.0;
    let rate = |sessions: u32| Rate { per_second: sessions.into(), burst: BURST * f64::from(sessions) };
    RateLimit::new(rate(config.new_sessions_per_source), rate(config.new_sessions_in_all))
}

/// Its routes.
pub fn router(signalling: Signalling) -> Router {
    Router::new()
        .route("/api/v1/versions", any(versions))
        .fallback(serve)
        .layer(map_response(allow_all_origins))
        .with_state(Arc::new(signalling))
}

async fn versions() -> Response {
    let mut merged = srs_members();
    if let (Value::Object(merged), Value::Object(more)) = (&mut merged, signature_members()) {
        merged.extend(more);
    }
    json_answer(&merged)
}

async fn serve(
    State(signalling): State<Arc<Signalling>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    if request.method() == Method::OPTIONS {
        return Ok(StatusCode::OK.into_response());
    }
    let endpoint = Endpoint::of_path(request.uri().path()).ok_or(ApiError::NotFound(
        "this server has /rtc/v1/whip/, /rtc/v1/whip-play/, /rtc/v1/whep/, /rtc/v1/publish/ and /rtc/v1/play/",
    ))?;
    let method = request.method().clone();
    if ![Method::POST, Method::DELETE, Method::PATCH].contains(&method) {
        return Err(ApiError::MethodNotAllowed);
    }
    let request = signalling.read(endpoint, request).await?;
    let answered = match method {
        Method::POST => signalling.negotiate(&request).await,
        _ => signalling.change_session(&request).await,
    };
    if let Err(error) = &answered {
        info!(%method, path = request.parts.uri.path(), %error, "signalling failed");
    }
    answered
}

#[cfg(test)]
mod tests;
