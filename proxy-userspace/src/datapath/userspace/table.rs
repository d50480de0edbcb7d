//! The relay's tables: sessions by USERNAME, by tuple, by source address.
//!
//! The control plane writes them, workers read them; a worker holds the lock for one look-up.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, RwLock};
use proxy_protocol::{
    ice::{IcePwd, UfragPair},
    stun::TransactionId,
};

use crate::{
    net::udp::UdpSocket,
    session::{SessionId, Tuple},
};

/// Checks of one session whose answers are awaited; older ones give way.
const PENDING_CHECKS: usize = 16;

/// A socket on one of our source addresses, shared by every origin that has a session on its port.
#[derive(Debug)]
pub(super) struct SourceSocket {
    pub(super) socket: UdpSocket,
}

/// A session as the relay knows it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) session: SessionId,
    pub(super) pwd: IcePwd,
    pub(super) origin: SocketAddr,
    pub(super) source: Arc<SourceSocket>,
    ufrags: UfragPair,
    active: ArcSwapOption<Leg>,
    legs: Mutex<Vec<Arc<Leg>>>,
    checks: Mutex<VecDeque<(TransactionId, Tuple)>>,
    nominated: AtomicBool,
    answered: AtomicBool,
    closing: AtomicBool,
    heard: AtomicU64,
    to_origin: AtomicU64,
    to_client: AtomicU64,
}

/// A tuple bound to a session.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) tuple: Tuple,
    /// An authenticated request came from here: media may move the return path, once.
    pub(super) armed: AtomicBool,
    heard: AtomicU64,
}

/// A session and the leg of it that a tuple belongs to.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) peer: Arc<Peer>,
    pub(super) leg: Arc<Leg>,
}

#[derive(Debug, Default)]
pub(super) struct Table(RwLock<Indexes>);

#[derive(Debug, Default)]
struct Indexes {
    by_session: HashMap<SessionId, Arc<Peer>>,
    by_username: HashMap<Box<str>, Arc<Peer>>,
    by_tuple: HashMap<Tuple, Bound>,
    by_source: HashMap<(SocketAddr, SocketAddr), Arc<Peer>>,
}

impl Table {
    pub(super) fn insert(&self, peer: Arc<Peer>) {
        let mut indexes = self.0.write();
        indexes.by_username.insert(peer.ufrags.as_str().into(), Arc::clone(&peer));
        indexes.by_source.insert((peer.source.socket.local_addr(), peer.origin), Arc::clone(&peer));
        indexes.by_session.insert(peer.session, peer);
    }

    pub(super) fn remove(&self, session: SessionId) {
        let mut indexes = self.0.write();
        let Some(peer) = indexes.by_session.remove(&session) else { return };
        indexes.by_username.remove(peer.ufrags.as_str());
        indexes.by_source.remove(&(peer.source.socket.local_addr(), peer.origin));
        for leg in peer.legs.lock().drain(..) {
            indexes.release(session, leg.tuple);
        }
    }

    pub(super) fn bind(&self, session: SessionId, tuple: Tuple, now: u64) {
        let mut indexes = self.0.write();
        let Some(peer) = indexes.by_session.get(&session).cloned() else { return };
        let leg = Arc::new(Leg { tuple, armed: AtomicBool::new(true), heard: AtomicU64::new(now) });
        let mut legs = peer.legs.lock();
        legs.retain(|known| known.tuple != tuple);
        legs.push(Arc::clone(&leg));
        drop(legs);
        peer.heard.fetch_max(now, Relaxed);
        indexes.by_tuple.insert(tuple, Bound { peer, leg });
    }

    pub(super) fn unbind(&self, session: SessionId, tuple: Tuple) {
        let mut indexes = self.0.write();
        indexes.release(session, tuple);
        if let Some(peer) = indexes.by_session.get(&session) {
            peer.legs.lock().retain(|leg| leg.tuple != tuple);
            peer.active.rcu(|active| active.clone().filter(|leg| leg.tuple != tuple));
        }
    }

