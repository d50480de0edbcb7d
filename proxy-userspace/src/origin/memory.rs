//! The registry of a proxy that stands alone: [`Origins`] behind a lock, driven by one task.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proxy_protocol::stream_url::StreamKey;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{self, timeout},
};
use tracing::info;

use super::{
    Known, Origin, OriginEvent, OriginId, OriginStatus, PickError, Registry,
    balance::Terms,
    probe::Probe,
    registry::{Lease, Origins, Refusal},
};
use crate::config::{self, Balancing};

/// How long a probe that is due may take to begin.
const PROBE_START: Duration = Duration::from_millis(250);
/// How often expiry is looked for when no probe is due earlier.
const SWEEP: Duration = Duration::from_secs(1);

/// Origins and picks in the memory of this process.
#[derive(Debug)]
pub struct MemoryRegistry {
    settings: config::Origins,
    origins: Mutex<Origins>,
    events: mpsc::UnboundedSender<OriginEvent>,
    /// Wakes the task that probes.
    due: Notify,
    /// Tells picks that wait that a probe has ended.
    verdicts: watch::Sender<()>,
}

impl MemoryRegistry {
    /// An empty registry, and what happens to its origins; [`Self::watch`] has to run beside it.
    pub fn new(
        settings: config::Origins,
        balancing: Balancing,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<OriginEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let origins = Mutex::new(Origins::new(settings, balancing));
        let registry =
            Self { settings, origins, events, due: Notify::new(), verdicts: watch::Sender::new(()) };
        (Arc::new(registry), receiver)
    }

    /// Takes over what the registry of another process knew.
    pub fn adopt(&self, known: Known) {
        let mut origins = self.origins.lock();
        self.publish(origins.adopt(known, now()));
        drop(origins);
        self.due.notify_one();
    }

    /// What the registry of another process is to know.
    pub fn known(&self) -> Known {
        self.origins.lock().known(now())
    }

    /// Registers an origin that needs no heartbeats.
    ///
    /// # Errors
    /// When there are as many origins as there may be.
    pub fn register_static(&self, origin: Origin) -> Result<(), PickError> {
        self.record(origin, Terms::default(), Lease::Static)
    }

    /// Probes and expires origins for as long as the future is polled.
    pub async fn watch(self: Arc<Self>, probe: Arc<dyn Probe>) {
        let mut ticks = time::interval(self.tick());
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut probes = JoinSet::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.sweep(),
                () = self.due.notified() => {}
                Some(_) = probes.join_next() => {}
            }
            let due = self.origins.lock().due_probes(now());
            for origin in due {
                probes.spawn(self.clone().check(origin, probe.clone()));
            }
        }
    }

    fn tick(&self) -> Duration {
        if self.settings.probe_interval.is_zero() { SWEEP } else { self.settings.probe_interval.min(SWEEP) }
    }

    fn sweep(&self) {
        let mut origins = self.origins.lock();
        self.publish(origins.sweep(now()));
    }

    async fn check(self: Arc<Self>, origin: Arc<Origin>, probe: Arc<dyn Probe>) {
        let result = probe.probe(&origin).await;
        let mut origins = self.origins.lock();
        self.publish(origins.probed(&origin.id, result, now()));
        drop(origins);
        self.verdicts.send_replace(());
    }

    pub(super) fn record(&self, origin: Origin, terms: Terms, lease: Lease) -> Result<(), PickError> {
        let mut origins = self.origins.lock();
        let recorded = origins.heartbeat(origin, terms, lease, now());
        self.publish(recorded.map_err(|full| PickError::Unavailable(full.to_string()))?);
        self.due.notify_one();
        Ok(())
    }

    /// Called with `origins` locked, so that events leave in the order of their causes.
    fn publish(&self, events: impl IntoIterator<Item = OriginEvent>) {
        for event in events {
            // Nobody listens while the proxy stops.
            let _ = self.events.send(event);
        }
    }

    /// Asks again while an origin that might change the answer is being probed.
    pub(super) async fn decide<T>(
        &self,
        ask: impl Fn(&mut Origins) -> Result<T, Refusal> + Send,
    ) -> Result<T, Refusal> {
        let decided = async {
            let mut verdicts = self.verdicts.subscribe();
            loop {
                match ask(&mut self.origins.lock()) {
                    Err(Refusal::Undecided) => {}
                    decided => return decided,
                }
                verdicts.changed().await.expect("the sender lives in self");
            }
        };
        // A probe that was due began at once.
        let longest = self.settings.probe_timeout + PROBE_START;
        timeout(longest, decided).await.unwrap_or(Err(Refusal::NoOrigin))
    }

    /// Looks at the origins, or changes what nobody has to be told of.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Origins) -> T) -> T {
        look(&mut self.origins.lock())
    }

    /// Tells of what happened elsewhere.
    pub(super) fn tell(&self, event: OriginEvent) {
        let _origins = self.origins.lock();
        self.publish([event]);
    }

    pub(super) fn move_to(&self, stream: &StreamKey, origin: &OriginId) {
        let mut origins = self.origins.lock();
        if origins.move_to(stream, origin, now()) {
            info!(%stream, %origin, "stream follows its publisher");
            self.publish([OriginEvent::Moved { stream: stream.clone(), to: origin.clone() }]);
        }
    }
}

