//! Which stream is on which origin.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_protocol::stream_url::StreamKey;
use rand::Rng;

use super::{
    MAX_PICKS, Origins, Refusal,
    entry::{Entry, State},
};
use crate::origin::{
    Origin, OriginId,
    balance::{Candidate, Policy},
};

#[derive(Debug)]
pub(super) struct Pick {
    pub(super) origin: OriginId,
    pub(super) expires: Instant,
    /// When the fleet said so last; never, if it may have changed its mind.
    pub(super) confirmed: Option<Instant>,
    /// Somebody has the stream there.
    pub(super) is_in_use: bool,
}

/// What becomes of a pick that others made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The stream is there.
    There(Arc<Origin>),
    /// A probe under way tells whether the origin serves.
    Undecided,
    /// The origin does not serve.
    Gone,
    /// The origin is not known here.
    Unknown,
}

impl Origins {
    /// The origin of `stream`; one that the policy chooses if it has none that is up.
    ///
    /// # Errors
    /// When there is none, or it cannot be told yet.
    pub fn pick(
        &mut self,
        stream: &StreamKey,
        now: Instant,
        random: &mut impl Rng,
    ) -> Result<Arc<Origin>, Refusal> {
        if let Some(origin) = self.known_pick(stream, now)? {
            return Ok(origin);
        }
        let chosen = self.propose(stream, random)?;
        self.assign(stream, &chosen, now)?;
        Ok(chosen)
    }

    /// The origin that `stream` was picked to, if it is up; the pick lives on.
    ///
    /// # Errors
    /// When a probe under way tells whether it still is: a stream that somebody has does not move because one connection was
    /// refused.
    pub fn known_pick(&mut self, stream: &StreamKey, now: Instant) -> Result<Option<Arc<Origin>>, Refusal> {
        let is_probing = self.is_probing();
        let Some(pick) = self.picks.get_mut(stream).filter(|pick| now < pick.expires) else {
            return Ok(None);
        };
        let Some(entry) = self.entries.get(&pick.origin) else { return Ok(None) };
        match entry.state {
            State::Up => {
                pick.expires = now + self.settings.pick_ttl;
                Ok(Some(Arc::clone(&entry.origin)))
            }
            State::Suspect if is_probing && pick.is_in_use => Err(Refusal::Undecided),
            State::Suspect | State::Probing | State::Down(_) => Ok(None),
        }
    }

    /// The origin that the policy chooses for a new stream, or the one that is proposed for it at the moment.
    ///
    /// # Errors
    /// When none takes streams, or it cannot be told yet.
    pub fn propose(&self, stream: &StreamKey, random: &mut impl Rng) -> Result<Arc<Origin>, Refusal> {
        if let Some(candidate) = self.pending.origin_of(stream).and_then(|id| self.taker(id)) {
            return Ok(Arc::clone(candidate.origin));
        }
        let takers: Vec<_> = self.takers().collect();
        let free: Vec<_> = takers.iter().copied().filter(|candidate| candidate.has_room()).collect();
        match self.balancing.policy.choose(&free, stream, random) {
            Some(origin) => Ok(Arc::clone(origin)),
            None if takers.is_empty() => Err(self.why_none()),
            None => Err(Refusal::NoRoom),
        }
    }

    /// Records that the fleet is asked whether `stream` may go to the origin `id`; whoever asks ends it by
    /// [`Self::end_proposal`].
    pub fn begin_proposal(&mut self, stream: &StreamKey, id: &OriginId) {
        self.pending.begin(stream, id);
    }

    /// Records that it was answered, or given up.
    pub fn end_proposal(&mut self, stream: &StreamKey) {
        self.pending.end(stream);
    }

    /// The origin that every proxy chooses for a new stream without asking the others. Loads are not known alike
    /// everywhere, so they do not count.
    ///
    /// # Errors
    /// When none takes streams, or it cannot be told yet.
    pub fn agree(&self, stream: &StreamKey) -> Result<Arc<Origin>, Refusal> {
        let takers: Vec<_> = self.takers().collect();
        let chosen = Policy::Rendezvous.choose(&takers, stream, &mut rand::rng());
        chosen.map(Arc::clone).ok_or_else(|| self.why_none())
    }

    /// Takes over that `stream` is on the origin `id`, as others decided.
    pub fn settle(&mut self, stream: &StreamKey, id: &OriginId, now: Instant) -> Settled {
        let Some(entry) = self.entries.get(id) else { return Settled::Unknown };
        match entry.state {
            State::Up => {}
            State::Probing | State::Suspect if self.is_probing() => return Settled::Undecided,
            State::Probing | State::Suspect | State::Down(_) => return Settled::Gone,
        }
        let origin = Arc::clone(&entry.origin);
        match self.assign(stream, &origin, now) {
            // A pick that is not remembered is asked for again.
            Ok(()) | Err(_) => Settled::There(origin),
        }
    }

