//! The control loop: turns what I/O tasks report into events, applies them, performs what follows.

use std::{
    collections::{HashSet, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use proxy_protocol::{ice::UfragPair, stream_url::StreamKey};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use crate::{
    api::signalling::{OfferError, SessionSink},
    datapath::{
        installer::{Aftermath, Installer, NetworkChange},
        kernel::grace,
    },
    executor::{Executor, OriginsByUfrags},
    lifecycle::Estate,
    net::{handover::Role, route::preferred_source},
    origin::{Known, Origin, OriginEvent, Registry},
    proxy::{Event, Inheritance, Proxy, Refusal},
    session::{SessionOffer, record::Record},
};

pub mod snapshot;

use snapshot::{Snapshot, Totals};

/// Installs, connect time-outs.
const TICK: Duration = Duration::from_millis(50);
/// Counters, idleness, proof of offload, neighbours to be asked.
const LOOK: Duration = Duration::from_secs(1);
/// Streams in use keep their origin.
const REFRESH: Duration = Duration::from_secs(20);
/// Events the loop may be behind by; a worker that finds it full drops and counts.
pub const EVENT_QUEUE: usize = 8192;
const COMMAND_QUEUE: usize = 1024;

/// What other tasks ask of the loop.
#[derive(Debug)]
enum Command {
    Offer {
        offer: Box<SessionOffer>,
        media: SocketAddr,
        sources: Arc<[IpAddr]>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Deleted(UfragPair),
    Snapshot(oneshot::Sender<Snapshot>),
    SwitchOffload(bool),
    Detach(oneshot::Sender<Vec<String>>),
    HandOver(oneshot::Sender<io::Result<Frozen>>),
    Leave(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// The loop while it waits for the outcome of a take-over. It goes on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    /// Second descriptors of the relay's sockets.
    pub sockets: Vec<(Role, OwnedFd)>,
    /// Sessions, ports that rest and the next number; what the registry knows is to be added.
    pub estate: Estate,
    pause: oneshot::Sender<oneshot::Sender<()>>,
    leave: oneshot::Receiver<oneshot::Sender<()>>,
}

impl Frozen {
    /// Stops the relay; what arrives waits in the sockets.
    pub async fn pause(self) -> Option<Paused> {
        let (reply, paused) = oneshot::channel();
        self.pause.send(reply).ok()?;
        paused.await.ok()?;
        Some(Paused(self.leave.await.ok()?))
    }
}

/// The loop with its relay stopped. Both go on when this is dropped.
#[derive(Debug)]
pub struct Paused(oneshot::Sender<()>);

impl Paused {
    /// Ends the loop without ending a session.
    pub fn leave(self) {
        // A loop that ended has left already.
        let _ended = self.0.send(());
    }
}

/// A handle on the control loop.
#[derive(Clone, Debug)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    origins: OriginsByUfrags,
    source_addresses: Arc<[IpAddr]>,
    totals: watch::Receiver<Totals>,
}

/// The loop, ready to run.
#[derive(Debug)]
pub struct ControlLoop {
    proxy: Proxy,
    executor: Executor,
    commands: mpsc::Receiver<Command>,
    totals: watch::Sender<Totals>,
    /// Waits for the grace period that flows and records wait for.
    grace: Option<JoinHandle<()>>,
}

impl Control {
    /// Makes the loop and a handle on it; `source_addresses` empty means the one each route prefers.
    pub fn new(
        proxy: Proxy,
        executor: Executor,
        origins: OriginsByUfrags,
        source_addresses: &[IpAddr],
    ) -> (Self, ControlLoop) {
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (totals, latest) = watch::channel(Totals::default());
        let control =
            Self { commands: sender, origins, source_addresses: source_addresses.into(), totals: latest };
        (control, ControlLoop { proxy, executor, commands, totals, grace: None })
    }

    /// The totals, renewed every second.
    pub fn totals(&self) -> watch::Receiver<Totals> {
        self.totals.clone()
    }

    /// Everything, for people.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Snapshot(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Allows or forbids flows in the kernel; forbidding returns every session to userspace at once.
    pub async fn switch_offload(&self, on: bool) {
        // A loop that ended has no sessions.
        let _stopped = self.commands.send(Command::SwitchOffload(on)).await;
    }

    /// Returns every session to userspace and takes the programs off every interface, which are named.
    pub async fn detach(&self) -> Vec<String> {
        let (reply, answer) = oneshot::channel();
        // A loop that ended has nothing attached.
        let _stopped = self.commands.send(Command::Detach(reply)).await;
        answer.await.unwrap_or_default()
    }

    /// Freezes the loop so that another process can take over.
    pub async fn freeze(&self) -> io::Result<Frozen> {
        let stopped = || io::Error::other("the control loop has ended");
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::HandOver(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Ends the loop and no session: another process goes on with them.
    pub async fn leave(&self) {
        self.ask_for_the_end(Command::Leave).await;
    }

    /// Ends every session and the loop.
    pub async fn stop(&self) {
        self.ask_for_the_end(Command::Stop).await;
    }

    async fn ask_for_the_end(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(command(reply)).await.is_ok() {
            // An error means that the loop ended by itself.
            let _ended = answer.await;
        }
    }

    async fn offer(&self, offer: SessionOffer) -> Result<(), OfferError> {
        let media = offer.origin.rtc.ok_or(OfferError::Unreachable)?;
        let sources = self.sources(media).map_err(|_| OfferError::Unreachable)?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Offer { offer: Box::new(offer), media, sources, reply };
        self.commands.send(command).await.map_err(|_| OfferError::Stopping)?;
        Ok(answer.await.map_err(|_| OfferError::Stopping)??)
    }

    fn sources(&self, media: SocketAddr) -> io::Result<Arc<[IpAddr]>> {
        let same_family: Vec<IpAddr> =
            self.source_addresses.iter().copied().filter(|ip| ip.is_ipv4() == media.is_ipv4()).collect();
        if same_family.is_empty() { Ok([preferred_source(media)?].into()) } else { Ok(same_family.into()) }
    }
}

#[async_trait::async_trait]
impl SessionSink for Control {
    async fn offered(&self, offer: SessionOffer) -> Result<(), OfferError> {
        self.offer(offer).await
    }

    async fn deleted(&self, ufrags: &UfragPair) {
        // A loop that ended has no sessions.
        let _stopped = self.commands.send(Command::Deleted(ufrags.clone())).await;
    }

    fn origin_of(&self, ufrags: &UfragPair) -> Option<Arc<Origin>> {
        self.origins.read().get(ufrags).cloned()
    }
}

impl From<Refusal> for OfferError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::PortsExhausted => Self::PortsExhausted,
            Refusal::DuplicateUfrag => Self::DuplicateUfrag,
        }
    }
}

impl ControlLoop {
    /// Takes over what an earlier process left, then lets the relay read.
    pub async fn begin(&mut self, left: Option<Inheritance>) -> io::Result<()> {
        if let Some(left) = left {
            self.handle(Event::Adopted(Box::new(left))).await;
        }
        self.executor.relay_mut().resume()
    }

    /// Runs until it is stopped.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut origins: mpsc::UnboundedReceiver<OriginEvent>,
        registry: Arc<dyn Registry>,
    ) {
        let mut tick = every(TICK);
        let mut look = every(LOOK);
        let mut refresh = every(REFRESH);
        loop {
            tokio::select! {
                Some(event) = events.recv() => self.handle(event).await,
                Some(event) = origins.recv() => self.origin_changed(event).await,
                command = self.commands.recv() => match command {
                    Some(Command::Stop(reply)) => {
                        self.handle(Event::Shutdown).await;
                        if let Some(kernel) = self.executor.kernel_mut() {
                            kernel.close().await;
                        }
                        // Whoever asked may have given up waiting.
                        let _gone = reply.send(());
                        return;
                    }
                    Some(Command::Leave(reply)) => {
                        // Whoever asked may have given up waiting.
                        let _gone = reply.send(());
                        return;
                    }
                    Some(Command::HandOver(reply)) => if self.hand_over(reply).await {
                        return;
                    }
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                _ = tick.tick() => {
                    self.handle(Event::Tick).await;
                    self.begin_grace();
                    if let Some(kernel) = self.executor.kernel_mut() {
                        kernel.prove_delivery(Instant::now());
                    }
                }
                () = over(&mut self.grace) => self.end_grace(),
                change = network_change(&mut self.executor) => {
                    if let Some(kernel) = self.executor.kernel_mut() {
                        let aftermath = kernel.apply(change);
                        self.network_changed(aftermath).await;
                    }
                }
                _ = look.tick() => self.look().await,
                _ = refresh.tick() => self.refresh_picks(registry.as_ref()).await,
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Offer { offer, media, sources, reply } => {
                let session = self.proxy.name_session();
                self.executor.await_admission(session, reply);
                self.handle(Event::Offered { session, offer, media, sources }).await;
            }
            Command::Deleted(ufrags) => self.handle(Event::Deleted(ufrags)).await,
            Command::SwitchOffload(on) => {
                tracing::info!(on, "offloading switched");
                if let (true, Some(kernel)) = (on, self.executor.kernel_mut()) {
                    kernel.attach_again();
                }
                self.handle(Event::SwitchOffload(on)).await;
            }
            Command::Snapshot(reply) => {
                // Whoever asked may have given up waiting.
                let _gone = reply.send(Snapshot::take(&self.proxy, &self.executor));
            }
            Command::Detach(reply) => {
                self.handle(Event::SwitchOffload(false)).await;
                let detached = self.executor.kernel_mut().map(Installer::detach_all).unwrap_or_default();
                // Whoever asked may have given up waiting.
                let _gone = reply.send(detached);
            }
            Command::HandOver(_) | Command::Leave(_) | Command::Stop(_) => {}
        }
    }

    /// Waits for the outcome of a take-over; true if another process has everything.
    async fn hand_over(&mut self, reply: oneshot::Sender<io::Result<Frozen>>) -> bool {
        let (pause, paused) = oneshot::channel::<oneshot::Sender<()>>();
        let (to_leave, leave) = oneshot::channel();
        let frozen = self.executor.relay().share().map(|sockets| Frozen {
            sockets,
            estate: self.estate(),
            pause,
            leave,
        });
        if reply.send(frozen).is_err() {
            return false;
        }
        let Ok(done) = paused.await else { return false };
        self.executor.relay_mut().pause();
        let (left, outcome) = oneshot::channel();
        let heard = done.send(()).is_ok() && to_leave.send(left).is_ok();
        if heard && outcome.await.is_ok() {
            return true;
        }
        if let Err(error) = self.executor.relay_mut().resume() {
            tracing::error!(%error, "failed to start the relay again");
        }
        false
    }

    fn estate(&self) -> Estate {
        let now = (Instant::now(), SystemTime::now());
        let sessions = self.proxy.sessions();
        Estate {
            sessions: sessions.filter_map(|(id, session)| Some((id, Record::of(session, now)?))).collect(),
            rests: self.proxy.rests(now.0).collect(),
            next_session: self.proxy.next_session(),
            known: Known::default(),
        }
    }

    /// Applies an event and everything that follows from it.
    async fn handle(&mut self, event: Event) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            for action in self.proxy.apply(event, Instant::now()) {
                queue.extend(self.executor.perform(action, &mut self.proxy).await);
            }
        }
    }

    /// Begins a grace period if something waits for one and none is under way.
    fn begin_grace(&mut self) {
        if self.grace.is_none() && self.executor.kernel_mut().is_some_and(Installer::begin_grace) {
            self.grace = Some(tokio::task::spawn_blocking(grace::wait));
        }
    }

    fn end_grace(&mut self) {
        self.grace = None;
        if let Some(kernel) = self.executor.kernel_mut() {
            kernel.end_grace();
        }
    }

    async fn origin_changed(&mut self, event: OriginEvent) {
        match event {
            OriginEvent::Up(origin) => {
                if let (Some(kernel), Some(rtc)) = (self.executor.kernel_mut(), origin.rtc) {
                    kernel.watch(origin.id.clone(), rtc.ip()).await;
                }
            }
            OriginEvent::Down(id) => {
                self.handle(Event::OriginDown(id.clone())).await;
                if let Some(kernel) = self.executor.kernel_mut() {
                    kernel.unwatch(&id);
                }
            }
        }
    }

    async fn look(&mut self) {
        let looks = self.executor.look(&self.proxy);
        self.handle(Event::Activity(looks)).await;
        let orphans = self.executor.look_at_orphans(&self.proxy);
        if !orphans.is_empty() {
            self.handle(Event::Orphans(orphans)).await;
        }
        if let Some(kernel) = self.executor.kernel_mut() {
            kernel.keep_alive();
            let aftermath = kernel.look(Instant::now());
            self.network_changed(aftermath).await;
        }
        self.totals.send_replace(Totals::take(&self.proxy, &self.executor));
    }

    async fn network_changed(&mut self, aftermath: Aftermath) {
        if !aftermath.lost.is_empty() {
            self.handle(Event::NextHopLost(aftermath.lost)).await;
        }
        if aftermath.may_retry {
            self.handle(Event::NetworkChanged).await;
        }
    }

    async fn refresh_picks(&self, registry: &dyn Registry) {
        let streams: HashSet<StreamKey> =
            self.proxy.sessions().map(|(_, session)| session.offer.stream.clone()).collect();
        for stream in streams {
            registry.refresh(&stream).await;
        }
    }
}

/// Resolves when the grace period that is under way is over; never, if there is none.
async fn over(grace: &mut Option<JoinHandle<()>>) {
    match grace {
        Some(grace) => {
            if let Err(error) = grace.await {
                tracing::error!(%error, "failed to wait for a grace period");
            }
        }
        None => std::future::pending().await,
    }
}

async fn network_change(executor: &mut Executor) -> NetworkChange {
    match executor.kernel_mut() {
        Some(kernel) => kernel.changed().await,
        None => std::future::pending().await,
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
