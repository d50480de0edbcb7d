//! A client's request as its origin gets it.

use super::{ClientAddress, Header, RequestHead};

/// What describes one connection alone (RFC 9110, section 7.6.1). Transfer-Encoding is not among them: the body goes on in
/// the chunks it came in.
const OF_THE_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
];

/// What a client must not have dropped by naming it in Connection.
const KEPT: [&str; 5] = ["host", "content-length", "transfer-encoding", "content-type", "authorization"];

/// What tells who the client is. The origin gets it from us.
const OF_THE_CLIENT: [&str; 5] =
    ["x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-host", "forwarded"];

/// What would make an answer something other than the whole text as it is.
const OF_ANOTHER_ANSWER: [&str; 7] = [
    "accept-encoding",
    "range",
    "if-range",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
];

/// What happens to the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerUse {
    /// It goes to the client as it comes.
    Passed,
    /// It is read here, whole and uncompressed, as playlists are.
    Read,
}

/// How a request came to us.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// Who sent it.
    pub client: &'a ClientAddress,
    /// Whether it came by TLS.
    pub is_https: bool,
}

impl RequestHead<'_> {
    /// The head for the origin, which is asked for `target` (mostly [`RequestHead::target`] without a parameter of
    /// ours) on a connection of its own.
    ///
    /// Headers stay in their order and as they were written, but for what belongs to the client's connection.
    #[must_use]
    pub fn to_origin(&self, target: &str, hop: Hop<'_>, answer: AnswerUse) -> Vec<u8> {
        let request_line = format!("{} {target} {}\r\n", self.method().as_str(), self.version().as_str());
        let mut head = request_line.into_bytes();
        for header in self.headers().iter().filter(|header| self.is_for_origin(header, answer)) {
            if header.is("host") {
                self.host_header().write_to(&mut head)
            } else {
                header.write_to(&mut head)
            }
        }
        let connection: &[&str] = if self.is_websocket() {
            &["Connection: Upgrade", "Upgrade: websocket"]
        } else {
            &["Connection: close"]
        };
        for line in connection {
            push_line(&mut head, line);
        }
        for line in self.client_lines(hop) {
            push_line(&mut head, &line);
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    fn is_for_origin(&self, header: &Header<'_>, answer: AnswerUse) -> bool {
        let is_any = |names: &[&str]| names.iter().any(|name| header.is(name));
        let is_named = || self.headers().words("connection").any(|name| header.is(name)) && !is_any(&KEPT);
        let is_unwanted = answer == AnswerUse::Read && is_any(&OF_ANOTHER_ANSWER);
        !is_any(&OF_THE_CONNECTION) && !is_any(&OF_THE_CLIENT) && !is_unwanted && !is_named()
    }

    /// That of an absolute target takes the place of the header's (RFC 9112, section 3.2.2).
    fn host_header(&self) -> Header<'_> {
        Header { name: "Host", value: self.host().unwrap_or_default().as_bytes() }
    }

    fn client_lines(&self, hop: Hop<'_>) -> Vec<String> {
        let told = |name| self.headers().text(name).filter(|_| hop.client.is_of_trusted_peer());
        let scheme = if hop.is_https { "https" } else { "http" };
        let mut lines = vec![
            format!("X-Forwarded-For: {}", hop.client.forwarded_for()),
            format!("X-Real-IP: {}", hop.client.ip()),
            format!("X-Forwarded-Proto: {}", told("x-forwarded-proto").unwrap_or(scheme)),
        ];
        if let Some(host) = told("x-forwarded-host").or(self.host()) {
            lines.push(format!("X-Forwarded-Host: {host}"));
        }
        lines
    }
}

fn push_line(head: &mut Vec<u8>, line: &str) {
    head.extend_from_slice(line.as_bytes());
    head.extend_from_slice(b"\r\n");
}
