//! The head of an origin's answer.

use super::{BodyLength, HeadError, HeadLimits, Headers, Method, complete};

/// What a body that was rewritten no longer has: its length, its coding, and what names its bytes.
const OF_THE_BODY: [&str; 8] = [
    "content-length",
    "transfer-encoding",
    "trailer",
    "etag",
    "last-modified",
    "content-md5",
    "digest",
    "accept-ranges",
];

/// The head of an answer that has one reading. It goes to the client as the bytes it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    status: u16,
    status_line: &'a [u8],
    headers: Headers<'a>,
    body: BodyLength,
    length: usize,
}

impl<'a> ResponseHead<'a> {
    /// Reads the head at the start of `buffer`, of the answer to a request by `method`; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are no head, exceed `limits`, or can be read in two ways. The client is answered 502 then.
    pub fn parse(buffer: &'a [u8], method: Method, limits: &HeadLimits) -> Result<Option<Self>, HeadError> {
        let Some(head) = complete(buffer, limits)? else { return Ok(None) };
        let mut lines = vec![httparse::EMPTY_HEADER; limits.headers];
        let mut parsed = httparse::Response::new(&mut lines);
        parsed.parse(head)?;
        let status = parsed.code.filter(|code| *code >= 100).ok_or(HeadError::StartLine)?;
        let headers = Headers::new(parsed.headers);
        let body = BodyLength::of_answer(&headers, status, method)?;
        Ok(Some(Self { status, status_line: status_line(head), headers, body, length: head.len() }))
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The header lines.
    #[must_use]
    pub const fn headers(&self) -> &Headers<'a> {
        &self.headers
    }

    /// How long the body is.
    #[must_use]
    pub const fn body(&self) -> BodyLength {
        self.body
    }

    /// The number of bytes of the head; the body starts there.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// Whether another head follows this one: 100 Continue and the like, but not the switch to another protocol.
    #[must_use]
    pub const fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    /// Whether the body is text as it stands, so that it can be rewritten.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.headers.words("content-encoding").all(|coding| coding.eq_ignore_ascii_case("identity"))
    }

    /// The head for a body of `length` bytes that takes the place of the origin's.
    #[must_use]
    pub fn with_body_length(&self, length: usize) -> Vec<u8> {
        let mut head = [self.status_line, b"\r\n"].concat();
        let kept = self.headers.iter().filter(|header| !OF_THE_BODY.iter().any(|name| header.is(name)));
        for header in kept {
            header.write_to(&mut head);
        }
        head.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
        head
    }
}

fn status_line(head: &[u8]) -> &[u8] {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.find(|line| !line.is_empty()).unwrap_or_default()
}
