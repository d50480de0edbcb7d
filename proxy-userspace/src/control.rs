//! The control loop: turns what I/O tasks report into events, applies them, performs what follows.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_protocol::stream_url::StreamKey;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use crate::{
    connections::Connections,
    datapath::{
        installer::{Aftermath, Installer, NetworkChange},
        kernel::grace,
    },
    executor::{CarriageRequest, Executor},
    origin::{OriginEvent, OriginId, Registry},
    proxy::{Event, Inheritance, Proxy, Refusal},
    session::{SessionId, SessionOffer, tcp::TcpPath},
};

mod handle;
pub mod snapshot;
mod take_over;

pub use handle::Control;
use snapshot::{Snapshot, Tallies, Totals};
pub use take_over::{Frozen, Paused};

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
        reply: oneshot::Sender<Result<SessionId, Refusal>>,
    },
    Carry {
        session: SessionId,
        path: TcpPath,
        request: CarriageRequest,
    },
    /// Nothing but an event.
    Tell(Event),
    Snapshot(oneshot::Sender<Snapshot>),
    SwitchOffload(bool),
    Detach(oneshot::Sender<Vec<String>>),
    HandOver(oneshot::Sender<io::Result<Frozen>>),
    Leave(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
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
    tallies: Tallies,
}

impl ControlLoop {
    /// Takes over what an earlier process left, then lets the relay read.
    pub async fn begin(&mut self, left: Option<Inheritance>) -> io::Result<()> {
        if let Some(left) = left {
            self.handle(Event::Adopted(Box::new(left))).await;
        }
        // It knows every session now, and what waits in its sockets does not wait for thousands of routes.
        self.executor.relay_mut().resume()?;
        let flows = self.proxy.flows().collect();
        if let Some(kernel) = self.executor.kernel_mut() {
            let lost = kernel.adopt(flows).await;
            self.handle(Event::NextHopLost(lost)).await;
        }
        Ok(())
    }

    /// Runs until it is stopped.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut origins: mpsc::UnboundedReceiver<OriginEvent>,
        registry: Arc<dyn Registry>,
        connections: Arc<Connections>,
    ) {
        let mut tick = every(TICK);
        let mut look = every(LOOK);
        let mut refresh = every(REFRESH);
        loop {
            tokio::select! {
                Some(event) = events.recv() => self.handle(event).await,
                Some(event) = origins.recv() => self.origin_changed(event, &connections).await,
                command = self.commands.recv() => {
                    let Some(command) = command else { return };
                    if self.obey(command).await.is_break() {
                        return;
                    }
                }
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
                _ = look.tick() => {
                    self.look().await;
                    registry.carry(self.carried(&connections)).await;
                }
                _ = refresh.tick() => self.refresh_picks(registry.as_ref()).await,
            }
        }
    }

    /// Does what it is told; some of that ends the loop.
    async fn obey(&mut self, command: Command) -> ControlFlow<()> {
        match command {
            Command::Offer { offer, media, sources, reply } => {
                let session = self.proxy.name_session();
                self.executor.await_admission(session, reply);
                self.handle(Event::Offered { session, offer, media, sources }).await;
            }
            Command::Carry { session, path, request } => {
                self.executor.await_carriage(path.connection, request);
                self.handle(Event::Connected { session, path }).await;
            }
            Command::Tell(event) => self.handle(event).await,
            Command::SwitchOffload(on) => {
                tracing::info!(on, "offloading switched");
                if let (true, Some(kernel)) = (on, self.executor.kernel_mut()) {
                    kernel.attach_again();
                }
                self.handle(Event::SwitchOffload(on)).await;
            }
            Command::Snapshot(reply) => {
                // Whoever asked may have given up waiting.
                let _gone = reply.send(Snapshot::take(&self.proxy, &self.executor, &self.tallies));
            }
            Command::Detach(reply) => {
                self.handle(Event::SwitchOffload(false)).await;
                let detached = self.executor.kernel_mut().map(Installer::detach_all).unwrap_or_default();
                // Whoever asked may have given up waiting.
                let _gone = reply.send(detached);
            }
            Command::HandOver(reply) => return self.hand_over(reply).await,
            Command::Leave(reply) => {
                if let Some(kernel) = self.executor.kernel_mut().filter(|kernel| !kernel.outlives()) {
                    kernel.close().await;
                }
                return ended(reply);
            }
            Command::Stop(reply) => {
                self.handle(Event::Shutdown).await;
                if let Some(kernel) = self.executor.kernel_mut() {
                    kernel.close().await;
                }
                return ended(reply);
            }
        }
        ControlFlow::Continue(())
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

    async fn origin_changed(&mut self, event: OriginEvent, connections: &Connections) {
        match event {
            OriginEvent::Up(origin) => {
                // All endpoints of an origin are on one address.
                if let (Some(kernel), Some(media)) = (self.executor.kernel_mut(), origin.rtc.or(origin.srt)) {
                    kernel.watch(origin.id.clone(), media.ip()).await;
                }
            }
            OriginEvent::Ended(ufrags) => self.handle(Event::Deleted(ufrags)).await,
            OriginEvent::Moved { stream, to } => {
                connections.end_elsewhere(&stream, &to);
                self.handle(Event::StreamMoved { stream, to }).await;
            }
            OriginEvent::Down(id) => {
                connections.end_at(&id);
                self.handle(Event::OriginDown(id.clone())).await;
                if let Some(kernel) = self.executor.kernel_mut() {
                    kernel.unwatch(&id);
                }
            }
        }
    }

    /// How many sessions and TCP streams there are at each origin.
    fn carried(&self, connections: &Connections) -> HashMap<OriginId, u64> {
        let mut carried = connections.at_origins();
        for (_, session) in self.proxy.sessions() {
            *carried.entry(session.offer.origin.id.clone()).or_default() += 1;
        }
        carried
    }

    async fn look(&mut self) {
        let carried = self.executor.look_at_connections();
        if !carried.is_empty() {
            self.handle(Event::Carried(carried)).await;
        }
        for part in 0..self.executor.relay().parts() {
            let looks = self.executor.look(part, &self.proxy);
            self.handle(Event::Activity(looks)).await;
        }
        let orphans = self.executor.look_at_orphans(&self.proxy);
        if !orphans.is_empty() {
            self.handle(Event::Orphans(orphans)).await;
        }
        if let Some(kernel) = self.executor.kernel_mut() {
            kernel.keep_alive();
            let aftermath = kernel.look(Instant::now());
            self.network_changed(aftermath).await;
        }
        self.totals.send_replace(Totals::take(&self.proxy, &self.executor, &self.tallies));
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
            self.proxy.sessions().filter_map(|(_, session)| session.offer.stream.clone()).collect();
        registry.refresh(streams.into_iter().collect()).await;
    }
}

fn ended(reply: oneshot::Sender<()>) -> ControlFlow<()> {
    // Whoever asked may have given up waiting.
    let _gone = reply.send(());
    ControlFlow::Break(())
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
