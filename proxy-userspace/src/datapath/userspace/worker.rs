//! One relay thread: waits for its sockets, forwards what it knows, asks the control plane about the rest.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use parking_lot::RwLock;
use proxy_common::{
    demux::{Class, classify},
    verdict::Reason,
};
use proxy_protocol::stun::{Message, TransactionId};
use rustix::event::{EventfdFlags, epoll, eventfd};

use super::{
    Shared,
    table::{Bound, Peer, SourceSocket},
};
use crate::{
    net::udp::{Meta, RecvBatch, Transmit, UdpSocket},
    proxy::{Check, Event},
    session::Tuple,
};

/// Batches taken from one socket before the next one gets its turn.
const BATCHES_PER_TURN: usize = 4;

/// Sockets are named by their descriptor; the wake-up event by this.
const WAKE: u64 = u64::MAX;

pub(super) struct Worker {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    wake: OwnedFd,
    stopping: AtomicBool,
    listeners: Vec<UdpSocket>,
    sources: RwLock<HashMap<u64, Arc<SourceSocket>>>,
}

impl Worker {
    pub(super) fn new(listeners: Vec<UdpSocket>, shared: Arc<Shared>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        for socket in &listeners {
            epoll::add(&epoll, socket.as_fd(), token(socket), epoll::EventFlags::IN)?;
        }
        Ok(Self {
            shared,
            epoll,
            wake,
            stopping: AtomicBool::new(false),
            listeners,
            sources: RwLock::default(),
        })
    }

    /// Reads `source` from now on.
    pub(super) fn watch(&self, source: Arc<SourceSocket>) -> io::Result<()> {
        let data = token(&source.socket);
        self.sources.write().insert(data.u64(), Arc::clone(&source));
        Ok(epoll::add(&self.epoll, source.socket.as_fd(), data, epoll::EventFlags::IN)?)
    }

