//! Where the body of a message ends (RFC 9112, section 6).

use super::{HeadError, Headers, Method, Version};

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    Empty,
    /// So many bytes.
    Exactly(u64),
    /// Chunks, the last of which is empty.
    Chunked,
    /// Everything until the connection is closed: of an answer alone.
    UntilClose,
}

impl BodyLength {
    /// The length of a request's body.
    pub(super) fn of_request(headers: &Headers<'_>, version: Version) -> Result<Self, HeadError> {
        match declared(headers)? {
            Some(Self::Chunked) if version == Version::Http10 => Err(HeadError::AmbiguousLength),
            Some(length) => Ok(length),
            None => Ok(Self::Empty),
        }
    }

    /// The length of the body of an answer with `status` to a request by `method`.
    pub(super) fn of_answer(headers: &Headers<'_>, status: u16, method: Method) -> Result<Self, HeadError> {
        let declared = declared(headers)?;
        Ok(match status {
            101 => Self::UntilClose,
            100..=199 | 204 | 304 => Self::Empty,
            _ if method == Method::Head => Self::Empty,
            _ => declared.unwrap_or(Self::UntilClose),
        })
    }
}

fn declared(headers: &Headers<'_>) -> Result<Option<BodyLength>, HeadError> {
    let length = headers.single("content-length", HeadError::ContentLength)?;
    let coding = headers.single("transfer-encoding", HeadError::TransferEncoding)?;
    match (length, coding) {
        (None, None) => Ok(None),
        (Some(length), None) => parse_length(length).map(Some),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(BodyLength::Chunked)),
        (None, Some(_)) => Err(HeadError::TransferEncoding),
        (Some(_), Some(_)) => Err(HeadError::AmbiguousLength),
    }
}

/// Digits alone: no sign, no list of equal numbers.
fn parse_length(value: &[u8]) -> Result<BodyLength, HeadError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::ContentLength);
    }
    let number = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    match number.ok_or(HeadError::ContentLength)? {
        0 => Ok(BodyLength::Empty),
        length => Ok(BodyLength::Exactly(length)),
    }
}
