//! Why a request is not answered by an origin, in the shape of SRS's answers but with a status that says it too.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use proxy_protocol::srs_api::PathError;

use super::{identity, json_text};

/// A status, and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    message: Cow<'static, str>,
    /// What a status demands.
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), header: None }
    }

    /// There is no token that would open it.
    pub(super) fn off() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "the HTTP API of the origins is off; PROXY_API_TOKEN turns it on for who has the token",
        )
    }

    pub(super) fn unauthorized() -> Self {
        let message = "a valid bearer token is required, one of PROXY_API_TOKEN";
        let header = Some((header::WWW_AUTHENTICATE, "Bearer"));
        Self { header, ..Self::new(StatusCode::UNAUTHORIZED, message) }
    }

    pub(super) fn method(allowed: &'static str) -> Self {
        let header = Some((header::ALLOW, allowed));
        Self { header, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("there are {allowed}")) }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Self {
        let status = match error {
            PathError::Raw => StatusCode::FORBIDDEN,
            PathError::Unknown => StatusCode::NOT_FOUND,
            PathError::Id => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<(u16, String)> for Refusal {
    fn from((code, message): (u16, String)) -> Self {
        Self::new(StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY), message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.status.as_u16();
        let mut response = json_text(code, identity().refusal(code, &self.message));
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
