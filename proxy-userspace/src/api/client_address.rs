//! Who the client is, behind the reverse proxies that are trusted.
//!
//! SRS believes the first item of X-Forwarded-For, so what an unknown peer wrote there must not reach it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// The header that lists who a request came through, first the client.
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The header that names the client alone.
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// A client's address and the way its request took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientAddress {
    pub(super) ip: IpAddr,
    /// The value of X-Forwarded-For for the origin.
    pub(super) path: String,
}

impl ClientAddress {
    /// The client of a request that came from `peer`.
    ///
    /// An IPv4 address written as an IPv6 one is the IPv4 address: media comes from that, and nets of it are trusted.
    pub(super) fn new(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
        if !is_trusted(&peer) {
            return Self { ip: peer, path: peer.to_string() };
        }
        let written: Vec<&str> =
            headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
        let hops: Vec<IpAddr> =
            written.iter().flat_map(|value| value.split(',')).filter_map(address).collect();
        // The last one that was not added by a trusted proxy: earlier ones are the client's own words.
        let ip = hops.iter().rev().find(|ip| !is_trusted(ip)).or(hops.first()).copied().unwrap_or(peer);
        let path = hops.iter().chain([&peer]).map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        Self { ip, path }
    }

    /// Puts it into the head of a request to an origin, in place of what the client wrote there.
    pub(super) fn write_to(&self, headers: &mut HeaderMap) {
        let value = |text: &str| HeaderValue::from_str(text).expect("addresses and commas are visible ASCII");
        headers.insert(X_FORWARDED_FOR, value(&self.path));
        headers.insert(X_REAL_IP, value(&self.ip.to_string()));
    }
}

fn address(item: &str) -> Option<IpAddr> {
    item.trim().parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, forwarded: &[&'static str], ip: &str, path: &str) {
        let headers = forwarded.iter().map(|value| (X_FORWARDED_FOR, value.parse().unwrap())).collect();
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let client = ClientAddress::new(peer.parse().unwrap(), &headers, &trusted);
        assert_eq!(client, ClientAddress { ip: ip.parse().unwrap(), path: path.into() });
    }

    #[test]
    fn what_an_unknown_peer_claims_is_replaced() {
        check("192.0.2.1", &[], "192.0.2.1", "192.0.2.1");
        check("192.0.2.1", &["203.0.113.9"], "192.0.2.1", "192.0.2.1");
    }

    #[test]
    fn a_trusted_peer_is_appended() {
        check("10.0.0.1", &["203.0.113.9"], "203.0.113.9", "203.0.113.9, 10.0.0.1");
        check("10.0.0.1", &[], "10.0.0.1", "10.0.0.1");
        check("10.0.0.1", &["203.0.113.9, 10.0.0.2"], "203.0.113.9", "203.0.113.9, 10.0.0.2, 10.0.0.1");
        check("10.0.0.1", &["203.0.113.9", "10.0.0.2"], "203.0.113.9", "203.0.113.9, 10.0.0.2, 10.0.0.1");
    }

    #[test]
    fn the_client_is_the_last_untrusted_hop() {
        check("10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9", "1.1.1.1, 203.0.113.9, 10.0.0.1");
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1");
    }

    #[test]
    fn an_ipv4_address_written_as_an_ipv6_one_is_the_ipv4_address() {
        check("::ffff:192.0.2.1", &[], "192.0.2.1", "192.0.2.1");
        check("::ffff:10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9", "203.0.113.9, 10.0.0.1");
        check(
            "10.0.0.1",
            &["203.0.113.9, ::ffff:10.0.0.2"],
            "203.0.113.9",
            "203.0.113.9, 10.0.0.2, 10.0.0.1",
        );
    }

    #[test]
    fn what_is_no_address_is_left_out() {
        check("10.0.0.1", &["unknown, 203.0.113.9\t,"], "203.0.113.9", "203.0.113.9, 10.0.0.1");
    }
}
