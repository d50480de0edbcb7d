//! The exchange of offer and answer, by WHIP/WHEP or by SRS's JSON API.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::http::{Request, Url};

/// Which HTTP interface is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// WHIP and WHEP: SDP in, SDP and `Location` out.
    Whip,
    /// SRS's JSON calls, with this `streamurl`.
    Legacy {
        /// `webrtc://host/app/stream`.
        stream_url: String,
    },
}

/// What the server answered.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The SDP answer.
    pub answer: String,
    /// What to send DELETE to: `Location`, resolved, its bytes as received.
    pub resource: Option<Url>,
}

/// Posts the offer.
pub(super) fn exchange(api: &Api, url: &Url, offer: &str, from: Option<IpAddr>) -> Result<Exchange> {
    match api {
        Api::Whip => whip(url, offer, from),
        Api::Legacy { stream_url } => legacy(url, stream_url, offer, from),
    }
}

fn whip(url: &Url, offer: &str, from: Option<IpAddr>) -> Result<Exchange> {
    let response = Request::new("POST", url.clone()).body("application/sdp", offer).from(from).send()?;
    ensure!(response.status == 201, "{} answered {}: {}", url.authority(), response.status, response.body);
    let content_type = response.headers.get("content-type").unwrap_or_default();
    ensure!(content_type == "application/sdp", "the answer's content type is {content_type:?}");
    let location = response.headers.get("location").context("the answer has no Location")?;
    Ok(Exchange { resource: Some(url.resolve(location)?), answer: response.body })
}

fn legacy(url: &Url, stream_url: &str, offer: &str, from: Option<IpAddr>) -> Result<Exchange> {
    let body = json!({"api": url.target(), "streamurl": stream_url, "sdp": offer}).to_string();
    let response = Request::new("POST", url.clone()).body("application/json", body).from(from).send()?;
    let members: Value = serde_json::from_str(&response.body).context("failed to parse the answer")?;
    ensure!(members["code"] == 0, "{} answered {}: {members}", url.authority(), response.status);
    let answer = members["sdp"].as_str().context("the answer has no sdp")?.to_owned();
    Ok(Exchange { answer, resource: None })
}

/// Ends a session by its resource.
pub(super) fn delete(resource: &Url, from: Option<IpAddr>) -> Result<()> {
    let response = Request::new("DELETE", resource.clone()).from(from).send()?;
    ensure!(response.status == 200, "DELETE was answered {}", response.status);
    Ok(())
}

/// The local address that reaches the server, for a media socket beside the HTTP connection.
pub(super) fn local_address_towards(url: &Url) -> Result<IpAddr> {
    let server = url.address()?;
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let probe = UdpSocket::bind(any)?;
    probe.connect(server).with_context(|| format!("no route to {server}"))?;
    Ok(probe.local_addr()?.ip())
}
