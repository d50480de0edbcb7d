//! SRS's form of an SDP answer: ICE-lite at session level, and under every m-line the same credentials and the
//! same candidates. The rest of the text is what the media stack negotiated.

use std::fmt::Write as _;
use std::net::SocketAddr;

use proxy_protocol::sdp::Transport;

use super::SIGNATURE;
use super::session::Role;

/// Rewrites the stack's answer.
pub(super) fn in_srs_shape(
    answer: &str,
    candidates: &[(Transport, SocketAddr)],
    role: Role,
    stream: &str,
) -> String {
    let mut shaped = String::with_capacity(answer.len() + 512);
    let mut in_media = false;
    for line in answer.lines().filter(|line| !is_trickle(line)) {
        if line.starts_with("m=") {
            if in_media {
                push_candidates(&mut shaped, candidates);
            }
            in_media = true;
        }
        push_line(&mut shaped, &shape_line(line, role, stream));
    }
    push_candidates(&mut shaped, candidates);
    shaped
}

/// SRS lists each address once, in the order of their texts.
pub(super) fn in_srs_order(candidates: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut candidates: Vec<_> = candidates.collect();
    candidates.sort_by_cached_key(|candidate| (candidate.ip().to_string(), candidate.port().to_string()));
    candidates.dedup();
    candidates
}

fn is_trickle(line: &str) -> bool {
    line.starts_with("a=candidate:") || line == "a=end-of-candidates" || line == "a=ice-options:trickle"
}

fn shape_line(line: &str, role: Role, stream: &str) -> String {
    match line.get(..2) {
        Some("o=") => format!("o={SIGNATURE} {} 2 IN IP4 0.0.0.0", std::process::id()),
        Some("s=") => match role {
            Role::Publisher => "s=SRSPublishSession".to_owned(),
            Role::Player => "s=SRSPlaySession".to_owned(),
        },
        Some(_) if line.starts_with("a=msid-semantic:") => format!("a=msid-semantic: WMS {stream}"),
        Some(_) | None => line.to_owned(),
    }
}

fn push_candidates(sdp: &mut String, candidates: &[(Transport, SocketAddr)]) {
    for (index, (transport, candidate)) in candidates.iter().enumerate() {
        let (ip, port) = (candidate.ip(), candidate.port());
        let (name, extension) = match transport {
            Transport::Udp => ("udp", "generation 0"),
            Transport::Tcp => ("tcp", "tcptype passive"),
        };
        push_line(sdp, &format!("a=candidate:{index} 1 {name} 2130706431 {ip} {port} typ host {extension}"));
    }
}

fn push_line(sdp: &mut String, line: &str) {
    write!(sdp, "{line}\r\n").expect("a string takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: &str = "v=0\r\no=str0m-0.24.1 1 2 IN IP4 0.0.0.0\r\ns=-\r\na=ice-lite\r\n\
                         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=candidate:1 1 udp 1 10.0.0.1 8000 typ host ufrag u\r\n\
                         a=end-of-candidates\r\na=mid:0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n";

    const CANDIDATES: [(Transport, &str); 2] =
        [(Transport::Udp, "10.9.8.7:8001"), (Transport::Tcp, "10.9.8.7:8443")];

    fn parsed((transport, address): (Transport, &str)) -> (Transport, SocketAddr) {
        (transport, address.parse().unwrap())
    }

    #[test]
    fn every_media_section_ends_with_the_candidate() {
        let shaped = in_srs_shape(STACK, &CANDIDATES.map(parsed), Role::Player, "live/s");
        let candidate = "a=candidate:0 1 udp 2130706431 10.9.8.7 8001 typ host generation 0\r\n\
                         a=candidate:1 1 tcp 2130706431 10.9.8.7 8443 typ host tcptype passive\r\n";
        assert!(shaped.contains(&format!("a=mid:0\r\n{candidate}m=video")));
        assert!(shaped.ends_with(&format!("a=mid:1\r\n{candidate}")));
        assert_eq!(shaped.matches("a=candidate").count(), 4);
    }

    #[test]
    fn candidates_are_sorted_as_text_and_listed_once() {
        let listed = ["10.9.0.2:8000", "10.10.0.1:8000", "10.9.0.2:8000", "10.10.0.1:10000"];
        let ordered = in_srs_order(listed.iter().map(|address| address.parse().unwrap()));
        let expected = ["10.10.0.1:10000", "10.10.0.1:8000", "10.9.0.2:8000"];
        assert_eq!(ordered, expected.map(|address| address.parse::<SocketAddr>().unwrap()));
    }

    #[test]
    fn signs_as_srs_does() {
        let shaped = in_srs_shape(STACK, &[], Role::Publisher, "live/s");
        assert!(shaped.contains("\r\no=SRS/7.0.18("));
        assert!(shaped.contains("\r\ns=SRSPublishSession\r\n"));
    }
}
