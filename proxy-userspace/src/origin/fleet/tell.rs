//! What this proxy tells the fleet.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use proxy_protocol::stream_url::StreamKey;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info};

use super::{FleetRegistry, load};
use crate::origin::{
    OriginId,
    memory::now,
    store::{Health, Notice, StoreError},
};

/// How often loads are told.
const LOAD: Duration = Duration::from_secs(1);
/// How often origins are looked for, in loads told: Go proxies tell nobody of theirs.
const LEARN: u32 = 5;
/// How often streams in use are kept, in loads told.
const KEEP: u32 = 15;

impl FleetRegistry {
    /// Talks to the fleet for as long as the future is polled.
    pub async fn watch(self: Arc<Self>, notices: mpsc::Receiver<Notice>) {
        tokio::join!(self.listen(notices), self.tell());
    }

    async fn tell(&self) {
        let mut ticks = interval(LOAD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 1_u32.. {
            ticks.tick().await;
            if *self.store.health().borrow() != Health::Up {
                self.local.with(|origins| origins.excuse_silence(now()));
            }
            let told = async {
                self.tell_load().await?;
                if tick.is_multiple_of(LEARN) {
                    self.learn().await?;
                }
                if tick.is_multiple_of(KEEP) {
                    self.write_back().await?;
                    self.keep().await?;
                }
                Ok::<(), StoreError>(())
            };
            if let Err(error) = told.await {
                debug!(%error, "the fleet is not told everything");
            }
        }
    }

    async fn tell_load(&self) -> Result<(), StoreError> {
        let (ours, sums) = {
            let mut loads = self.loads.lock();
            (loads.ours(self.store.member()), loads.sums(now()))
        };
        self.local.with(|origins| origins.carry(&sums));
        self.store.put_load(&ours, load::LIFE).await
    }

    /// Keeps the picks of streams in use, and writes them down where Redis has lost them.
    pub(super) async fn keep(&self) -> Result<(), StoreError> {
        let in_use = self.uses.lock().in_use();
        let places = self.local.with(|origins| origins.places(&in_use));
        let moved = self.store.keep(&places, self.settings.pick_ttl).await?;
        self.local.with(|origins| places.iter().for_each(|(stream, _)| origins.confirm(stream, now())));
        self.follow(&moved);
        Ok(())
    }

    /// Writes down what was decided while Redis did not answer.
    pub(super) async fn write_back(&self) -> Result<(), StoreError> {
        let unwritten = self.uses.lock().take_unwritten();
        let written = self.write(&unwritten).await;
        let all = unwritten.published.iter().chain(&unwritten.guessed);
        match &written {
            Ok(()) => {
                let count = all.count();
                self.counts.written_back.fetch_add(count as u64, Relaxed);
                if count > 0 {
                    info!(streams = count, "what was decided without Redis is written down");
                }
            }
            Err(_) => {
                let mut uses = self.uses.lock();
                all.for_each(|(stream, origin)| uses.unwritten(stream, origin));
            }
        }
        written
    }

    async fn write(&self, unwritten: &super::uses::Unwritten) -> Result<(), StoreError> {
        for (stream, origin) in &unwritten.published {
            self.store.assign(stream, origin, self.settings.pick_ttl).await?;
        }
        let moved = self.store.keep(&unwritten.guessed, self.settings.pick_ttl).await?;
        self.follow(&moved);
        Ok(())
    }

    /// Others have these streams on these origins, but for those whose publishers came here while Redis did not answer.
    pub(super) fn follow(&self, moved: &[(StreamKey, OriginId)]) {
        for (stream, origin) in moved {
            if self.uses.lock().insists_on(stream) {
                continue;
            }
            if self.local.with(|origins| origins.origin(origin).is_some()) {
                self.local.move_to(stream, origin);
            } else {
                self.local.with(|origins| origins.unpick(stream));
            }
        }
    }
}
