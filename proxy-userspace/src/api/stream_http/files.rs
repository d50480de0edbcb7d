//! `PROXY_STATIC_FILES`: what is no media is a file of this directory, or nothing.
//!
//! Ranges, conditions and content types are [`ServeDir`]'s matter; which file may be opened is decided where it is opened
//! ([`beneath`]). A directory shows its `index.html` and never what else is in it.

use std::{io, path::Path};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, Method, Request, StatusCode, header, request::Parts};
use tower_http::services::fs::{DefaultServeDirFallback, ServeDir};
use tracing::{debug, info, warn};

use self::beneath::Beneath;
use crate::{api::ApiError, config::Config};

mod beneath;

const NOTHING: ApiError = ApiError::NotFound(
    "there is no such file here, and no stream, playlist, manifest or segment of this name",
);

/// A directory of files for everybody.
#[derive(Clone, Debug)]
pub struct StaticFiles(ServeDir<DefaultServeDirFallback, Beneath>);

impl StaticFiles {
    /// The configured directory. It may come later; that it is not there yet is said now.
    pub fn new(config: &Config) -> Self {
        let directory = config.static_files.as_path();
        if !directory.is_dir() {
            say_missing(directory, config.has_static_files());
        }
        Self(ServeDir::with_backend("", Beneath::new(directory)))
    }

    /// The file that is asked for.
    pub(super) async fn answer(&self, parts: &Parts) -> Result<Response, ApiError> {
        if parts.method == Method::OPTIONS {
            return Ok(shared_with_pages(StatusCode::OK.into_response()));
        }
        if ![Method::GET, Method::HEAD].contains(&parts.method) {
            return Err(ApiError::MethodNotAllowed);
        }
        // A redirect of `//host` to `//host/` would lead away from here.
        if parts.uri.path().starts_with("//") {
            return Err(NOTHING);
        }
        let request = Request::from_parts(parts.clone(), Body::empty());
        let answer = self.0.clone().try_call(request).await.map_err(|error| refused(&error))?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Err(NOTHING);
        }
        Ok(shared_with_pages(answer.map(Body::new)))
    }
}

fn refused(error: &io::Error) -> ApiError {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    if [NotFound, NotADirectory, PermissionDenied, InvalidFilename].contains(&error.kind()) {
        return NOTHING;
    }
    debug!(%error, "failed to read a static file");
    ApiError::Unavailable("the file cannot be read now")
}

fn say_missing(directory: &Path, is_given: bool) {
    let absolute = std::path::absolute(directory);
    let directory = absolute.as_deref().unwrap_or(directory).display();
    if is_given {
        warn!(%directory, "PROXY_STATIC_FILES is no directory: no files are served until it is one");
    } else {
        info!(%directory, "no static files are served: PROXY_STATIC_FILES names no directory");
    }
}

fn shared_with_pages(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer
}

#[cfg(test)]
mod tests;
