//! Which origin is asked, and what becomes of its answer.

use std::{net::SocketAddr, sync::Arc};

use axum::response::Response;
use http::{HeaderMap, Method, header, request::Parts};
use hyper::body::Incoming;
use ipnet::IpNet;
use proxy_protocol::{
    backend_id::{self, BackendKey},
    stream_url::{MediaRequest, StreamKey, StreamRules},
};
use tokio::time::timeout;
use tracing::debug;

use super::text::{self, Text};
use crate::{
    api::{
        ApiError, Connection, body,
        client_address::ClientAddress,
        fetch::{FetchError, Fetcher, Outgoing, passed},
    },
    config::Config,
    live,
    origin::{Origin, Registry},
};

/// A playlist of a day holds some ten thousand segments.
const TEXT_LIMIT: usize = 4 << 20;
/// How many origins are tried if one cannot be reached.
const ATTEMPTS: u32 = 2;
const X_FORWARDED_HOST: &str = "x-forwarded-host";

/// What requests for media that ends are answered with.
pub struct Streams {
    registry: Arc<dyn Registry>,
    rules: StreamRules,
    key: BackendKey,
    trusted_proxies: Vec<IpNet>,
    fetcher: Fetcher,
}

/// A request of a player.
struct Wish {
    outgoing: Outgoing,
    /// What the player calls us.
    hosts: Vec<String>,
    /// The id of an origin that came with it.
    id: Option<String>,
}

type Answered = Result<(Arc<Origin>, http::Response<Incoming>), ApiError>;

impl Streams {
    /// Media of the origins in `registry`, as configured.
    pub fn new(config: &Config, registry: Arc<dyn Registry>) -> Self {
        Self {
            registry,
            rules: config.streams.rules(),
            key: config.backend_key(),
            trusted_proxies: config.trusted_proxies.clone(),
            fetcher: Fetcher::new(config.signalling.origin_timeout),
        }
    }

    /// The media that a request is for, if it is for any.
    pub(super) fn media(&self, parts: &Parts) -> Result<Option<MediaRequest>, ApiError> {
        let media = self.rules.media(host_of(parts), parts.uri.path(), parts.uri.query());
        media.map_err(|error| ApiError::BadRequest(error.to_string()))
    }

