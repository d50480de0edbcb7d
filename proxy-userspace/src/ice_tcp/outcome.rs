//! What becomes of connections, each way out by its name.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proxy_protocol::rfc4571::FrameError;

use crate::{datapath::userspace::Stranger, session::tcp::TcpRefusal};

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried until both peers had ended it.
    Carried,
    /// It was carried until one peer was gone.
    Broken,
    /// It was closed with its session.
    SessionEnded,
    /// The client left before its first frame was whole.
    Left,
    /// The first frame did not come in time.
    Late,
    /// The first frame is no STUN request.
    NoRequest,
    /// The first frame is longer than any request.
    TooLong,
    /// The first frame is a STUN request that is malformed.
    Malformed,
    /// The request names nobody.
    NoUsername,
    /// No session has the name.
    UnknownUser,
    /// The request is not signed with the session's password.
    BadIntegrity,
    /// The session ended a moment before.
    NoSession,
    /// The session's origin takes nothing over TCP.
    NotOffered,
    /// The session has as many connections as it may.
    TooMany,
    /// As many connections as there may be are carried.
    NoRoom,
    /// The origin cannot be connected to.
    Unreachable,
}

impl Outcome {
    /// Every one.
    pub const ALL: [Self; 16] = [
        Self::Carried,
        Self::Broken,
        Self::SessionEnded,
        Self::Left,
        Self::Late,
        Self::NoRequest,
        Self::TooLong,
        Self::Malformed,
        Self::NoUsername,
        Self::UnknownUser,
        Self::BadIntegrity,
        Self::NoSession,
        Self::NotOffered,
        Self::TooMany,
        Self::NoRoom,
        Self::Unreachable,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Carried => "carried",
            Self::Broken => "broken",
            Self::SessionEnded => "session_ended",
            Self::Left => "left",
            Self::Late => "late",
            Self::NoRequest => "no_request",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed_stun",
            Self::NoUsername => "no_username",
            Self::UnknownUser => "unknown_user",
            Self::BadIntegrity => "bad_integrity",
            Self::NoSession => "no_session",
            Self::NotOffered => "not_offered",
            Self::TooMany => "too_many",
            Self::NoRoom => "no_room",
            Self::Unreachable => "origin_unreachable",
        }
    }
}

impl From<FrameError> for Outcome {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLong { .. } => Self::TooLong,
            FrameError::NoRequest => Self::NoRequest,
            FrameError::Request(_) => Self::Malformed,
            FrameError::NoUsername => Self::NoUsername,
        }
    }
}

impl From<Stranger> for Outcome {
    fn from(stranger: Stranger) -> Self {
        match stranger {
            Stranger::UnknownUser => Self::UnknownUser,
            Stranger::BadIntegrity => Self::BadIntegrity,
        }
    }
}

impl From<TcpRefusal> for Outcome {
    fn from(refusal: TcpRefusal) -> Self {
        match refusal {
            TcpRefusal::Ended => Self::NoSession,
            TcpRefusal::NotOffered => Self::NotOffered,
            TcpRefusal::TooMany => Self::TooMany,
        }
    }
}

/// How often each came.
#[derive(Debug, Default)]
pub struct Outcomes([AtomicU64; Outcome::ALL.len()]);

impl Outcomes {
    /// Counts one.
    pub fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.0.get(outcome as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// How often each came so far.
    pub fn counted(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|counter| counter.load(Relaxed));
        Outcome::ALL.iter().map(|outcome| outcome.as_str()).zip(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_outcome_is_counted_in_a_slot_of_its_own_and_has_its_word() {
        let outcomes = Outcomes::default();
        for (times, outcome) in (1..).zip(Outcome::ALL) {
            (0..times).for_each(|_| outcomes.count(outcome));
        }
        let expected: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).zip(1..).collect();
        assert_eq!(outcomes.counted(), expected);
        let words: BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        assert_eq!(words.len(), Outcome::ALL.len());
    }
}
