//! What a client is told when its request fails: a status and one line of text that holds no address of the inside.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::signalling::OfferError;
use crate::origin::registration::RegistrationError;

/// Seconds after which a client may try again what failed for want of an origin or of room.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// The bearer token is missing or wrong.
    #[error("a valid bearer token is required")]
    Unauthorized,
    /// Nothing is served here.
    #[error("{0}")]
    NotFound(&'static str),
    /// The path is served, but not with this method.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The client took too long to send its request.
    #[error("the request took too long to arrive")]
    RequestTimeout,
    /// The body exceeds the limit.
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    /// A heartbeat is refused; the Go proxy answers 500 to all of them.
    #[error("{0}")]
    Registration(#[from] RegistrationError),
    /// A heartbeat cannot be used for a reason outside its text.
    #[error("{0}")]
    Register(String),
    /// The origin failed.
    #[error("{0}")]
    BadGateway(&'static str),
    /// The origin closed the connection instead of answering.
    #[error("the origin closed the connection without an answer; SRS does so when it cannot use an offer")]
    NoAnswer,
    /// Something that the request needs is not there; it may be later.
    #[error("{0}")]
    Unavailable(&'static str),
    /// There is no room for a session.
    #[error("{0}")]
    NoRoom(#[from] OfferError),
    /// The origin did not answer in time.
    #[error("the origin did not answer in time")]
    GatewayTimeout,
}

impl ApiError {
    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Registration(_) | Self::Register(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BadGateway(_) | Self::NoAnswer => StatusCode::BAD_GATEWAY,
            Self::NoRoom(OfferError::TooManyOfSource) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) | Self::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, format!("{self}\n")).into_response();
        let headers = response.headers_mut();
        headers.insert(header::SERVER, HeaderValue::from_static(super::SERVER));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_of_text() {
        let response = ApiError::GatewayTimeout.into_response();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(response.headers().get(header::RETRY_AFTER), None);
    }

    #[test]
    fn what_may_succeed_later_says_when() {
        let response = ApiError::Unavailable("no origin is up").into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
    }

    #[test]
    fn a_missing_token_names_the_scheme() {
        assert_eq!(ApiError::Unauthorized.into_response().headers()[header::WWW_AUTHENTICATE], "Bearer");
    }
}
