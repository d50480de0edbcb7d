//! Which client addresses a session is reached by, which one its media goes to, and who else may be behind them.
//!
//! Browsers check several pairs at once and keep spare ones; a reload, a carrier's NAT or a load tool brings another
//! session to the same address. The return path moves only on an authenticated request that nominates, or on an
//! authenticated request followed by media from the same tuple.

use std::{net::IpAddr, time::Instant};

use super::{Action, Check, ForwardCheck, Proxy};
use crate::{
    datapath::Protocol,
    session::{Live, Offload, RelayReason, Session, SessionId, State, Tuple, offload::SHARED_SETTLE},
};

impl Proxy {
    pub(super) fn checked(&mut self, check: Check, now: Instant, out: &mut Vec<Action>) {
        if !self.sessions.contains_key(&check.session) {
            return;
        }
        self.end_orphans(now, out, |orphan| orphan.flow.client == check.tuple.client);
        let stolen = self.take_tuple(check.tuple, check.session, now, out);
        let bound = match self.sessions.get(&check.session).and_then(Session::live) {
            None => self.first_heard(&check, now, out),
            Some(live) if live.active == check.tuple => self.nominate(&check, out),
            Some(_) => self.heard_elsewhere(&check, now, out),
        };
        if stolen {
            self.postpone(check.session, RelayReason::SharedTuple, (now, now + SHARED_SETTLE), out);
        }
        if bound {
            out.push(Action::Forward(ForwardCheck {
                session: check.session,
                tuple: check.tuple,
                datagram: check.datagram,
                traffic_class: check.traffic_class,
            }));
        }
    }

    pub(super) fn first_heard(&mut self, check: &Check, now: Instant, out: &mut Vec<Action>) -> bool {
        let Some(session) = self.sessions.get_mut(&check.session) else { return false };
        let was_awaited = session.is_awaited();
        session.state = State::Live(Box::new(Live::new(check.tuple, check.ifindex, check.nominates, now)));
        let client_ip = session.offer.client_ip;
        self.bind(check.session, check.tuple, out);
        out.push(Action::Activate { session: check.session, tuple: check.tuple });
        if was_awaited {
            self.client_heard(client_ip, out);
        }
        true
    }

    pub(super) fn nominate(&mut self, check: &Check, out: &mut Vec<Action>) -> bool {
        if let Some(live) = self.sessions.get_mut(&check.session).and_then(Session::live_mut) {
            live.nominated |= check.nominates;
            if live.ifindex != check.ifindex {
                live.ifindex = check.ifindex;
                self.touched.push(check.session);
            }
        }
        // Another session may have used the tuple in between.
        if self.by_tuple.get(&check.tuple) != Some(&check.session) {
            self.bind(check.session, check.tuple, out);
            out.push(Action::Activate { session: check.session, tuple: check.tuple });
        }
        true
    }

    pub(super) fn heard_elsewhere(&mut self, check: &Check, now: Instant, out: &mut Vec<Action>) -> bool {
        let Some(live) = self.sessions.get_mut(&check.session).and_then(Session::live_mut) else {
            return false;
        };
        if !live.add_backup(check.tuple) {
            self.stats.tuples_refused += 1;
            return false;
        }
        self.bind(check.session, check.tuple, out);
        if check.nominates {
            self.migrate(check.session, check.tuple, check.ifindex, now, out);
        } else {
            self.escalate(check.session, out);
        }
        true
    }

    pub(super) fn media(
        &mut self,
        id: SessionId,
        tuple: Tuple,
        ifindex: u32,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(live) = self.sessions.get_mut(&id).and_then(Session::live_mut) else { return };
        if live.active == tuple {
            live.nominated = true;
        } else if live.backups.contains(&tuple) {
            self.migrate(id, tuple, ifindex, now, out);
        }
    }

    /// Moves the return path; the flow of the old path goes first, so that nothing is sent to it any more.
    pub(super) fn migrate(
        &mut self,
        id: SessionId,
        tuple: Tuple,
        ifindex: u32,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        self.remove_flow(id, RelayReason::Settling, now, out);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(live) = session.live_mut() {
            live.move_to(tuple, ifindex, now);
            self.touched.push(id);
            self.stats.migrations += 1;
            tracing::info!(session = id.0, stream = session.offer.stream_name(), "client moved");
            out.push(Action::Activate { session: id, tuple });
        }
    }

