//! Taking over what an earlier process left: sessions with a record, flows with and without one, ports that rest.
//!
//! A flow in the kernel needs nobody to go on, so adoption interrupts none. A flow whose record is missing or illegible
//! is an orphan: it cannot be listed, moved or ended by name, and is removed when its client falls silent.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{Action, CLOSE_QUIET, Inheritance, InheritedFlow, Proxy};
use crate::{
    datapath::{Escalation, FlowCounters, FlowId, Protocol},
    session::{
        EndReason, Live, MAX_BACKUPS, Offload, Proof, RelayReason, Session, SessionId, State, Tuple,
        record::{Path, Record},
        tcp::TcpPaths,
    },
};

/// A flow that belongs to no session we know.
#[derive(Debug)]
pub(super) struct Orphan {
    /// What the flow holds, it holds in this name.
    session: SessionId,
    pub(super) flow: InheritedFlow,
    since: Instant,
    /// A DTLS alert or an SRT shutdown went by.
    closing: bool,
}

/// Flows without a session.
#[derive(Debug, Default)]
pub(super) struct Orphans(BTreeMap<u32, Orphan>);

impl Orphans {
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, FlowId)> {
        self.0.values().map(|orphan| (orphan.session, orphan.flow.id))
    }

    fn insert(&mut self, session: SessionId, flow: InheritedFlow, since: Instant) {
        self.0.insert(flow.id.0, Orphan { session, flow, since, closing: false });
    }

    fn ids_where(&self, which: impl Fn(&Orphan) -> bool) -> Vec<FlowId> {
        self.0.values().filter(|orphan| which(orphan)).map(|orphan| orphan.flow.id).collect()
    }
}

impl Proxy {
    pub(super) fn adopt(&mut self, left: Inheritance, now: Instant, out: &mut Vec<Action>) {
        let mut flows: HashMap<(SocketAddr, SocketAddr), InheritedFlow> =
            left.flows.iter().map(|flow| ((flow.source, flow.origin), *flow)).collect();
        self.next_session = left.sessions.iter().map(|(id, _)| id.0 + 1).fold(left.next_session, u64::max);
        // A tuple that two sessions claim belongs to the one that the kernel forwards.
        let (with_flow, without): (Vec<_>, Vec<_>) =
            left.sessions.into_iter().partition(|(_, record)| flows.contains_key(&ends_of(record)));
        for (id, record) in with_flow.into_iter().chain(without) {
            let age = record.age(left.today);
            let ends = ends_of(&record);
            if self.adopt_session(id, record, flows.get(&ends).copied(), (now, age), out) {
                flows.remove(&ends);
            }
        }
        let mut orphans: Vec<_> = flows.into_values().collect();
        orphans.sort_by_key(|flow| flow.id.0);
        orphans.into_iter().for_each(|flow| self.adopt_orphan(flow, now, out));
        left.rests.into_iter().for_each(|rest| self.ports.adopt_rest(rest, now));
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        ids.into_iter().for_each(|id| self.escalate(id, out));
        // Their records are there already: writing thousands anew would hold up what is to be relayed.
        self.touched.clear();
        tracing::info!(
            sessions = self.sessions.len(),
            in_kernel = self.sessions.values().filter(|session| session.flow().is_some()).count(),
            without_record = self.orphans.0.len(),
            "took over from an earlier process"
        );
    }

    /// Every flow in the kernel, with the session it belongs to or is held by.
    pub fn flows(&self) -> impl Iterator<Item = (SessionId, FlowId)> {
        let sessions = self.sessions.iter().filter_map(|(id, session)| Some((*id, session.flow()?)));
        sessions.chain(self.orphans.iter())
    }

    /// The flows without a session.
    pub fn orphans(&self) -> impl Iterator<Item = FlowId> {
        self.orphans.iter().map(|(_, flow)| flow)
    }

    fn adopt_session(
        &mut self,
        id: SessionId,
        record: Record,
        flow: Option<InheritedFlow>,
        (now, age): (Instant, Duration),
        out: &mut Vec<Action>,
    ) -> bool {
        let ufrags = record.offer.ufrags();
        let known = self.sessions.contains_key(&id)
            || ufrags.is_some_and(|ufrags| self.by_ufrags.contains_key(ufrags));
        if known || !self.ports.adopt(record.source, record.media) {
            tracing::warn!(session = id.0, source = %record.source, "two records claim the same");
            return false;
        }
        let Record { offer, media, source, path, used_tcp, .. } = record;
        let client_ip = offer.client_ip;
        let born = now.checked_sub(age).unwrap_or(now);
        let protocol = offer.protocol();
        let live = path.map(|path| self.adopt_path(id, (protocol, path), flow, now, out));
        if live.is_none()
            && let Some(flow) = flow
        {
            out.push(Action::Remove { session: id, flow: flow.id });
        }
        let state = live.map_or(State::Waiting, |live| State::Live(Box::new(live)));
        if let Some(ufrags) = offer.ufrags() {
            self.by_ufrags.insert(ufrags.clone(), id);
        }
        // Its connections went with the other process, and are awaited anew.
        let tcp = if used_tcp { TcpPaths::lost(now) } else { TcpPaths::default() };
        self.sessions.insert(id, Session { offer, media, source, born, state, tcp });
        self.stats.adopted += 1;
        let tuples = self.hold_tuples(id);
        let is_awaited = self.sessions.get(&id).is_some_and(Session::is_awaited);
        out.push(Action::Readmit { session: id, tuples: tuples.unwrap_or_default() });
        if is_awaited {
            self.await_client(client_ip, out);
        }
        true
    }

