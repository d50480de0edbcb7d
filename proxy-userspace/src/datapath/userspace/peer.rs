//! A session, its tuples and its source socket, as the relay knows them.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use proxy_protocol::{
    ice::{IcePwd, UfragPair},
    srt::SocketId,
    stun::{Message, TransactionId},
};
use tokio::sync::mpsc;

use super::{
    Shared,
    calls::News,
    long::LastLong,
    sharded::{self, Hasher},
};
use crate::{
    net::udp::{Sent, Transmit, UdpSocket},
    proxy::Activity,
    session::{SessionId, Tuple, offload::RelayCounters},
};

/// Checks of one session whose answers are awaited; older ones give way.
const PENDING_CHECKS: usize = 16;

/// A socket on one of our source addresses, shared by every origin that has a session on its port.
#[derive(Debug)]
pub(super) struct SourceSocket {
    pub(super) socket: UdpSocket,
    /// By origin. One worker reads it, so its lock is free but for sessions that come and go, and ICMP errors.
    peers: RwLock<HashMap<SocketAddr, Arc<Peer>, Hasher>>,
}

/// A session as the relay knows it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) session: SessionId,
    pub(super) identity: Identity,
    pub(super) origin: SocketAddr,
    pub(super) source: Arc<SourceSocket>,
    active: ArcSwapOption<Leg>,
    legs: Mutex<Vec<Arc<Leg>>>,
    checks: Mutex<VecDeque<(TransactionId, Tuple)>>,
    nominated: AtomicBool,
    answered: AtomicBool,
    closing: AtomicBool,
    heard: AtomicU64,
    to_origin: AtomicU64,
    to_client: AtomicU64,
    pub(super) long_to_origin: LastLong,
    pub(super) long_to_client: LastLong,
}

/// How a session's client is known.
#[derive(Debug)]
pub(super) enum Identity {
    /// By the USERNAME of its checks, which are signed with a password.
    WebRtc(UfragPair, IcePwd),
    /// By its handshake.
    Srt(Caller),
}

/// Somebody who called by SRT.
#[derive(Debug)]
pub(super) struct Caller {
    /// Where it is.
    pub(super) tuple: Tuple,
    /// Its socket.
    pub(super) socket: SocketId,
    /// Our cookie in its second request.
    pub(super) cookie: u32,
    /// What the origin answered, as the caller gets it.
    answer: OnceLock<Bytes>,
    /// Who calls the origin in its name, until the origin answers.
    voice: Option<mpsc::Sender<(SessionId, News)>>,
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

impl SourceSocket {
    pub(super) fn new(socket: UdpSocket) -> Self {
        Self { socket, peers: RwLock::new(HashMap::with_hasher(sharded::hasher())) }
    }

    /// The session of this port at `origin`.
    pub(super) fn peer(&self, origin: SocketAddr) -> Option<Arc<Peer>> {
        self.peers.read().get(&origin).cloned()
    }

    pub(super) fn add(&self, peer: &Arc<Peer>) {
        self.peers.write().insert(peer.origin, Arc::clone(peer));
    }

    /// Forgets every session: they own the socket that knows them.
    pub(super) fn clear(&self) {
        self.peers.write().clear();
    }

    pub(super) fn remove(&self, peer: &Peer) {
        let mut peers = self.peers.write();
        if peers.get(&peer.origin).is_some_and(|known| known.session == peer.session) {
            peers.remove(&peer.origin);
        }
    }
}

impl Caller {
    /// Who calls from `tuple`; with an answer, if it has one already.
    pub(super) fn new(
        (tuple, socket, cookie): (Tuple, SocketId, u32),
        answer: Option<Bytes>,
        voice: Option<mpsc::Sender<(SessionId, News)>>,
    ) -> Self {
        let answer = answer.map_or_else(OnceLock::new, OnceLock::from);
        Self { tuple, socket, cookie, answer, voice }
    }

    /// What the origin answered.
    pub(super) fn answer(&self) -> Option<&Bytes> {
        self.answer.get()
    }

    /// Keeps the answer; the first one counts.
    pub(super) fn set_answer(&self, answer: Bytes) {
        // Another worker cannot have one: the source socket is read by one.
        let _kept = self.answer.set(answer);
    }

