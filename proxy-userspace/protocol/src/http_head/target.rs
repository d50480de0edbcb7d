//! What a request asks for (RFC 9112, section 3.2), and of whom.

use std::{borrow::Cow, fmt};

use super::{HeadError, Method};

/// The target of a request, in the form an origin gets: a path and a query as the client wrote them, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a>(Cow<'a, str>);

impl<'a> Target<'a> {
    /// Reads the target of a request line, and the authority if it is an absolute URL.
    pub(super) fn parse(text: &'a str, method: Method) -> Result<(Self, Option<&'a str>), HeadError> {
        if text.contains('#') {
            return Err(HeadError::Target);
        }
        if text.starts_with('/') {
            return Ok((Self(Cow::Borrowed(text)), None));
        }
        if text == "*" && method == Method::Options {
            return Ok((Self(Cow::Borrowed(text)), None));
        }
        let (scheme, address) = text.split_once("://").ok_or(HeadError::Target)?;
        if !["http", "https"].iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
            return Err(HeadError::Target);
        }
        let authority_len = address.find(['/', '?']).unwrap_or(address.len());
        let (authority, path_and_query) = address.split_at(authority_len);
        if authority.is_empty() || !is_authority(authority) {
            return Err(HeadError::Target);
        }
        Ok((Self(with_slash(path_and_query)), Some(authority)))
    }

    /// Path and query.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the query, escapes and all.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.split_once('?').map_or(&self.0, |(path, _query)| path)
    }

    /// What stands after the first question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.0.split_once('?').map(|(_path, query)| query)
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn with_slash(path_and_query: &str) -> Cow<'_, str> {
    if path_and_query.starts_with('/') {
        Cow::Borrowed(path_and_query)
    } else {
        Cow::Owned(format!("/{path_and_query}"))
    }
}

/// Whether this is `host` or `host:port` (RFC 3986, section 3.2) without user information, which nobody may send.
pub(super) fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(ipv6) => match ipv6.split_once(']') {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => (address, port),
            _ => return false,
        },
        None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:".contains(&byte);
    host.bytes().all(is_host) && port.bytes().skip(1).all(|digit| digit.is_ascii_digit())
}
