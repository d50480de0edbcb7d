//! Asks origins: so many at once, each with a deadline, and all of them with one.

use std::sync::Arc;

use axum::body::Bytes;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderValue, Method, StatusCode, uri::PathAndQuery};
use proxy_protocol::srs_api::{AnswerError, Failure};
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::{
    api::{
        body,
        client_address::ClientAddress,
        fetch::{FetchError, Fetcher, Outgoing},
    },
    config::{Config, Secret},
    origin::Origin,
};

/// Origins asked at once, by all requests together.
const CONCURRENT: usize = 16;
/// A request takes no longer than this many exchanges.
const ROUNDS: u32 = 3;

/// Asks origins.
pub(super) struct Asker {
    fetcher: Fetcher,
    /// For origins whose own API is protected.
    credentials: Option<HeaderValue>,
    slots: Semaphore,
}

/// What origins are asked for.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    /// Path and query, of our own making.
    pub(super) target: String,
    /// On whose behalf.
    pub(super) client: ClientAddress,
    /// In bytes.
    pub(super) answer_limit: usize,
}

/// Why an exchange came to nothing.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum AskError {
    #[error("the origin registered no HTTP API")]
    NoApi,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("there was no time left to ask the origin")]
    Late,
    #[error(
        "the origin answered with status {0}; if its API wants a password, PROXY_ORIGIN_API_AUTH sets it"
    )]
    Unauthorized(StatusCode),
    #[error("the origin answered with status {0}")]
    Status(StatusCode),
    #[error("the origin's answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the origin's answer broke off")]
    Broken,
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let code = match error {
            AskError::Fetch(FetchError::Timeout) | AskError::Late => StatusCode::GATEWAY_TIMEOUT,
            AskError::NoApi
            | AskError::Fetch(FetchError::Connect | FetchError::NoAnswer)
            | AskError::Unauthorized(_)
            | AskError::Status(_)
            | AskError::TooLarge(_)
            | AskError::Broken => StatusCode::BAD_GATEWAY,
        };
        (code.as_u16(), error.to_string())
    }
}

impl Asker {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            fetcher: Fetcher::new(config.signalling.origin_timeout),
            credentials: config.origin_api_auth.as_ref().map(basic),
            slots: Semaphore::new(CONCURRENT),
        }
    }

    /// What each of `origins` answers, in their order; `read` makes what an origin's answer is read by.
    pub(super) fn ask_all<'a, T, R>(
        &'a self,
        origins: &'a [Arc<Origin>],
        question: &'a Question,
        read: impl Fn(&Origin) -> R + 'a,
    ) -> impl Stream<Item = (&'a Arc<Origin>, Result<T, Failure>)> + 'a
    where
        T: Send + 'static,
        R: FnOnce(&[u8]) -> Result<T, AnswerError> + Send + 'static,
    {
        let deadline = self.deadline();
        let ask = move |origin: &'a Arc<Origin>| {
            let read = read(origin);
            async move { (origin, self.ask_until(deadline, origin, question, read).await) }
        };
        stream::iter(origins).map(ask).buffered(CONCURRENT)
    }

    /// What `origin` answers.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        origin: &Origin,
        question: &Question,
        read: impl FnOnce(&[u8]) -> Result<T, AnswerError> + Send + 'static,
    ) -> Result<T, Failure> {
        self.ask_until(self.deadline(), origin, question, read).await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + ROUNDS * self.fetcher.deadline()
    }

    async fn ask_until<T: Send + 'static>(
        &self,
        deadline: Instant,
        origin: &Origin,
        question: &Question,
        read: impl FnOnce(&[u8]) -> Result<T, AnswerError> + Send + 'static,
    ) -> Result<T, Failure> {
        let body = self.exchange(deadline, origin, question).await?;
        // Megabytes of JSON take longer than others want to wait for this thread.
        let read = spawn_blocking(move || read(&body)).await;
        read.map_err(|_panicked| AskError::Broken)?
            .map_err(|error| (StatusCode::BAD_GATEWAY.as_u16(), error.to_string()))
    }

    async fn exchange(
        &self,
        deadline: Instant,
        origin: &Origin,
        question: &Question,
    ) -> Result<Bytes, AskError> {
        let api = origin.api.ok_or(AskError::NoApi)?;
        let slot = timeout_at(deadline, self.slots.acquire()).await.map_err(|_| AskError::Late)?;
        let _slot = slot.expect("the semaphore is never closed");
        let target =
            PathAndQuery::try_from(question.target.as_str()).expect("it is made of plain characters");
        let outgoing = Outgoing::on_behalf(question.method.clone(), target, &question.client);
        let outgoing = outgoing.authorized(self.credentials.as_ref());
        let until = deadline.min(Instant::now() + self.fetcher.deadline());
        let exchange = async {
            let answer = self.fetcher.send(api, &outgoing).await?;
            match answer.status() {
                StatusCode::OK => {}
                status @ StatusCode::UNAUTHORIZED => return Err(AskError::Unauthorized(status)),
                status => return Err(AskError::Status(status)),
            }
            body::read(answer.into_body(), question.answer_limit).await.map_err(|error| match error {
                body::ReadError::TooLarge => AskError::TooLarge(question.answer_limit),
                body::ReadError::Broken => AskError::Broken,
            })
        };
        timeout_at(until, exchange).await.unwrap_or(Err(AskError::Fetch(FetchError::Timeout)))
    }
}

/// Credentials as SRS takes them (RFC 7617).
fn basic(credentials: &Secret) -> HeaderValue {
    let encoded = BASE64_STANDARD.encode(credentials.expose());
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).expect("Base64 is visible ASCII");
    value.set_sensitive(true);
    value
}
