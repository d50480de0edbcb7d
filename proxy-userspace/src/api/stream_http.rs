//! `PROXY_HTTP_SERVER`: the port players fetch streams from.
//!
//! What does not end is taken off the connection before it gets here, by [`crate::live`]. This is the rest: playlists of HLS and
//! manifests of DASH, in which every URI gets the id of the origin that wrote them, and the files that those lead to.
//! Nothing is kept of any request: an id is the same in every refresh, on every proxy that has the key. Whatever is no media
//! is a static file.

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

mod files;
mod streams;
mod text;

pub use files::StaticFiles;
pub use streams::Streams;

/// Its routes.
pub fn router(streams: Streams, files: StaticFiles) -> Router {
    let state = Arc::new((streams, files));
    Router::new().route("/api/v1/versions", any(versions)).fallback(serve).with_state(state)
}

async fn versions() -> Response {
    json_answer(&srs_members())
}

async fn serve(
    State(state): State<Arc<(Streams, StaticFiles)>>,
    Extension(ends): Extension<Connection>,
    request: Request<Body>,
) -> Response {
    let (parts, _body) = request.into_parts();
    let (streams, files) = &*state;
    let answered = match streams.media(&parts) {
        Ok(Some(media)) => streams.answer(ends, &parts, media).await,
        Ok(None) => files.answer(&parts).await,
        Err(error) => Err(error),
    };
    match answered {
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
