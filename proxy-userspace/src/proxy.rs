//! The control plane: one synchronous state machine that owns sessions, flows and source ports.
//!
//! Everything that happens is an [`Event`]; everything to be done is an [`Action`] that the executor performs. Nothing
//! here awaits, opens a socket or reads a clock, so a test is a list of events.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_protocol::ice::UfragPair;

use crate::{
    datapath::{Escalation, FlowId, Protocol},
    session::{
        EndReason, Live, Offload, RelayReason, Session, SessionId, SessionOffer, State, Tuple,
        offload::{self, Answers},
        source_port::{Rest, SourcePorts, Usage},
        tcp::TcpPaths,
    },
};

mod action;
mod adopt;
mod call;
mod event;
mod stats;
mod tcp;
mod tuples;

pub use action::{Action, FlowRequest, ForwardCheck, Refusal};
use adopt::Orphans;
pub use event::{Activity, Carried, Check, Event, Inheritance, InheritedFlow};
pub use stats::Stats;

/// After a DTLS alert or an SRT shutdown a session ends when its client is silent for this long.
const CLOSE_QUIET: Duration = Duration::from_secs(2);
/// While no flow may be installed, a session is looked at again after this long.
const RELAY_ONLY_WAIT: Duration = Duration::from_secs(1);
/// Source ports tried for one session before it is refused.
const SOURCE_ATTEMPTS: u32 = 16;

/// Limits the control plane keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions at once.
    pub max_sessions: usize,
    /// A session whose client was never heard ends after this long.
    pub connect_timeout: Duration,
    /// A WebRTC session whose client is silent ends after this long.
    pub idle_timeout: Duration,
    /// The same of SRT.
    pub srt_idle_timeout: Duration,
    /// A flow without a session is removed after this long, even if it has traffic.
    pub orphan_timeout: Duration,
    /// Why no flow may be installed, if none may: no kernel engine runs, or the operator switched offloading off.
    pub relay_only: Option<RelayReason>,
}

/// The control plane's state.
#[derive(Debug)]
pub struct Proxy {
    limits: Limits,
    ports: SourcePorts,
    sessions: HashMap<SessionId, Session>,
    by_ufrags: HashMap<UfragPair, SessionId>,
    by_tuple: HashMap<Tuple, SessionId>,
    by_client_ip: HashMap<IpAddr, HashSet<SessionId>>,
    /// Sessions not heard yet, by where they signalled from: until they are, requests on known tuples of that
    /// address come up, because one of them may be theirs.
    pending: HashMap<IpAddr, usize>,
    orphans: Orphans,
    /// Sessions whose record is out of date.
    touched: Vec<SessionId>,
    /// Above every number that a session had, in this process or an earlier one.
    next_session: u64,
    stats: Stats,
    is_stopping: bool,
}

impl Proxy {
    /// An empty control plane.
    pub fn new(limits: Limits, ports: SourcePorts) -> Self {
        Self {
            limits,
            ports,
            sessions: HashMap::new(),
            by_ufrags: HashMap::new(),
            by_tuple: HashMap::new(),
            by_client_ip: HashMap::new(),
            pending: HashMap::new(),
            orphans: Orphans::default(),
            touched: Vec::new(),
            next_session: 1,
            stats: Stats::default(),
            is_stopping: false,
        }
    }

    /// Takes one event and says what is to be done.
    pub fn apply(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let out = &mut actions;
        match event {
            Event::Offered { session, offer, media, sources } => {
                self.offered(session, *offer, media, sources, now, out);
            }
            Event::SourceUnusable { session, sources } => self.source_unusable(session, sources, now, out),
            Event::Deleted(ufrags) => self.deleted(&ufrags, now, out),
            Event::Checked(check) => self.checked(check, now, out),
            Event::Media { session, tuple, ifindex } => self.media(session, tuple, ifindex, now, out),
            Event::Connected { session, path } => self.connected(session, path, now, out),
            Event::Carried(looks) => self.carried(looks, now, out),
            Event::Answered(session) => self.answered(session),
            Event::Established { session, answer } => self.established(session, answer, now),
            Event::HungUp { session, reason } => self.hung_up(session, reason, now, out),
            Event::Installed { session, result } => self.installed(session, result, now),
            Event::Activity(looks) => self.activity(looks, now, out),
            Event::Adopted(left) => self.adopt(*left, now, out),
            Event::Orphans(looks) => self.orphans_looked(looks, now, out),
            Event::NextHopLost(sessions) => self.next_hop_lost(&sessions, now, out),
            Event::NetworkChanged => self.network_changed(now),
            Event::OriginDown(origin) => {
                self.end_where(now, EndReason::OriginDown, out, |s| s.offer.origin.id == origin)
            }
            Event::Drain => self.is_stopping = true,
            Event::StreamMoved { stream, to } => {
                let is_elsewhere =
                    |s: &Session| s.offer.stream.as_ref() == Some(&stream) && s.offer.origin.id != to;
                self.end_where(now, EndReason::StreamMoved, out, is_elsewhere);
            }
            Event::SwitchOffload(on) => self.switch_offload(on, now, out),
            Event::Shutdown => {
                self.end_orphans(now, out, |_| true);
                self.end_where(now, EndReason::Shutdown, out, |_| true);
            }
            Event::Tick => self.tick(now, out),
        }
        self.record_touched(out);
        actions
    }