    pub(super) fn activate(&self, session: SessionId, tuple: Tuple) {
        let Some(bound) = self.by_tuple(&tuple).filter(|bound| bound.peer.session == session) else { return };
        for leg in bound.peer.legs.lock().iter() {
            leg.armed.store(leg.tuple == tuple, Relaxed);
        }
        bound.peer.active.store(Some(bound.leg));
    }

    pub(super) fn by_tuple(&self, tuple: &Tuple) -> Option<Bound> {
        self.0.read().by_tuple.get(tuple).cloned()
    }

    pub(super) fn by_username(&self, username: &str) -> Option<Arc<Peer>> {
        self.0.read().by_username.get(username).cloned()
    }

    pub(super) fn by_session(&self, session: SessionId) -> Option<Arc<Peer>> {
        self.0.read().by_session.get(&session).cloned()
    }

    pub(super) fn by_source(&self, source: SocketAddr, origin: SocketAddr) -> Option<Arc<Peer>> {
        self.0.read().by_source.get(&(source, origin)).cloned()
    }

    pub(super) fn peers(&self) -> Vec<Arc<Peer>> {
        self.0.read().by_session.values().cloned().collect()
    }
}

impl Indexes {
    fn release(&mut self, session: SessionId, tuple: Tuple) {
        if self.by_tuple.get(&tuple).is_some_and(|bound| bound.peer.session == session) {
            self.by_tuple.remove(&tuple);
        }
    }
}

impl Peer {
    pub(super) fn new(
        session: SessionId,
        ufrags: UfragPair,
        pwd: IcePwd,
        origin: SocketAddr,
        source: Arc<SourceSocket>,
        now: u64,
    ) -> Self {
        Self {
            session,
            pwd,
            origin,
            source,
            ufrags,
            active: ArcSwapOption::empty(),
            legs: Mutex::default(),
            checks: Mutex::default(),
            nominated: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            heard: AtomicU64::new(now),
            to_origin: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
        }
    }

    /// Remembers that the answer to a check goes to `tuple`.
    pub(super) fn expect_answer(&self, id: TransactionId, tuple: Tuple) {
        let mut checks = self.checks.lock();
        if checks.len() == PENDING_CHECKS {
            checks.pop_front();
        }
        checks.push_back((id, tuple));
    }

    /// Where the origin's answer to a check goes, if the check went through userspace.
    pub(super) fn take_answer(&self, id: TransactionId) -> Option<Tuple> {
        let mut checks = self.checks.lock();
        let at = checks.iter().position(|(pending, _)| *pending == id)?;
        checks.remove(at).map(|(_, tuple)| tuple)
    }

    /// Where the origin's other packets go.
    pub(super) fn active(&self) -> Option<Tuple> {
        self.active.load().as_ref().map(|leg| leg.tuple)
    }

    pub(super) fn is_active(&self, tuple: Tuple) -> bool {
        self.active() == Some(tuple)
    }

    /// The first nomination of the active tuple is news, later ones are not.
    pub(super) fn is_first_nomination(&self) -> bool {
        !self.nominated.swap(true, Relaxed)
    }

    pub(super) fn hear(&self, leg: &Leg, now: u64) {
        self.heard.store(now, Relaxed);
        leg.heard.store(now, Relaxed);
    }

    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Relaxed)
    }

    pub(super) fn count_to_origin(&self) {
        self.to_origin.fetch_add(1, Relaxed);
    }

    pub(super) fn count_to_client(&self) {
        self.to_client.fetch_add(1, Relaxed);
    }

    pub(super) fn counted(&self) -> (u64, u64) {
        (self.to_origin.load(Relaxed), self.to_client.load(Relaxed))
    }

    /// The origin's first packet is news, later ones are not.
    pub(super) fn is_first_answer(&self) -> bool {
        !self.answered.load(Relaxed) && !self.answered.swap(true, Relaxed)
    }

    pub(super) fn set_closing(&self) {
        self.closing.store(true, Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    pub(super) fn idle_tuples(&self, now: u64, idle: Duration) -> Vec<Tuple> {
        let limit = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let legs = self.legs.lock();
        let silent = |leg: &&Arc<Leg>| now.saturating_sub(leg.heard.load(Relaxed)) >= limit;
        legs.iter().filter(silent).map(|leg| leg.tuple).filter(|tuple| !self.is_active(*tuple)).collect()
    }
}
