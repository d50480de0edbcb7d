//! WebRTC sessions and HLS ids as they stand in Redis: the JSON of the Go proxy, with members of ours that it ignores.

use std::net::SocketAddr;

use proxy_protocol::{
    ice::{IcePwd, UfragPair},
    stream_url::StreamKey,
};
use serde::{Deserialize, Serialize};

use super::ValueError;
use crate::{origin::OriginId, session::Role};

/// The longest session that is read, in bytes.
pub(super) const MAX_SESSION: usize = 8 * 1024;
/// The longest HLS value that is read or written, in bytes; its URL is a client's.
pub(super) const MAX_HLS: usize = 16 * 1024;

/// A session that any proxy of the fleet can take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSession {
    /// The stream.
    pub stream: StreamKey,
    /// The STUN USERNAME of the client's checks.
    pub ufrags: UfragPair,
    /// The origin that answered.
    pub origin: OriginId,
    /// Where it takes the session's media.
    pub media: SocketAddr,
    /// The key of the checks' MESSAGE-INTEGRITY.
    pub pwd: IcePwd,
    /// Which way media goes.
    pub role: Role,
}

/// A session that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundSession {
    /// One of this kind of proxy.
    Shared(SharedSession),
    /// One of a Go proxy, which stores neither where media goes nor how to know the client.
    OfGo {
        /// The stream.
        stream: StreamKey,
        /// The STUN USERNAME of the client's checks.
        ufrags: UfragPair,
    },
}

/// What the Go proxy stores of a stream that is played by HLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HlsId {
    /// What its playlists call the backend.
    pub spbhid: String,
    /// The stream.
    pub stream: StreamKey,
    /// The URL that the playlist was asked for at.
    pub full_url: String,
}

#[derive(Serialize, Deserialize)]
struct RtcJson {
    stream_url: String,
    ufrag: String,
    #[serde(flatten)]
    ours: Option<OursJson>,
}

#[derive(Serialize, Deserialize)]
struct OursJson {
    origin: OriginId,
    media: SocketAddr,
    pwd: String,
    role: RoleJson,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleJson {
    Publisher,
    Player,
}

#[derive(Serialize, Deserialize)]
struct HlsJson {
    spbhid: String,
    stream_url: String,
    full_url: String,
}

impl SharedSession {
    /// What stands under the stream's key, where nobody looks for a secret.
    pub(super) fn to_go_json(&self) -> Result<Vec<u8>, ValueError> {
        self.json(None)
    }

    /// What stands under the ufrags.
    ///
    /// # Errors
    /// When it is no JSON, which does not happen.
    pub fn to_json(&self) -> Result<Vec<u8>, ValueError> {
        let role = match self.role {
            Role::Publisher => RoleJson::Publisher,
            Role::Player => RoleJson::Player,
        };
        let pwd = self.pwd.expose().to_owned();
        self.json(Some(OursJson { origin: self.origin.clone(), media: self.media, pwd, role }))
    }

    fn json(&self, ours: Option<OursJson>) -> Result<Vec<u8>, ValueError> {
        let (stream_url, ufrag) = (self.stream.to_string(), self.ufrags.as_str().to_owned());
        Ok(serde_json::to_vec(&RtcJson { stream_url, ufrag, ours })?)
    }
}

impl FoundSession {
    /// Reads the value of the key of `ufrags`.
    ///
    /// # Errors
    /// When it is too long, or not what it should be.
    pub fn parse(ufrags: &UfragPair, value: &[u8]) -> Result<Self, ValueError> {
        if value.len() > MAX_SESSION {
            return Err(ValueError::TooLong(MAX_SESSION));
        }
        let RtcJson { stream_url, ufrag, ours } = serde_json::from_slice(value)?;
        let stream = stream_url.parse()?;
        if ufrag != ufrags.as_str() {
            return Err(ValueError::OtherSession);
        }
        let ufrags = ufrags.clone();
        let Some(OursJson { origin, media, pwd, role }) = ours else {
            return Ok(Self::OfGo { stream, ufrags });
        };
        let pwd = pwd.parse()?;
        let role = match role {
            RoleJson::Publisher => Role::Publisher,
            RoleJson::Player => Role::Player,
        };
        Ok(Self::Shared(SharedSession { stream, ufrags, origin, media, pwd, role }))
    }
}

impl HlsId {
    /// The value.
    ///
    /// # Errors
    /// When it is longer than what is read.
    pub fn to_json(&self) -> Result<Vec<u8>, ValueError> {
        let Self { spbhid, stream, full_url } = self.clone();
        let value = serde_json::to_vec(&HlsJson { spbhid, stream_url: stream.to_string(), full_url })?;
        if value.len() > MAX_HLS { Err(ValueError::TooLong(MAX_HLS)) } else { Ok(value) }
    }

    /// Reads the value.
    ///
    /// # Errors
    /// When it is too long, or not what it should be.
    pub fn parse(value: &[u8]) -> Result<Self, ValueError> {
        if value.len() > MAX_HLS {
            return Err(ValueError::TooLong(MAX_HLS));
        }
        let HlsJson { spbhid, stream_url, full_url } = serde_json::from_slice(value)?;
        Ok(Self { spbhid, stream: stream_url.parse()?, full_url })
    }
}

#[cfg(test)]
mod tests;
