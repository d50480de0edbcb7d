//! The heads of HTTP/1.x messages (RFC 9110, RFC 9112), read from a buffer that grows, and written for an origin.
//!
//! A proxy and the server behind it must agree where a message ends, or a client can hide a second request in the
//! first. So whatever has two readings is refused here: bare line ends, folded lines, a length told twice, a coding
//! other than `chunked`, several hosts. What an origin answers is held to the same rules, since it goes to the client
//! byte for byte.

mod client_address;
mod framing;
mod headers;
mod origin;
mod request;
mod response;
mod target;

use thiserror::Error;

pub use self::{
    client_address::ClientAddress,
    framing::BodyLength,
    headers::{Header, Headers},
    origin::{AnswerUse, Hop},
    request::{Method, RequestHead, Version},
    response::ResponseHead,
    target::Target,
};

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, from the first of the start line to the last of the empty line.
    pub bytes: usize,
    /// Header lines.
    pub headers: usize,
}

impl Default for HeadLimits {
    /// 16 KiB and 100 headers: what SRS, NGINX and Go's server accept is of that order.
    fn default() -> Self {
        Self { bytes: 16 * 1024, headers: 100 }
    }
}

/// Why the bytes are no head that may be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// The first line alone exceeds the limit.
    #[error("the first line of the head is too long")]
    LongLine,
    /// The head exceeds the limit.
    #[error("the head is too long")]
    Long,
    /// There are more header lines than the limit allows.
    #[error("the head has too many headers")]
    ManyHeaders,
    /// A line ends in a line feed without a carriage return.
    #[error("a line of the head ends in a bare line feed")]
    LineEnd,
    /// NUL, a carriage return within a line, or another control character: perhaps this is no HTTP at all.
    #[error("the head holds a control character")]
    ControlCharacter,
    /// The first line is neither a request line nor a status line.
    #[error("the first line of the head is malformed")]
    StartLine,
    /// A header line has no colon, white space before it, or a name that is no token.
    #[error("a header of the head is malformed")]
    Header,
    /// The version is not 1.0 or 1.1.
    #[error("the version of http is neither 1.0 nor 1.1")]
    Version,
    /// The method is none that the proxy forwards.
    #[error("the method is not supported")]
    Method,
    /// The target is neither a path nor an absolute `http` URL, or it holds a fragment.
    #[error("the target of the request is malformed")]
    Target,
    /// A request of HTTP/1.1 without Host, with several, or with one that is no `host:port`.
    #[error("the host of the request is missing or malformed")]
    Host,
    /// Content-Length is no number, or there are several.
    #[error("content-length is malformed or repeated")]
    ContentLength,
    /// Transfer-Encoding is something other than `chunked`.
    #[error("transfer-encoding is not chunked")]
    TransferEncoding,
    /// Content-Length and Transfer-Encoding disagree about where the body ends, or HTTP/1.0 is chunked.
    #[error("the length of the body is ambiguous")]
    AmbiguousLength,
}

impl HeadError {
    /// The status that answers a request with such a head. For the head of an origin's answer it is always 502.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::LongLine => 414,
            Self::Long | Self::ManyHeaders => 431,
            Self::Version => 505,
            Self::Method | Self::TransferEncoding => 501,
            Self::LineEnd
            | Self::ControlCharacter
            | Self::StartLine
            | Self::Header
            | Self::Target
            | Self::Host
            | Self::ContentLength
            | Self::AmbiguousLength => 400,
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName | httparse::Error::HeaderValue => Self::Header,
            httparse::Error::TooManyHeaders => Self::ManyHeaders,
            httparse::Error::Version => Self::Version,
            httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => Self::StartLine,
        }
    }
}

/// The head at the start of `buffer`, with its empty line; nothing if more bytes are needed.
///
/// What can be refused is refused before the head is complete.
fn complete<'a>(buffer: &'a [u8], limits: &HeadLimits) -> Result<Option<&'a [u8]>, HeadError> {
    let head = buffer.get(..limits.bytes).unwrap_or(buffer);
    match length(head)? {
        Some(length) => Ok(Some(head.split_at(length).0)),
        None if buffer.len() < limits.bytes => Ok(None),
        None if head.contains(&b'\n') => Err(HeadError::Long),
        None => Err(HeadError::LongLine),
    }
}

/// Where the first empty line ends. One before the first line does not count (RFC 9112, section 2.2).
fn length(input: &[u8]) -> Result<Option<usize>, HeadError> {
    let mut length = 0;
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        let content = content(line)?;
        length += line.len();
        if content.is_empty() && line.ends_with(b"\n") && length > line.len() {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

/// A line without its end, which may be missing.
fn content(line: &[u8]) -> Result<&[u8], HeadError> {
    let content = match line.strip_suffix(b"\n") {
        Some(ended) => ended.strip_suffix(b"\r").ok_or(HeadError::LineEnd)?,
        None => line.strip_suffix(b"\r").unwrap_or(line),
    };
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if content.iter().any(is_control) { Err(HeadError::ControlCharacter) } else { Ok(content) }
}

#[cfg(test)]
mod tests;
