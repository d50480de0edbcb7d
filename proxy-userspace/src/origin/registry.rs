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
//! origin. Going down does, so it takes silence or repeated failed probes.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use proxy_protocol::stream_url::StreamKey;
use rand::Rng;
use tracing::{info, warn};

use self::entry::{DownReason, Entry, State};
use super::{Known, Origin, OriginEvent, OriginId, OriginStatus, probe::ProbeError};
use crate::config;

mod entry;

/// Origins kept at most: registration may be open to everybody.
const MAX_ORIGINS: usize = 4096;
/// Picks kept at most: stream names come from clients.
const MAX_PICKS: usize = 1 << 18;

/// The origins of one proxy, and the streams picked to them.
#[derive(Debug)]
pub struct Origins {
    settings: config::Origins,
    entries: BTreeMap<OriginId, Entry>,
    picks: HashMap<StreamKey, Pick>,
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
    /// A table holds as much as it may.
    #[error("registry is full")]
    Full,
}

#[derive(Debug)]
struct Pick {
    origin: OriginId,
    expires: Instant,
}

impl Origins {
    /// Knows no origin.
    pub fn new(settings: config::Origins) -> Self {
        Self { settings, entries: BTreeMap::new(), picks: HashMap::new(), replaced: HashMap::new() }
    }

    /// Records that `origin` told it is there.
    ///
    /// A new run of a known server replaces the old one at once, whose streams are then picked anew.
    pub fn heartbeat(
        &mut self,
        origin: Origin,
        lease: Lease,
        now: Instant,
    ) -> Result<Vec<OriginEvent>, Refusal> {
        if let Some(entry) = self.entries.get_mut(&origin.id)
            && *entry.origin == origin
        {
            entry.lease = lease;
            return Ok(entry.renew(&self.settings, now).into_iter().collect());
        }
        let mut events = self.replace_earlier_runs(&origin, now);
        if self.entries.len() >= MAX_ORIGINS {
            return Err(Refusal::Full);
        }
        let mut entry = Entry::new(origin, lease, now);
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
                let mut entry = Entry::new(Origin::clone(&origin), Lease::Heartbeat, now);
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
                self.assign(&stream, &origin, now);
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

    /// The id under which an origin is known that is the same but for its id.
    pub fn same_but_for_id(&self, origin: &Origin) -> Option<OriginId> {
        let known = self.entries.values().map(|entry| &entry.origin);
        let mut same = known.filter(|known| Origin { id: known.id.clone(), ..origin.clone() } == ***known);
        same.next().map(|known| known.id.clone())
    }

    /// The origin of `stream`; one with the fewest streams if it has none that is up.
    pub fn pick(
        &mut self,
        stream: &StreamKey,
        now: Instant,
        random: &mut impl Rng,
    ) -> Result<Arc<Origin>, Refusal> {
        if let Some(origin) = self.current(stream, now) {
            self.refresh(stream, now);
            return Ok(origin);
        }
        self.unpick(stream);
        if self.picks.len() >= MAX_PICKS {
            return Err(Refusal::Full);
        }
        let chosen = self.choose(random)?;
        self.assign(stream, &chosen, now);
        Ok(chosen)
    }

    /// The origin of `stream`, if it has one that serves what it has.
    pub fn picked(&self, stream: &StreamKey, now: Instant) -> Option<Arc<Origin>> {
        let pick = self.picks.get(stream).filter(|pick| now < pick.expires)?;
        let entry = self.entries.get(&pick.origin).filter(|entry| entry.is_serving())?;
        Some(Arc::clone(&entry.origin))
    }

    /// The origins that serve what they have.
    pub fn serving(&self) -> impl Iterator<Item = &Arc<Origin>> {
        self.entries.values().filter(|entry| entry.is_serving()).map(|entry| &entry.origin)
    }

    /// The origin that serves and has its RTMP at this address.
    pub fn at_rtmp(&self, address: SocketAddr) -> Option<Arc<Origin>> {
        self.serving().find(|origin| origin.rtmp == Some(address)).map(Arc::clone)
    }

    /// Records that `stream` is in use.
    pub fn refresh(&mut self, stream: &StreamKey, now: Instant) {
        if let Some(pick) = self.picks.get_mut(stream) {
            pick.expires = now + self.settings.pick_ttl;
        }
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
        self.forget(|entry| entry.lease == Lease::Heartbeat && now >= entry.heartbeat + 2 * settings.ttl);
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

    fn current(&self, stream: &StreamKey, now: Instant) -> Option<Arc<Origin>> {
        let pick = self.picks.get(stream).filter(|pick| now < pick.expires)?;
        let entry = self.entries.get(&pick.origin).filter(|entry| entry.state == State::Up)?;
        Some(entry.origin.clone())
    }

    fn choose(&self, random: &mut impl Rng) -> Result<Arc<Origin>, Refusal> {
        let up = || self.entries.values().filter(|entry| entry.state == State::Up);
        let Some(fewest) = up().map(|entry| entry.streams).min() else { return Err(self.why_none()) };
        let least: Vec<_> = up().filter(|entry| entry.streams == fewest).collect();
        let chosen = least.get(random.random_range(0..least.len())).expect("the range is that of the list");
        Ok(chosen.origin.clone())
    }

    fn why_none(&self) -> Refusal {
        let undecided = |entry: &Entry| matches!(entry.state, State::Probing | State::Suspect);
        if self.is_probing() && self.entries.values().any(undecided) {
            Refusal::Undecided
        } else {
            Refusal::NoOrigin
        }
    }

    fn assign(&mut self, stream: &StreamKey, origin: &Origin, now: Instant) {
        let pick = Pick { origin: origin.id.clone(), expires: now + self.settings.pick_ttl };
        self.picks.insert(stream.clone(), pick);
        if let Some(entry) = self.entries.get_mut(&origin.id) {
            entry.streams += 1;
        }
    }

    fn unpick(&mut self, stream: &StreamKey) {
        if let Some(pick) = self.picks.remove(stream) {
            release(&mut self.entries, &pick);
        }
    }

    fn expire_picks(&mut self, now: Instant) {
        self.picks.retain(|_, pick| {
            let lives = now < pick.expires;
            if !lives {
                release(&mut self.entries, pick);
            }
            lives
        });
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

fn release(entries: &mut BTreeMap<OriginId, Entry>, pick: &Pick) {
    if let Some(entry) = entries.get_mut(&pick.origin) {
        entry.streams = entry.streams.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
