//! The head of a client's request.

use super::{BodyLength, HeadError, HeadLimits, Headers, Target, complete, target::is_authority};

/// What a request wants done. CONNECT and TRACE are for no proxy of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Fetch.
    Get,
    /// Fetch the head of the answer alone.
    Head,
    /// Post an offer.
    Post,
    /// Replace.
    Put,
    /// Change a session.
    Patch,
    /// End a session.
    Delete,
    /// Ask what is allowed: browsers do before they send anything unusual.
    Options,
}

impl Method {
    const ALL: [Self; 7] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// The word in the request line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }

    fn parse(text: &str) -> Result<Self, HeadError> {
        Self::ALL.into_iter().find(|method| method.as_str() == text).ok_or(HeadError::Method)
    }
}

/// The version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0: the connection ends with the answer.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// The word in the first line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// The head of a request that has one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead<'a> {
    method: Method,
    target: Target<'a>,
    version: Version,
    host: Option<&'a str>,
    headers: Headers<'a>,
    body: BodyLength,
    length: usize,
}

impl<'a> RequestHead<'a> {
    /// Reads the head at the start of `buffer`; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are no head, exceed `limits`, or can be read in two ways; [`HeadError::status`] is the
    /// answer. Nothing that follows on the connection can be trusted then.
    pub fn parse(buffer: &'a [u8], limits: &HeadLimits) -> Result<Option<Self>, HeadError> {
        let Some(head) = complete(buffer, limits)? else { return Ok(None) };
        let mut lines = vec![httparse::EMPTY_HEADER; limits.headers];
        let mut parsed = httparse::Request::new(&mut lines);
        parsed.parse(head)?;
        let (Some(method), Some(path), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(HeadError::StartLine);
        };
        let method = Method::parse(method)?;
        let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        let headers = Headers::new(parsed.headers);
        let (target, authority) = Target::parse(path, method)?;
        let host = host(&headers, authority, version)?;
        let body = BodyLength::of_request(&headers, version)?;
        Ok(Some(Self { method, target, version, host, headers, body, length: head.len() }))
    }

    /// The method.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Path and query.
    #[must_use]
    pub const fn target(&self) -> &Target<'a> {
        &self.target
    }

    /// The version.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// `host` or `host:port` as the client names us: of an absolute target, else of the Host header; never empty.
    #[must_use]
    pub const fn host(&self) -> Option<&'a str> {
        self.host
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

    /// Whether the client keeps the connection open for another request.
    #[must_use]
    pub fn is_keep_alive(&self) -> bool {
        match self.version {
            Version::Http10 => self.connection_has("keep-alive"),
            Version::Http11 => !self.connection_has("close"),
        }
    }

    /// Whether the client asks to go on by WebSocket (RFC 6455, section 4.1), as players of FLV do.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.method == Method::Get
            && self.version == Version::Http11
            && self.body == BodyLength::Empty
            && self.connection_has("upgrade")
            && self.headers.words("upgrade").any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
    }

    fn connection_has(&self, word: &str) -> bool {
        self.headers.words("connection").any(|option| option.eq_ignore_ascii_case(word))
    }
}

/// The authority of an absolute target wins (RFC 9112, section 3.2.2), but a malformed or repeated Host is refused first.
fn host<'a>(
    headers: &Headers<'a>,
    authority: Option<&'a str>,
    version: Version,
) -> Result<Option<&'a str>, HeadError> {
    let header = headers.single("host", HeadError::Host)?;
    if header.is_none() && version == Version::Http11 {
        return Err(HeadError::Host);
    }
    let host = str::from_utf8(header.unwrap_or_default()).map_err(|_| HeadError::Host)?;
    if !is_authority(host) {
        return Err(HeadError::Host);
    }
    Ok(authority.or(Some(host)).filter(|host| !host.is_empty()))
}
