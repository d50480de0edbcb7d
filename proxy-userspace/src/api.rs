//! The HTTP servers of the proxy: registration, signalling, streams.
//!
//! [`system`], [`signalling`] and [`stream_http`] each make the router of one port, [`origin_api`] adds to that of signalling;
//! [`Server`] puts them on the network.

use std::net::SocketAddr;

use axum::response::{IntoResponse as _, Response};
use http::header;
use serde::Serialize;
use serde_json::{Value, json};

mod bearer;
mod body;
pub mod client;
mod client_address;
mod cors;
mod error;
mod fetch;
mod hop;
pub mod origin_api;
pub mod resolve;
mod server;
pub mod signalling;
pub mod status;
pub mod stream_http;
pub mod system;

pub use body::BodyLimits;
pub use error::ApiError;
pub use server::Server;

/// The name in `Server` headers.
pub const SERVER: &str = concat!("srs-xproxy/", env!("CARGO_PKG_VERSION"));
/// What health checks written for the Go proxy look for.
const SIGNATURE: &str = "SRSProxy";

/// The two ends of a connection; every request carries them as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who connected.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
}

/// `/api/v1/versions` as the Go proxy answers it on the API ports.
fn signature_members() -> Value {
    json!({ "signature": SIGNATURE, "version": env!("CARGO_PKG_VERSION") })
}

/// `/api/v1/versions` as SRS, and the Go proxy on the stream port, answer it.
fn srs_members() -> Value {
    let number = |text: &str| text.parse::<u32>().expect("cargo checks versions");
    json!({
        "code": 0,
        "pid": std::process::id().to_string(),
        "data": {
            "major": number(env!("CARGO_PKG_VERSION_MAJOR")),
            "minor": number(env!("CARGO_PKG_VERSION_MINOR")),
            "revision": number(env!("CARGO_PKG_VERSION_PATCH")),
            "version": env!("CARGO_PKG_VERSION"),
        }
    })
}

fn json_answer(value: &impl Serialize) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::SERVER, SERVER)];
    (headers, serde_json::to_string(value).expect("our answers are plain data")).into_response()
}

#[cfg(test)]
mod testing;
