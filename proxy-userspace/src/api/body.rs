//! Reads a whole body within a limit of size and time.

use std::{error::Error, time::Duration};

use axum::body::Bytes;
use bytes::Buf as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body;
use tokio::time::timeout;

use super::ApiError;

/// How much of a body that is too large is read and thrown away.
const DISCARDED: usize = 4 << 20;

/// How large a request body may be and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// In bytes.
    pub size: usize,
    /// From the end of the head.
    pub time: Duration,
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    TooLarge,
    Broken,
}

/// Reads the body of a client's request.
pub(super) async fn read_request<B>(mut body: B, limits: BodyLimits) -> Result<Bytes, ApiError>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let read = timeout(limits.time, read(&mut body, limits.size)).await;
    match read.map_err(|_| ApiError::RequestTimeout)? {
        Ok(bytes) => Ok(bytes),
        Err(ReadError::Broken) => Err(ApiError::BadRequest("the request body is incomplete".into())),
        Err(ReadError::TooLarge) => {
            let _ = timeout(limits.time, discard(&mut body)).await;
            Err(ApiError::TooLarge(limits.size))
        }
    }
}

/// Reads at most `limit` bytes; a body that announces more is not even begun.
pub(super) async fn read<B>(body: B, limit: usize) -> Result<Bytes, ReadError>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(ReadError::TooLarge);
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ReadError::TooLarge),
        Err(_) => Err(ReadError::Broken),
    }
}

/// A client that is still sending when its connection closes sees a reset instead of the answer.
async fn discard<B: Body + Unpin>(body: &mut B) {
    let mut left = DISCARDED;
    while left > 0
        && let Some(Ok(frame)) = body.frame().await
    {
        left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.remaining()));
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn reads_up_to_the_limit_and_no_more() {
        let body = || Full::new(Bytes::from_static(b"offer"));
        assert_eq!(read(body(), 5).await, Ok(Bytes::from_static(b"offer")));
        assert_eq!(read(body(), 4).await, Err(ReadError::TooLarge));
    }
}
