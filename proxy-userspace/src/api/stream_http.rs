//! `PROXY_HTTP_SERVER`: the port players fetch streams from.
//!
//! What does not end is taken off the connection before it gets here, by [`crate::live`]. This is the rest: playlists of HLS and
//! manifests of DASH, in which every URI gets the id of the origin that wrote them, and the files that those lead to.
//! Nothing is kept of any request: an id is the same in every refresh, on every proxy that has the key.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::any,
};
use http::{HeaderValue, Request, header};
use tracing::debug;

use super::{Connection, json_answer, srs_members};

mod streams;
mod text;

pub use streams::Streams;

/// Its routes.
pub fn router(streams: Streams) -> Router {
    Router::new().route("/api/v1/versions", any(versions)).fallback(serve).with_state(Arc::new(streams))
}

async fn versions() -> Response {
    json_answer(&srs_members())
}

async fn serve(
    State(streams): State<Arc<Streams>>,
    Extension(ends): Extension<Connection>,
    request: Request<Body>,
) -> Response {
    let (parts, _body) = request.into_parts();
    match streams.answer(ends, &parts).await {
        Ok(answer) => answer,
        Err(error) => {
            debug!(path = parts.uri.path(), %error, "request refused");
            let mut response = error.into_response();
            // Pages may see it: players tell their users why.
            let any = HeaderValue::from_static("*");
            response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
            response
        }
    }
}

#[cfg(test)]
mod tests;
