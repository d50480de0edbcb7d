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
    sync::{Arc, OnceLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proxy_protocol::{
    ice::{IcePwd, UfragPair},
    srt::{CookieKey, SocketId},
};
use tokio::sync::mpsc;

use super::Protocol;
use crate::{
    net::udp::UdpSocket,
    proxy::{Activity, Event, ForwardCheck},
    session::{SessionId, Srt, Tuple},
};

mod calls;
mod counters;
mod errors;
mod gate;
mod life;
mod long;
mod outbox;
mod peer;
mod placement;
mod reactor;
mod sharded;
mod sockets;
mod table;
mod worker;

use calls::Calls;
pub use calls::{Call, News, Switchboard};
use counters::Counters;
pub use counters::RelayTotals;
use errors::Errors;
use gate::Strays;
pub use gate::{Gate, Stranger, Stray};
use long::LongDatagrams;
use peer::{Caller, Identity, Peer, SourceSocket};
pub use placement::Placement;
pub use sockets::Sockets;
use table::Table;
use worker::{Listener, Worker};

/// What all workers and the control plane share.
struct Shared {
    table: Table,
    /// Of the control plane; each worker has its own.
    counters: Counters,
    clock: Clock,
    events: mpsc::Sender<Event>,
    long: LongDatagrams,
    /// Where requests of unknown users go, if anybody may know them.
    strays: OnceLock<Strays>,
    calls: Calls,
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
    /// The service addresses and what is spoken there.
    local: Vec<(SocketAddr, Protocol)>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Relay {
    /// What tells sessions from strangers, for other transports.
    pub fn gate(&self) -> Gate {
        Gate(Arc::clone(&self.shared))
    }

    /// What calls by SRT need.
    pub fn switchboard(&self) -> Switchboard {
        Switchboard(Arc::clone(&self.shared))
    }

    /// The key of the cookies that SRT callers get.
    pub fn cookie_key(&self) -> CookieKey {
        self.shared.calls.key().clone()
    }

    /// Goes on with the cookies of another process.
    pub fn set_cookie_key(&self, key: CookieKey) {
        self.shared.calls.set_key(key);
    }

    /// The addresses of a service, with the port the system chose if it was asked to.
    pub fn addresses_of(&self, service: Protocol) -> impl Iterator<Item = SocketAddr> {
        self.local.iter().filter(move |(_, protocol)| *protocol == service).map(|(address, _)| *address)
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
        self.insert(session, Identity::WebRtc(ufrags.clone(), pwd.clone()), origin, source)
    }

    /// Opens the source socket for somebody who called. What the origin says until it has answered goes to who calls it.
    pub fn admit_call(
        &self,
        session: SessionId,
        srt: &Srt,
        origin: SocketAddr,
        source: SocketAddr,
    ) -> io::Result<()> {
        let Srt { tuple, caller, cookie, answer, .. } = srt;
        let voice = self.shared.calls.voice(tuple);
        let caller = Caller::new((*tuple, *caller, *cookie), answer.clone(), voice);
        self.insert(session, Identity::Srt(caller), origin, source)
    }

    fn insert(
        &self,
        session: SessionId,
        identity: Identity,
        origin: SocketAddr,
        source: SocketAddr,
    ) -> io::Result<()> {
        let source = self.source(source)?;
        let now = self.shared.clock.now_ms();
        self.shared.table.insert(Arc::new(Peer::new(session, identity, origin, source, now)));
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

    /// Tells a caller of SRT that its connection is over.
    pub fn hang_up(&self, tuple: Tuple, caller: SocketId) {
        self.shared.calls.hang_up(tuple, caller);
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

#[cfg(test)]
mod tests;
