//! The TCP connections that a session's media goes over (RFC 6544), beside its tuples or instead of them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// A session has this many connections; more are refused until one ends. Browsers check several pairs at once.
const MAX_PATHS: usize = 8;

/// Names a TCP connection among all that this process has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// One connection of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpPath {
    /// Its name.
    pub connection: ConnectionId,
    /// The client.
    pub client: SocketAddr,
}

/// The connections of one session.
#[derive(Debug, Default)]
pub struct TcpPaths {
    open: Vec<TcpPath>,
    heard: Option<Instant>,
}

/// Why a connection is not for its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcpRefusal {
    /// The session ended a moment ago.
    #[error("the session has ended")]
    Ended,
    /// The origin's answer lists no TCP candidate.
    #[error("the origin takes no media over TCP")]
    NotOffered,
    /// It has as many as it may.
    #[error("the session has as many connections as it may")]
    TooMany,
}

impl TcpPaths {
    /// Those of a session that used TCP in an earlier process, whose connections are gone.
    pub fn lost(now: Instant) -> Self {
        Self { open: Vec::new(), heard: Some(now) }
    }

    /// The connections, the oldest first.
    pub fn open(&self) -> &[TcpPath] {
        &self.open
    }

    /// Whether there has ever been one.
    pub fn were_used(&self) -> bool {
        self.heard.is_some()
    }

    /// Time since the client sent something over one of them, if it ever did.
    pub fn idle(&self, now: Instant) -> Option<Duration> {
        self.heard.map(|heard| now.saturating_duration_since(heard))
    }

    /// Adds a connection; false if there are too many.
    pub(crate) fn add(&mut self, path: TcpPath, now: Instant) -> bool {
        let room = self.open.len() < MAX_PATHS;
        if room {
            self.open.push(path);
            self.hear(now);
        }
        room
    }

    /// Notes that the client sent something.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Forgets a connection; false if it is unknown.
    pub(crate) fn remove(&mut self, connection: ConnectionId) -> bool {
        let before = self.open.len();
        self.open.retain(|path| path.connection != connection);
        self.open.len() < before
    }
}
