//! Who publishes a stream and who plays it.

use std::collections::HashMap;
use std::sync::Arc;

use super::session::{Role, SessionId};

/// Members of all streams, by `app/stream`.
#[derive(Debug, Default)]
pub(super) struct Streams(HashMap<String, Members>);

#[derive(Debug, Default)]
struct Members {
    publisher: Option<SessionId>,
    players: Arc<[SessionId]>,
}

impl Streams {
    pub(super) fn publisher(&self, stream: &str) -> Option<SessionId> {
        self.0.get(stream)?.publisher
    }

    /// The players at this moment; the list stays valid while players come and go.
    pub(super) fn players(&self, stream: &str) -> Arc<[SessionId]> {
        self.0.get(stream).map(|members| Arc::clone(&members.players)).unwrap_or_default()
    }

    pub(super) fn add(&mut self, stream: &str, role: Role, session: SessionId) {
        let members = self.0.entry(stream.to_owned()).or_default();
        match role {
            Role::Publisher => members.publisher = Some(session),
            Role::Player => members.players = members.players.iter().copied().chain([session]).collect(),
        }
    }

    pub(super) fn remove(&mut self, stream: &str, session: SessionId) {
        let Some(members) = self.0.get_mut(stream) else { return };
        members.publisher = members.publisher.filter(|publisher| *publisher != session);
        members.players = members.players.iter().copied().filter(|player| *player != session).collect();
        if members.publisher.is_none() && members.players.is_empty() {
            self.0.remove(stream);
        }
    }
}
