//! Playlists of HLS and manifests of DASH: what is in them leads back to the origin that wrote them.

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::{HeaderName, StatusCode, header, response::Parts};
use proxy_protocol::{dash::Manifest, hls::Playlist};

/// What a body that was rewritten no longer has: its length, and what names its bytes.
const OF_THE_BODY: [HeaderName; 7] = [
    header::CONTENT_LENGTH,
    header::ETAG,
    header::LAST_MODIFIED,
    header::ACCEPT_RANGES,
    header::TRAILER,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
];

/// What kind of text is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// Of HLS.
    Playlist,
    /// Of DASH.
    Manifest,
}

impl Text {
    /// The text with `new_uri` in place of every URI that leads to one of `hosts`; `None` if it is something else.
    pub(super) fn rewrite(
        self,
        body: &[u8],
        hosts: &[&str],
        new_uri: impl FnMut(&str) -> String,
    ) -> Option<String> {
        match self {
            Self::Playlist => Playlist::parse(body).ok().map(|playlist| playlist.rewrite(hosts, new_uri)),
            Self::Manifest => Manifest::parse(body).ok().map(|manifest| manifest.rewrite(hosts, new_uri)),
        }
    }
}

/// Whether an answer is a text as it stands. What an origin says of a stream that it does not have is none.
pub(super) fn is_text(head: &Parts) -> bool {
    let codings = head.headers.get_all(header::CONTENT_ENCODING);
    head.status == StatusCode::OK && codings.iter().all(|coding| coding.as_bytes() == b"identity")
}

/// The answer with another text in it.
pub(super) fn rewritten(mut head: Parts, text: String) -> Response {
    for name in OF_THE_BODY {
        head.headers.remove(name);
    }
    head.headers.insert(header::CONTENT_LENGTH, text.len().into());
    Response::from_parts(head, Body::from(text))
}

/// The answer as it came.
pub(super) fn unchanged(head: Parts, body: Bytes) -> Response {
    Response::from_parts(head, Body::from(body))
}
