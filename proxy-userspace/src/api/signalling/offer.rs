//! What a client's request says: which stream, which ICE agent, which role.

use http::{header, request::Parts};
use proxy_protocol::{
    ice::Ufrag,
    query, sdp,
    stream_url::{StreamKey, StreamRules},
};
use serde::Deserialize;

use super::{ApiError, endpoint::Endpoint, exchange::ClientRequest};
use crate::session::Role;

/// An offer, read as far as the proxy needs it.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) stream: StreamKey,
    pub(super) ufrag: Ufrag,
    pub(super) role: Role,
}

#[derive(Deserialize)]
struct JsonOffer {
    sdp: String,
    streamurl: String,
}

impl Offer {
    /// Reads an offer, so that none the origin would choke on is sent to it: SRS answers those by closing.
    pub(super) fn read(request: &ClientRequest, rules: &StreamRules) -> Result<Self, ApiError> {
        let role = role(request.endpoint, request.query());
        if !request.endpoint.is_json() {
            let offer = str::from_utf8(&request.body).map_err(|_| unusable("it is not UTF-8"))?;
            return Ok(Self { stream: stream_of_url(&request.parts, rules)?, ufrag: ufrag(offer)?, role });
        }
        let offer: JsonOffer = serde_json::from_slice(&request.body).map_err(unusable)?;
        let stream = rules.rtc_url(&offer.streamurl).map_err(unusable)?;
        Ok(Self { stream, ufrag: ufrag(&offer.sdp)?, role })
    }
}

/// The stream that Host, path and query of a request name.
pub(super) fn stream_of_url(parts: &Parts, rules: &StreamRules) -> Result<StreamKey, ApiError> {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let stream = rules.http(host, parts.uri.path(), parts.uri.query());
    stream.map_err(|error| ApiError::BadRequest(format!("the request names no stream: {error}")))
}

fn ufrag(offer: &str) -> Result<Ufrag, ApiError> {
    sdp::offer_ufrag(offer).map_err(unusable)
}

fn role(endpoint: Endpoint, query: &str) -> Role {
    match endpoint {
        Endpoint::Whip if query::value(query, "action") == Some("play") => Role::Player,
        Endpoint::Whip | Endpoint::Publish => Role::Publisher,
        Endpoint::Whep | Endpoint::Play => Role::Player,
    }
}

fn unusable(reason: impl std::fmt::Display) -> ApiError {
    ApiError::BadRequest(format!("the offer cannot be used: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_that_of_the_path_unless_whip_says_play() {
        assert_eq!(role(Endpoint::Whip, "app=live&stream=s"), Role::Publisher);
        assert_eq!(role(Endpoint::Whip, "app=live&action=play"), Role::Player);
        assert_eq!(role(Endpoint::Whep, ""), Role::Player);
        assert_eq!(role(Endpoint::Publish, "action=play"), Role::Publisher);
        assert_eq!(role(Endpoint::Play, ""), Role::Player);
    }
}
