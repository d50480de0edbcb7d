//! Which origins live and which stream is on which: a state machine without I/O.
//!
//! ```text
//!   heartbeat of an                     probe succeeds
//!   unknown origin ────► Probing ─────────────────────────► Up ◄───────┐
//!                           │                               │ │ failed │ probe
//!              probe fails  │            probes fail N times│ │ connect│ succeeds
//!                           ▼                      or silent▼ ▼        │
//!   forgotten ◄─────────── Down ◄────────────────────────── Suspect ───┘
//!           silent for 2 ttl │
//!                            └─ probe succeeds ─► Up
//! ```
//!
//! A suspect takes no new stream but keeps what it has: one refused connection must not end every session of an
//! origin. Going down does, so it takes silence or repeated failed probes. An origin that drains is in one of these states
//! too: it takes no new stream either, for as long as the operator says.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use proxy_protocol::stream_url::StreamKey;
use tracing::{info, warn};

pub use self::picks::Settled;
use self::{
    entry::{DownReason, Entry, State},
    pending::Pending,
    picks::Pick,
};
use super::{Known, Origin, OriginEvent, OriginId, OriginStatus, balance::Terms, probe::ProbeError};
use crate::config::{self, Balancing};

mod entry;
mod pending;
mod picks;

/// Origins kept at most: registration may be open to everybody.
const MAX_ORIGINS: usize = 4096;
/// Picks kept at most: stream names come from clients.
const MAX_PICKS: usize = 1 << 18;

/// The origins of one proxy, and the streams picked to them.
#[derive(Debug)]
pub struct Origins {
    settings: config::Origins,
    balancing: Balancing,
    entries: BTreeMap<OriginId, Entry>,
    picks: HashMap<StreamKey, Pick>,
    pending: Pending,
    replaced: HashMap<OriginId, Instant>,
}

/// How an origin's registration ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// When its heartbeats stop.
    Heartbeat,
    /// Never: it stands in the configuration.
    Static,
}

/// Why an origin was not registered, or not picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No origin is up, but a probe under way may change that.
    #[error("no origin is up yet")]
    Undecided,
    /// No origin is up.
    #[error("no origin is up")]
    NoOrigin,
    /// Those that are up drain.
    #[error("every origin drains")]
    Draining,
    /// Those that are up have as many sessions as they may.
    #[error("every origin is at its capacity")]
    NoRoom,
    /// A table holds as much as it may.
    #[error("registry is full")]
    Full,
}

impl Origins {
    /// Knows no origin.
    pub fn new(settings: config::Origins, balancing: Balancing) -> Self {
        let (entries, picks, pending, replaced) = Default::default();
        Self { settings, balancing, entries, picks, pending, replaced }
    }

    /// Records that `origin` told it is there.
    ///
    /// A new run of a known server replaces the old one at once, whose streams are then picked anew.
    pub fn heartbeat(
        &mut self,
        origin: Origin,
        registered: Terms,
        lease: Lease,
        now: Instant,
    ) -> Result<Vec<OriginEvent>, Refusal> {
        let terms = self.balancing.terms(&origin, registered);
        if let Some(entry) = self.entries.get_mut(&origin.id)
            && *entry.origin == origin
        {
            (entry.lease, entry.terms) = (lease, terms);
            return Ok(entry.renew(&self.settings, now).into_iter().collect());
        }
        let mut events = self.replace_earlier_runs(&origin, now);
        if self.entries.len() >= MAX_ORIGINS {
            return Err(Refusal::Full);
        }
        let mut entry = Entry::new(origin, terms, lease, now);
        entry.log_registration();
        events.extend(entry.renew(&self.settings, now));
        self.entries.insert(entry.origin.id.clone(), entry);
        Ok(events)
    }

    /// Takes over what another process knew. Its origins served a moment ago, so they are up until a probe says otherwise,
    /// and streams stay where they are.
    pub fn adopt(&mut self, known: Known, now: Instant) -> Vec<OriginEvent> {
        let mut events = Vec::new();
        for origin in known.origins {
            if self.entries.len() < MAX_ORIGINS && !self.entries.contains_key(&origin.id) {
                let terms = self.balancing.terms(&origin, Terms::default());
                let mut entry = Entry::new(Origin::clone(&origin), terms, Lease::Heartbeat, now);
                events.extend(entry.enter(State::Up));
                self.entries.insert(origin.id.clone(), entry);
            }
        }
        for (stream, id) in known.picks {
            if self.picks.len() < MAX_PICKS
                && !self.picks.contains_key(&stream)
                && let Some(entry) = self.entries.get(&id)
            {
                let origin = Arc::clone(&entry.origin);
                // There is room: it was looked for.
                let _kept = self.assign(&stream, &origin, now);
            }
        }
        events
    }

    /// What another process is to know.
    pub fn known(&self, now: Instant) -> Known {
        let picks = self.picks.iter().filter(|(_, pick)| now < pick.expires);
        Known {
            origins: self.serving().map(Arc::clone).collect(),
            picks: picks.map(|(stream, pick)| (stream.clone(), pick.origin.clone())).collect(),
        }
    }

    /// The origins that serve what they have.
    pub fn serving(&self) -> impl Iterator<Item = &Arc<Origin>> {
        self.entries.values().filter(|entry| entry.is_serving()).map(|entry| &entry.origin)
    }

    /// The origin that serves and has its RTMP at this address.
    pub fn at_rtmp(&self, address: SocketAddr) -> Option<Arc<Origin>> {
        self.serving().find(|origin| origin.rtmp == Some(address)).map(Arc::clone)
    }

