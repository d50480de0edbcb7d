//! What belongs to one connection of HTTP, and does not pass to the next.

use http::{HeaderMap, HeaderName, header};

/// Removes what describes one connection alone (RFC 9110, section 7.6.1), the framing of the body included.
pub(super) fn remove_connection_headers(headers: &mut HeaderMap) {
    const CONNECTION_HEADERS: [HeaderName; 7] = [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    /// What nobody may have dropped by naming it in Connection, for the proxy or SRS relies on it.
    const KEPT: [HeaderName; 5] =
        [header::HOST, header::AUTHORIZATION, header::LOCATION, header::CONTENT_LENGTH, header::CONTENT_TYPE];
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !KEPT.contains(name))
        .collect();
    for name in CONNECTION_HEADERS.iter().chain(&listed) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}
