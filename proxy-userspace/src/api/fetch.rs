//! Requests to origins over connections that are kept, with answers whose bodies are passed on as they come.

use std::{net::SocketAddr, time::Duration};

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use proxy_protocol::backend_id;
use tokio::time::timeout;

use super::{ApiError, client_address::ClientAddress, hop::remove_connection_headers};

/// SRS closes a connection that was idle for 15 s; one that it is about to close is of no use.
const KEPT: Duration = Duration::from_secs(10);
/// Idle connections kept to each origin.
const MAX_KEPT: usize = 64;

/// What would make an answer something other than the whole text as it is.
const OF_ANOTHER_ANSWER: [HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
];

/// Sends requests to origins.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client<HttpConnector, Empty<Bytes>>,
    deadline: Duration,
}

/// A request as an origin gets it, without a body.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("failed to connect to the origin")]
    Connect,
    #[error("the origin closed the connection without an answer")]
    NoAnswer,
    #[error("the origin did not answer in time")]
    Timeout,
}

impl From<FetchError> for ApiError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Connect => Self::BadGateway("the origin of this stream cannot be reached"),
            FetchError::NoAnswer => {
                Self::BadGateway("the origin of this stream closed the connection without an answer")
            }
            FetchError::Timeout => Self::GatewayTimeout,
        }
    }
}

impl Outgoing {
    /// The request with these parts, without the id of its origin, of `client` to `host`.
    pub(super) fn new(parts: &Parts, client: &ClientAddress, host: &str) -> Self {
        let mut headers = parts.headers.clone();
        remove_connection_headers(&mut headers);
        for name in [header::CONTENT_LENGTH, header::EXPECT, header::FORWARDED] {
            headers.remove(name);
        }
        client.write_to(&mut headers);
        // That of an absolute target takes the place of the header's (RFC 9112, section 3.2.2).
        if let Ok(host) = HeaderValue::from_str(host)
            && !host.is_empty()
        {
            headers.insert(header::HOST, host);
        }
        Self { method: parts.method.clone(), target: target_of(&parts.uri), headers }
    }

    /// A request of our own on behalf of `client`, which says nothing else of what that one sent.
    pub(super) fn on_behalf(method: Method, target: PathAndQuery, client: &ClientAddress) -> Self {
        let mut headers = HeaderMap::new();
        client.write_to(&mut headers);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(super::SERVER));
        Self { method, target, headers }
    }

    /// The request with these credentials.
    pub(super) fn authorized(mut self, credentials: Option<&HeaderValue>) -> Self {
        if let Some(credentials) = credentials {
            self.headers.insert(header::AUTHORIZATION, credentials.clone());
        }
        self
    }

    /// The request without these headers.
    pub(super) fn forget(&mut self, names: &[&str]) {
        for name in names {
            self.headers.remove(*name);
        }
    }

    /// The request whose answer is the whole text, to be read here. The length that HEAD asks for is known after that.
    pub(super) fn of_whole_text(mut self) -> Self {
        for name in OF_ANOTHER_ANSWER.iter().chain(&[header::ACCEPT_ENCODING]) {
            self.headers.remove(name);
        }
        self.method = Method::GET;
        self
    }

    fn to_request(&self, origin: SocketAddr) -> Request<Empty<Bytes>> {
        let target = self.target.clone();
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(origin.to_string()).path_and_query(target);
        let mut request = Request::new(Empty::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.build().expect("a socket address is an authority");
        *request.headers_mut() = self.headers.clone();
        request
    }
}

fn target_of(uri: &Uri) -> PathAndQuery {
    let target = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    PathAndQuery::try_from(backend_id::untagged(target.as_str())).unwrap_or(target)
}

impl Fetcher {
    /// Gives an origin `deadline` to answer, half of it to be connected to.
    pub(super) fn new(deadline: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(deadline / 2));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT)
            .pool_max_idle_per_host(MAX_KEPT)
            .build(connector);
        Self { client, deadline }
    }

    /// How long an origin may take to answer, and to go on with an answer.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The head of the origin's answer, which ends within the deadline.
    ///
    /// An origin may close a kept connection in the moment in which a request is sent, so there is a second attempt at what
    /// is safe to repeat (RFC 9110, section 9.2.1).
    pub(super) async fn send(
        &self,
        origin: SocketAddr,
        request: &Outgoing,
    ) -> Result<Response<Incoming>, FetchError> {
        let answered = timeout(self.deadline, async {
            match self.exchange(origin, request).await {
                Err(FetchError::NoAnswer) if request.method.is_safe() => self.exchange(origin, request).await,
                answered => answered,
            }
        });
        answered.await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn exchange(
        &self,
        origin: SocketAddr,
        request: &Outgoing,
    ) -> Result<Response<Incoming>, FetchError> {
        let answered = self.client.request(request.to_request(origin)).await;
        let mut answer = answered
            .map_err(|error| if error.is_connect() { FetchError::Connect } else { FetchError::NoAnswer })?;
        remove_connection_headers(answer.headers_mut());
        Ok(answer)
    }
}

/// The body as it comes, asked for as the client takes it; an origin that pauses longer than `patience` ends it.
pub(super) fn passed(body: Incoming, patience: Duration) -> Body {
    let frames = stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match next_data(&mut body, patience).await? {
            Ok(data) => Some((Ok(data), Some(body))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Body::from_stream(frames)
}

async fn next_data(body: &mut Incoming, patience: Duration) -> Option<Result<Bytes, axum::BoxError>> {
    loop {
        let frame = match timeout(patience, body.frame()).await {
            Ok(frame) => frame,
            Err(elapsed) => return Some(Err(elapsed.into())),
        };
        match frame?.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            // Trailers say nothing that players know.
            Ok(Err(_trailers)) => {}
            Err(error) => return Some(Err(error.into())),
        }
    }
}
