//! WebRTC sessions by their names, for who is beside the control loop: those that live, and those that ended a moment ago and
//! whose clients may not know yet.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use proxy_protocol::ice::UfragPair;

use crate::{origin::Origin, recent::Recent};

/// For how long the client of a session that ended may still send; an origin forgets a client that is silent for 30 s.
const STRAGGLERS: Duration = Duration::from_secs(30);
/// Ended sessions that are remembered at once.
const MOST_ENDED: usize = 65_536;

/// The sessions.
#[derive(Debug)]
pub struct Directory {
    living: RwLock<HashMap<UfragPair, Arc<Origin>>>,
    ended: Mutex<Recent<UfragPair>>,
}

impl Default for Directory {
    fn default() -> Self {
        Self { living: RwLock::default(), ended: Mutex::new(Recent::new(STRAGGLERS, MOST_ENDED)) }
    }
}

impl Directory {
    /// A session lives.
    pub fn begin(&self, ufrags: UfragPair, origin: Arc<Origin>) {
        self.living.write().insert(ufrags, origin);
    }

    /// A session is not here any more; its client may come again.
    pub fn remove(&self, ufrags: &UfragPair) {
        self.living.write().remove(ufrags);
    }

    /// A session is over, whatever its client still sends.
    pub fn end(&self, ufrags: &UfragPair) {
        self.ended.lock().insert(ufrags.clone(), Instant::now());
        self.remove(ufrags);
    }

    /// The origin of a session that lives.
    pub fn origin_of(&self, ufrags: &UfragPair) -> Option<Arc<Origin>> {
        self.living.read().get(ufrags).cloned()
    }

    /// Whether a session was over a moment ago.
    pub fn has_ended(&self, ufrags: &UfragPair) -> bool {
        self.ended.lock().contains(ufrags, Instant::now())
    }
}
