//! The registry of a fleet: every proxy knows all origins and probes them itself, and Redis decides which one a stream is on.
//!
//! A stream that is known here costs nothing: picks of others are told as they are made. Another one costs a round trip, in
//! which Redis takes the origin that we propose, or names the one that somebody else proposed before. While Redis does not
//! answer, what is known stays where it is, and every proxy works out by itself where a new stream goes, all alike; that is
//! written down when Redis is back.
//!
//! Nothing here keeps the control loop waiting: what it tells is noted, and [`FleetRegistry::watch`] passes it on.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use proxy_protocol::stream_url::StreamKey;
use tracing::{debug, warn};

use self::{accord::Accord, load::Loads, proposal::Proposal, uses::Uses};
use super::{
    Origin, OriginId, OriginStatus, PickError, Registry, RegistryCounts, Trouble,
    balance::Terms,
    memory::{MemoryRegistry, now},
    registry::{Lease, Refusal, Settled},
    store::{Health, Store, StoreError, StoredOrigin},
};
use crate::config;

mod accord;
mod listen;
mod load;
mod proposal;
pub mod sessions;
mod tell;
mod uses;

/// Origins that are proposed for one stream at most: each was gone when it was looked at.
const PROPOSALS: u32 = 4;

/// The registry of one proxy of a fleet.
#[derive(Debug)]
pub struct FleetRegistry {
    settings: config::Origins,
    local: Arc<MemoryRegistry>,
    store: Store,
    /// Streams of ours.
    uses: Mutex<Uses>,
    loads: Mutex<Loads>,
    /// Origins that register here, as they did last.
    registered: Mutex<HashMap<OriginId, StoredOrigin>>,
    /// The last heartbeat of each origin that Redis told, in its words.
    heard: Mutex<HashMap<OriginId, String>>,
    accord: Mutex<Accord>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    known: AtomicU64,
    asked: AtomicU64,
    agreed: AtomicU64,
    written_back: AtomicU64,
}

impl FleetRegistry {
    /// The registry of a proxy that knows its origins by `local` and its fleet by `store`; [`Self::watch`] has to run beside it.
    pub fn new(settings: config::Origins, local: Arc<MemoryRegistry>, store: Store) -> Arc<Self> {
        let loads = Mutex::new(Loads::default());
        let (uses, registered, heard, accord, counts) = Default::default();
        Arc::new(Self { settings, local, store, uses, loads, registered, heard, accord, counts })
    }

    /// A pick that was confirmed so long ago is asked for again: Redis forgets what nobody asks for.
    fn fresh(&self) -> Duration {
        self.settings.pick_ttl / 4
    }

    async fn place(&self, stream: &StreamKey) -> Result<Arc<Origin>, Refusal> {
        let known = self.local.decide(|origins| origins.known_pick(stream, now())).await?;
        let is_fresh = self.local.with(|origins| origins.is_confirmed(stream, self.fresh(), now()));
        if let Some(origin) = known.as_ref().filter(|_| is_fresh) {
            self.counts.known.fetch_add(1, Relaxed);
            return Ok(Arc::clone(origin));
        }
        self.counts.asked.fetch_add(1, Relaxed);
        match self.claim(stream, known.clone()).await {
            Ok(origin) => {
                self.uses.lock().asked(stream, now());
                Ok(origin)
            }
            Err(Unplaced::Refused(refusal)) => Err(refusal),
            Err(Unplaced::Unasked(error)) => {
                debug!(%stream, %error, "the fleet cannot be asked");
                self.accord.lock().fail(now());
                match known {
                    Some(origin) => Ok(origin),
                    None => self.agree(stream).await,
                }
            }
        }
    }

