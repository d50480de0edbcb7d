//! The userspace relay: complete for every session, and where every session starts and falls back to.
//!
//! Worker threads own the sockets. Each has its own listener on the service port (`SO_REUSEPORT`) and reads a share of
//! the source sockets; [`Placement`] says whose listener a datagram goes to. Any worker can forward what it gets, because
//! tables are shared and what a turn received is sent before the next turn. A worker forwards datagrams of known tuples by itself; it
//! finds the session of a STUN request by its USERNAME alone, verifies MESSAGE-INTEGRITY, and tells the control plane
//! only what changes something. Nothing is created for a datagram that does not verify.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proxy_protocol::ice::{IcePwd, UfragPair};
use tokio::sync::mpsc;

use crate::{
    net::{handover::Role, udp::UdpSocket},
    proxy::{Activity, Event, ForwardCheck},
    session::{SessionId, Tuple},
};

mod counters;
mod errors;
mod gate;
mod long;
mod outbox;
mod peer;
mod placement;
mod reactor;
mod sharded;
mod sockets;
mod table;
mod worker;

use counters::Counters;
pub use counters::RelayTotals;
use errors::Errors;
pub use gate::{Gate, Stranger};
use long::LongDatagrams;
use peer::{Peer, SourceSocket};
pub use placement::Placement;
pub use sockets::Sockets;
use table::Table;
use worker::Worker;

/// What all workers and the control plane share.
struct Shared {
    table: Table,
    /// Of the control plane; each worker has its own.
    counters: Counters,
    clock: Clock,
    events: mpsc::Sender<Event>,
    long: LongDatagrams,
    /// Opened once and kept: the port must answer for stragglers of a session that ended.
    sources: Mutex<HashMap<SocketAddr, Arc<SourceSocket>>>,
}

/// Milliseconds since the relay started, cheap to store in an atomic.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant);

impl Clock {
    fn now_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The relay: its threads end when it is dropped.
pub struct Relay {
    shared: Arc<Shared>,
    workers: Vec<Arc<Worker>>,
    errors: Option<Arc<Errors>>,
    threads: Vec<JoinHandle<()>>,
    placement: Placement,
    local: Vec<SocketAddr>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Relay {
    /// Binds every address of `listen` once per worker and starts the threads, placed as told.
    ///
    /// A host without IPv6 serves IPv4 alone.
    pub fn start(
        listen: &[SocketAddr],
        workers: usize,
        placement: &Placement,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let mut relay = Self::placed(Sockets::bind(listen, workers)?, placement.clone(), events)?;
        relay.resume()?;
        Ok(relay)
    }

    /// Makes a relay, placed as suits the host, that reads nothing and takes nothing from another process that reads the
    /// same sockets before [`Self::resume`].
    pub fn new(sockets: Sockets, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let placement = Placement::of_host(sockets.listeners.len());
        Self::placed(sockets, placement, events)
    }

    fn placed(sockets: Sockets, placement: Placement, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let Sockets { local, listeners, sources } = sockets;
        let shared = Arc::new(Shared {
            table: Table::default(),
            counters: Counters::default(),
            clock: Clock(Instant::now()),
            events,
            long: LongDatagrams::new()?,
            sources: Mutex::default(),
        });
        let workers = listeners
            .into_iter()
            .map(|sockets| Worker::new(sockets, Arc::clone(&shared)).map(Arc::new))
            .collect::<io::Result<Vec<_>>>()?;
        let threads = Vec::new();
        let errors = open_errors(&shared);
        let relay = Self { shared, workers, errors, threads, placement, local };
        sources.into_iter().try_for_each(|socket| relay.keep_source(socket).map(drop))?;
        Ok(relay)
    }

    /// Binds what is missing, says who gets what, and starts the threads, unless they run.
    pub fn resume(&mut self) -> io::Result<()> {
        if !self.threads.is_empty() {
            return Ok(());
        }
        self.complete()?;
        let placement = self.steer();
        let started = self.start_threads(&placement);
        if started.is_err() {
            self.pause();
        }
        started
    }

    /// Binds for every worker that has no socket on one of the service addresses: from then on it gets its share.
    fn complete(&mut self) -> io::Result<()> {
        for address in &self.local {
            let lacks =
                |worker: &Worker| worker.listeners().iter().all(|socket| socket.local_addr() != *address);
            for worker in self.workers.iter_mut().filter(|worker| lacks(worker)) {
                let worker = Arc::get_mut(worker).expect("no thread has it while none runs");
                worker.listen(UdpSocket::bind(*address, true)?)?;
            }
        }
        Ok(())
    }

    /// Steers every address as placed, or by the hash for all, which is never wrong. Sockets of an earlier process may
    /// be steered otherwise.
    fn steer(&self) -> Placement {
        let listeners = self.workers.first().map(|worker| worker.listeners()).unwrap_or_default();
        if let Placement::ByCpu(sets) = &self.placement
            && sets.len() == self.workers.len()
        {
            let workers = u32::try_from(sets.len()).unwrap_or(u32::MAX);
            match listeners.iter().try_for_each(|listener| listener.steer_by_cpu(workers)) {
                Ok(()) => return self.placement.clone(),
                Err(error) => tracing::info!(%error, "the kernel steers by hash alone"),
            }
        }
        if let Err(error) = listeners.iter().try_for_each(UdpSocket::steer_by_hash) {
            tracing::info!(%error, "datagrams stay with the workers that an earlier process chose");
        }
        Placement::ByHash
    }

    fn start_threads(&mut self, placement: &Placement) -> io::Result<()> {
        for (index, worker) in self.workers.iter().enumerate() {
            worker.rearm();
            self.threads.push(spawn(index, worker, placement.clone())?);
        }
        if let Some(errors) = self.errors.clone() {
            errors.rearm();
            let thread = std::thread::Builder::new().name("relay-icmp".into());
            self.threads.push(thread.spawn(move || errors.run())?);
        }
        Ok(())
    }

    /// Ends the threads; what arrives waits in the sockets.
    pub fn pause(&mut self) {
        for worker in &self.workers {
            worker.stop();
        }
        if let Some(errors) = &self.errors {
            errors.stop();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a relay worker panicked");
            }
        }
    }

