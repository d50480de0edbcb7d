//! `/api/v1/*` on `PROXY_HTTP_API`: the HTTP API of all origins as if they were one SRS, for who has a token.
//!
//! Lists are asked of every origin that is up at once and merged; what is about one item goes to the origin that its id names
//! ([`proxy_protocol::srs_api`]). Nothing of the client's request is passed on but what was understood of it. An origin that
//! fails is named in the answer, and the others' part comes all the same.

use std::{pin::pin, sync::Arc};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    middleware::map_response,
    response::{IntoResponse as _, Response},
    routing::any,
};
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, Request, StatusCode, header, request::Parts};
use ipnet::IpNet;
use proxy_protocol::{
    srs_api::{self, Combined, Identity, Kind, MOST_ITEMS, MergedList, Page, Target},
    stream_url::StreamRules,
};
use serde_json::json;
use tracing::debug;

use self::{
    ask::{Asker, Question},
    refusal::Refusal,
};
use super::{
    Connection, bearer::authorize_any, client_address::ClientAddress, cors::allow_all_origins, json_answer,
};
use crate::{
    config::{Config, Secret},
    origin::{Origin, Registry},
};

mod ask;
mod choose;
mod item;
mod refusal;

/// What tells this API's own answers from those of an origin.
const NAME: &str = "srs-xproxy";
/// An origin's list of some ten thousand clients.
const LIST_LIMIT: usize = 16 << 20;
/// Bytes of items in one answer.
const MERGED_LIMIT: usize = 64 << 20;

/// The HTTP API of the origins.
pub struct OriginApi {
    registry: Arc<dyn Registry>,
    rules: StreamRules,
    /// Nobody is let in without one.
    tokens: Vec<Secret>,
    trusted_proxies: Vec<IpNet>,
    asker: Asker,
}

/// A request that was let in.
struct Call<'a> {
    method: &'a Method,
    query: &'a str,
    client: ClientAddress,
}

/// An answer, or why there is none.
type Answered = Result<Response, Refusal>;

impl OriginApi {
    /// That of the origins in `registry`, as configured.
    pub fn new(config: &Config, registry: Arc<dyn Registry>) -> Self {
        Self {
            registry,
            rules: config.streams.rules(),
            tokens: config.api_tokens.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            asker: Asker::new(config),
        }
    }
}

impl std::fmt::Debug for OriginApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OriginApi").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

/// Its routes; `/api/v1/versions` is everybody's and not among them.
pub fn router(api: OriginApi) -> Router {
    Router::new()
        .route("/api/v1", any(serve))
        .route("/api/v1/", any(serve))
        .route("/api/v1/{*path}", any(serve))
        .layer(map_response(allow_all_origins))
        .with_state(Arc::new(api))
}

async fn serve(
    State(api): State<Arc<OriginApi>>,
    Extension(ends): Extension<Connection>,
    request: Request<Body>,
) -> Response {
    let (parts, _body) = request.into_parts();
    api.answer(ends, &parts).await.unwrap_or_else(|refusal| {
        debug!(method = %parts.method, path = parts.uri.path(), why = refusal.message(), "request refused");
        refusal.into_response()
    })
}

impl OriginApi {
    async fn answer(&self, ends: Connection, parts: &Parts) -> Answered {
        if parts.method == Method::OPTIONS {
            return Ok(StatusCode::OK.into_response());
        }
        self.authorize(&parts.headers)?;
        let target = Target::of_path(parts.uri.path())?;
        allow(&parts.method, &target)?;
        let call = Call {
            method: &parts.method,
            query: parts.uri.query().unwrap_or_default(),
            client: ClientAddress::new(ends.peer.ip(), &parts.headers, &self.trusted_proxies),
        };
        match &target {
            Target::Origins => Ok(json_answer(&json!({ "code": 0, "origins": self.registry.list().await }))),
            Target::List(kind) => self.list(&call, *kind).await,
            Target::Single(_) => self.single(&call, &target).await,
            Target::One(kind, id) => self.one(&call, *kind, id).await,
        }
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.tokens.is_empty() {
            return Err(Refusal::off());
        }
        authorize_any(headers, &self.tokens).map_err(|_| Refusal::unauthorized())
    }

    async fn list(&self, call: &Call<'_>, kind: Kind) -> Answered {
        let page = match kind {
            Kind::Vhost => Page::of_query_or_all(call.query),
            Kind::Stream | Kind::Client => Page::of_query(call.query),
        };
        let chosen = self.choose(call.query).await?;
        let stream = chosen.stream.as_ref().filter(|_| kind != Kind::Vhost);
        // What is of one stream may stand anywhere in a list; of the others no origin can have more than the page's end.
        let count = if stream.is_some() { MOST_ITEMS } else { page.end() };
        let path = Target::List(kind).to_path();
        let question = call.question(format!("{path}?start=0&count={count}"), LIST_LIMIT);
        let read = |origin: &Origin| {
            let (origin, stream) = (origin.id.clone(), stream.cloned());
            move |body: &[u8]| srs_api::list(kind, body, &origin.0, stream.as_ref(), page.end())
        };
        let mut merged = MergedList::new(kind, page, MERGED_LIMIT);
        let mut lists = pin!(self.asker.ask_all(&chosen.origins, &question, read));
        while let Some((origin, list)) = lists.next().await {
            merged.add(&origin.id.0, list);
        }
        let (code, json) = merged.into_json(identity());
        Ok(json_text(code, json))
    }

    /// Of an origin that was named its own answer, of all of them one after the other.
    async fn single(&self, call: &Call<'_>, target: &Target) -> Answered {
        let chosen = self.choose(call.query).await?;
        let question = call.question(target.to_path(), item::ITEM_LIMIT);
        if let Some(origin) = chosen.named() {
            let answer = self.asker.ask(origin, &question, srs_api::plain).await?;
            return Ok(json_text(0, answer.json));
        }
        let mut combined = Combined::new(MERGED_LIMIT);
        let mut answers = pin!(self.asker.ask_all(&chosen.origins, &question, |_| srs_api::plain));
        while let Some((origin, answer)) = answers.next().await {
            combined.add(&origin.id.0, answer);
        }
        let (code, json) = combined.into_json(identity());
        Ok(json_text(code, json))
    }
}

impl Call<'_> {
    fn is_kick(&self) -> bool {
        self.method == Method::DELETE
    }

    /// A GET of an origin.
    fn question(&self, target: String, answer_limit: usize) -> Question {
        Question { method: Method::GET, target, client: self.client.clone(), answer_limit }
    }
}

fn allow(method: &Method, target: &Target) -> Result<(), Refusal> {
    let is_client = matches!(target, Target::One(Kind::Client, _));
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        Method::DELETE if is_client => Ok(()),
        _ if is_client => Err(Refusal::method("GET, HEAD, OPTIONS, DELETE")),
        _ => Err(Refusal::method("GET, HEAD, OPTIONS")),
    }
}

fn identity() -> Identity<'static> {
    Identity { name: NAME, pid: std::process::id() }
}

/// An answer with the status that its `code` is, if it is of ours; SRS answers errors with 200.
fn json_text(code: u16, json: String) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::SERVER, super::SERVER)];
    (status, headers, json).into_response()
}

#[cfg(test)]
mod tests;