    /// Has the fleet decide. Where the stream is known to be is proposed once: it may be gone by the time of the answer.
    async fn claim(
        &self,
        stream: &StreamKey,
        mut known: Option<Arc<Origin>>,
    ) -> Result<Arc<Origin>, Unplaced> {
        let mut stale = match known {
            Some(_) => None,
            None => self.local.with(|origins| origins.last_pick(stream)),
        };
        for _ in 0..PROPOSALS {
            let proposal = match known.take() {
                Some(origin) => Ok(Proposal::of_known(origin)),
                None => self.propose(stream).await,
            };
            let claimed = match &proposal {
                Ok(Proposal { origin, .. }) => {
                    // One that serves again is not.
                    let stale = stale.as_ref().filter(|stale| **stale != origin.id);
                    self.store.claim(stream, &origin.id, stale, self.settings.pick_ttl).await?
                }
                Err(refusal) => self.pick_of_fleet(stream).await?.ok_or(*refusal)?,
            };
            let Some(origin) = self.settle(stream, &claimed).await? else {
                stale = Some(claimed);
                continue;
            };
            if proposal.is_ok_and(|proposal| proposal.origin.id != claimed) {
                // Whoever proposed that one has the stream.
                self.local.with(|origins| origins.refresh(stream, now()));
            }
            return Ok(origin);
        }
        Err(Unplaced::Refused(Refusal::NoOrigin))
    }

    async fn pick_of_fleet(&self, stream: &StreamKey) -> Result<Option<OriginId>, StoreError> {
        let picks = self.store.picks_of(std::slice::from_ref(stream)).await?;
        Ok(picks.into_iter().next().flatten())
    }

    /// Takes over what the fleet decided; nothing if that origin does not serve.
    async fn settle(&self, stream: &StreamKey, id: &OriginId) -> Result<Option<Arc<Origin>>, StoreError> {
        if self.known_or_told(id).await?.is_none() {
            return Ok(None);
        }
        let settled = self.local.decide(|origins| match origins.settle(stream, id, now()) {
            Settled::There(origin) => Ok(Some(origin)),
            Settled::Gone | Settled::Unknown => Ok(None),
            Settled::Undecided => Err(Refusal::Undecided),
        });
        // Undecided for so long is gone.
        Ok(settled.await.unwrap_or(None))
    }

    /// An origin that others speak of, if it lives.
    async fn known_or_told(&self, id: &OriginId) -> Result<Option<Arc<Origin>>, StoreError> {
        let known = || self.local.with(|origins| origins.origin(id));
        if known().is_none()
            && let Some(stored) = self.store.origin(id).await?
        {
            self.heard_of(&stored);
        }
        Ok(known())
    }

    /// Without Redis every proxy comes to the same.
    async fn agree(&self, stream: &StreamKey) -> Result<Arc<Origin>, Refusal> {
        let origin = self.local.decide(|origins| origins.agree(stream)).await?;
        self.local.with(|origins| origins.settle(stream, &origin.id, now()));
        self.uses.lock().unwritten(stream, &origin.id);
        self.counts.agreed.fetch_add(1, Relaxed);
        Ok(origin)
    }

    /// Records an origin that Redis told of, unless it told nothing new.
    fn heard_of(&self, stored: &StoredOrigin) {
        let id = stored.id();
        let before = self.heard.lock().insert(id.clone(), stored.update_at.clone());
        if before.as_ref() == Some(&stored.update_at) {
            return;
        }
        // The proxy that it registered with resolved its name.
        let Some(ip) = stored.address() else {
            return debug!(%id, ip = %stored.ip, "origin in Redis has no address");
        };
        match stored.origin(ip) {
            Ok(origin) => {
                if let Err(error) = self.local.record(origin, stored.terms(), Lease::Heartbeat) {
                    warn!(%id, %error, "origin in Redis is not taken over");
                }
            }
            Err(error) => debug!(%id, %error, "origin in Redis cannot be read"),
        }
    }
}

/// Why a stream has no place yet.
enum Unplaced {
    /// There is none.
    Refused(Refusal),
    /// Redis does not say.
    Unasked(StoreError),
}

