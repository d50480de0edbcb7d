//! Performs [`Action`]s: the only place where the control plane's decisions touch sockets and maps.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::oneshot;

use crate::{
    datapath::{FlowCounters, FlowId, Protocol, installer::Installer, userspace::Relay},
    directory::Directory,
    proxy::{Action, Activity, Carried, Event, FlowRequest, Proxy, Refusal},
    session::{
        Kind, RelayReason, Session, SessionId, Tuple, WebRtc,
        record::{Record, RecordStore},
        tcp::ConnectionId,
    },
};

/// A spare tuple that is silent for this long is forgotten.
const TUPLE_IDLE: Duration = Duration::from_secs(30);

/// Sessions whose client is waiting for its answer.
type Waiting = HashMap<SessionId, oneshot::Sender<Result<SessionId, Refusal>>>;

mod carriages;
mod totals;

use carriages::Carriages;
pub use carriages::{Carriage, CarriageRequest};
pub use totals::KernelTotals;

/// Sockets and maps.
#[derive(Debug)]
pub struct Executor {
    relay: Relay,
    kernel: Option<Installer>,
    waiting: Waiting,
    carriages: Carriages,
    directory: Arc<Directory>,
    /// What admitted sessions hold in the kernel's tables.
    leases: HashMap<SessionId, Lease>,
    /// Where the records of sessions outlive this process, if they do.
    records: Option<Box<dyn RecordStore>>,
    records_refused: u64,
    /// What flows that are gone forwarded, so that totals never go down.
    gone: KernelTotals,
}

/// What a session holds in the kernel's tables from its admission on.
#[derive(Clone, Copy, Debug)]
struct Lease {
    source: SocketAddr,
    origin: SocketAddr,
    client_ip: IpAddr,
}

impl Executor {
    /// Relays with `relay` and forwards with `kernel` if there is one.
    pub fn new(relay: Relay, kernel: Option<Installer>, directory: Arc<Directory>) -> Self {
        Self {
            relay,
            kernel,
            waiting: HashMap::new(),
            carriages: Carriages::default(),
            directory,
            leases: HashMap::new(),
            records: None,
            records_refused: 0,
            gone: KernelTotals::default(),
        }
    }

    /// Keeps a record of every session in `store`.
    pub fn with_records(self, store: Box<dyn RecordStore>) -> Self {
        Self { records: Some(store), ..self }
    }

    /// Records that could not be written.
    pub fn records_refused(&self) -> u64 {
        self.records_refused
    }

    /// The userspace relay.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// The userspace relay, mutable.
    pub fn relay_mut(&mut self) -> &mut Relay {
        &mut self.relay
    }

    /// The kernel engine.
    pub fn kernel(&self) -> Option<&Installer> {
        self.kernel.as_ref()
    }

    /// The kernel engine, mutable.
    pub fn kernel_mut(&mut self) -> Option<&mut Installer> {
        self.kernel.as_mut()
    }

    /// Answers `reply` once the session is admitted or refused.
    pub fn await_admission(
        &mut self,
        session: SessionId,
        reply: oneshot::Sender<Result<SessionId, Refusal>>,
    ) {
        self.waiting.insert(session, reply);
    }

    /// Answers `request` once the connection is for its session or not.
    pub fn await_carriage(&mut self, connection: ConnectionId, request: CarriageRequest) {
        self.carriages.ask(connection, request);
    }

    /// What became of TCP connections since the last look.
    pub fn look_at_connections(&mut self) -> Vec<(SessionId, ConnectionId, Carried)> {
        self.carriages.look()
    }

