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
use proxy_protocol::{query, sdp::HostCandidate};
use tracing::warn;

use crate::api::resolve::{Resolver, is_ours};

/// Where candidates come from.
#[derive(Debug)]
pub(super) struct Candidates {
    /// Addresses or names that go into every answer.
    pub(super) configured: Vec<String>,
    /// Names that a `Host` header may hold although they do not resolve to an address of this host.
    pub(super) allowed_hosts: Vec<String>,
    /// The one address that media is received on, if not on all.
    pub(super) bound: Option<IpAddr>,
    /// The port that media is received on.
    pub(super) port: u16,
    pub(super) resolver: Arc<Resolver>,
}

impl Candidates {
    /// The candidates for a request with this query and `Host`, which arrived at `local`.
    pub(super) async fn choose(&self, query: &str, host: Option<&str>, local: IpAddr) -> Vec<HostCandidate> {
        if let Some(asked) = self.asked_for(query) {
            return vec![asked];
        }
        let mut ips = self.of_configuration().await;
        if ips.is_empty() {
            ips = self.of_host(host).await;
            if self.client_resolves_otherwise(&ips, local) {
                ips.push(local);
            }
        }
        if ips.is_empty() {
            ips.push(self.bound.unwrap_or(local));
        }
        ips.into_iter().map(|ip| HostCandidate { ip, port: self.port }).collect()
    }

    /// SRS's `eip`, or `candidate`, is an address with or without a port; anything else is ignored.
    fn asked_for(&self, query: &str) -> Option<HostCandidate> {
        let raw = query::value(query, "eip").or_else(|| query::value(query, "candidate"))?;
        let text = query::percent_decode(raw);
        let asked = match text.parse::<SocketAddr>() {
            Ok(address) => HostCandidate { ip: address.ip(), port: address.port() },
            Err(_) => HostCandidate { ip: text.parse().ok()?, port: self.port },
        };
        Some(asked).filter(|asked| is_unicast(asked.ip) && asked.port != 0)
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

    async fn of_host(&self, host: Option<&str>) -> Vec<IpAddr> {
        let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else { return Vec::new() };
        let name = authority.host();
        let mut ips = self.resolver.addresses(name).await;
        if !self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            ips.retain(|ip| self.receives_at(*ip));
        }
        let mut unique = Vec::new();
        add_new(&mut unique, ips);
        unique
    }

    /// Whether the name led the client to an address of a family that it does not have for us: browsers take `localhost`
    /// for `::1`, and a resolver here may know 127.0.0.1 alone. A proxy in front of us may well reach us by `lo` under a
    /// name that is not for `lo`.
    fn client_resolves_otherwise(&self, ips: &[IpAddr], local: IpAddr) -> bool {
        let is_alike =
            |ip: &IpAddr| ip.is_loopback() == local.is_loopback() && ip.is_ipv4() != local.is_ipv4();
        !ips.is_empty() && ips.iter().all(is_alike) && self.receives_at(local)
    }

    fn receives_at(&self, ip: IpAddr) -> bool {
        self.bound.map_or_else(|| is_ours(ip), |bound| bound == ip)
    }
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

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn candidates() -> Candidates {
        Candidates {
            configured: Vec::new(),
            allowed_hosts: Vec::new(),
            bound: None,
            port: 18000,
            resolver: Arc::new(Resolver::new(Duration::from_secs(2))),
        }
    }

    async fn check(candidates: &Candidates, query: &str, host: Option<&str>, expected: &[&str]) {
        check_at(candidates, (query, host, LOCAL), expected).await;
    }

    async fn check_at(
        candidates: &Candidates,
        (query, host, local): (&str, Option<&str>, IpAddr),
        expected: &[&str],
    ) {
        let chosen = candidates.choose(query, host, local).await;
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
        let bound = Candidates { bound: Some([127, 0, 0, 1].into()), ..candidates() };
        check_at(&bound, ("", Some("127.0.0.1"), loopback), &both[..1]).await;
    }

    #[tokio::test]
    async fn media_bound_to_one_address_is_offered_there() {
        let candidates = Candidates { bound: Some([127, 0, 0, 2].into()), ..candidates() };
        check(&candidates, "", Some("127.0.0.1"), &["127.0.0.2:18000"]).await;
        check(&candidates, "", Some("127.0.0.2"), &["127.0.0.2:18000"]).await;
    }
}
