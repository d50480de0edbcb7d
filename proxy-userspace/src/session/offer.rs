//! What a session is, from its beginning to its end.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use proxy_protocol::{
    ice::{IcePwd, UfragPair},
    srt::SocketId,
    stream_url::StreamKey,
};

use super::{Role, Tuple};
use crate::{datapath::Protocol, origin::Origin};

/// What is known of a session from the start: what signalling learnt, here or at another proxy, or what an SRT caller said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOffer {
    /// The stream, unless the session was another proxy's and that is not told.
    pub stream: Option<StreamKey>,
    /// The origin that answered, or is called: media goes there and nowhere else.
    pub origin: Arc<Origin>,
    /// Where the client signalled from, or sent its first packet from if it signalled to another proxy.
    pub client_ip: IpAddr,
    /// Which way media goes, unless that is not told.
    pub role: Option<Role>,
    /// What one protocol alone has.
    pub kind: Kind,
}

/// What the sessions of one protocol have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// WebRTC.
    WebRtc(WebRtc),
    /// SRT.
    Srt(Srt),
}

/// What a WebRTC session has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebRtc {
    /// The STUN USERNAME of the client's checks.
    pub ufrags: UfragPair,
    /// The key of their MESSAGE-INTEGRITY.
    pub pwd: IcePwd,
    /// Where the origin takes media over TCP, if its answer says that it does.
    pub tcp: Option<SocketAddr>,
}

/// What an SRT session has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srt {
    /// Where the caller is, for good: its origin's answer, and thus its keys, are for this call alone.
    pub tuple: Tuple,
    /// The device its packets come in by.
    pub ifindex: u32,
    /// The caller's socket.
    pub caller: SocketId,
    /// Our cookie in its handshake, and in the answer.
    pub cookie: u32,
    /// The origin's answer as the caller gets it, as often as it asks.
    pub answer: Option<Bytes>,
}

impl SessionOffer {
    /// The stream, for people.
    pub fn stream_name(&self) -> &str {
        self.stream.as_ref().map_or("-", StreamKey::as_str)
    }

    /// The role, for people.
    pub fn role_name(&self) -> &'static str {
        self.role.map_or("-", Role::as_str)
    }

    /// What its media speaks.
    pub fn protocol(&self) -> Protocol {
        match self.kind {
            Kind::WebRtc(_) => Protocol::WebRtc,
            Kind::Srt(_) => Protocol::Srt,
        }
    }

    /// What a WebRTC session has.
    pub fn webrtc(&self) -> Option<&WebRtc> {
        match &self.kind {
            Kind::WebRtc(webrtc) => Some(webrtc),
            Kind::Srt(_) => None,
        }
    }

    /// What an SRT session has.
    pub fn srt(&self) -> Option<&Srt> {
        match &self.kind {
            Kind::WebRtc(_) => None,
            Kind::Srt(srt) => Some(srt),
        }
    }

    /// The STUN USERNAME of the client's checks.
    pub fn ufrags(&self) -> Option<&UfragPair> {
        self.webrtc().map(|webrtc| &webrtc.ufrags)
    }
}
