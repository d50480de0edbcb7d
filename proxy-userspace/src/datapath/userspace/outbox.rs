//! What a batch of arrivals leads to: spans of its bytes on their way out, sent by as few system calls as possible.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{counters::Counters, peer::Peer, worker::Listener};
use crate::{
    net::udp::{BATCH, Burst, RecvBatch, SendBatch, Sent, Span, Transmit},
    session::Tuple,
};

/// Datagrams of one batch that leave.
#[derive(Debug)]
pub(super) struct Outbox {
    queued: Vec<Queued>,
    sends: SendBatch,
}

/// Room for what a batch leads to, unless messages that the kernel merged are for several receivers.
impl Default for Outbox {
    fn default() -> Self {
        Self { queued: Vec::with_capacity(BATCH), sends: SendBatch::default() }
    }
}

/// Neighbouring datagrams of one arrival that leave the same way.
#[derive(Debug)]
struct Queued {
    /// Groups by socket, in the order of arrival.
    order: (u64, usize),
    route: Route,
    traffic_class: u8,
    span: Span,
}

/// Which way datagrams leave.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// By the session's source socket; `counted` if they came from its active tuple.
    ToOrigin { peer: Arc<Peer>, counted: bool },
    /// By the listener of this index.
    ToClient { peer: Arc<Peer>, tuple: Tuple, listener: usize },
}

impl Route {
    fn peer(&self) -> &Arc<Peer> {
        match self {
            Self::ToOrigin { peer, .. } | Self::ToClient { peer, .. } => peer,
        }
    }

    /// Tells sockets apart.
    fn socket(&self) -> u64 {
        match self {
            Self::ToOrigin { peer, .. } => Arc::as_ptr(&peer.source).addr() as u64,
            Self::ToClient { listener, .. } => *listener as u64,
        }
    }

    /// Whether `other` leads to the same place.
    fn is(&self, other: &Self) -> bool {
        let same_peer = Arc::ptr_eq(self.peer(), other.peer());
        match (self, other) {
            (Self::ToOrigin { counted, .. }, Self::ToOrigin { counted: other, .. }) => {
                same_peer && counted == other
            }
            (Self::ToClient { tuple, .. }, Self::ToClient { tuple: other, .. }) => {
                same_peer && tuple == other
            }
            (Self::ToOrigin { .. }, Self::ToClient { .. })
            | (Self::ToClient { .. }, Self::ToOrigin { .. }) => false,
        }
    }

    fn ends(&self) -> (SocketAddr, Option<IpAddr>) {
        match self {
            Self::ToOrigin { peer, .. } => (peer.origin, None),
            Self::ToClient { tuple, .. } => (tuple.client, Some(tuple.local.ip())),
        }
    }

    fn count(&self, counters: &Counters, sent: &Sent) {
        match self {
            Self::ToOrigin { peer, counted } => {
                counters.to_origin(sent);
                if *counted {
                    peer.count_to_origin(sent.datagrams as u64);
                }
            }
            Self::ToClient { peer, .. } => {
                counters.to_client(sent);
                if sent.taken {
                    peer.count_to_client(sent.datagrams as u64);
                }
            }
        }
    }
}

impl Outbox {
    /// Queues a datagram behind all others.
    pub(super) fn queue(&mut self, route: Route, traffic_class: u8, span: Span) {
        if let Some(last) = self.queued.last_mut()
            && last.route.is(&route)
            && last.span.extend(&span)
        {
            return;
        }
        let order = (route.socket(), self.queued.len());
        self.queued.push(Queued { order, route, traffic_class, span });
    }

    /// Sends everything queued, whose bytes are in `batch`; datagrams of one socket keep their order.
    pub(super) fn send(&mut self, batch: &RecvBatch, listeners: &[Listener], counters: &Counters) {
        self.queued.sort_unstable_by_key(|queued| queued.order);
        for group in self.queued.chunk_by(|a, b| a.order.0 == b.order.0) {
            let socket = match group.first().map(|queued| &queued.route) {
                Some(Route::ToOrigin { peer, .. }) => Some(&peer.source.socket),
                Some(Route::ToClient { listener, .. }) => {
                    listeners.get(*listener).map(|listener| &listener.socket)
                }
                None => None,
            };
            let Some(socket) = socket else { continue };
            let bursts = group.iter().map(|queued| queued.burst(batch));
            socket.send_batch(&mut self.sends, bursts, |sent| {
                if let Some(queued) = group.get(sent.burst) {
                    queued.route.count(counters, &sent);
                }
            });
        }
        self.queued.clear();
    }
}

impl Queued {
    fn burst<'a>(&self, batch: &'a RecvBatch) -> Burst<'a> {
        let (peer, local_ip) = self.route.ends();
        let payload = batch.bytes(&self.span);
        Burst {
            transmit: Transmit { payload, peer, local_ip, traffic_class: self.traffic_class },
            segment: self.span.segment,
        }
    }
}
