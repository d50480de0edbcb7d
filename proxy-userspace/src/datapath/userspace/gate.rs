//! Who may open a path into a session: the one rule of all transports.

use std::sync::Arc;

use proxy_common::verdict::Reason;
use proxy_protocol::stun::Message;

use super::{Shared, peer::Peer, table::Table};
use crate::session::SessionId;

/// Why a STUN request opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// No session has its USERNAME.
    UnknownUser,
    /// It is not signed with the session's password.
    BadIntegrity,
}

impl Stranger {
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::UnknownUser => Reason::UnknownUser,
            Self::BadIntegrity => Reason::BadIntegrity,
        }
    }
}

impl Table {
    /// The session that a STUN request is for.
    pub(super) fn authenticate(&self, request: &Message<'_>) -> Result<Arc<Peer>, Stranger> {
        let peer = request.username().and_then(|name| self.by_username(name)).ok_or(Stranger::UnknownUser)?;
        if request.verify_integrity(peer.pwd.as_key()) { Ok(peer) } else { Err(Stranger::BadIntegrity) }
    }
}

/// Tells sessions from strangers for transports that the relay does not carry.
#[derive(Clone)]
pub struct Gate(pub(super) Arc<Shared>);

impl Gate {
    /// The session that a STUN request is for.
    ///
    /// # Errors
    /// When no session has its USERNAME, or it is not signed with the password of that session.
    pub fn session_of(&self, request: &Message<'_>) -> Result<SessionId, Stranger> {
        self.0.table.authenticate(request).map(|peer| peer.session)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
