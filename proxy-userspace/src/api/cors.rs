//! What pages from other places may do (Fetch standard, CORS protocol).

use axum::response::Response;
use http::{HeaderName, HeaderValue, header};

/// Lets pages from anywhere use the API, and read where their session is.
pub(super) async fn allow_all_origins(mut response: Response) -> Response {
    const ALLOWED: [(HeaderName, &str); 4] = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "*"),
        // The wildcard does not cover Authorization.
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*, Authorization"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Location, ETag, Link, Retry-After, WWW-Authenticate"),
    ];
    for (name, value) in ALLOWED {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