impl From<StoreError> for Unplaced {
    fn from(error: StoreError) -> Self {
        Self::Unasked(error)
    }
}

impl From<Refusal> for Unplaced {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

#[async_trait::async_trait]
impl Registry for FleetRegistry {
    async fn register(&self, origin: Origin, terms: Terms) -> Result<(), PickError> {
        let stored = StoredOrigin::new(&origin, SystemTime::now()).with_terms(terms);
        self.local.register(origin, terms).await?;
        self.registered.lock().insert(stored.id(), stored.clone());
        if let Err(error) = self.store.put_origin(&stored, self.settings.ttl).await {
            debug!(id = %stored.id(), %error, "heartbeat is not told to the fleet");
        }
        Ok(())
    }

    async fn pick(&self, stream: &StreamKey) -> Result<Arc<Origin>, PickError> {
        self.place(stream).await.map_err(|refusal| refusal.of(stream))
    }

    async fn picked(&self, stream: &StreamKey) -> Option<Arc<Origin>> {
        if let Some(origin) = self.local.picked(stream).await {
            return Some(origin);
        }
        let claimed = self.pick_of_fleet(stream).await.ok()??;
        self.settle(stream, &claimed).await.ok()?
    }

    async fn published(&self, stream: &StreamKey, origin: &OriginId) {
        let before = self.local.with(|origins| origins.last_pick(stream));
        self.local.move_to(stream, origin);
        self.uses.lock().published(stream, now());
        if before.as_ref() == Some(origin) {
            return;
        }
        if let Err(error) = self.store.assign(stream, origin, self.settings.pick_ttl).await {
            debug!(%stream, %error, "where a stream is is not told to the fleet");
            self.uses.lock().unwritten(stream, origin);
        }
    }

    async fn serving(&self) -> Vec<Arc<Origin>> {
        self.local.serving().await
    }

    async fn at_rtmp(&self, address: SocketAddr) -> Option<Arc<Origin>> {
        self.local.at_rtmp(address).await
    }

    async fn refresh(&self, streams: Vec<StreamKey>) {
        self.uses.lock().used(&streams, now());
        self.local.refresh(streams).await;
    }

    async fn carry(&self, sessions: HashMap<OriginId, u64>) {
        self.loads.lock().carry(sessions);
    }

    async fn report_failure(&self, origin: &OriginId) {
        self.local.report_failure(origin).await;
    }

    async fn drain(&self, name: &str, on: bool) -> Result<Vec<OriginId>, PickError> {
        let drained = self.local.drain(name, on).await?;
        for id in &drained {
            let told = self.store.set_draining(id, on).await;
            told.map_err(|error| PickError::Unavailable(format!("only this proxy knows: {error}")))?;
        }
        Ok(drained)
    }

    async fn list(&self) -> Vec<OriginStatus> {
        self.local.list().await
    }

    fn trouble(&self) -> Option<Trouble> {
        let knows_none = || self.local.with(|origins| origins.serving().next().is_none());
        match &*self.store.health().borrow() {
            Health::Up => None,
            Health::Refusing { since, reason } => {
                let what = format!("Redis has refused for {} s: {reason}", since.elapsed().as_secs());
                Some(Trouble { what, is_fatal: false })
            }
            Health::Down { since, reason } => {
                let what = format!("Redis has not answered for {} s: {reason}", since.elapsed().as_secs());
                Some(Trouble { what, is_fatal: knows_none() })
            }
        }
    }

    fn counts(&self) -> RegistryCounts {
        let Counts { known, asked, agreed, written_back } = &self.counts;
        RegistryCounts {
            known: known.load(Relaxed),
            asked: asked.load(Relaxed),
            agreed: agreed.load(Relaxed),
            written_back: written_back.load(Relaxed),
            failures: self.store.counts().failures,
        }
    }
}