    /// Tells who calls in its name.
    pub(super) fn tell(&self, session: SessionId, news: News) {
        if let Some(voice) = &self.voice {
            // Nobody may be there any more, and what is lost here the origin says again.
            let _lost = voice.try_send((session, news));
        }
    }
}

impl Peer {
    pub(super) fn new(
        session: SessionId,
        identity: Identity,
        origin: SocketAddr,
        source: Arc<SourceSocket>,
        now: u64,
    ) -> Self {
        Self {
            session,
            identity,
            origin,
            source,
            active: ArcSwapOption::empty(),
            legs: Mutex::default(),
            checks: Mutex::default(),
            nominated: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            heard: AtomicU64::new(now),
            to_origin: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            long_to_origin: LastLong::default(),
            long_to_client: LastLong::default(),
        }
    }

    /// The USERNAME of its checks.
    pub(super) fn ufrags(&self) -> Option<&UfragPair> {
        match &self.identity {
            Identity::WebRtc(ufrags, _) => Some(ufrags),
            Identity::Srt(_) => None,
        }
    }

    /// The key of their MESSAGE-INTEGRITY.
    pub(super) fn pwd(&self) -> Option<&IcePwd> {
        match &self.identity {
            Identity::WebRtc(_, pwd) => Some(pwd),
            Identity::Srt(_) => None,
        }
    }

    /// Who called, by SRT.
    pub(super) fn caller(&self) -> Option<&Caller> {
        match &self.identity {
            Identity::WebRtc(..) => None,
            Identity::Srt(caller) => Some(caller),
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
        // A store takes the cache line from other CPUs, a load does not.
        for heard in [&self.heard, &leg.heard] {
            if heard.load(Relaxed) != now {
                heard.store(now, Relaxed);
            }
        }
    }

    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Relaxed)
    }

    pub(super) fn count_to_origin(&self, datagrams: u64) {
        self.to_origin.fetch_add(datagrams, Relaxed);
    }

    pub(super) fn count_to_client(&self, datagrams: u64) {
        self.to_client.fetch_add(datagrams, Relaxed);
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

    /// Adds a leg for `tuple`, in place of the one it had.
    pub(super) fn add_leg(&self, tuple: Tuple, now: u64) -> Arc<Leg> {
        let leg = Arc::new(Leg { tuple, armed: AtomicBool::new(true), heard: AtomicU64::new(now) });
        let mut legs = self.legs.lock();
        legs.retain(|known| known.tuple != tuple);
        legs.push(Arc::clone(&leg));
        self.heard.fetch_max(now, Relaxed);
        leg
    }

    pub(super) fn remove_leg(&self, tuple: Tuple) {
        self.legs.lock().retain(|leg| leg.tuple != tuple);
        self.active.rcu(|active| active.clone().filter(|leg| leg.tuple != tuple));
    }

    /// Gives up every leg.
    pub(super) fn take_legs(&self) -> Vec<Arc<Leg>> {
        std::mem::take(&mut self.legs.lock())
    }

    /// Makes `leg` the return path; media from any other does not move it.
    pub(super) fn activate(&self, leg: Arc<Leg>) {
        for known in self.legs.lock().iter() {
            known.armed.store(known.tuple == leg.tuple, Relaxed);
        }
        self.active.store(Some(leg));
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

    /// Sends a client's STUN request to the origin; the answer goes to `tuple`, whichever one is active.
    pub(super) fn forward_check(&self, tuple: Tuple, datagram: &Bytes, traffic_class: u8, shared: &Shared) {
        if let Ok(message) = Message::parse(datagram) {
            self.expect_answer(message.transaction_id(), tuple);
        }
        self.send_to_origin(datagram, traffic_class, shared);
    }

    /// Sends a datagram of ours, or one that waited.
    pub(super) fn send_to_origin(&self, payload: &[u8], traffic_class: u8, shared: &Shared) {
        let transmit = Transmit { payload, peer: self.origin, local_ip: None, traffic_class };
        let taken = self.source.socket.send(&transmit).is_ok();
        shared.counters.to_origin(&Sent { burst: 0, datagrams: 1, bytes: payload.len(), taken });
    }

    pub(super) fn activity(&self, now: u64, tuple_idle: Duration) -> Activity {
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
