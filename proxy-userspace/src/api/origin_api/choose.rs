//! Which origins a request is for.

use std::sync::Arc;

use http::StatusCode;
use proxy_protocol::{query, stream_url::StreamKey};

use super::{OriginApi, refusal::Refusal};
use crate::origin::Origin;

/// Origins to ask, each of which is up.
pub(super) struct Chosen {
    pub(super) origins: Vec<Arc<Origin>>,
    /// The stream that they were chosen for.
    pub(super) stream: Option<StreamKey>,
    is_named: bool,
}

impl Chosen {
    /// The one origin that the request names.
    pub(super) fn named(&self) -> Option<&Arc<Origin>> {
        self.origins.first().filter(|_| self.is_named)
    }
}

impl OriginApi {
    /// That of `origin=`, or that of `stream=` and `vhost=`, or all.
    pub(super) async fn choose(&self, query: &str) -> Result<Chosen, Refusal> {
        let named = match parameter(query, "origin") {
            Some(name) => Some(self.named(&name).await?),
            None => None,
        };
        let stream = self.stream_of(query)?;
        let is_named = named.is_some();
        let origins = match (named, &stream) {
            (Some(origin), _) => vec![origin],
            (None, Some(stream)) => self.registry.picked(stream).await.into_iter().collect(),
            (None, None) => self.all().await,
        };
        Ok(Chosen { origins, stream, is_named })
    }

    /// In an order that does not change, so that pages fit together.
    pub(super) async fn all(&self) -> Vec<Arc<Origin>> {
        let mut origins = self.registry.serving().await;
        origins.sort_by(|a, b| a.id.cmp(&b.id));
        origins
    }

    /// The origin with this id; or this server id or device id, if one alone has it.
    pub(super) async fn named(&self, name: &str) -> Result<Arc<Origin>, Refusal> {
        let all = self.all().await;
        if let Some(origin) = all.iter().find(|origin| *origin.id.0 == *name) {
            return Ok(Arc::clone(origin));
        }
        let mut so_called = all.iter().filter(|origin| origin.server == name || origin.device_id == name);
        match (so_called.next(), so_called.next()) {
            (Some(origin), None) => Ok(Arc::clone(origin)),
            (Some(_), Some(_)) => {
                let message = format!("several origins are called {name:?}; {}", ids(&all));
                Err(Refusal::new(StatusCode::CONFLICT, message))
            }
            (None, _) => {
                let message = format!("no origin called {name:?} is up; {}", ids(&all));
                Err(Refusal::new(StatusCode::NOT_FOUND, message))
            }
        }
    }

    fn stream_of(&self, query: &str) -> Result<Option<StreamKey>, Refusal> {
        let Some(stream) = query::value(query, "stream").filter(|stream| !stream.is_empty()) else {
            return Ok(None);
        };
        let vhost = query::value(query, "vhost").unwrap_or_default();
        let key = self.rules.rtmp(&format!("rtmp://{vhost}/"), stream);
        key.map(Some).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))
    }
}

/// A parameter that says something, decoded.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query::value(query, name).filter(|value| !value.is_empty())?;
    Some(query::percent_decode(value).into_owned())
}

/// A refusal names no more origins than this.
pub(super) const LISTED: usize = 32;

fn ids(origins: &[Arc<Origin>]) -> String {
    let ids: Vec<&str> = origins.iter().take(LISTED).map(|origin| &*origin.id.0).collect();
    let more = if origins.len() > LISTED { " and more" } else { "" };
    match ids[..] {
        [] => "none is".into(),
        _ => format!("these are up: {}{more}", ids.join(", ")),
    }
}
