//! Which origin takes a new stream: a choice among candidates, without state of its own.

use std::{cmp::Ordering, sync::Arc};

use proxy_protocol::stream_url::StreamKey;
use rand::{Rng, seq::IndexedRandom as _};
use sha2::{Digest as _, Sha256};

use super::Origin;

/// How a new stream gets its origin (`PROXY_BALANCING`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The one with the least load for its weight.
    #[default]
    LeastSessions,
    /// The same of two that are drawn by weight, for the proxies of a fleet: they know each other's loads late, and all of
    /// them would send their streams to the least loaded of all until they do (Mitzenmacher, "The power of two choices",
    /// 2001).
    LessOfTwo,
    /// Any, all alike.
    Random,
    /// Any, by weight.
    Weighted,
    /// The one that the name of the stream points to, the same on every proxy that knows the same origins.
    Rendezvous,
}

/// How much an origin is to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its share among all origins; it is never 0.
    pub weight: u32,
    /// Sessions from which on it gets no new stream.
    pub capacity: Option<u32>,
}

impl Terms {
    /// The largest weight and capacity.
    pub const MAX: u32 = 1_000_000;
}

impl Default for Terms {
    fn default() -> Self {
        Self { weight: 1, capacity: None }
    }
}

/// An origin that may take a stream.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The origin.
    pub origin: &'a Arc<Origin>,
    /// What it is to take.
    pub terms: Terms,
    /// Its sessions, and its streams: those that were picked a moment ago have no sessions yet.
    pub load: u64,
}

impl Candidate<'_> {
    /// Whether it may have another stream.
    pub fn has_room(&self) -> bool {
        self.terms.capacity.is_none_or(|capacity| self.load < u64::from(capacity))
    }

    /// Compares what each has of what it is to take.
    fn by_share(&self, other: &Self) -> Ordering {
        let share = |one: &Self, other: &Self| u128::from(one.load) * u128::from(other.terms.weight);
        share(self, other).cmp(&share(other, self))
    }
}

impl Policy {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastSessions | Self::LessOfTwo => "least-sessions",
            Self::Random => "random",
            Self::Weighted => "weighted",
            Self::Rendezvous => "rendezvous",
        }
    }

    /// What a proxy of a fleet does in its place.
    #[must_use]
    pub fn of_fleet(self) -> Self {
        match self {
            Self::LeastSessions | Self::LessOfTwo => Self::LessOfTwo,
            Self::Random | Self::Weighted | Self::Rendezvous => self,
        }
    }

    /// The one of `candidates` that takes `stream`; none only if there are none.
    pub fn choose<'a>(
        self,
        candidates: &[Candidate<'a>],
        stream: &StreamKey,
        random: &mut impl Rng,
    ) -> Option<&'a Arc<Origin>> {
        let chosen = match self {
            Self::LeastSessions => least_loaded(candidates, candidates.len(), random),
            Self::LessOfTwo => least_loaded(candidates, 2, random),
            Self::Random => candidates.choose(random),
            Self::Weighted => by_weight(candidates, random),
            Self::Rendezvous => rendezvous(candidates, stream),
        };
        chosen.map(|candidate| candidate.origin)
    }
}

fn by_weight<'c, 'a>(candidates: &'c [Candidate<'a>], random: &mut impl Rng) -> Option<&'c Candidate<'a>> {
    candidates.choose_weighted(random, |candidate| candidate.terms.weight).ok()
}

/// The least loaded of so many that are drawn; of equals the one that was drawn first.
fn least_loaded<'c, 'a>(
    candidates: &'c [Candidate<'a>],
    among: usize,
    random: &mut impl Rng,
) -> Option<&'c Candidate<'a>> {
    let weight = |candidate: &Candidate<'_>| f64::from(candidate.terms.weight);
    let drawn = candidates.choose_multiple_weighted(random, among, weight).ok()?;
    drawn.min_by(|one, other| one.by_share(other))
}

/// Weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): when an origin goes, only its own streams move.
fn rendezvous<'c, 'a>(candidates: &'c [Candidate<'a>], stream: &StreamKey) -> Option<&'c Candidate<'a>> {
    let score = |candidate: &Candidate<'_>| {
        // Within 0..1, without either.
        let drawn = (point(stream, candidate.origin) as f64 + 0.5) / (u64::MAX as f64 + 1.0);
        f64::from(candidate.terms.weight) / -drawn.ln()
    };
    candidates.iter().max_by(|one, other| {
        score(one).total_cmp(&score(other)).then_with(|| one.origin.id.cmp(&other.origin.id))
    })
}

/// Where a stream and an origin meet. The server id outlives restarts, so streams come back to where they were; every
/// build of the proxy must compute the same.
fn point(stream: &StreamKey, origin: &Origin) -> u64 {
    let text = format!("{stream}\n{}\n{}", origin.server, origin.ip);
    let digest = Sha256::digest(text.as_bytes());
    u64::from_be_bytes(*digest.first_chunk().expect("SHA-256 is longer than 8 bytes"))
}

#[cfg(test)]
mod tests;
