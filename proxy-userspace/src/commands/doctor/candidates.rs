//! Where clients are told to send their media.

use std::net::IpAddr;

use super::{Findings, Level};
use crate::config::Config;

const SUBJECT: &str = "candidates";

pub(super) fn examine(config: &Config, findings: &mut Findings) {
    let configured = &config.webrtc.candidates;
    if configured.is_empty() {
        let text = "those of each request: the name it used, or the address it came to; \
                    behind NAT set PROXY_WEBRTC_CANDIDATE";
        return findings.add(Level::Note, SUBJECT, text);
    }
    for name in configured {
        match name.parse() {
            Ok(ip) if is_private(ip) => {
                findings.add(
                    Level::Warning,
                    SUBJECT,
                    format!("{ip} is private: only clients within reach it"),
                );
            }
            Ok(ip) => findings.add(Level::Ok, SUBJECT, ip.to_string()),
            Err(_) => findings.add(Level::Ok, SUBJECT, format!("{name}, resolved when it is needed")),
        }
    }
}

/// Nobody outside has a route there (RFC 1918, 3927, 4193, 4291, 6598).
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_nobody_outside_reaches_are_told() {
        for ip in ["10.1.2.3", "127.0.0.1", "100.64.0.1", "169.254.1.1", "fd00::1", "::1", "::ffff:10.0.0.1"]
        {
            assert!(is_private(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["203.0.113.7", "100.128.0.1", "2001:db8::1"] {
            assert!(!is_private(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn each_configured_candidate_has_a_line() {
        let config =
            Config::from_variables([("PROXY_WEBRTC_CANDIDATE", "10.0.0.1,203.0.113.7,media.example")])
                .unwrap();
        let mut findings = Findings::default();
        examine(&config, &mut findings);
        let levels: Vec<_> = findings.0.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Warning, Level::Ok, Level::Ok]);
    }
}