    /// Performs one action; some lead to another event.
    pub async fn perform(&mut self, action: Action, proxy: &mut Proxy) -> Option<Event> {
        match action {
            Action::Admit { session, source, sources } => {
                self.prepare(session, proxy).await;
                if self.admit(session, source, proxy) {
                    return None;
                }
                return Some(Event::SourceUnusable { session, sources });
            }
            Action::Readmit { session, tuples } => {
                if !self.readmit(session, &tuples, proxy) {
                    return Some(Event::SourceUnusable { session, sources: [].into() });
                }
            }
            Action::Record { session } => self.record(session, proxy),
            Action::Refuse { session, reason } => self.answer(session, Err(reason)),
            Action::Bind { session, tuple } => self.bind(session, tuple, protocol_of(session, proxy)),
            Action::Unbind { session, tuple } => self.unbind(session, tuple),
            Action::Activate { session, tuple } => self.relay.activate(session, tuple),
            Action::Forward(check) => self.relay.forward(&check),
            Action::Install { session, flow, escalation } => {
                let result = self.install(session, &flow, escalation).await;
                return Some(Event::Installed { session, result });
            }
            Action::Remove { session, flow } => {
                if let Some(kernel) = &mut self.kernel {
                    self.gone.add(&kernel.remove(session, flow));
                }
            }
            Action::Escalate { flow, what } => {
                if let Some(kernel) = &mut self.kernel {
                    kernel.escalate(flow, what);
                }
            }
            Action::Carry { session, connection, origin } => {
                if let Some(known) = proxy.session(session) {
                    self.carriages.begin(session, connection, origin, &known.offer);
                }
            }
            Action::RefuseConnection { connection, reason } => self.carriages.refuse(connection, reason),
            Action::Disconnect { connection } => self.carriages.end(connection),
            Action::HangUp { tuple, caller } => self.relay.hang_up(tuple, caller),
            Action::Release { source, origin } => {
                if let Some(kernel) = &mut self.kernel {
                    kernel.release(source, origin);
                }
            }
            Action::Retire { session, ufrags, reason } => {
                self.relay.retire(session);
                if let (Some(kernel), Some(lease)) = (&mut self.kernel, self.leases.remove(&session)) {
                    kernel.retire(lease.source, lease.origin, lease.client_ip);
                }
                match ufrags {
                    Some(ufrags) if reason.may_return() => self.directory.remove(&ufrags),
                    Some(ufrags) => self.directory.end(&ufrags),
                    None => {}
                }
                self.forget_record(session);
            }
        }
        None
    }

    /// What every session of a part of [`Relay::parts`] did, on both paths.
    pub fn look(&self, part: usize, proxy: &Proxy) -> Vec<(SessionId, Activity)> {
        let mut looks = self.relay.look(part, TUPLE_IDLE);
        looks.iter_mut().for_each(|(session, activity)| self.add_kernel(*session, activity, proxy));
        looks
    }

    fn add_kernel(&self, session: SessionId, activity: &mut Activity, proxy: &Proxy) {
        let flow = proxy.session(session).and_then(Session::flow);
        if let (Some(flow), Some(kernel)) = (flow, &self.kernel) {
            let counters = kernel.datapath().counters(flow);
            activity.client_idle = activity.client_idle.min(counters.to_origin.idle);
            activity.kernel = Some(counters);
        }
    }

    /// What the flows without a session did.
    pub fn look_at_orphans(&self, proxy: &Proxy) -> Vec<(FlowId, FlowCounters)> {
        let Some(kernel) = &self.kernel else { return Vec::new() };
        proxy.orphans().map(|flow| (flow, kernel.datapath().counters(flow))).collect()
    }

    /// What the kernel forwarded since the start.
    pub fn kernel_totals(&self, proxy: &Proxy) -> KernelTotals {
        let mut totals = self.gone;
        if let Some(kernel) = &self.kernel {
            proxy.flows().for_each(|(_, flow)| totals.add(&kernel.datapath().counters(flow)));
        }
        totals
    }

    /// The client's media most likely comes the way its signalling did.
    async fn prepare(&mut self, id: SessionId, proxy: &Proxy) {
        if let (Some(kernel), Some(session)) = (&mut self.kernel, proxy.session(id)) {
            kernel.prepare(session.offer.client_ip).await;
        }
    }

    fn admit(&mut self, id: SessionId, source: SocketAddr, proxy: &mut Proxy) -> bool {
        let Some(session) = proxy.session(id) else { return true };
        if !self.open(id, source, session) {
            return false;
        }
        proxy.admitted(id);
        self.record(id, proxy);
        self.answer(id, Ok(id));
        true
    }

