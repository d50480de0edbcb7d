//! Who may open a path into a session: the one rule of all transports.

use std::sync::Arc;

use bytes::Bytes;
use proxy_common::verdict::Reason;
use proxy_protocol::stun::Message;
use tokio::sync::mpsc;

use super::{Shared, peer::Peer, table::Table};
use crate::{
    proxy::{Check, Event},
    session::{SessionId, Tuple},
};

/// The longest request that is set aside. One has about a hundred bytes beside its USERNAME, which has at most 513.
const LONGEST_STRAY: usize = 1500;

/// Why a STUN request opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// No session has its USERNAME.
    UnknownUser,
    /// It is not signed with the session's password.
    BadIntegrity,
}

impl Stranger {
    /// What it counts as.
    pub fn reason(self) -> Reason {
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
        let is_signed = peer.pwd().is_some_and(|pwd| request.verify_integrity(pwd.as_key()));
        if is_signed { Ok(peer) } else { Err(Stranger::BadIntegrity) }
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

/// A STUN request whose USERNAME no session has, with what is to be known to process it later.
#[derive(Clone, Debug)]
pub struct Stray {
    /// Where it came from.
    pub tuple: Tuple,
    /// The device it came in by.
    pub ifindex: u32,
    /// Its traffic class.
    pub traffic_class: u8,
    /// The datagram.
    pub datagram: Bytes,
}

/// Who takes strays.
pub(super) struct Strays {
    /// Never waited for.
    pub(super) queue: mpsc::Sender<Stray>,
    is_wanted: fn(&str) -> bool,
}

impl Strays {
    /// Whether anybody may know whose `request` is; looks at little, as a flood of them costs the same worker.
    pub(super) fn want(&self, request: &Message<'_>, datagram: &[u8]) -> bool {
        let is_fit = request.has_integrity() && datagram.len() <= LONGEST_STRAY;
        is_fit && request.username().is_some_and(self.is_wanted)
    }
}

impl Gate {
    /// Has strays go to `queue` from now on, those whose USERNAME is wanted; only the first call counts.
    pub fn set_strays_aside(&self, queue: mpsc::Sender<Stray>, is_wanted: fn(&str) -> bool) {
        // There is one place for them in a process.
        let _already = self.0.strays.set(Strays { queue, is_wanted });
    }

    /// Where strays go, if they go anywhere.
    #[cfg(test)]
    pub fn has_place_for_strays(&self) -> Option<()> {
        self.0.strays.get().map(|_| ())
    }

    /// Whether a session has this USERNAME.
    pub fn knows(&self, username: &str) -> bool {
        self.0.table.by_username(username).is_some()
    }

    /// Processes a stray as if it came now.
    ///
    /// # Errors
    /// When it still opens nothing, or the control plane cannot keep up.
    pub fn take(&self, stray: &Stray) -> Result<(), Reason> {
        let request = Message::parse(&stray.datagram).map_err(|_| Reason::MalformedStun)?;
        let session = self.session_of(&request).map_err(Stranger::reason)?;
        let check = Check {
            session,
            tuple: stray.tuple,
            ifindex: stray.ifindex,
            nominates: request.use_candidate(),
            datagram: stray.datagram.clone(),
            traffic_class: stray.traffic_class,
        };
        self.0.events.try_send(Event::Checked(check)).map_err(|_| Reason::ControlBusy)
    }

    /// Counts a datagram by what became of it.
    pub fn count(&self, reason: Reason) {
        self.0.counters.count(reason);
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