    /// Answers a request for media.
    pub(super) async fn answer(
        &self,
        ends: Connection,
        parts: &Parts,
        media: MediaRequest,
    ) -> Result<Response, ApiError> {
        if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method) {
            return Err(ApiError::MethodNotAllowed);
        }
        let wish = self.wish(ends, parts, host_of(parts).unwrap_or_default());
        match media {
            MediaRequest::Playlist(stream) if parts.method != Method::OPTIONS => {
                self.text(Text::Playlist, &stream, wish).await
            }
            MediaRequest::Manifest(stream) if parts.method != Method::OPTIONS => {
                self.text(Text::Manifest, &stream, wish).await
            }
            MediaRequest::Segment(streams) => self.segment(&streams, wish).await,
            MediaRequest::LiveOrSegment { live, segment_of } => {
                if live::is_segment(self.registry.as_ref(), &live, &segment_of).await {
                    self.segment(&[segment_of], wish).await
                } else {
                    self.asked(&live, &wish).await
                }
            }
            MediaRequest::Playlist(stream) | MediaRequest::Manifest(stream) | MediaRequest::Live(stream) => {
                self.asked(&stream, &wish).await
            }
        }
    }

    fn wish(&self, ends: Connection, parts: &Parts, host: &str) -> Wish {
        let peer = ends.peer.ip().to_canonical();
        let is_trusted = self.trusted_proxies.iter().any(|network| network.contains(&peer));
        let client = ClientAddress::new(peer, &parts.headers, &self.trusted_proxies);
        let told = text_of(&parts.headers, X_FORWARDED_HOST).filter(|_| is_trusted);
        let id = parts.uri.query().and_then(backend_id::of_query);
        let mut outgoing = Outgoing::new(parts, &client, host);
        if !is_trusted {
            outgoing.forget(&[X_FORWARDED_HOST, "x-forwarded-proto"]);
        }
        Wish {
            outgoing,
            hosts: [Some(host), told].into_iter().flatten().map(str::to_owned).collect(),
            id: id.map(str::to_owned),
        }
    }

    /// Whatever id came with it: a playlist belongs to the stream, which may have moved since.
    async fn text(&self, kind: Text, stream: &StreamKey, wish: Wish) -> Result<Response, ApiError> {
        let outgoing = wish.outgoing.of_whole_text();
        let (origin, answer) = self.of_stream(stream, &outgoing).await?;
        let (head, body) = answer.into_parts();
        if !text::is_text(&head) {
            return Ok(self.passed(http::Response::from_parts(head, body)));
        }
        let read = timeout(self.fetcher.deadline(), body::read(body, TEXT_LIMIT)).await;
        let body = read.map_err(|_| ApiError::GatewayTimeout)?.map_err(|error| match error {
            body::ReadError::TooLarge => ApiError::BadGateway("the origin's playlist is too large"),
            body::ReadError::Broken => FetchError::NoAnswer.into(),
        })?;
        let id = self.key.id_of(&origin.server);
        let hosts: Vec<&str> = wish.hosts.iter().map(String::as_str).collect();
        Ok(match kind.rewrite(&body, &hosts, |uri| backend_id::tagged(uri, &id)) {
            Some(text) => text::rewritten(head, text),
            None => text::unchanged(head, body),
        })
    }

    /// A segment exists on the origin that wrote it, or nowhere: none is chosen for it.
    async fn segment(&self, streams: &[StreamKey], wish: Wish) -> Result<Response, ApiError> {
        let mut failure = ApiError::NotFound("no origin is known to have this segment");
        for origin in self.origins_of(streams, wish.id.as_deref()).await {
            match self.send(&origin, &wish.outgoing).await {
                Ok(answer) => return Ok(self.passed(answer)),
                Err(FetchError::Connect) => failure = FetchError::Connect.into(),
                Err(error @ (FetchError::NoAnswer | FetchError::Timeout)) => return Err(error.into()),
            }
        }
        Err(failure)
    }

    /// The origin of that id, and behind it those which the streams are on now.
    async fn origins_of(&self, streams: &[StreamKey], id: Option<&str>) -> Vec<Arc<Origin>> {
        let mut origins: Vec<Arc<Origin>> = Vec::new();
        for stream in streams {
            origins.extend(self.registry.picked(stream).await);
        }
        if let Some(id) = id {
            let is_named = |origin: &Arc<Origin>| self.key.find(id, [origin.server.as_str()]).is_some();
            // Mostly the stream has not moved, and few origins have to be compared.
            let named = match origins.iter().position(is_named) {
                Some(at) => Some(origins.remove(at)),
                None => self.registry.serving().await.into_iter().find(is_named),
            };
            origins.splice(0..0, named);
        }
        let mut seen = Vec::new();
        origins.retain(|origin| {
            let is_new = !seen.contains(&origin.id);
            seen.push(origin.id.clone());
            is_new
        });
        origins
    }

    /// What OPTIONS is answered with, mostly: a stream itself is not served here.
    async fn asked(&self, stream: &StreamKey, wish: &Wish) -> Result<Response, ApiError> {
        let (_, answer) = self.of_stream(stream, &wish.outgoing).await?;
        Ok(self.passed(answer))
    }

    /// The answer of the stream's origin, which is chosen if it has none.
    async fn of_stream(&self, stream: &StreamKey, outgoing: &Outgoing) -> Answered {
        let mut failure = FetchError::Connect;
        for _ in 0..ATTEMPTS {
            let origin = self.pick(stream).await?;
            http_of(&origin)?;
            match self.send(&origin, outgoing).await {
                Ok(answer) => return Ok((origin, answer)),
                Err(FetchError::Connect) => failure = FetchError::Connect,
                Err(error @ (FetchError::NoAnswer | FetchError::Timeout)) => return Err(error.into()),
            }
        }
        Err(failure.into())
    }

    async fn pick(&self, stream: &StreamKey) -> Result<Arc<Origin>, ApiError> {
        self.registry.pick(stream).await.map_err(|error| ApiError::Unavailable(error.tell()))
    }

    async fn send(
        &self,
        origin: &Origin,
        outgoing: &Outgoing,
    ) -> Result<http::Response<Incoming>, FetchError> {
        let address = origin.http.ok_or(FetchError::Connect)?;
        match self.fetcher.send(address, outgoing).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(origin, error).await),
        }
    }

    async fn failed(&self, origin: &Origin, error: FetchError) -> FetchError {
        debug!(%error, origin = %origin.id, "failed to fetch");
        if error == FetchError::Connect {
            self.registry.report_failure(&origin.id).await;
        }
        error
    }

    fn passed(&self, answer: http::Response<Incoming>) -> Response {
        answer.map(|body| passed(body, self.fetcher.deadline()))
    }
}

fn http_of(origin: &Origin) -> Result<SocketAddr, ApiError> {
    origin.http.ok_or(ApiError::BadGateway("the origin of this stream has no HTTP streams"))
}

/// The name that the client calls us by.
fn host_of(parts: &Parts) -> Option<&str> {
    let of_target = parts.uri.authority().map(http::uri::Authority::as_str);
    of_target.or_else(|| text_of(&parts.headers, header::HOST.as_str()))
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("rules", &self.rules).finish_non_exhaustive()
    }
}