    /// A number that no session has had.
    pub fn name_session(&mut self) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        id
    }

    /// The number [`Self::name_session`] would give next.
    pub fn next_session(&self) -> u64 {
        self.next_session
    }

    /// Every source port that rests.
    pub fn rests(&self, now: Instant) -> impl Iterator<Item = Rest> {
        self.ports.rests(now)
    }

    /// Every session.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// One session.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// The session a USERNAME names.
    pub fn find(&self, ufrags: &UfragPair) -> Option<&Session> {
        self.by_ufrags.get(ufrags).and_then(|id| self.sessions.get(id))
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How full the source ports are.
    pub fn port_usage(&self) -> Usage {
        self.ports.usage()
    }

    fn offered(
        &mut self,
        id: SessionId,
        offer: SessionOffer,
        media: SocketAddr,
        sources: Arc<[IpAddr]>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let refuse = |reason| Action::Refuse { session: id, reason };
        if self.is_stopping {
            return out.push(refuse(Refusal::Stopping));
        }
        if self.sessions.len() >= self.limits.max_sessions {
            return out.push(refuse(Refusal::Full));
        }
        if offer.ufrags().is_some_and(|ufrags| self.by_ufrags.contains_key(ufrags)) {
            return out.push(refuse(Refusal::DuplicateUfrag));
        }
        let Some(source) = self.ports.lease(&sources, media, now) else {
            return out.push(refuse(Refusal::PortsExhausted));
        };
        if let Some(srt) = offer.srt() {
            self.replace(srt.tuple, now, out);
        }
        if let Some(ufrags) = offer.ufrags() {
            self.by_ufrags.insert(ufrags.clone(), id);
            self.await_client(offer.client_ip, out);
        }
        let (state, tcp) = (State::Admitting(1), TcpPaths::default());
        self.sessions.insert(id, Session { offer, media, source, born: now, state, tcp });
        out.push(Action::Admit { session: id, source, sources });
        self.bind_caller(id, out);
    }

    fn source_unusable(
        &mut self,
        id: SessionId,
        sources: Arc<[IpAddr]>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let State::Admitting(attempts) = &mut session.state else {
            return self.adoption_failed(id, now, out);
        };
        *attempts += 1;
        let exhausted = *attempts > SOURCE_ATTEMPTS;
        self.ports.discard(session.source, session.media);
        let next = if exhausted { None } else { self.ports.lease(&sources, session.media, now) };
        match next {
            Some(source) => {
                session.source = source;
                out.push(Action::Admit { session: id, source, sources });
                self.bind_caller(id, out);
            }
            None => {
                out.push(Action::Refuse { session: id, reason: Refusal::PortsExhausted });
                self.end(id, EndReason::NoSourcePort, now, out);
            }
        }
    }

    fn deleted(&mut self, ufrags: &UfragPair, now: Instant, out: &mut Vec<Action>) {
        if let Some(&id) = self.by_ufrags.get(ufrags) {
            self.end(id, EndReason::Deleted, now, out);
        }
    }

    fn answered(&mut self, id: SessionId) {
        if let Some(live) = self.sessions.get_mut(&id).and_then(Session::live_mut) {
            live.answered = true;
        }
    }

    fn installed(&mut self, id: SessionId, result: Result<FlowId, RelayReason>, now: Instant) {
        let Some(live) = self.sessions.get_mut(&id).and_then(Session::live_mut) else { return };
        match result {
            Ok(flow) => {
                live.offload = live.offload.installed(flow, now);
                self.stats.offloads += 1;
                tracing::info!(session = id.0, "forwarded in the kernel");
            }
            // The records of the flow before rest for a moment.
            Err(RelayReason::Settling) => {
                live.offload = Offload::relayed(RelayReason::Settling, now + offload::SETTLE);
            }
            Err(reason) => {
                live.offload = live.offload.failed(reason, now);
                self.stats.count_relayed(reason);
                tracing::info!(session = id.0, reason = reason.as_str(), "stays in userspace");
            }
        }
    }

    fn switch_offload(&mut self, on: bool, now: Instant, out: &mut Vec<Action>) {
        if self.limits.relay_only == Some(RelayReason::NoEngine) {
            return;
        }
        self.limits.relay_only = (!on).then_some(RelayReason::SwitchedOff);
        if !on {
            // Nobody can relay them.
            self.end_orphans(now, out, |_| true);
        }
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for id in ids {
            self.postpone(id, RelayReason::SwitchedOff, (now, now), out);
        }
    }

    fn next_hop_lost(&mut self, sessions: &[SessionId], now: Instant, out: &mut Vec<Action>) {
        for &id in sessions {
            self.doubt(id, RelayReason::NextHopLost, now, out);
        }
        self.end_orphans_of(sessions, now, out);
    }

    /// What failed for want of a way through the network is tried again at the next tick.
    fn network_changed(&mut self, now: Instant) {
        for live in self.sessions.values_mut().filter_map(Session::live_mut) {
            if let Offload::Relayed { reason, not_before, .. } = &mut live.offload
                && reason.is_network()
            {
                *not_before = (*not_before).min(now);
            }
        }
    }

    /// Ends an offload that is not to be believed; it is tried again later.
    fn doubt(&mut self, id: SessionId, reason: RelayReason, now: Instant, out: &mut Vec<Action>) {
        let Some(live) = self.sessions.get_mut(&id).and_then(Session::live_mut) else { return };
        let Some(flow) = live.offload.flow() else { return };
        live.offload = live.offload.failed(reason, now);
        self.stats.count_relayed(reason);
        tracing::warn!(session = id.0, reason = reason.as_str(), "back to userspace");
        out.push(Action::Remove { session: id, flow });
    }

    /// Removes a flow for a cause that is nobody's fault.
    fn remove_flow(&mut self, id: SessionId, reason: RelayReason, now: Instant, out: &mut Vec<Action>) {
        let Some(live) = self.sessions.get_mut(&id).and_then(Session::live_mut) else { return };
        if let Some(flow) = live.offload.flow() {
            live.offload = Offload::relayed(reason, now);
            // A move or an end is no failure of the offload.
            if reason != RelayReason::Settling {
                self.stats.count_relayed(reason);
            }
            out.push(Action::Remove { session: id, flow });
        }
    }

    fn activity(&mut self, looks: Vec<(SessionId, Activity)>, now: Instant, out: &mut Vec<Action>) {
        for (id, look) in looks {
            self.expire_tuples(id, &look.idle_tuples, out);
            if let Some(reason) = self.end_of(id, &look, now) {
                self.end(id, reason, now, out);
            } else {
                self.prove(id, &look, now, out);
            }
        }
    }

    fn expire_tuples(&mut self, id: SessionId, idle: &[Tuple], out: &mut Vec<Action>) {
        let Some(live) = self.sessions.get_mut(&id).and_then(Session::live_mut) else { return };
        let before = live.backups.len();
        live.backups.retain(|tuple| !idle.contains(tuple));
        if live.backups.len() == before {
            return;
        }
        let active = live.active;
        for &tuple in idle.iter().filter(|tuple| **tuple != active) {
            self.unbind(id, tuple, out);
        }
        self.escalate(id, out);
    }

    fn end_of(&mut self, id: SessionId, look: &Activity, now: Instant) -> Option<EndReason> {
        let session = self.sessions.get_mut(&id)?;
        let idle_timeout = match session.offer.protocol() {
            Protocol::WebRtc => self.limits.idle_timeout,
            Protocol::Srt => self.limits.srt_idle_timeout,
        };
        let idle = session.idle(look.client_idle, now);
        if let Some(live) = session.live_mut() {
            if look.closing || look.kernel.is_some_and(|kernel| kernel.closing) {
                live.closing.get_or_insert(now);
            }
            if live.is_closed(idle, CLOSE_QUIET) {
                return Some(EndReason::Closed);
            }
        } else if !session.tcp.were_used() {
            return None;
        }
        (idle >= idle_timeout).then_some(EndReason::Idle)
    }

    fn prove(&mut self, id: SessionId, look: &Activity, now: Instant, out: &mut Vec<Action>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let protocol = session.offer.protocol();
        let Some(live) = session.live_mut() else { return };
        let answers = match protocol {
            Protocol::Srt => Answers::Always,
            Protocol::WebRtc if live.backups.is_empty() => Answers::ToChecks,
            Protocol::WebRtc => Answers::Elsewhere,
        };
        let Offload::Installed { proof, .. } = &mut live.offload else { return };
        let Some(kernel) = look.kernel else { return };
        if let Err(reason) = proof.look(look.relay, kernel, answers) {
            self.doubt(id, reason, now, out);
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        let connect_timeout = self.limits.connect_timeout;
        self.end_where(now, EndReason::NeverConnected, out, |s| {
            s.live().is_none() && !s.tcp.were_used() && now >= s.born + connect_timeout
        });
        self.install_ready(now, out);
        let rested = self.ports.sweep(now);
        out.extend(rested.into_iter().map(|(source, origin)| Action::Release { source, origin }));
    }

    fn install_ready(&mut self, now: Instant, out: &mut Vec<Action>) {
        for (&id, session) in &mut self.sessions {
            let (source, origin, protocol) = (session.source, session.media, session.offer.protocol());
            let Some(live) = session.live_mut() else { continue };
            let Offload::Relayed { not_before, reason, .. } = &mut live.offload else { continue };
            if now < *not_before {
                continue;
            }
            if let Some(wait) = self.limits.relay_only {
                (*reason, *not_before) = (wait, now + RELAY_ONLY_WAIT);
                continue;
            }
            if self.by_tuple.get(&live.active) != Some(&id) {
                *reason = RelayReason::SharedTuple;
                continue;
            }
            if let Some(wait) = waits_for(live.nominated, live.answered) {
                *reason = wait;
                continue;
            }
            let flow = FlowRequest { protocol, tuple: live.active, ifindex: live.ifindex, source, origin };
            let pending = self.pending.contains_key(&live.active.client.ip());
            let escalation = escalation(protocol, live, pending);
            out.push(Action::Install { session: id, flow, escalation });
        }
    }

    fn end_where(
        &mut self,
        now: Instant,
        reason: EndReason,
        out: &mut Vec<Action>,
        which: impl Fn(&Session) -> bool,
    ) {
        let ids: Vec<_> = self.sessions.iter().filter(|(_, s)| which(s)).map(|(id, _)| *id).collect();
        for id in ids {
            self.end(id, reason, now, out);
        }
    }

    fn record_touched(&mut self, out: &mut Vec<Action>) {
        self.touched.sort_unstable();
        self.touched.dedup();
        for session in self.touched.drain(..) {
            let has_record = |s: &Session| !matches!(s.state, State::Admitting(_));
            if self.sessions.get(&session).is_some_and(has_record) {
                out.push(Action::Record { session });
            }
        }
    }

    /// Gives back everything the session holds.
    fn end(&mut self, id: SessionId, reason: EndReason, now: Instant, out: &mut Vec<Action>) {
        self.remove_flow(id, RelayReason::Settling, now, out);
        let Some(session) = self.sessions.remove(&id) else { return };
        for tuple in session.tuples() {
            self.unbind(id, tuple, out);
        }
        let connections = session.tcp.open().iter().map(|path| path.connection);
        out.extend(connections.map(|connection| Action::Disconnect { connection }));
        if session.is_awaited() {
            self.client_heard(session.offer.client_ip, out);
        }
        if let Some(srt) = session.offer.srt().filter(|srt| srt.answer.is_some() && reason.is_ours()) {
            out.push(Action::HangUp { tuple: srt.tuple, caller: srt.caller });
        }
        let ufrags = session.offer.ufrags().cloned();
        if let Some(ufrags) = &ufrags {
            self.by_ufrags.remove(ufrags);
        }
        if reason != EndReason::NoSourcePort {
            self.ports.release(session.source, session.media, now);
        }
        self.stats.count_end(reason);
        tracing::info!(
            session = id.0,
            stream = session.offer.stream_name(),
            origin = %session.offer.origin.id.0,
            reason = reason.as_str(),
            seconds = now.saturating_duration_since(session.born).as_secs(),
            "session ended"
        );
        out.push(Action::Retire { session: id, ufrags, reason });
    }

    /// Notes that the source socket of a session is open.
    pub fn admitted(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && matches!(session.state, State::Admitting(_))
        {
            session.state = State::Waiting;
            self.stats.admitted += 1;
            tracing::info!(
                session = id.0,
                stream = session.offer.stream_name(),
                origin = %session.offer.origin.id.0,
                protocol = session.offer.protocol().as_str(),
                role = session.offer.role_name(),
                "session offered"
            );
        }
    }
}

/// Which STUN packets userspace needs; SRT has none.
fn escalation(protocol: Protocol, live: &Live, pending: bool) -> Escalation {
    match protocol {
        Protocol::WebRtc => live.escalation(pending),
        Protocol::Srt => Escalation::default(),
    }
}

fn waits_for(nominated: bool, answered: bool) -> Option<RelayReason> {
    match (nominated, answered) {
        (false, _) => Some(RelayReason::NotNominated),
        (true, false) => Some(RelayReason::NotAnswered),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests;
