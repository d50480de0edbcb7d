//! What a fleet of proxies shares, in Redis: which origins live, which one each stream is on, sessions, load.
//!
//! Keys and values are those of the Go proxy, so that a fleet can be of both, and keys of ours beside them. What must not
//! happen twice is one script on one key; everything else may be late, for members also tell each other at once. The store has
//! no cache and decides nothing: it answers within a deadline, or says that it does not, and never keeps a caller waiting for
//! a connection that is gone. What stands in Redis may be anybody's: it is read within bounds, and nonsense counts as nothing.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_protocol::{ice::IceError, stream_url::StreamUrlError};
use redis::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use self::{
    connection::Shared,
    link::{Answer, Reply},
    scripts::Call,
};
use super::registration::RegistrationError;
use crate::config;
pub use crate::origin::store::{
    notice::{MemberId, MemberLoad, Notice},
    shared_session::{FoundSession, HlsId, SharedSession},
    stored_origin::StoredOrigin,
};

mod connection;
mod keys;
mod link;
mod members;
mod notice;
mod origins;
mod picks;
mod rfc3339;
mod scripts;
mod sessions;
mod shared_session;
mod stored_origin;
mod upkeep;

/// Notices that wait for whoever takes them; more are replaced by [`Notice::Connected`].
const MAX_NOTICES: usize = 4096;

/// Redis, as a fleet uses it; a clone is the same connection.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    /// Ends the task that keeps the connection when the last clone is dropped.
    _task: Arc<Task>,
}

/// How Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Up,
    /// It answers, and refuses writes or what its user may not do; reads go on.
    Refusing {
        /// Since when.
        since: Instant,
        /// What it said.
        reason: String,
    },
    /// It does not answer, and calls fail at once.
    Down {
        /// Since when.
        since: Instant,
        /// Why.
        reason: String,
    },
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Redis does not answer. What was written may have been written.
    #[error("Redis is not available: {0}")]
    Down(String),
    /// Redis answered with an error.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// What was to be written is too large or no value.
    #[error("not fit for Redis: {0}")]
    Unfit(String),
}

/// Why a value is not what its key should hold.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// It is longer than so many bytes.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// It is no string.
    #[error("it is of another type")]
    Type,
    /// It is not the JSON that it should be.
    #[error("it cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It stands under another origin's key.
    #[error("it names another origin than its key")]
    OtherOrigin,
    /// It stands under another session's key.
    #[error("it names another session than its key")]
    OtherSession,
    /// An id or the name of a member is empty, too long or has control characters.
    #[error("it holds a name that nobody has")]
    Name,
    /// It is an origin that could not have registered.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// It names no stream.
    #[error(transparent)]
    Stream(#[from] StreamUrlError),
    /// Its ICE credentials are none.
    #[error(transparent)]
    Ice(#[from] IceError),
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Times that something was sent and awaited.
    pub round_trips: u64,
    /// Calls that failed or were refused.
    pub failures: u64,
    /// Values that were not what their keys should hold.
    pub poisoned: u64,
    /// Notices passed on.
    pub notices: u64,
    /// Notices dropped because nobody took those before.
    pub notices_dropped: u64,
}

impl Store {
    /// Opens the store under the name `member`. It connects by itself, now and again and again; the runtime must run.
    pub fn open(settings: &config::Redis, member: MemberId) -> (Self, mpsc::Receiver<Notice>) {
        let (sender, notices) = mpsc::channel(MAX_NOTICES);
        let shared = Arc::new(Shared::new(settings.clone(), member));
        let attended = Arc::clone(&shared);
        let task = tokio::spawn(async move { attended.attend(sender).await });
        (Self { shared, _task: Arc::new(Task(task)) }, notices)
    }

    /// Who this member is.
    pub fn member(&self) -> &MemberId {
        &self.shared.member
    }

    /// How Redis is, now and from now on.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health()
    }

    /// What happened so far.
    pub fn counts(&self) -> StoreCounts {
        self.shared.counts()
    }

    /// One call in a round trip of its own.
    async fn call_one(&self, call: Call) -> Result<Reply, StoreError> {
        let mut replies = self.shared.call(&[call]).await?;
        replies.pop().ok_or_else(unexpected)
    }

    /// Sends calls of which none answers anything but that it was done.
    async fn do_all(&self, calls: &[Call]) -> Result<(), StoreError> {
        let replies = self.shared.call(calls).await?;
        replies.into_iter().try_for_each(|reply| reply.map(drop).map_err(StoreError::from))
    }

    /// The value that [`scripts::get`] read, if it is there and not longer than it may be.
    fn value(&self, key: &str, reply: Reply, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let reason = match reply {
            Ok(Value::BulkString(value)) if value.is_empty() => return Ok(None),
            Ok(Value::BulkString(value)) if value.len() <= limit => return Ok(Some(value)),
            Ok(Value::Nil) => return Ok(None),
            Ok(Value::BulkString(_)) => ValueError::TooLong(limit),
            Err(answer) if answer.code == "WRONGTYPE" => ValueError::Type,
            Err(answer) => return Err(answer.into()),
            Ok(_) => return Err(unexpected()),
        };
        self.shared.poisoned(key, &reason);
        Ok(None)
    }

    /// The same, read further; what cannot be read counts as nothing.
    fn read<T>(
        &self,
        key: &str,
        reply: Reply,
        limit: usize,
        parse: impl FnOnce(&[u8]) -> Result<T, ValueError>,
    ) -> Result<Option<T>, StoreError> {
        let Some(value) = self.value(key, reply, limit)? else { return Ok(None) };
        Ok(parse(&value).map_err(|reason| self.shared.poisoned(key, &reason)).ok())
    }

    /// The members of a sorted set that have not expired.
    fn members_of_set(&self, key: &str, reply: Reply) -> Result<Vec<Vec<u8>>, StoreError> {
        match reply {
            Ok(Value::Array(members)) => Ok(members.into_iter().filter_map(as_bytes).collect()),
            Err(answer) if answer.text.contains("WRONGTYPE") || answer.code == "WRONGTYPE" => {
                self.shared.poisoned(key, &ValueError::Type);
                Ok(Vec::new())
            }
            Err(answer) => Err(answer.into()),
            Ok(_) => Err(unexpected()),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("member", self.member()).finish_non_exhaustive()
    }
}

impl From<Answer> for StoreError {
    fn from(answer: Answer) -> Self {
        Self::Refused(answer.to_string())
    }
}

impl From<ValueError> for StoreError {
    fn from(error: ValueError) -> Self {
        Self::Unfit(error.to_string())
    }
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn as_bytes(value: Value) -> Option<Vec<u8>> {
    if let Value::BulkString(bytes) = value { Some(bytes) } else { None }
}

fn unexpected() -> StoreError {
    StoreError::Refused("an answer of another kind than expected".to_owned())
}

/// How long something lives in Redis.
type Life = Duration;
