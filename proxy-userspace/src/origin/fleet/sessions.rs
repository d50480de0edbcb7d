//! WebRTC sessions that any proxy of the fleet can take over.
//!
//! A session whose ufrag names its origin needs nobody to write it down but for the name of its stream; another one is kept in Redis,
//! its password included, for as long as it lives.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use proxy_protocol::ice::UfragPair;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::FleetRegistry;
use crate::{
    api::signalling::{OfferError, SessionSink},
    control::Control,
    fleet::Fleet,
    origin::{
        Origin,
        store::{FoundSession as Stored, SharedSession},
    },
    roaming::{FoundSession, SessionFinder},
    session::{SessionOffer, WebRtc},
};

/// How long a session is written down for that nobody keeps.
const LIFE: Duration = Duration::from_secs(120);
/// How often sessions that live are kept.
const KEEP: Duration = Duration::from_secs(40);
/// Sessions that are kept at once.
const MAX: usize = 1 << 20;

/// Tells the fleet of the sessions that the control loop takes.
pub struct SharedSessions {
    control: Control,
    fleet: Arc<FleetRegistry>,
    /// Those that need to be kept.
    kept: Mutex<HashMap<UfragPair, SharedSession>>,
    /// What makes sessions that need not be.
    key: Option<Arc<Fleet>>,
}

impl SharedSessions {
    /// Sessions of `control` that `fleet` is told of; those with credentials of `key` need not be kept.
    pub fn new(control: Control, fleet: Arc<FleetRegistry>, key: Option<Arc<Fleet>>) -> Arc<Self> {
        Arc::new(Self { control, fleet, kept: Mutex::default(), key })
    }

    /// Keeps sessions that live for as long as the future is polled.
    pub async fn keep(self: Arc<Self>) {
        let mut ticks = interval(KEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let living: Vec<SharedSession> = {
                let mut kept = self.kept.lock();
                kept.retain(|ufrags, _| self.control.origin_of(ufrags).is_some());
                kept.values().cloned().collect()
            };
            if let Err(error) = self.fleet.store.keep_sessions(&living, LIFE).await {
                debug!(%error, "sessions are not kept");
            }
        }
    }

    async fn share(&self, offer: &SessionOffer) {
        let Some(session) = shared(offer) else { return };
        let SharedSession { ufrags, pwd, .. } = &session;
        let is_routed = |key: &Arc<Fleet>| key.has_made(&offer.origin, ufrags.local(), pwd);
        if !self.key.as_ref().is_some_and(is_routed) {
            let mut kept = self.kept.lock();
            if kept.len() < MAX {
                kept.insert(ufrags.clone(), session.clone());
            }
        }
        // Before the client has its answer: its first packet may come to another proxy.
        if let Err(error) = self.fleet.store.put_session(&session, LIFE).await {
            debug!(%error, "session is known to this proxy alone");
        }
    }
}

#[async_trait::async_trait]
impl SessionSink for SharedSessions {
    async fn offered(&self, offer: SessionOffer) -> Result<(), OfferError> {
        let told = offer.clone();
        self.control.offered(offer).await?;
        self.share(&told).await;
        Ok(())
    }

    fn refused(&self, why: OfferError) {
        self.control.refused(why);
    }

    async fn deleted(&self, ufrags: &UfragPair) {
        self.control.deleted(ufrags).await;
        self.kept.lock().remove(ufrags);
        if let Err(error) = self.fleet.store.drop_session(ufrags).await {
            debug!(%error, "the fleet is not told that a session ended");
        }
    }

    fn origin_of(&self, ufrags: &UfragPair) -> Option<Arc<Origin>> {
        self.control.origin_of(ufrags)
    }

    async fn origin_elsewhere(&self, ufrags: &UfragPair) -> Option<Arc<Origin>> {
        self.fleet.find(ufrags).await.map(|found| found.origin)
    }
}

#[async_trait::async_trait]
impl SessionFinder for FleetRegistry {
    async fn find(&self, ufrags: &UfragPair) -> Option<FoundSession> {
        match self.store.session(ufrags).await.ok()?? {
            Stored::Shared(session) => {
                self.known_or_told(&session.origin).await.ok()?;
                let origin = self.local.with(|origins| origins.serving_origin(&session.origin))?;
                let SharedSession { pwd, stream, role, .. } = session;
                Some(FoundSession { origin, pwd, stream: Some(stream), role: Some(role), tcp: None })
            }
            // A Go proxy does not tell how to know the client.
            Stored::OfGo { .. } => None,
        }
    }
}

/// What the fleet is to know of a session, if that is all known here.
fn shared(offer: &SessionOffer) -> Option<SharedSession> {
    let SessionOffer { stream, origin, role, .. } = offer;
    let WebRtc { ufrags, pwd, .. } = offer.webrtc()?;
    Some(SharedSession {
        stream: stream.clone()?,
        ufrags: ufrags.clone(),
        origin: origin.id.clone(),
        media: origin.rtc?,
        pwd: pwd.clone(),
        role: (*role)?,
    })
}

impl std::fmt::Debug for SharedSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedSessions").field("kept", &self.kept.lock().len()).finish_non_exhaustive()
    }
}