    /// Takes `tuple` from the session that holds it, if that is another one; true if that one is live and well.
    pub(super) fn take_tuple(
        &mut self,
        tuple: Tuple,
        by: SessionId,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(&holder) = self.by_tuple.get(&tuple).filter(|holder| **holder != by) else { return false };
        self.postpone(holder, RelayReason::SharedTuple, (now, now + SHARED_SETTLE), out);
        self.unbind(holder, tuple, out);
        if let Some(live) = self.sessions.get_mut(&holder).and_then(Session::live_mut) {
            live.backups.retain(|t| *t != tuple);
        }
        true
    }

    /// Relays a session for `reason` until then; its flow, if it has one, goes.
    pub(super) fn postpone(
        &mut self,
        id: SessionId,
        reason: RelayReason,
        (now, until): (Instant, Instant),
        out: &mut Vec<Action>,
    ) {
        self.remove_flow(id, reason, now, out);
        if let Some(live) = self.sessions.get_mut(&id).and_then(Session::live_mut) {
            live.offload = Offload::relayed(reason, until);
        }
    }

    pub(super) fn bind(&mut self, id: SessionId, tuple: Tuple, out: &mut Vec<Action>) {
        self.hold(id, tuple);
        out.push(Action::Bind { session: id, tuple });
    }

    /// Notes that a session has a tuple.
    pub(super) fn hold(&mut self, id: SessionId, tuple: Tuple) {
        self.touched.push(id);
        self.by_tuple.insert(tuple, id);
        self.by_client_ip.entry(tuple.client.ip()).or_default().insert(id);
    }

    /// Notes that a session has a tuple no more; false if another one has it.
    pub(super) fn let_go(&mut self, id: SessionId, tuple: Tuple) -> bool {
        let is_holder = self.by_tuple.get(&tuple) == Some(&id);
        if is_holder {
            self.touched.push(id);
            self.by_tuple.remove(&tuple);
        }
        is_holder
    }

    pub(super) fn unbind(&mut self, id: SessionId, tuple: Tuple, out: &mut Vec<Action>) {
        if self.let_go(id, tuple) {
            out.push(Action::Unbind { tuple, session: id });
        }
        let still_there = self
            .sessions
            .get(&id)
            .is_some_and(|s| s.tuples().any(|t| t != tuple && t.client.ip() == tuple.client.ip()));
        if !still_there && let Some(ids) = self.by_client_ip.get_mut(&tuple.client.ip()) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_client_ip.remove(&tuple.client.ip());
            }
        }
    }

    pub(super) fn await_client(&mut self, ip: IpAddr, out: &mut Vec<Action>) {
        let count = self.pending.entry(ip).or_default();
        *count += 1;
        if *count == 1 {
            self.escalate_all(ip, out);
        }
    }

    pub(super) fn client_heard(&mut self, ip: IpAddr, out: &mut Vec<Action>) {
        let Some(count) = self.pending.get_mut(&ip) else { return };
        *count -= 1;
        if *count == 0 {
            self.pending.remove(&ip);
            self.escalate_all(ip, out);
        }
    }

    pub(super) fn escalate_all(&mut self, ip: IpAddr, out: &mut Vec<Action>) {
        let ids: Vec<_> = self.by_client_ip.get(&ip).into_iter().flatten().copied().collect();
        for id in ids {
            self.escalate(id, out);
        }
        self.escalate_orphans(ip, out);
    }

    pub(super) fn escalate(&self, id: SessionId, out: &mut Vec<Action>) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(live) = session.live() else { return };
        if let Some(flow) = live.offload.flow()
            && session.offer.protocol() == Protocol::WebRtc
        {
            let pending = self.pending.contains_key(&live.active.client.ip());
            out.push(Action::Escalate { flow, what: live.escalation(pending) });
        }
    }
}