impl Refusal {
    pub(super) fn of(self, stream: &StreamKey) -> PickError {
        match self {
            Self::Undecided | Self::NoOrigin => PickError::NoOrigin(stream.clone()),
            Self::Draining | Self::NoRoom => PickError::NotTaken { stream: stream.clone(), reason: self },
            Self::Full => PickError::Unavailable(self.to_string()),
        }
    }
}

#[async_trait::async_trait]
impl Registry for MemoryRegistry {
    async fn register(&self, origin: Origin, terms: Terms) -> Result<(), PickError> {
        self.record(origin, terms, Lease::Heartbeat)
    }

    async fn pick(&self, stream: &StreamKey) -> Result<Arc<Origin>, PickError> {
        self.decide(|origins| origins.pick(stream, now(), &mut rand::rng()))
            .await
            .map_err(|refusal| refusal.of(stream))
    }

    async fn published(&self, stream: &StreamKey, origin: &OriginId) {
        self.move_to(stream, origin);
    }

    async fn picked(&self, stream: &StreamKey) -> Option<Arc<Origin>> {
        self.origins.lock().picked(stream, now())
    }

    async fn serving(&self) -> Vec<Arc<Origin>> {
        self.origins.lock().serving().map(Arc::clone).collect()
    }

    async fn at_rtmp(&self, address: SocketAddr) -> Option<Arc<Origin>> {
        self.origins.lock().at_rtmp(address)
    }

    async fn refresh(&self, streams: Vec<StreamKey>) {
        let mut origins = self.origins.lock();
        streams.iter().for_each(|stream| origins.refresh(stream, now()));
    }

    async fn carry(&self, sessions: HashMap<OriginId, u64>) {
        self.origins.lock().carry(&sessions);
    }

    async fn report_failure(&self, origin: &OriginId) {
        self.origins.lock().report_failure(origin, now());
        self.due.notify_one();
    }

    async fn drain(&self, name: &str, on: bool) -> Result<Vec<OriginId>, PickError> {
        let mut origins = self.origins.lock();
        let named = origins.named(name);
        named.iter().for_each(|id| {
            origins.drain(id, on);
        });
        Ok(named)
    }

    async fn list(&self) -> Vec<OriginStatus> {
        self.origins.lock().list(now())
    }
}