    fn adopt_path(
        &mut self,
        id: SessionId,
        (protocol, path): (Protocol, Path),
        flow: Option<InheritedFlow>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Live {
        // Who calls by SRT is where it calls from, and an origin that did not answer left no record.
        let is_call = protocol == Protocol::Srt;
        let mut live = Live::new(path.active, path.ifindex, is_call, now);
        live.answered = is_call;
        live.backups = path.backups.into_iter().take(MAX_BACKUPS).collect();
        match flow {
            // What was installed had been nominated and answered.
            Some(flow) if flow.client == path.active.client => {
                (live.nominated, live.answered) = (true, true);
                live.offload =
                    Offload::Installed { flow: flow.id, since: now, proof: Proof::default(), failures: 0 };
            }
            // The client had moved on.
            Some(flow) => out.push(Action::Remove { session: id, flow: flow.id }),
            None => {}
        }
        live
    }

    /// Gives a session its tuples as far as no other one holds them; `None` while its client was not heard.
    fn hold_tuples(&mut self, id: SessionId) -> Option<Vec<Tuple>> {
        let session = self.sessions.get(&id).filter(|session| session.live().is_some())?;
        let tuples: Vec<_> = session.tuples().filter(|tuple| !self.by_tuple.contains_key(tuple)).collect();
        tuples.iter().for_each(|tuple| self.hold(id, *tuple));
        Some(tuples)
    }

    fn adopt_orphan(&mut self, flow: InheritedFlow, now: Instant, out: &mut Vec<Action>) {
        // A port that a session with a record holds as well is freed by that session.
        self.ports.adopt(flow.source, flow.origin);
        let session = self.name_session();
        self.orphan(session, flow, now, out);
    }

    /// The source port of an adopted session is somebody else's by now: nobody can relay it.
    pub(super) fn adoption_failed(&mut self, id: SessionId, now: Instant, out: &mut Vec<Action>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (source, origin, flow) = (session.source, session.media, session.flow());
        let tuples: Vec<_> = session.tuples().collect();
        if let (Some(live), Some(flow)) = (session.live_mut(), flow) {
            let client = live.active.client;
            live.offload = Offload::relayed(RelayReason::Settling, now);
            self.orphan(id, InheritedFlow { id: flow, client, source, origin }, now, out);
        } else {
            self.ports.discard(source, origin);
        }
        for tuple in tuples {
            // It was never bound: what the kernel knows of it is the flow's.
            self.let_go(id, tuple);
        }
        self.end(id, EndReason::NoSourcePort, now, out);
    }

    /// Lets a flow go on that no session is known for.
    fn orphan(&mut self, session: SessionId, flow: InheritedFlow, now: Instant, out: &mut Vec<Action>) {
        self.orphans.insert(session, flow, now);
        out.push(Action::Escalate { flow: flow.id, what: self.orphan_escalation(flow.client.ip()) });
    }

    pub(super) fn orphans_looked(
        &mut self,
        looks: Vec<(FlowId, FlowCounters)>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        for (flow, counters) in looks {
            let Some(orphan) = self.orphans.0.get_mut(&flow.0) else { continue };
            orphan.closing |= counters.closing;
            let idle = counters.to_origin.idle;
            let is_over = now >= orphan.since + self.limits.orphan_timeout;
            if is_over || idle >= self.limits.idle_timeout || (orphan.closing && idle >= CLOSE_QUIET) {
                self.end_orphan(flow, now, out);
            }
        }
    }

    pub(super) fn end_orphans(
        &mut self,
        now: Instant,
        out: &mut Vec<Action>,
        which: impl Fn(&Orphan) -> bool,
    ) {
        for flow in self.orphans.ids_where(which) {
            self.end_orphan(flow, now, out);
        }
    }

    /// Ends flows that have no way through the network.
    pub(super) fn end_orphans_of(&mut self, sessions: &[SessionId], now: Instant, out: &mut Vec<Action>) {
        self.end_orphans(now, out, |orphan| sessions.contains(&orphan.session));
    }

    /// A session that is awaited from a client address may come from a tuple that an orphan's flow has the key of.
    pub(super) fn escalate_orphans(&self, ip: IpAddr, out: &mut Vec<Action>) {
        let what = self.orphan_escalation(ip);
        let flows = self.orphans.ids_where(|orphan| orphan.flow.client.ip() == ip);
        out.extend(flows.into_iter().map(|flow| Action::Escalate { flow, what }));
    }

    fn orphan_escalation(&self, ip: IpAddr) -> Escalation {
        Escalation { requests: self.pending.contains_key(&ip), responses: false }
    }

    fn end_orphan(&mut self, flow: FlowId, now: Instant, out: &mut Vec<Action>) {
        let Some(orphan) = self.orphans.0.remove(&flow.0) else { return };
        self.ports.release(orphan.flow.source, orphan.flow.origin, now);
        tracing::info!(session = orphan.session.0, "flow without a record ended");
        out.push(Action::Remove { session: orphan.session, flow });
    }
}

fn ends_of(record: &Record) -> (SocketAddr, SocketAddr) {
    (record.source, record.media)
}

#[cfg(test)]
mod tests;
