//! Which of our addresses a client is told to send its media to.
//!
//! The first source that yields an address wins: what the client asks for (`eip`), what the operator configured, the
//! name the client used for us if it is ours (with the address its request arrived at, if that is of another family), the
//! address its request arrived at.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::uri::Authority;
use proxy_protocol::{
    query,
    sdp::{Answer, HostCandidate, Transport},
};
use tracing::warn;

use crate::{
    api::resolve::{Resolver, is_ours},
    origin::Origin,
};

/// Where candidates come from.
#[derive(Debug)]
pub(super) struct Candidates {
    /// Addresses or names that go into every answer.
    pub(super) configured: Vec<String>,
    /// Names that a `Host` header may hold although they do not resolve to an address of this host.
    pub(super) allowed_hosts: Vec<String>,
    /// Where media over UDP is received.
    pub(super) udp: Receiver,
    /// Where media over TCP is received, if it is.
    pub(super) tcp: Option<Receiver>,
    pub(super) resolver: Arc<Resolver>,
}

/// Where media of one transport is received.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    /// The one address, if not all.
    pub bound: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl Candidates {
    /// The candidates at `receiver` for a request with this query and `Host`, which arrived at `local`.
    pub(super) async fn choose(
        &self,
        receiver: Receiver,
        (query, host, local): (&str, Option<&str>, IpAddr),
    ) -> Vec<HostCandidate> {
        if let Some(asked) = receiver.asked_for(query) {
            return vec![asked];
        }
        let mut ips = self.of_configuration().await;
        if ips.is_empty() {
            ips = self.of_host(receiver, host).await;
            if receiver.client_resolves_otherwise(&ips, local) {
                ips.push(local);
            }
        }
        if ips.is_empty() {
            ips.push(receiver.bound.unwrap_or(local));
        }
        ips.into_iter().map(|ip| HostCandidate { ip, port: receiver.port }).collect()
    }

    async fn of_configuration(&self) -> Vec<IpAddr> {
        let mut ips = Vec::new();
        for name in &self.configured {
            let found = self.resolver.addresses(name).await;
            if found.is_empty() {
                warn!(%name, "configured candidate does not resolve");
            }
            add_new(&mut ips, found);
        }
        ips
    }

    async fn of_host(&self, receiver: Receiver, host: Option<&str>) -> Vec<IpAddr> {
        let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else { return Vec::new() };
        let name = authority.host();
        let mut ips = self.resolver.addresses(name).await;
        if !self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            ips.retain(|ip| receiver.receives_at(*ip));
        }
        let mut unique = Vec::new();
        add_new(&mut unique, ips);
        unique
    }
}

impl Receiver {
    /// SRS's `eip`, or `candidate`, is an address with or without a port; anything else is ignored.
    fn asked_for(self, query: &str) -> Option<HostCandidate> {
        let text = query::percent_decode(asked_candidate(query)?);
        let asked = match text.parse::<SocketAddr>() {
            Ok(address) => HostCandidate { ip: address.ip(), port: address.port() },
            Err(_) => HostCandidate { ip: text.parse().ok()?, port: self.port },
        };
        Some(asked).filter(|asked| is_unicast(asked.ip) && asked.port != 0)
    }

    /// Whether the name led the client to an address of a family that it does not have for us: browsers take `localhost`
    /// for `::1`, and a resolver here may know 127.0.0.1 alone. A proxy in front of us may well reach us by `lo` under a
    /// name that is not for `lo`.
    fn client_resolves_otherwise(self, ips: &[IpAddr], local: IpAddr) -> bool {
        let is_alike =
            |ip: &IpAddr| ip.is_loopback() == local.is_loopback() && ip.is_ipv4() != local.is_ipv4();
        !ips.is_empty() && ips.iter().all(is_alike) && self.receives_at(local)
    }

