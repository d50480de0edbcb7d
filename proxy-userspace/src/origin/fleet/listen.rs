//! What others of the fleet tell.

use proxy_protocol::stream_url::StreamKey;
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::FleetRegistry;
use crate::origin::{
    OriginEvent, OriginId,
    memory::now,
    store::{Notice, StoreError},
};

impl FleetRegistry {
    /// Takes notices for as long as the future is polled.
    pub(super) async fn listen(&self, mut notices: mpsc::Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            self.take(notice).await;
        }
    }

    async fn take(&self, notice: Notice) {
        match notice {
            Notice::Connected => {
                if let Err(error) = self.resume().await {
                    debug!(%error, "the fleet is not fully known");
                }
            }
            Notice::Lost => {
                self.accord.lock().lose();
                info!("Redis does not answer: known streams go on, new ones are agreed on");
            }
            Notice::Picked { stream, origin } => self.picked_elsewhere((stream, origin)).await,
            Notice::Origin(stored) => self.heard_of(&stored),
            Notice::Draining { origin, on } => {
                self.local.with(|origins| origins.drain(&origin, on));
            }
            Notice::Load(load) => self.loads.lock().told(load, now()),
            Notice::SessionEnded(ufrags) => self.local.tell(OriginEvent::Ended(ufrags)),
        }
    }

    async fn picked_elsewhere(&self, pick: (StreamKey, OriginId)) {
        let is_contested = self.uses.lock().insists_on(&pick.0);
        self.follow(&[pick]);
        if is_contested && let Err(error) = self.write_back().await {
            debug!(%error, "where a stream is published is not told to the fleet");
        }
    }

    /// Redis answers, perhaps after a while, perhaps restarted and empty, perhaps changed by others.
    async fn resume(&self) -> Result<(), StoreError> {
        self.local.with(|origins| origins.doubt());
        self.accord.lock().come_back(now());
        let registered: Vec<_> = self.registered.lock().values().cloned().collect();
        for stored in &registered {
            let id = stored.id();
            if self.local.with(|origins| origins.origin(&id).is_some()) {
                self.store.put_origin(stored, self.settings.ttl).await?;
            } else {
                self.registered.lock().remove(&id);
            }
        }
        self.learn().await?;
        for load in self.store.loads().await? {
            if load.member != *self.store.member() {
                self.loads.lock().told(load, now());
            }
        }
        self.write_back().await?;
        self.keep().await
    }

    /// Learns of origins, those that know only Go proxies too.
    pub(super) async fn learn(&self) -> Result<(), StoreError> {
        let mut origins = self.store.origins().await?;
        // Of two runs of one server the later one is to win.
        origins.sort_by(|one, other| one.update_at.cmp(&other.update_at));
        origins.iter().for_each(|stored| self.heard_of(stored));
        let living: std::collections::HashSet<_> = origins.iter().map(|stored| stored.id()).collect();
        self.heard.lock().retain(|id, _| living.contains(id));
        for id in self.store.draining().await? {
            self.local.with(|origins| origins.drain(&id, true));
        }
        Ok(())
    }
}
