//! One relay thread: waits for its sockets, forwards what it knows, asks the control plane about the rest.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use parking_lot::RwLock;
use proxy_common::{
    demux::{Class, classify},
    verdict::Reason,
};
use proxy_protocol::stun::{Message, TransactionId};
use rustix::event::epoll;

use super::{
    Shared,
    counters::Counters,
    gate::Stranger,
    outbox::{Outbox, Route},
    peer::{Bound, Peer, SourceSocket},
    reactor::Reactor,
};
use crate::{
    datapath::Protocol,
    net::udp::{Arrival, Meta, RecvBatch, Span, UdpSocket},
    proxy::{Check, Event},
    session::Tuple,
};

mod srt;
mod strays;

/// Batches taken from one socket before the next one gets its turn.
const BATCHES_PER_TURN: usize = 4;
/// Sockets served after one wait.
const READY: usize = 64;

/// A listener is named by its index, a source socket by its index behind this.
const SOURCES: u64 = 1 << 32;

pub(super) struct Worker {
    shared: Arc<Shared>,
    reactor: Reactor,
    listeners: Vec<Listener>,
    /// Only ever grows, so an index names a socket for good.
    sources: RwLock<Vec<Arc<SourceSocket>>>,
    counters: Counters,
}

/// A socket on a service port.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: UdpSocket,
    pub(super) protocol: Protocol,
}

/// What one turn of a worker is made of, used again by the next.
#[derive(Debug, Default)]
struct Desk {
    batch: RecvBatch,
    outbox: Outbox,
    now: u64,
}

impl Worker {
    pub(super) fn new(listeners: Vec<Listener>, shared: Arc<Shared>) -> io::Result<Self> {
        let mut worker = Self {
            shared,
            reactor: Reactor::new()?,
            listeners: Vec::new(),
            sources: RwLock::default(),
            counters: Counters::default(),
        };
        listeners.into_iter().try_for_each(|listener| worker.listen(listener))?;
        Ok(worker)
    }

    /// Serves a socket on a service port as well.
    pub(super) fn listen(&mut self, listener: Listener) -> io::Result<()> {
        self.reactor.watch(&listener.socket, self.listeners.len() as u64)?;
        self.listeners.push(listener);
        Ok(())
    }

    /// Reads `source` from now on.
    pub(super) fn watch(&self, source: Arc<SourceSocket>) -> io::Result<()> {
        let mut sources = self.sources.write();
        self.reactor.watch(&source.socket, SOURCES + sources.len() as u64)?;
        sources.push(source);
        Ok(())
    }

    /// Makes [`Worker::run`] return.
    pub(super) fn stop(&self) {
        self.reactor.stop();
    }

    /// Lets [`Worker::run`] be called again after [`Worker::stop`].
    pub(super) fn rearm(&self) {
        self.reactor.rearm();
    }

    /// The sockets on the service ports.
    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn run(&self) {
        let mut desk = Desk::default();
        let mut ready = Vec::with_capacity(READY);
        while self.reactor.wait(&mut ready, None) {
            self.serve(&ready, &mut desk);
        }
    }

    /// What came from origins is gathered over all their sockets, because it leaves by the same few listeners.
    fn serve(&self, ready: &[epoll::Event], desk: &mut Desk) {
        desk.now = self.shared.clock.now_ms();
        for name in ready.iter().map(|event| event.data.u64()) {
            if let Some(index) = name.checked_sub(SOURCES) {
                let source = self.sources.read().get(index as usize).cloned();
                if let Some(source) = source {
                    self.drain_source(&source, desk);
                }
            } else if let Some(listener) = self.listeners.get(name as usize) {
                self.drain_listener(listener, desk);
            }
        }
        self.send(desk);
    }

    fn drain_listener(&self, listener: &Listener, desk: &mut Desk) {
        self.send(desk);
        let Listener { socket, protocol } = listener;
        self.drain(socket, desk, |arrival, outbox, now| match protocol {
            Protocol::WebRtc => self.take_from_client(socket.local_addr(), arrival, outbox, now),
            Protocol::Srt => self.take_from_caller(socket, arrival, outbox, now),
        });
    }

    fn drain_source(&self, source: &SourceSocket, desk: &mut Desk) {
        self.drain(&source.socket, desk, |arrival, outbox, now| {
            self.take_from_origin(source, arrival, outbox, now);
        });
    }