    /// Nothing of a session whose socket cannot be opened is touched: its flow goes on without it.
    fn readmit(&mut self, id: SessionId, tuples: &[Tuple], proxy: &Proxy) -> bool {
        let Some(session) = proxy.session(id) else { return true };
        if !self.open(id, session.source, session) {
            return false;
        }
        let protocol = session.offer.protocol();
        tuples.iter().for_each(|tuple| self.bind(id, *tuple, protocol));
        if let Some(live) = session.live().filter(|live| tuples.contains(&live.active)) {
            self.relay.activate(id, live.active);
        }
        true
    }

    /// Makes a session known to the relay and to signalling.
    fn open(&mut self, id: SessionId, source: SocketAddr, session: &Session) -> bool {
        let offer = &session.offer;
        let opened = match &offer.kind {
            Kind::WebRtc(WebRtc { ufrags, pwd, .. }) => {
                self.relay.admit(id, ufrags, pwd, session.media, source)
            }
            Kind::Srt(srt) => self.relay.admit_call(id, srt, session.media, source),
        };
        if let Err(error) = opened {
            tracing::warn!(%source, %error, "source port cannot be bound");
            return false;
        }
        if let Some(ufrags) = offer.ufrags() {
            self.directory.begin(ufrags.clone(), Arc::clone(&offer.origin));
        }
        if let Some(kernel) = &mut self.kernel {
            let lease = Lease { source, origin: session.media, client_ip: offer.client_ip };
            kernel.lease(lease.source, lease.origin, lease.client_ip);
            self.leases.insert(id, lease);
        }
        true
    }

    fn bind(&mut self, session: SessionId, tuple: Tuple, protocol: Protocol) {
        self.relay.bind(session, tuple);
        if let Some(kernel) = &mut self.kernel {
            kernel.bind(tuple, protocol);
        }
    }

    fn unbind(&mut self, session: SessionId, tuple: Tuple) {
        self.relay.unbind(session, tuple);
        if let Some(kernel) = &mut self.kernel {
            kernel.unbind(tuple);
        }
    }

    /// A session whose record cannot be written goes on, but not into another process.
    fn record(&mut self, id: SessionId, proxy: &Proxy) {
        let Some(store) = &mut self.records else { return };
        let now = (Instant::now(), SystemTime::now());
        let Some(record) = proxy.session(id).and_then(|session| Record::of(session, now)) else { return };
        let written = match record.encode() {
            Ok(bytes) => store.put(id, &bytes).map_err(|error| error.to_string()),
            Err(oversize) => Err(oversize.to_string()),
        };
        if let Err(error) = written {
            self.records_refused += 1;
            tracing::warn!(session = id.0, error, "session will not survive this process");
            // An older record would lead to where the client is no more.
            self.forget_record(id);
        }
    }

    fn forget_record(&mut self, id: SessionId) {
        if let Some(store) = &mut self.records
            && let Err(error) = store.delete(id)
        {
            tracing::warn!(session = id.0, %error, "failed to delete the record of a session");
        }
    }

    fn answer(&mut self, session: SessionId, result: Result<SessionId, Refusal>) {
        if let Some(reply) = self.waiting.remove(&session) {
            // The client may have gone; its session then ends by its connect time-out.
            let _gone = reply.send(result);
        }
    }

    async fn install(
        &mut self,
        session: SessionId,
        flow: &FlowRequest,
        escalation: crate::datapath::Escalation,
    ) -> Result<FlowId, RelayReason> {
        match &mut self.kernel {
            Some(kernel) => kernel.install(session, flow, escalation).await,
            None => Err(RelayReason::NoEngine),
        }
    }
}

/// A session that is gone by now had nothing bound.
fn protocol_of(session: SessionId, proxy: &Proxy) -> Protocol {
    proxy.session(session).map_or(Protocol::WebRtc, |session| session.offer.protocol())
}

#[cfg(test)]
mod tests;
