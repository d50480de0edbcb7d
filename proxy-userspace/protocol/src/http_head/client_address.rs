//! Who the client is, behind the reverse proxies that are trusted.
//!
//! SRS believes the first item of X-Forwarded-For, and X-Real-IP if there is none, so what an unknown peer wrote there
//! must not reach it.

use std::net::IpAddr;

use super::Headers;

/// A client's address and the way its request took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAddress {
    ip: IpAddr,
    path: Vec<IpAddr>,
    is_told: bool,
}

impl ClientAddress {
    /// The client of a request with `headers` that came from `peer`.
    #[must_use]
    pub fn new(peer: IpAddr, headers: &Headers<'_>, is_trusted: impl Fn(IpAddr) -> bool) -> Self {
        let peer = peer.to_canonical();
        if !is_trusted(peer) {
            return Self { ip: peer, path: vec![peer], is_told: false };
        }
        let mut path: Vec<IpAddr> = headers
            .words("x-forwarded-for")
            .filter_map(|hop| hop.parse().ok())
            .map(|hop: IpAddr| hop.to_canonical())
            .collect();
        // The last one that was not added by a trusted proxy: earlier ones are the client's own words.
        let ip = path.iter().rev().copied().find(|hop| !is_trusted(*hop)).or(path.first().copied());
        path.push(peer);
        Self { ip: ip.unwrap_or(peer), path, is_told: true }
    }

    /// The client's own address.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Whether a trusted peer sent the request, so that what it says of scheme and host holds.
    #[must_use]
    pub const fn is_of_trusted_peer(&self) -> bool {
        self.is_told
    }

    /// The value of X-Forwarded-For for the origin.
    ///
    /// Of a trusted peer's list everything stays but what is no address; SRS takes its first item for the client.
    #[must_use]
    pub fn forwarded_for(&self) -> String {
        self.path.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
    }
}