    /// Second descriptors of every socket, for the next process.
    pub fn share(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        let mut shared = Vec::new();
        for (worker, sockets) in self.workers.iter().enumerate() {
            for socket in sockets.listeners() {
                let worker = u16::try_from(worker).map_err(|_| io::ErrorKind::InvalidInput)?;
                shared.push((Role::Media { worker, address: socket.local_addr() }, socket.share()?));
            }
        }
        for (address, source) in self.shared.sources.lock().iter() {
            shared.push((Role::Source(*address), source.socket.share()?));
        }
        Ok(shared)
    }

    /// What tells sessions from strangers, for other transports.
    pub fn gate(&self) -> Gate {
        Gate(Arc::clone(&self.shared))
    }

    /// The service addresses, with the port the system chose if it was asked to.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local
    }

    /// Opens the source socket and makes the session known by its USERNAME.
    pub fn admit(
        &self,
        session: SessionId,
        ufrags: &UfragPair,
        pwd: &IcePwd,
        origin: SocketAddr,
        source: SocketAddr,
    ) -> io::Result<()> {
        let source = self.source(source)?;
        let now = self.shared.clock.now_ms();
        let peer = Peer::new(session, ufrags.clone(), pwd.clone(), origin, source, now);
        self.shared.table.insert(Arc::new(peer));
        Ok(())
    }

    /// Relays `tuple` for `session`.
    pub fn bind(&self, session: SessionId, tuple: Tuple) {
        self.shared.table.bind(session, tuple, self.shared.clock.now_ms());
    }

    /// Forgets `tuple` if `session` holds it.
    pub fn unbind(&self, session: SessionId, tuple: Tuple) {
        self.shared.table.unbind(session, tuple);
    }

    /// Sends the origin's packets to `tuple`, which is bound.
    pub fn activate(&self, session: SessionId, tuple: Tuple) {
        self.shared.table.activate(session, tuple);
    }

    /// Forwards a check to the origin and remembers where its answer goes.
    pub fn forward(&self, check: &ForwardCheck) {
        if let Some(peer) = self.shared.table.by_session(check.session) {
            peer.forward_check(check.tuple, &check.datagram, check.traffic_class, &self.shared);
        }
    }

    /// Forgets a session.
    pub fn retire(&self, session: SessionId) {
        self.shared.table.remove(session);
    }

    /// How many parts the sessions are in, for [`Relay::look`].
    pub fn parts(&self) -> usize {
        self.shared.table.parts()
    }

    /// What every session of a part did so far; spare tuples silent for `tuple_idle` are named.
    ///
    /// Parts keep a look at very many sessions from needing room for all of them, and from holding up who adds one.
    pub fn look(&self, part: usize, tuple_idle: Duration) -> Vec<(SessionId, Activity)> {
        self.shared.table.look(part, self.shared.clock.now_ms(), tuple_idle)
    }

    /// Packets and bytes by direction, and datagrams by what became of them.
    pub fn totals(&self) -> RelayTotals {
        let workers = self.workers.iter().map(|worker| worker.counters());
        let errors = self.errors.as_ref().map(|errors| errors.outcomes()).unwrap_or_default();
        RelayTotals { errors, ..RelayTotals::of(workers.chain([&self.shared.counters])) }
    }

    /// Source sockets open.
    pub fn source_sockets(&self) -> usize {
        self.shared.sources.lock().len()
    }

    fn source(&self, address: SocketAddr) -> io::Result<Arc<SourceSocket>> {
        if let Some(source) = self.shared.sources.lock().get(&address) {
            return Ok(Arc::clone(source));
        }
        self.keep_source(UdpSocket::bind_source(address)?)
    }

    fn keep_source(&self, socket: UdpSocket) -> io::Result<Arc<SourceSocket>> {
        let address = socket.local_addr();
        let source = Arc::new(SourceSocket::new(socket));
        let worker = usize::from(address.port()) % self.workers.len();
        self.workers.get(worker).expect("a remainder is in range").watch(Arc::clone(&source))?;
        self.shared.sources.lock().insert(address, Arc::clone(&source));
        Ok(source)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.pause();
        self.shared.sources.lock().values().for_each(|source| source.clear());
    }
}

fn spawn(index: usize, worker: &Arc<Worker>, placement: Placement) -> io::Result<JoinHandle<()>> {
    let worker = Arc::clone(worker);
    std::thread::Builder::new().name(format!("relay-{index}")).spawn(move || {
        if let Err(error) = placement.settle(index) {
            tracing::warn!(%error, index, "a relay worker runs on any CPU");
        }
        worker.run();
    })
}

fn open_errors(shared: &Arc<Shared>) -> Option<Arc<Errors>> {
    match Errors::open(Arc::clone(shared)) {
        Ok(errors) => Some(Arc::new(errors)),
        Err(error) => {
            tracing::warn!(%error, "ICMP errors are not passed on between clients and origins (needs CAP_NET_RAW)");
            None
        }
    }
}

#[cfg(test)]
mod tests;