    /// Adds what `socket` has to the batch, which is sent whenever it is full.
    fn drain(&self, socket: &UdpSocket, desk: &mut Desk, take: impl Fn(Arrival<'_>, &mut Outbox, u64)) {
        for _ in 0..BATCHES_PER_TURN {
            if desk.batch.is_full() {
                self.send(desk);
            }
            let Desk { batch, outbox, now } = &mut *desk;
            let before = batch.filled();
            if !receives(socket, batch) {
                return;
            }
            batch.arrivals(before).for_each(|arrival| take(arrival, outbox, *now));
            if !batch.is_full() {
                return;
            }
        }
    }

    fn send(&self, desk: &mut Desk) {
        desk.outbox.send(&desk.batch, &self.listeners, &self.counters);
        desk.batch.clear();
    }

    fn take_from_client(&self, listener: SocketAddr, arrival: Arrival<'_>, outbox: &mut Outbox, now: u64) {
        let meta = arrival.meta;
        let tuple = Tuple::of(meta.peer, meta.local_ip, listener);
        let mut bound = None;
        for (payload, span) in arrival.datagrams() {
            let class = class_of(payload);
            if class == Class::StunRequest {
                self.check(tuple, meta, (payload, span), outbox, now);
                continue;
            }
            bound = bound.or_else(|| self.shared.table.by_tuple(&tuple));
            match &bound {
                Some(bound) => {
                    self.note(bound, class, meta, now);
                    self.queue_to_origin(bound, meta, (payload, span), outbox, now);
                }
                None => self.counters.count(Reason::NoFlow),
            }
        }
    }

    fn queue_to_origin(
        &self,
        Bound { peer, leg }: &Bound,
        meta: Meta,
        (payload, span): (&[u8], Span),
        outbox: &mut Outbox,
        now: u64,
    ) {
        let ends = (leg.tuple.client, leg.tuple.local);
        self.shared.long.notice(&peer.long_to_origin, payload.len(), now, ends);
        let counted = peer.is_active(leg.tuple);
        outbox.queue(Route::ToOrigin { peer: Arc::clone(peer), counted }, meta.traffic_class, span);
    }

    /// What a datagram of a client says beside its payload.
    fn note(&self, bound: &Bound, class: Class, meta: Meta, now: u64) {
        let Bound { peer, leg } = bound;
        peer.hear(leg, now);
        if class == Class::DtlsAlert {
            peer.set_closing();
        }
        if is_media(class) && leg.armed.load(Relaxed) && leg.armed.swap(false, Relaxed) {
            self.tell(Event::Media { session: peer.session, tuple: leg.tuple, ifindex: meta.ifindex });
        }
    }

    /// A STUN request: the session is the one its USERNAME names, whatever the tuple was used for before.
    fn check(&self, tuple: Tuple, meta: Meta, datagram: (&[u8], Span), outbox: &mut Outbox, now: u64) {
        let (payload, span) = datagram;
        let (counters, table) = (&self.counters, &self.shared.table);
        let Ok(message) = Message::parse(payload) else { return counters.count(Reason::MalformedStun) };
        let peer = match table.authenticate(&message) {
            Ok(peer) => peer,
            Err(Stranger::UnknownUser) => return self.set_aside(&message, tuple, meta, payload),
            Err(stranger) => return counters.count(stranger.reason()),
        };
        let nominates = message.use_candidate();
        let known = table.by_tuple(&tuple).filter(|bound| bound.peer.session == peer.session);
        match known {
            Some(bound) if !changes_something(&bound, nominates) => {
                peer.hear(&bound.leg, now);
                peer.expect_answer(message.transaction_id(), tuple);
                outbox.queue(Route::ToOrigin { peer, counted: false }, meta.traffic_class, span);
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

    fn take_from_origin(&self, source: &SourceSocket, arrival: Arrival<'_>, outbox: &mut Outbox, now: u64) {
        let meta = arrival.meta;
        let peer = source.peer(meta.peer);
        for (payload, span) in arrival.datagrams() {
            let Some(peer) = &peer else {
                self.counters.count(Reason::Quarantined);
                continue;
            };
            if peer.is_first_answer() {
                self.tell(Event::Answered(peer.session));
            }
            let ends = (meta.peer, source.socket.local_addr());
            self.shared.long.notice(&peer.long_to_client, payload.len(), now, ends);
            match self.way_to_client(peer, payload) {
                Ok(route) => outbox.queue(route, meta.traffic_class, span),
                Err(reason) => self.counters.count(reason),
            }
        }
    }

    fn way_to_client(&self, peer: &Arc<Peer>, payload: &[u8]) -> Result<Route, Reason> {
        let tuple = match peer.caller() {
            Some(caller) => self.for_caller(peer, caller, payload)?,
            None => for_client(peer, payload).ok_or(Reason::NoClient)?,
        };
        let listener = self.listener_of(&tuple).ok_or(Reason::SendFailed)?;
        Ok(Route::ToClient { peer: Arc::clone(peer), tuple, listener })
    }

    /// The listener that the client sends to, or one on any address of its family.
    fn listener_of(&self, tuple: &Tuple) -> Option<usize> {
        let at = |fits: &dyn Fn(SocketAddr) -> bool| {
            self.listeners.iter().position(|listener| fits(listener.socket.local_addr()))
        };
        let is_of_family = |address: SocketAddr| address.is_ipv4() == tuple.client.is_ipv4();
        at(&|address| address == tuple.local)
            .or_else(|| at(&|address| is_of_family(address) && address.port() == tuple.local.port()))
            .or_else(|| at(&is_of_family))
    }

    /// Never waits: a control plane that cannot keep up costs the datagram, and the client repeats it.
    fn tell(&self, event: Event) {
        if self.shared.events.try_send(event).is_err() {
            self.counters.count(Reason::ControlBusy);
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
fn for_client(peer: &Peer, payload: &[u8]) -> Option<Tuple> {
    let class = class_of(payload);
    if class == Class::DtlsAlert {
        peer.set_closing();
    }
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

/// Whether `socket` had something, which is in the batch then.
fn receives(socket: &UdpSocket, batch: &mut RecvBatch) -> bool {
    match socket.receive_more(batch) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) => {
            // An error of an earlier datagram, told once: what has arrived is still there and makes us come back.
            tracing::debug!(%error, "receive failed");
            false
        }
    }
}
