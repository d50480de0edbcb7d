//! What a worker makes of SRT: handshakes are answered or handed on, everything else is forwarded as it is.
//!
//! The origin's answer is given to the caller by the worker that reads it, not by whoever called the origin: what the origin
//! sends next leaves behind it.

use bytes::Bytes;
use proxy_common::{
    demux::{SrtClass, srt_class},
    verdict::Reason,
};
use proxy_protocol::srt::{HSV5, Handshake, Kind, Rejection, SocketId, readdress};

use super::{
    super::{
        calls::{Calls, NoCall, to_caller},
        outbox::Outbox,
        peer::{Bound, Caller, Peer},
    },
    Worker,
};
use crate::{
    datapath::userspace::News,
    net::udp::{Arrival, Meta, Sent, UdpSocket},
    session::Tuple,
};

impl Worker {
    pub(super) fn take_from_caller(
        &self,
        listener: &UdpSocket,
        arrival: Arrival<'_>,
        outbox: &mut Outbox,
        now: u64,
    ) {
        let meta = arrival.meta;
        let tuple = Tuple::of(meta.peer, meta.local_ip, listener.local_addr());
        let mut bound = None;
        for (payload, span) in arrival.datagrams() {
            let class = class_of(payload);
            bound = bound.or_else(|| self.shared.table.by_tuple(&tuple));
            if class.is_for_userspace() {
                self.handshake(listener, tuple, meta, payload, bound.as_ref());
                continue;
            }
            let Some(bound) = &bound else {
                self.counters.count(Reason::NoFlow);
                continue;
            };
            bound.peer.hear(&bound.leg, now);
            if class.is_closing() {
                bound.peer.set_closing();
            }
            self.queue_to_origin(bound, meta, (payload, span), outbox, now);
        }
    }

    fn handshake(
        &self,
        listener: &UdpSocket,
        tuple: Tuple,
        meta: Meta,
        payload: &[u8],
        bound: Option<&Bound>,
    ) {
        let calls = &self.shared.calls;
        let Ok(request) = Handshake::parse(payload) else {
            return self.counters.count(Reason::MalformedHandshake);
        };
        let (key, port, slice) = (calls.key(), tuple.local.port(), Calls::slice());
        let answer = match request.kind {
            Kind::Induction => {
                let cookie = key.cookie(tuple.client, port, slice);
                Some(request.induced(cookie, tuple.client.ip(), calls.timestamp()).encode().into())
            }
            Kind::Conclusion => match bound.and_then(|bound| given(&bound.peer, &request)) {
                // It is asked again because the answer was lost.
                Some(answer) => Some(answer),
                None if !key.accepts(request.cookie, tuple.client, port, slice) => {
                    return self.counters.count(Reason::BadCookie);
                }
                None => self.call(tuple, meta, payload, &request),
            },
            // Nobody meets us half-way (rendezvous).
            Kind::Other(0) => Some(self.refusal(&request, tuple, Rejection::ROGUE)),
            Kind::Other(_) | Kind::Rejection(_) => {
                return self.counters.count(Reason::MalformedHandshake);
            }
        };
        self.counters.count(Reason::SrtHandshake);
        if let Some(answer) = answer {
            self.answer(listener, tuple, &answer, meta.traffic_class);
        }
    }

    /// Hands a second request on whose cookie is right; or else says why not.
    fn call(&self, tuple: Tuple, meta: Meta, payload: &[u8], request: &Handshake<'_>) -> Option<Bytes> {
        if request.version != HSV5 {
            return Some(self.refusal(request, tuple, Rejection::VERSION));
        }
        match self.shared.calls.begin(tuple, meta.ifindex, payload) {
            Ok(()) | Err(NoCall::Made) => None,
            Err(NoCall::Overload) => Some(self.refusal(request, tuple, Rejection::OVERLOAD)),
            Err(NoCall::Busy) => {
                self.counters.count(Reason::ControlBusy);
                None
            }
        }
    }

    fn refusal(&self, request: &Handshake<'_>, tuple: Tuple, reason: Rejection) -> Bytes {
        request.rejected(reason, tuple.client.ip(), self.shared.calls.timestamp()).encode().into()
    }

    fn answer(&self, socket: &UdpSocket, tuple: Tuple, answer: &[u8], traffic_class: u8) {
        let taken = socket.send(&to_caller(tuple, answer, traffic_class)).is_ok();
        self.counters.to_client(&Sent { burst: 0, datagrams: 1, bytes: answer.len(), taken });
    }

    /// Where what an origin sends to somebody who called goes.
    pub(super) fn for_caller(&self, peer: &Peer, caller: &Caller, payload: &[u8]) -> Result<Tuple, Reason> {
        let class = class_of(payload);
        if class.is_for_userspace() {
            return self.answered(peer, caller, payload);
        }
        if caller.answer().is_none() {
            return Err(Reason::NoClient);
        }
        if class.is_closing() {
            peer.set_closing();
        }
        peer.active().ok_or(Reason::NoClient)
    }

    /// A handshake of an origin: whoever called it hears of it, and the caller what it is to hear.
    fn answered(&self, peer: &Peer, caller: &Caller, payload: &[u8]) -> Result<Tuple, Reason> {
        let Ok(said) = Handshake::parse(payload) else { return Err(Reason::MalformedHandshake) };
        match (said.kind, caller.answer()) {
            (Kind::Conclusion, Some(answer)) => {
                caller.tell(peer.session, News::Answered(answer.clone()));
                Err(Reason::RepeatedAnswer)
            }
            (Kind::Induction | Kind::Rejection(_) | Kind::Other(_), Some(_)) => {
                peer.active().ok_or(Reason::NoClient)
            }
            (Kind::Induction, None) => {
                caller.tell(peer.session, News::Induced(said.cookie));
                Err(Reason::SrtHandshake)
            }
            (Kind::Rejection(reason), None) => {
                caller.tell(peer.session, News::Rejected(reason));
                Err(Reason::SrtHandshake)
            }
            (Kind::Conclusion, None) if is_for(&said, caller.socket) => {
                self.take_answer(peer, caller, payload)?;
                Err(Reason::SrtHandshake)
            }
            (Kind::Conclusion | Kind::Other(_), None) => Err(Reason::MalformedHandshake),
        }
    }

    fn take_answer(&self, peer: &Peer, caller: &Caller, payload: &[u8]) -> Result<(), Reason> {
        let answer = readdress(payload, caller.cookie, caller.tuple.client.ip());
        let answer = Bytes::from(answer.ok_or(Reason::MalformedHandshake)?);
        caller.set_answer(answer.clone());
        let listener = self.listener_of(&caller.tuple).and_then(|index| self.listeners.get(index));
        let listener = listener.ok_or(Reason::SendFailed)?;
        self.answer(&listener.socket, caller.tuple, &answer, 0);
        caller.tell(peer.session, News::Answered(answer));
        Ok(())
    }
}

/// The class of a payload; one of less than two bytes is no packet.
fn class_of(payload: &[u8]) -> SrtClass {
    payload.first_chunk().map_or(SrtClass::Data, |first| srt_class(*first))
}

/// What was answered to this very request before.
fn given(peer: &Peer, request: &Handshake<'_>) -> Option<Bytes> {
    let caller = peer.caller()?;
    let is_same = caller.socket == request.socket && caller.cookie == request.cookie;
    caller.answer().filter(|_| is_same).cloned()
}

fn is_for(said: &Handshake<'_>, socket: SocketId) -> bool {
    said.destination == socket
}
