//! The userspace relay: complete for every session, and where every session starts and falls back to.
//!
//! Worker threads own the sockets. Each has its own listener on the service port (`SO_REUSEPORT`, so a client stays
//! with one worker) and reads a share of the source sockets. A worker forwards datagrams of known tuples by itself; it
//! finds the session of a STUN request by its USERNAME alone, verifies MESSAGE-INTEGRITY, and tells the control plane
//! only what changes something. Nothing is created for a datagram that does not verify.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use proxy_common::verdict::Reason;
use proxy_protocol::ice::{IcePwd, UfragPair};
use tokio::sync::mpsc;

use crate::{
    net::udp::UdpSocket,
    proxy::{Activity, Event, ForwardCheck},
    session::{SessionId, Tuple, offload::RelayCounters},
};

mod counters;
mod table;
mod worker;

pub use counters::RelayTotals;
use table::{Peer, SourceSocket, Table};
use worker::Worker;

/// What all workers and the control plane share.
struct Shared {
    table: Table,
    counters: counters::Counters,
    clock: Clock,
    events: mpsc::Sender<Event>,
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
    threads: Vec<JoinHandle<()>>,
    local: Vec<SocketAddr>,
    /// Opened once and kept: the port must answer for stragglers of a session that ended.
    sources: Mutex<std::collections::HashMap<SocketAddr, Arc<SourceSocket>>>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Relay {
    /// Binds every address of `listen` once per worker and starts the threads.
    ///
    /// A host without IPv6 serves IPv4 alone.
    pub fn start(listen: &[SocketAddr], workers: usize, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let (local, mut listeners) = bind_all(listen, workers.max(1))?;
        let shared = Arc::new(Shared {
            table: Table::default(),
            counters: counters::Counters::default(),
            clock: Clock(Instant::now()),
            events,
        });
        let workers = listeners
            .drain(..)
            .map(|sockets| Worker::new(sockets, Arc::clone(&shared)).map(Arc::new))
            .collect::<io::Result<Vec<_>>>()?;
        let threads = workers.iter().enumerate().map(spawn).collect::<io::Result<_>>()?;
        Ok(Self { shared, workers, threads, local, sources: Mutex::default() })
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

    /// What every session did so far; spare tuples silent for `tuple_idle` are named.
    pub fn look(&self, tuple_idle: Duration) -> Vec<(SessionId, Activity)> {
        let now = self.shared.clock.now_ms();
        self.shared.table.peers().iter().map(|peer| (peer.session, peer.activity(now, tuple_idle))).collect()
    }

    /// Packets and bytes by direction, and datagrams by what became of them.
    pub fn totals(&self) -> RelayTotals {
        self.shared.counters.totals()
    }

    /// Source sockets open.
    pub fn source_sockets(&self) -> usize {
        self.sources.lock().len()
    }

    fn source(&self, address: SocketAddr) -> io::Result<Arc<SourceSocket>> {
        let mut sources = self.sources.lock();
        if let Some(source) = sources.get(&address) {
            return Ok(Arc::clone(source));
        }
        let source = Arc::new(SourceSocket { socket: UdpSocket::bind(address, false)? });
        let worker = usize::from(address.port()) % self.workers.len();
        self.workers.get(worker).expect("a remainder is in range").watch(Arc::clone(&source))?;
        sources.insert(address, Arc::clone(&source));
        Ok(source)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.stop();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a relay worker panicked");
            }
        }
    }
}

fn spawn((index, worker): (usize, &Arc<Worker>)) -> io::Result<JoinHandle<()>> {
    let worker = Arc::clone(worker);
    std::thread::Builder::new().name(format!("relay-{index}")).spawn(move || worker.run())
}

/// One socket per worker and address; all workers share the port.
fn bind_all(listen: &[SocketAddr], workers: usize) -> io::Result<(Vec<SocketAddr>, Vec<Vec<UdpSocket>>)> {
    let mut local: Vec<SocketAddr> = Vec::new();
    let mut all: Vec<Vec<UdpSocket>> = (0..workers).map(|_| Vec::new()).collect();
    for &wanted in listen {
        // A port chosen by the system for the first address is the port of all.
        let port = local.first().map_or(wanted.port(), SocketAddr::port);
        let mut address = SocketAddr::new(wanted.ip(), port);
        for (i, sockets) in all.iter_mut().enumerate() {
            let socket = match UdpSocket::bind(address, true) {
                Ok(socket) => socket,
                Err(error) if i == 0 && address.is_ipv6() && !local.is_empty() => {
                    tracing::info!(%error, "no IPv6 on this host: serving IPv4 alone");
                    break;
                }
                Err(error) => return Err(error),
            };
            address = socket.local_addr();
            sockets.push(socket);
        }
        if all.iter().all(|sockets| sockets.iter().any(|s| s.local_addr() == address)) {
            local.push(address);
        }
    }
    Ok((local, all))
}

impl Peer {
    /// Sends a client's STUN request to the origin; the answer goes to `tuple`, whichever one is active.
    fn forward_check(&self, tuple: Tuple, datagram: &Bytes, traffic_class: u8, shared: &Shared) {
        if let Ok(message) = proxy_protocol::stun::Message::parse(datagram) {
            self.expect_answer(message.transaction_id(), tuple);
        }
        self.send_to_origin(datagram, traffic_class, shared);
    }

    fn send_to_origin(&self, payload: &[u8], traffic_class: u8, shared: &Shared) {
        let transmit =
            crate::net::udp::Transmit { payload, peer: self.origin, local_ip: None, traffic_class };
        match self.source.socket.send(&transmit) {
            Ok(()) => shared.counters.to_origin(payload.len()),
            Err(_) => shared.counters.count(Reason::SendFailed),
        }
    }

    fn activity(&self, now: u64, tuple_idle: Duration) -> Activity {
        let (to_origin, to_client) = self.counted();
        Activity {
            relay: RelayCounters { to_origin, to_client },
            kernel: None,
            client_idle: Duration::from_millis(now.saturating_sub(self.heard())),
            closing: self.is_closing(),
            idle_tuples: self.idle_tuples(now, tuple_idle),
        }
    }
}