/// The runtime's clock, which tests may stop.
pub(super) fn now() -> Instant {
    time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::origin::probe::{ProbeError, ProbeFailure};

    const SETTINGS: config::Origins = config::Origins {
        ttl: Duration::from_secs(300),
        probe_interval: Duration::from_secs(2),
        probe_timeout: Duration::from_secs(1),
        probe_failures: 2,
        pick_ttl: Duration::from_secs(120),
    };

    /// Answers after 100 ms, as told.
    #[derive(Default)]
    struct Scripted {
        fails: AtomicBool,
        asked: AtomicUsize,
    }

    #[async_trait::async_trait]
    impl Probe for Scripted {
        async fn probe(&self, origin: &Origin) -> Result<(), ProbeError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            time::sleep(Duration::from_millis(100)).await;
            let address = origin.rtmp.expect("test origins have rtmp");
            let error = ProbeError { endpoint: "rtmp", address, cause: ProbeFailure::Timeout };
            if self.fails.load(Ordering::Relaxed) { Err(error) } else { Ok(()) }
        }
    }

    fn origin() -> Origin {
        let ip = [127, 0, 0, 1].into();
        Origin { rtmp: Some((ip, 1935).into()), ..Origin::bare("s", OriginId::new("s", "v", "1"), ip) }
    }

    fn stream() -> StreamKey {
        "__defaultVhost__/live/s".parse().unwrap()
    }

    struct Rig {
        registry: Arc<MemoryRegistry>,
        events: mpsc::UnboundedReceiver<OriginEvent>,
        probe: Arc<Scripted>,
        _watch: JoinSet<()>,
    }

    fn rig() -> Rig {
        let (registry, events) = MemoryRegistry::new(SETTINGS, Balancing::default());
        let probe = Arc::new(Scripted::default());
        let mut watch = JoinSet::new();
        watch.spawn(registry.clone().watch(probe.clone()));
        Rig { registry, events, probe, _watch: watch }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pick_waits_for_the_first_probe() {
        let mut rig = rig();
        rig.registry.register(origin(), Terms::default()).await.unwrap();
        let asked_at = time::Instant::now();
        assert_eq!(*rig.registry.pick(&stream()).await.unwrap(), origin());
        assert_eq!(asked_at.elapsed().as_millis() / 100, 1, "as long as the probe takes");
        assert!(matches!(rig.events.recv().await, Some(OriginEvent::Up(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pick_without_origins_fails_at_once() {
        let rig = rig();
        assert_eq!(rig.registry.pick(&stream()).await, Err(PickError::NoOrigin(stream())));
    }

    #[tokio::test(start_paused = true)]
    async fn probes_make_an_origin_go_down_and_come_back() {
        let mut rig = rig();
        rig.registry.register(origin(), Terms::default()).await.unwrap();
        assert!(matches!(rig.events.recv().await, Some(OriginEvent::Up(_))));
        rig.probe.fails.store(true, Ordering::Relaxed);
        assert_eq!(rig.events.recv().await, Some(OriginEvent::Down(origin().id)));
        assert!(rig.registry.pick(&stream()).await.is_err());
        rig.probe.fails.store(false, Ordering::Relaxed);
        assert!(matches!(rig.events.recv().await, Some(OriginEvent::Up(_))));
        assert!(rig.registry.pick(&stream()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reported_failure_is_probed_at_once() {
        let mut rig = rig();
        rig.registry.register(origin(), Terms::default()).await.unwrap();
        rig.events.recv().await.unwrap();
        let asked = rig.probe.asked.load(Ordering::Relaxed);
        rig.registry.report_failure(&origin().id).await;
        assert_eq!(rig.registry.list().await[0].state, "probing");
        assert!(rig.registry.pick(&stream()).await.is_ok(), "waits for the probe");
        assert_eq!(rig.probe.asked.load(Ordering::Relaxed), asked + 1);
        assert!(rig.events.is_empty(), "no session was lost");
    }

    #[tokio::test(start_paused = true)]
    async fn a_static_origin_needs_no_heartbeat() {
        let mut rig = rig();
        rig.registry.register_static(origin()).unwrap();
        rig.events.recv().await.unwrap();
        time::sleep(SETTINGS.ttl * 3).await;
        assert_eq!(rig.registry.list().await[0].state, "up");
    }
}