    /// Makes [`Worker::run`] return.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        if let Err(error) = rustix::io::write(&self.wake, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "failed to wake a relay worker");
        }
    }

    /// Lets [`Worker::run`] be called again after [`Worker::stop`].
    pub(super) fn rearm(&self) {
        // The event counts how often it was set; one read takes it back to zero.
        let _was_not_set = rustix::io::read(&self.wake, &mut [0; 8]);
        self.stopping.store(false, Relaxed);
    }

    /// The sockets on the service port.
    pub(super) fn listeners(&self) -> &[UdpSocket] {
        &self.listeners
    }

    pub(super) fn run(&self) {
        let mut batch = RecvBatch::default();
        let mut ready = Vec::with_capacity(64);
        while !self.stopping.load(Relaxed) {
            ready.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), None) {
                Ok(_) => ready.iter().for_each(|event| self.serve(event.data.u64(), &mut batch)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "a relay worker stops: epoll failed");
                    return;
                }
            }
        }
    }

    fn serve(&self, ready: u64, batch: &mut RecvBatch) {
        if let Some(listener) = self.listeners.iter().find(|socket| token(socket).u64() == ready) {
            let address = listener.local_addr();
            return drain(listener, batch, |meta, payload| self.take_from_client(address, meta, payload));
        }
        let source = self.sources.read().get(&ready).cloned();
        if let Some(source) = source {
            drain(&source.socket, batch, |meta, payload| self.take_from_origin(&source, meta, payload));
        }
    }

    fn take_from_client(&self, listener: SocketAddr, meta: Meta, payload: &[u8]) {
        let local = SocketAddr::new(meta.local_ip.unwrap_or(listener.ip()), listener.port());
        let tuple = Tuple { client: meta.peer, local };
        let class = class_of(payload);
        if class == Class::StunRequest {
            return self.check(tuple, meta, payload);
        }
        match self.shared.table.by_tuple(&tuple) {
            Some(bound) => self.to_origin(&bound, class, meta, payload),
            None => self.shared.counters.count(Reason::NoFlow),
        }
    }

    fn to_origin(&self, bound: &Bound, class: Class, meta: Meta, payload: &[u8]) {
        let Bound { peer, leg } = bound;
        peer.hear(leg, self.shared.clock.now_ms());
        if class == Class::DtlsAlert {
            peer.set_closing();
        }
        if peer.is_active(leg.tuple) {
            peer.count_to_origin();
        }
        if is_media(class) && leg.armed.swap(false, Relaxed) {
            self.tell(Event::Media { session: peer.session, tuple: leg.tuple, ifindex: meta.ifindex });
        }
        peer.send_to_origin(payload, meta.traffic_class, &self.shared);
    }

    /// A STUN request: the session is the one its USERNAME names, whatever the tuple was used for before.
    fn check(&self, tuple: Tuple, meta: Meta, payload: &[u8]) {
        let counters = &self.shared.counters;
        let Ok(message) = Message::parse(payload) else { return counters.count(Reason::MalformedStun) };
        let Some(peer) = message.username().and_then(|name| self.shared.table.by_username(name)) else {
            return counters.count(Reason::UnknownUser);
        };
        if !message.verify_integrity(peer.pwd.as_key()) {
            return counters.count(Reason::BadIntegrity);
        }
        let nominates = message.use_candidate();
        let known = self.shared.table.by_tuple(&tuple).filter(|bound| bound.peer.session == peer.session);
        match known {
            Some(bound) if !changes_something(&bound, nominates) => {
                bound.peer.hear(&bound.leg, self.shared.clock.now_ms());
                bound.peer.expect_answer(message.transaction_id(), tuple);
                bound.peer.send_to_origin(payload, meta.traffic_class, &self.shared);
            }
            _ => self.tell(Event::Checked(Check {
                session: peer.session,
                tuple,
                ifindex: meta.ifindex,
                nominates,
                datagram: Bytes::copy_from_slice(payload),
                traffic_class: meta.traffic_class,
            })),
        }
    }

    fn take_from_origin(&self, source: &SourceSocket, meta: Meta, payload: &[u8]) {
        let counters = &self.shared.counters;
        let Some(peer) = self.shared.table.by_source(source.socket.local_addr(), meta.peer) else {
            return counters.count(Reason::Quarantined);
        };
        if peer.is_first_answer() {
            self.tell(Event::Answered(peer.session));
        }
        let class = class_of(payload);
        if class == Class::DtlsAlert {
            peer.set_closing();
        }
        match destination(&peer, class, payload) {
            Some(tuple) => self.to_client(&peer, tuple, meta, payload),
            None => counters.count(Reason::NoClient),
        }
    }

    fn to_client(&self, peer: &Peer, tuple: Tuple, meta: Meta, payload: &[u8]) {
        let counters = &self.shared.counters;
        let same_family = |socket: &&UdpSocket| socket.local_addr().is_ipv4() == tuple.client.is_ipv4();
        let Some(listener) = self.listeners.iter().find(same_family) else {
            return counters.count(Reason::SendFailed);
        };
        let transmit = Transmit {
            payload,
            peer: tuple.client,
            local_ip: Some(tuple.local.ip()),
            traffic_class: meta.traffic_class,
        };
        match listener.send(&transmit) {
            Ok(()) => {
                counters.to_client(payload.len());
                peer.count_to_client();
            }
            Err(_) => counters.count(Reason::SendFailed),
        }
    }

    /// Never waits: a control plane that cannot keep up costs the datagram, and the client repeats it.
    fn tell(&self, event: Event) {
        if self.shared.events.try_send(event).is_err() {
            self.shared.counters.count(Reason::ControlBusy);
        }
    }
}

/// Whether the control plane must hear of an authenticated request on a tuple the session holds already.
fn changes_something(bound: &Bound, nominates: bool) -> bool {
    let Bound { peer, leg } = bound;
    if peer.is_active(leg.tuple) {
        return nominates && peer.is_first_nomination();
    }
    leg.armed.store(true, Relaxed);
    nominates
}

/// An answer goes to the tuple that asked, everything else to the active one.
fn destination(peer: &Peer, class: Class, payload: &[u8]) -> Option<Tuple> {
    let asked = class.is_stun_response().then(|| transaction_id(payload)).flatten();
    asked.and_then(|id| peer.take_answer(id)).or_else(|| peer.active())
}

/// The class of a payload; one of less than two bytes is none of ours.
fn class_of(payload: &[u8]) -> Class {
    payload.first_chunk().map_or(Class::Other, |first| classify(*first))
}

/// Whether a client that sends this has chosen the tuple it sends it from.
fn is_media(class: Class) -> bool {
    matches!(class, Class::Dtls | Class::DtlsAlert | Class::Rtp | Class::Rtcp)
}

fn transaction_id(payload: &[u8]) -> Option<TransactionId> {
    Some(TransactionId(payload.get(8..20)?.try_into().ok()?))
}

fn token(socket: &UdpSocket) -> epoll::EventData {
    epoll::EventData::new_u64(u64::from(socket.as_fd().as_raw_fd().cast_unsigned()))
}

fn drain(socket: &UdpSocket, batch: &mut RecvBatch, mut each: impl FnMut(Meta, &[u8])) {
    for _ in 0..BATCHES_PER_TURN {
        match socket.receive(batch) {
            Ok(_) => batch.iter().for_each(|(meta, payload)| each(meta, payload)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return tracing::debug!(%error, "receive failed"),
        }
    }
}