    /// An origin, if it serves what it has.
    pub fn serving_origin(&self, id: &OriginId) -> Option<Arc<Origin>> {
        self.entries.get(id).filter(|entry| entry.is_serving()).map(|entry| Arc::clone(&entry.origin))
    }

    /// An origin, if it is known.
    pub fn origin(&self, id: &OriginId) -> Option<Arc<Origin>> {
        self.entries.get(id).map(|entry| Arc::clone(&entry.origin))
    }

    /// The origins that `name` names: their id, server id, device id or address.
    pub fn named(&self, name: &str) -> Vec<OriginId> {
        let is_named = |origin: &Origin| {
            [&*origin.id.0, &origin.server, &origin.device_id].contains(&name)
                || name.parse::<IpAddr>().is_ok_and(|ip| origin.ip == ip)
        };
        self.entries.values().filter(|e| is_named(&e.origin)).map(|e| e.origin.id.clone()).collect()
    }

    /// Gives an origin no new stream, or takes that back; false if nothing changes.
    pub fn drain(&mut self, id: &OriginId, on: bool) -> bool {
        let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.is_draining != on) else {
            return false;
        };
        entry.is_draining = on;
        info!(%id, device = %entry.origin.device_id, on, "origin drains");
        true
    }

    /// Records how many sessions each origin has, of all proxies.
    pub fn carry(&mut self, sessions: &HashMap<OriginId, u64>) {
        for (id, entry) in &mut self.entries {
            entry.sessions = sessions.get(id).copied().unwrap_or(0);
        }
    }

    /// Holds nobody's silence against them: heartbeats that come to other proxies cannot be told of. Probes decide meanwhile.
    pub fn excuse_silence(&mut self, now: Instant) {
        let settings = self.settings;
        let not_yet_silent = self.entries.values_mut().filter(|entry| !entry.is_silent(&settings, now));
        not_yet_silent.for_each(|entry| entry.silent_from = now);
    }

    /// Records that a connection to `id` failed: new streams avoid it until it answers a probe.
    pub fn report_failure(&mut self, id: &OriginId, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.next_probe = now;
        if entry.state == State::Up {
            entry.failures += 1;
            entry.enter(State::Suspect);
        }
    }

    /// The origins to probe now; asked again, they are due after the probe interval.
    pub fn due_probes(&mut self, now: Instant) -> Vec<Arc<Origin>> {
        if !self.is_probing() {
            return Vec::new();
        }
        let settings = self.settings;
        let due = self.entries.values_mut().filter(|e| e.next_probe <= now && !e.is_silent(&settings, now));
        due.map(|entry| {
            entry.next_probe = now + settings.probe_interval;
            entry.origin.clone()
        })
        .collect()
    }

    /// Records what a probe of `id` found.
    pub fn probed(
        &mut self,
        id: &OriginId,
        result: Result<(), ProbeError>,
        now: Instant,
    ) -> Option<OriginEvent> {
        let entry = self.entries.get_mut(id).filter(|entry| !entry.is_silent(&self.settings, now))?;
        match result {
            Ok(()) => {
                entry.failures = 0;
                entry.enter(State::Up)
            }
            Err(error) => entry.fail(error, self.settings.probe_failures),
        }
    }

    /// Ends what has expired: origins without heartbeats, picks without use.
    pub fn sweep(&mut self, now: Instant) -> Vec<OriginEvent> {
        let settings = self.settings;
        let silent = self.entries.values_mut().filter(|entry| entry.is_silent(&settings, now));
        let events = silent.filter_map(|e| e.enter(State::Down(DownReason::Silent(settings.ttl)))).collect();
        self.forget(|entry| entry.has_been_silent(2 * settings.ttl, now));
        self.replaced.retain(|_, until| now < *until);
        self.expire_picks(now);
        events
    }

    /// Every origin, for people.
    pub fn list(&self, now: Instant) -> Vec<OriginStatus> {
        self.entries.values().map(|entry| entry.status(now)).collect()
    }

    fn is_probing(&self) -> bool {
        !self.settings.probe_interval.is_zero()
    }

    /// Removes the runs that `origin` follows.
    ///
    /// A run that was replaced and speaks again is no predecessor but a second server with the same id (the file that
    /// SRS keeps it in was copied): both stay then.
    fn replace_earlier_runs(&mut self, origin: &Origin, now: Instant) -> Vec<OriginEvent> {
        let shares_its_id = self.replaced.contains_key(&origin.id);
        if shares_its_id {
            warn!(server = %origin.server, device = %origin.device_id, "several origins have the same server id");
        }
        let gone = self.forget(|entry| {
            let other = &entry.origin;
            other.id == origin.id || (other.server == origin.server && !shares_its_id)
        });
        for entry in &gone {
            info!(id = %entry.origin.id, by = %origin.id, "origin is replaced by a new run");
            if self.replaced.len() < MAX_ORIGINS {
                self.replaced.insert(entry.origin.id.clone(), now + self.settings.ttl);
            }
        }
        gone.into_iter().filter(Entry::is_serving).map(|e| OriginEvent::Down(e.origin.id.clone())).collect()
    }

    /// Removes origins, and the picks to them.
    fn forget(&mut self, condition: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let gone: Vec<Entry> =
            self.entries.extract_if(.., |_, entry| condition(entry)).map(|(_, e)| e).collect();
        if !gone.is_empty() {
            self.picks.retain(|_, pick| gone.iter().all(|entry| entry.origin.id != pick.origin));
        }
        gone
    }
}

#[cfg(test)]
mod tests;