    /// The origin that `stream` was picked to, whatever became of it.
    pub fn last_pick(&self, stream: &StreamKey) -> Option<OriginId> {
        self.picks.get(stream).map(|pick| pick.origin.clone())
    }

    /// The origin of `stream`, if it has one that serves what it has.
    pub fn picked(&self, stream: &StreamKey, now: Instant) -> Option<Arc<Origin>> {
        let pick = self.picks.get(stream).filter(|pick| now < pick.expires)?;
        let entry = self.entries.get(&pick.origin).filter(|entry| entry.is_serving())?;
        Some(Arc::clone(&entry.origin))
    }

    /// Moves `stream` to the origin `id`, which others know it to be on; false if it is there already, or was nowhere.
    pub fn move_to(&mut self, stream: &StreamKey, id: &OriginId, now: Instant) -> bool {
        let Some(origin) = self.origin(id) else { return false };
        let before = self.picks.get(stream).filter(|pick| now < pick.expires).map(|pick| pick.origin.clone());
        let is_kept = self.assign(stream, &origin, now).is_ok();
        self.refresh(stream, now);
        is_kept && before.is_some_and(|before| before != *id)
    }

    /// Forgets where `stream` is.
    pub fn unpick(&mut self, stream: &StreamKey) {
        if let Some(pick) = self.picks.remove(stream) {
            release(&mut self.entries, &pick);
        }
    }

    /// Records that `stream` is in use.
    pub fn refresh(&mut self, stream: &StreamKey, now: Instant) {
        if let Some(pick) = self.picks.get_mut(stream) {
            pick.expires = now + self.settings.pick_ttl;
            pick.is_in_use = true;
        }
    }

    /// Records that the fleet has `stream` where it is here.
    pub fn confirm(&mut self, stream: &StreamKey, now: Instant) {
        if let Some(pick) = self.picks.get_mut(stream) {
            pick.confirmed = Some(now);
        }
    }

    /// Records that the fleet may have any stream elsewhere.
    pub fn doubt(&mut self) {
        self.picks.values_mut().for_each(|pick| pick.confirmed = None);
    }

    /// Whether the fleet has said within `age` that `stream` is where it is here.
    pub fn is_confirmed(&self, stream: &StreamKey, age: Duration, now: Instant) -> bool {
        let confirmed = self.picks.get(stream).and_then(|pick| pick.confirmed);
        confirmed.is_some_and(|confirmed| now < confirmed + age)
    }

    /// Where each of `streams` is, of those that are somewhere.
    pub fn places<'a>(&self, streams: impl IntoIterator<Item = &'a StreamKey>) -> Vec<(StreamKey, OriginId)> {
        let place = |stream: &StreamKey| Some((stream.clone(), self.picks.get(stream)?.origin.clone()));
        streams.into_iter().filter_map(place).collect()
    }

    pub(super) fn expire_picks(&mut self, now: Instant) {
        self.picks.retain(|_, pick| {
            let lives = now < pick.expires;
            if !lives {
                release(&mut self.entries, pick);
            }
            lives
        });
    }

    pub(super) fn assign(
        &mut self,
        stream: &StreamKey,
        origin: &Origin,
        now: Instant,
    ) -> Result<(), Refusal> {
        let is_in_use = self.picks.get(stream).is_some_and(|pick| pick.is_in_use && pick.origin == origin.id);
        self.unpick(stream);
        if self.picks.len() >= MAX_PICKS {
            return Err(Refusal::Full);
        }
        let (expires, confirmed) = (now + self.settings.pick_ttl, Some(now));
        let pick = Pick { origin: origin.id.clone(), expires, confirmed, is_in_use };
        self.picks.insert(stream.clone(), pick);
        if let Some(entry) = self.entries.get_mut(&origin.id) {
            entry.streams += 1;
        }
        Ok(())
    }

    fn takers(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.entries.values().filter_map(|entry| self.candidate(entry))
    }

    fn taker(&self, id: &OriginId) -> Option<Candidate<'_>> {
        self.candidate(self.entries.get(id)?)
    }

    /// An origin that takes streams.
    fn candidate<'a>(&self, entry: &'a Entry) -> Option<Candidate<'a>> {
        let takes = entry.state == State::Up && !entry.is_draining;
        takes.then(|| entry.candidate(self.pending.streams_of(&entry.origin.id)))
    }

    fn why_none(&self) -> Refusal {
        let undecided =
            |entry: &Entry| matches!(entry.state, State::Probing | State::Suspect) && !entry.is_draining;
        if self.is_probing() && self.entries.values().any(undecided) {
            Refusal::Undecided
        } else if self.entries.values().any(|entry| entry.state == State::Up && entry.is_draining) {
            Refusal::Draining
        } else {
            Refusal::NoOrigin
        }
    }
}

fn release(entries: &mut BTreeMap<OriginId, Entry>, pick: &Pick) {
    if let Some(entry) = entries.get_mut(&pick.origin) {
        entry.streams = entry.streams.saturating_sub(1);
    }
}