    fn receives_at(self, ip: IpAddr) -> bool {
        self.bound.map_or_else(|| is_ours(ip), |bound| bound == ip)
    }
}

/// Where the origin takes media over TCP, if its answer lists that: where it registered, else at the port of its candidates.
///
/// A candidate that the client asked for tells nothing of the origin: it could name any port, and have us connect there.
pub(super) fn tcp_endpoint(origin: &Origin, answer: &Answer<'_>, query: &str) -> Option<SocketAddr> {
    let mut listed = answer.candidates().iter().filter(|candidate| candidate.transport == Transport::Tcp);
    let port = listed.next()?.port;
    if origin.rtc_tcp.is_some() {
        return origin.rtc_tcp;
    }
    let is_the_origins = asked_candidate(query).is_none() && listed.all(|other| other.port == port);
    is_the_origins.then(|| SocketAddr::new(origin.ip, port))
}

fn asked_candidate(query: &str) -> Option<&str> {
    query::value(query, "eip").or_else(|| query::value(query, "candidate"))
}

fn add_new(ips: &mut Vec<IpAddr>, found: Vec<IpAddr>) {
    for ip in found {
        if is_unicast(ip) && !ips.contains(&ip) {
            ips.push(ip);
        }
    }
}

fn is_unicast(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::SessionOffer;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn candidates() -> Candidates {
        Candidates {
            configured: Vec::new(),
            allowed_hosts: Vec::new(),
            udp: Receiver { bound: None, port: 18000 },
            tcp: None,
            resolver: Arc::new(Resolver::new(Duration::from_secs(2))),
        }
    }

    fn bound_to(ip: [u8; 4]) -> Candidates {
        Candidates { udp: Receiver { bound: Some(ip.into()), port: 18000 }, ..candidates() }
    }

    async fn check(candidates: &Candidates, query: &str, host: Option<&str>, expected: &[&str]) {
        check_at(candidates, (query, host, LOCAL), expected).await;
    }

    async fn check_at(
        candidates: &Candidates,
        (query, host, local): (&str, Option<&str>, IpAddr),
        expected: &[&str],
    ) {
        let chosen = candidates.choose(candidates.udp, (query, host, local)).await;
        let chosen: Vec<_> = chosen.iter().map(|c| SocketAddr::new(c.ip, c.port).to_string()).collect();
        assert_eq!(chosen, expected, "{query} {host:?}");
    }

    #[tokio::test]
    async fn an_address_in_the_query_wins() {
        let candidates = Candidates { configured: vec!["203.0.113.1".into()], ..candidates() };
        check(&candidates, "app=live&eip=198.51.100.4", None, &["198.51.100.4:18000"]).await;
        check(&candidates, "candidate=198.51.100.4:8000", None, &["198.51.100.4:8000"]).await;
        check(&candidates, "eip=%5B2001:db8::1%5D:8000", None, &["[2001:db8::1]:8000"]).await;
        check(&candidates, "eip=2001:db8::1", None, &["[2001:db8::1]:18000"]).await;
    }

    #[tokio::test]
    async fn a_query_that_holds_no_address_is_ignored() {
        for query in
            ["eip=", "eip=host", "eip=0.0.0.0", "eip=1.2.3.4:0", "eip=1.2.3.4%0d%0aa=x", "eip=224.0.0.1"]
        {
            check(&candidates(), query, None, &["192.0.2.7:18000"]).await;
        }
    }

    #[tokio::test]
    async fn configured_addresses_come_before_the_host_header() {
        let configured = vec!["203.0.113.1".into(), "203.0.113.2".into(), "203.0.113.1".into()];
        let candidates = Candidates { configured, ..candidates() };
        check(&candidates, "", Some("127.0.0.1"), &["203.0.113.1:18000", "203.0.113.2:18000"]).await;
    }

    #[tokio::test]
    async fn the_host_header_counts_if_it_is_ours() {
        check(&candidates(), "", Some("127.0.0.1:11985"), &["127.0.0.1:18000"]).await;
        check(&candidates(), "", Some("203.0.113.9:11985"), &["192.0.2.7:18000"]).await;
        check(&candidates(), "", Some("not a host"), &["192.0.2.7:18000"]).await;
    }

    #[tokio::test]
    async fn the_host_header_counts_if_it_is_allowed() {
        let candidates = Candidates { allowed_hosts: vec!["203.0.113.9".into()], ..candidates() };
        check(&candidates, "", Some("203.0.113.9:11985"), &["203.0.113.9:18000"]).await;
    }

    #[tokio::test]
    async fn a_request_by_the_other_family_adds_the_address_that_it_came_by() {
        let loopback = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        let both = ["127.0.0.1:18000", "[::1]:18000"];
        check_at(&candidates(), ("", Some("127.0.0.1:11985"), loopback), &both).await;
        check_at(&candidates(), ("", Some("[::1]:11985"), loopback), &both[1..]).await;
        let allowed = Candidates { allowed_hosts: vec!["203.0.113.9".into()], ..candidates() };
        let public = ["203.0.113.9:18000"];
        check_at(&allowed, ("", Some("203.0.113.9"), loopback), &public).await;
        check_at(&allowed, ("", Some("203.0.113.9"), LOCAL), &public).await;
        let bound = bound_to([127, 0, 0, 1]);
        check_at(&bound, ("", Some("127.0.0.1"), loopback), &both[..1]).await;
    }

    #[tokio::test]
    async fn media_bound_to_one_address_is_offered_there() {
        let candidates = bound_to([127, 0, 0, 2]);
        check(&candidates, "", Some("127.0.0.1"), &["127.0.0.2:18000"]).await;
        check(&candidates, "", Some("127.0.0.2"), &["127.0.0.2:18000"]).await;
    }

    fn endpoint(registered: Option<&str>, candidates: &[&str], query: &str) -> Option<String> {
        let mut offer = SessionOffer::example("v/live/a", "orig:clnt");
        let origin = Arc::make_mut(&mut offer.origin);
        origin.rtc_tcp = registered.map(|address| address.parse().unwrap());
        let lines: String = candidates
            .iter()
            .map(|candidate| format!("a=candidate:0 1 {candidate} typ host generation 0\r\n"))
            .collect();
        let credentials = "a=ice-ufrag:orig\r\na=ice-pwd:0123456789abcdef0123456789abcdef\r\n";
        let answer = format!("v=0\r\nm=video 9\r\n{credentials}{lines}");
        let endpoint = tcp_endpoint(origin, &Answer::parse(&answer).unwrap(), query);
        endpoint.map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn media_over_tcp_goes_where_the_origin_registered_for_it() {
        const BOTH: [&str; 2] = ["udp 1 10.0.1.1 8000", "tcp 1 10.0.1.1 8000"];
        let registered = Some("10.0.1.1:1985");
        assert_eq!(endpoint(registered, &BOTH, "eip=192.0.2.9:22").as_deref(), registered);
        assert_eq!(endpoint(registered, &BOTH[..1], ""), None, "this session has none");
        assert_eq!(endpoint(None, &BOTH[..1], ""), None);
    }

    #[test]
    fn a_port_that_the_origin_did_not_register_is_that_of_its_own_candidates() {
        // The address is another one behind NAT, the port is not.
        assert_eq!(endpoint(None, &["tcp 1 203.0.113.7 8443"], "app=live").as_deref(), Some("10.0.1.1:8443"));
        assert_eq!(endpoint(None, &["tcp 1 192.0.2.9 22", "tcp 1 10.0.1.1 8443"], ""), None);
        for query in ["eip=192.0.2.9:22", "candidate=192.0.2.9:22", "eip=name:22"] {
            assert_eq!(endpoint(None, &["tcp 1 192.0.2.9 22"], query), None, "{query}");
        }
    }
}
