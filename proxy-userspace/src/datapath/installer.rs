//! Turns a wish for a flow into next hops, attached programs and an installed flow, or into the reason why not; and keeps
//! installed flows right while links, neighbours and routes change.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::{
    Attachment, Datapath, Direction, Engine, Escalation, FlowCounters, FlowId, FlowSpec, InstallError,
    NextHopId, Protocol,
    kernel::{XdpVetoes, features::xdp_features},
    next_hops::{Changed, Key, Manner, NextHops, View},
};
use crate::{
    net::{
        conntrack::{Conntrack, Conversation, Opener},
        route::{Answers, Hop, Keeper, Lookups, Monitor, Query, Route, Routes, Update},
    },
    origin::OriginId,
    proxy::FlowRequest,
    session::{RelayReason, SessionId, Tuple},
};

mod absences;
mod adopt;
mod delivery;
mod destinations;
mod follow;
mod guests;
mod ingress;
mod upkeep;

use delivery::Delivery;
use destinations::Destinations;
use ingress::Ingress;
use upkeep::Upkeep;

/// After the kernel left a question about a route unanswered, it is spared for this long.
const SPARE: Duration = Duration::from_secs(1);

/// The kernel engine with what it takes to use it.
pub struct Installer {
    datapath: Box<dyn Datapath>,
    routes: Routes,
    updates: mpsc::Receiver<Update>,
    lookups: Lookups,
    view: View,
    hops: NextHops,
    destinations: Destinations,
    ingress: Ingress,
    upkeep: Upkeep,
    delivery: Delivery,
    tracking: Conntrack,
    /// Gateways of default routes, seen so far.
    gateways: HashSet<Hop>,
    origins: HashMap<OriginId, Query>,
    held: HashMap<SessionId, Held>,
    /// What the clients of relayed tuples send to, as on the wire.
    services: HashMap<Tuple, SocketAddr>,
    spared_until: Option<Instant>,
    /// Something changed that may let flows be installed which could not be.
    may_retry: bool,
}

/// What became of the network.
#[derive(Debug)]
pub enum NetworkChange {
    /// Links, neighbours or routes changed.
    Update(Update),
    /// Destinations were asked for again.
    Answers(Answers),
}

/// What a change of the network means for sessions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// Their next hop became unusable.
    pub lost: Vec<SessionId>,
    /// What could not be installed for want of a route, a link or a program may be tried again.
    pub may_retry: bool,
}

/// What an installed flow uses.
#[derive(Debug)]
struct Held {
    flow: FlowId,
    /// The device by which the client's packets come in.
    from_client: u32,
    from_origin: u32,
    to_origin: Leg,
    to_client: Leg,
    /// What connection tracking calls the two legs.
    conversations: [Conversation; 2],
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug)]
struct Leg {
    query: Query,
    key: Key,
}

/// How both directions of a flow leave.
#[derive(Clone, Copy, Debug)]
struct Plan {
    to_origin: (Query, Route, Key),
    to_client: (Query, Route, Key),
}

impl std::fmt::Debug for Installer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installer").field("hops", &self.hops).finish_non_exhaustive()
    }
}

impl Installer {
    /// Uses `datapath`, on the interfaces named, or on those where packets are found. With `vetoes`, native XDP is
    /// taken back where a gateway is lost by it.
    pub async fn new(
        datapath: Box<dyn Datapath>,
        routes: Routes,
        interfaces: &[String],
        vetoes: Option<XdpVetoes>,
    ) -> anyhow::Result<Self> {
        let monitor = Monitor::open(routes.clone()).context("failed to listen to netlink")?;
        let (sender, updates) = mpsc::channel(1);
        tokio::spawn(monitor.run(sender));
        let mut view = View::default();
        let mut installer = Self {
            datapath,
            updates,
            lookups: Lookups::start(routes.clone()),
            upkeep: Upkeep::new(Keeper::start(&routes)),
            delivery: Delivery::open(&mut view),
            tracking: Conntrack::start(),
            routes,
            view,
            hops: NextHops::default(),
            destinations: Destinations::default(),
            ingress: Ingress::new(interfaces, vetoes),
            gateways: HashSet::new(),
            origins: HashMap::new(),
            held: HashMap::new(),
            services: HashMap::new(),
            spared_until: None,
            may_retry: false,
        };
        installer.start().await?;
        Ok(installer)
    }

    /// What is attached.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.datapath.attachments()
    }

    /// Programs that somebody else detached, so far.
    pub fn detachments(&self) -> u64 {
        self.ingress.detachments()
    }

    /// The engine underneath, for its counters.
    pub fn datapath(&self) -> &dyn Datapath {
        self.datapath.as_ref()
    }

    /// Next hops that TC sends to because what XDP redirects does not arrive there.
    pub fn undelivered_next_hops(&self) -> usize {
        self.delivery.failed()
    }

    /// Installs a flow.
    pub async fn install(
        &mut self,
        session: SessionId,
        request: &FlowRequest,
        escalation: Escalation,
    ) -> Result<FlowId, RelayReason> {
        let mut ends = Ends::of(request)?;
        let arrival = self.datapath.arrival(ends.client);
        ends.service = arrival.map_or(ends.service, |arrival| arrival.service);
        let came_by = arrival.map_or(request.ifindex, |arrival| arrival.ifindex);
        let plan = self.plan_between(&ends, came_by).await?;
        let install = |datapath: &mut dyn Datapath, hops: (NextHopId, NextHopId)| {
            datapath.install(&ends.spec(hops.0, hops.1))
        };
        let flow = self.hold_plan(session, &ends, plan, install)?;
        self.datapath.escalate(flow, escalation);
        Ok(flow)
    }

    /// Removes a flow and frees what it used.
    pub fn remove(&mut self, session: SessionId, flow: FlowId) -> FlowCounters {
        let counters = self.datapath.remove(flow);
        if let Some(held) = self.held.remove(&session) {
            self.let_go(session, Direction::ToOrigin, held.to_origin);
            self.let_go(session, Direction::ToClient, held.to_client);
            self.ingress.let_go(held.from_client);
            self.ingress.let_go(held.from_origin);
            held.conversations.into_iter().for_each(|conversation| self.tracking.let_go(conversation));
            self.upkeep.follow(&mut self.hops, &Changed::default(), &self.view);
        }
        counters
    }

    /// Detaches from every interface, until [`Installer::attach_again`]; returns their names.
    pub fn detach_all(&mut self) -> Vec<String> {
        let attached = self.datapath.attachments();
        self.ingress.close(self.datapath.as_mut());
        // What is attached again goes with this process.
        self.datapath.unpin();
        attached.into_iter().map(|attachment| attachment.name).collect()
    }

    /// Attaches where programs are needed, if [`Installer::detach_all`] took them away.
    pub fn attach_again(&mut self) {
        let Some(mut devices) = self.ingress.open() else { return };
        let origins = self.origins.values().filter_map(|query| self.destinations.route(*query));
        devices.extend(origins.map(|route| route.hop.ifindex));
        for ifindex in devices {
            // A refusal is logged; the sessions it concerns carry the reason.
            let _refused = self.attach(ifindex);
        }
    }

    /// Chooses which STUN packets of a flow come up.
    pub fn escalate(&mut self, flow: FlowId, what: Escalation) {
        self.datapath.escalate(flow, what);
    }

    /// Attaches where packets of a client will arrive, so that the hook sees a session's first one.
    pub async fn prepare(&mut self, client: IpAddr) {
        if let Ok(route) = self.route(Query::to(client)).await {
            let ifindex = route.hop.ifindex;
            match self.attach(ifindex) {
                Ok(_) => self.ingress.keep(ifindex),
                Err(reason) => tracing::debug!(%client, reason = reason.as_str(), "no program at its device"),
            }
        }
    }

    /// Attaches where packets of an origin will arrive, and follows it there if its route changes.
    pub async fn watch(&mut self, origin: OriginId, ip: IpAddr) {
        self.unwatch(&origin);
        let query = Query::to(ip);
        let route = self.route(query).await.ok();
        self.destinations.watch(query, route, origin.clone());
        self.origins.insert(origin, query);
        if let Some(route) = route {
            // A refusal is logged; the sessions it concerns carry the reason.
            let _refused = self.attach(route.hop.ifindex);
        }
    }

    /// Forgets an origin; nothing stays attached for it alone.
    pub fn unwatch(&mut self, origin: &OriginId) {
        let Some(query) = self.origins.remove(origin) else { return };
        let route = self.destinations.route(query);
        self.destinations.unwatch(query, origin);
        if let Some(route) = route {
            self.leave(route.hop.ifindex);
        }
    }

    /// Gives back what outlives the process.
    pub async fn close(&mut self) {
        self.datapath.unpin();
        self.upkeep.close(&self.view).await;
    }

    /// Whether flows are forwarded when this process is gone.
    pub fn outlives(&self) -> bool {
        self.datapath.outlives()
    }

    /// Plans a flow whose packets come in by a device, and says by which they do.
    async fn plan_between(&mut self, ends: &Ends, came_by: u32) -> Result<(u32, Plan), RelayReason> {
        let to_client = self.leg(ends.service, ends.client).await?;
        let to_origin = self.leg(ends.source, ends.origin).await?;
        // A device that is gone by now was replaced by the one that leads to the client.
        let is_there = self.view.link(came_by).is_some();
        let ingress = if is_there { came_by } else { to_client.1.hop.ifindex };
        Ok((ingress, self.plan(ingress, to_origin, to_client)?))
    }

    async fn leg(&mut self, from: SocketAddr, to: SocketAddr) -> Result<(Query, Route), RelayReason> {
        let query = Query::between(from.ip(), to.ip());
        Ok((query, self.route(query).await?))
    }

    async fn route(&mut self, query: Query) -> Result<Route, RelayReason> {
        if let Some(known) = self.destinations.known(query) {
            return known.ok_or(RelayReason::NoRoute);
        }
        if self.spared_until.is_some_and(|until| Instant::now() < until) {
            self.may_retry = true;
            return Err(RelayReason::NoRoute);
        }
        match self.routes.find(query).await {
            Ok(route) => {
                self.destinations.note(query, route);
                route.ok_or(RelayReason::NoRoute)
            }
            Err(error) => {
                tracing::warn!(%error, destination = %query.destination, "the kernel does not tell the route");
                self.spared_until = Some(Instant::now() + SPARE);
                // There may be a route all the same.
                self.may_retry = true;
                Err(RelayReason::NoRoute)
            }
        }
    }

    /// Attaches where a flow's packets come in, and chooses how they leave.
    fn plan(
        &mut self,
        ingress: u32,
        (origin, to_origin): (Query, Route),
        (client, to_client): (Query, Route),
    ) -> Result<Plan, RelayReason> {
        self.refuse_half_local([ingress, to_client.hop.ifindex, to_origin.hop.ifindex])?;
        let from_client = self.attach(ingress)?;
        let from_origin = self.attach(to_origin.hop.ifindex)?;
        let plan = Plan {
            to_origin: (origin, to_origin, Key::new(to_origin, manner(from_client))),
            to_client: (client, to_client, Key::new(to_client, manner(from_origin))),
        };
        let usable = [plan.to_origin, plan.to_client].iter().all(|(_, _, key)| self.view.is_usable(*key));
        if usable { Ok(plan) } else { Err(RelayReason::NextHopLost) }
    }

    /// Takes the next hops of a plan for a session, and has `place` put a flow on them.
    fn hold_plan(
        &mut self,
        session: SessionId,
        ends: &Ends,
        (ingress, plan): (u32, Plan),
        place: impl FnOnce(&mut dyn Datapath, (NextHopId, NextHopId)) -> Result<FlowId, InstallError>,
    ) -> Result<FlowId, RelayReason> {
        let to_origin = self.hold(session, Direction::ToOrigin, plan.to_origin);
        let to_client = self.hold(session, Direction::ToClient, plan.to_client);
        let installed = match (to_origin, to_client) {
            (Ok(to_origin), Ok(to_client)) => {
                place(self.datapath.as_mut(), (to_origin, to_client)).map_err(relay_reason)
            }
            (Err(error), _) | (_, Err(error)) => Err(relay_reason(error)),
        };
        let [to_origin, to_client] =
            [plan.to_origin, plan.to_client].map(|(query, _, key)| Leg { query, key });
        let flow = installed.inspect_err(|_| {
            self.let_go(session, Direction::ToOrigin, to_origin);
            self.let_go(session, Direction::ToClient, to_client);
        })?;
        let from_origin = to_origin.key.hop().ifindex;
        self.ingress.hold(ingress);
        self.ingress.hold(from_origin);
        let [ours, clients] = ends.conversations();
        self.tracking.hold(ours, Opener::Us);
        self.tracking.hold(clients, Opener::Client);
        let conversations = [ours, clients];
        let held = Held { flow, from_client: ingress, from_origin, to_origin, to_client, conversations };
        self.held.insert(session, held);
        self.upkeep.follow(&mut self.hops, &Changed::default(), &self.view);
        Ok(flow)
    }

    fn hold(
        &mut self,
        session: SessionId,
        direction: Direction,
        (query, route, key): (Query, Route, Key),
    ) -> Result<NextHopId, InstallError> {
        let user = (session, direction);
        if !self.hops.uses(key.hop()) {
            // A veth takes XDP frames while its peer does, and no notification tells when that changes.
            self.renew_features(vec![key.hop().ifindex]);
        }
        self.destinations.hold(query, route, user);
        self.hops.take(user, key, &self.view, self.datapath.as_mut())
    }

    fn let_go(&mut self, session: SessionId, direction: Direction, leg: Leg) {
        self.destinations.let_go(leg.query, (session, direction));
        self.hops.release((session, direction), leg.key, self.datapath.as_mut());
    }

    /// A frame from outside cannot be turned into one for `lo`, nor the reverse: the stack refuses its addresses.
    fn refuse_half_local(&self, devices: [u32; 3]) -> Result<(), RelayReason> {
        let is_local = |ifindex| self.view.link(ifindex).is_some_and(|link| link.is_loopback);
        let local = devices.map(is_local);
        if local == [true; 3] || local == [false; 3] { Ok(()) } else { Err(RelayReason::LocalPeer) }
    }

    fn attach(&mut self, ifindex: u32) -> Result<Engine, RelayReason> {
        let behind = self.gateways.iter().filter(|gateway| gateway.ifindex == ifindex);
        let answering: Vec<Hop> =
            behind.filter(|gateway| upkeep::answers(**gateway, &self.view)).copied().collect();
        self.ingress.attach(ifindex, &self.view, &answering, self.datapath.as_mut())
    }

    /// Detaches from a device if no origin is behind it any more.
    fn leave(&mut self, ifindex: u32) {
        let leads_there =
            |query: &Query| self.destinations.route(*query).is_some_and(|route| route.hop.ifindex == ifindex);
        if !self.origins.values().any(leads_there) {
            self.ingress.leave(ifindex, self.datapath.as_mut());
        }
    }
}

/// Both ends of a flow, of one family.
struct Ends {
    protocol: Protocol,
    client: SocketAddr,
    service: SocketAddr,
    source: SocketAddr,
    origin: SocketAddr,
}

impl Ends {
    fn of(request: &FlowRequest) -> Result<Self, RelayReason> {
        let (client, service) = (request.tuple.client, request.tuple.local);
        let FlowRequest { protocol, source, origin, .. } = *request;
        let ends = Self { protocol, client, service, source, origin };
        if client.is_ipv4() == ends.origin.is_ipv4() { Ok(ends) } else { Err(RelayReason::AddressFamily) }
    }

    fn spec(&self, to_origin: NextHopId, to_client: NextHopId) -> FlowSpec {
        let Self { protocol, client, service, source, origin } = *self;
        FlowSpec { protocol, client, service, source, origin, to_origin, to_client }
    }

    /// Ours with the origin, and the client's with us.
    fn conversations(&self) -> [Conversation; 2] {
        [
            Conversation { from: self.source, to: self.origin },
            Conversation { from: self.client, to: self.service },
        ]
    }
}

fn manner(ingress: Engine) -> Manner {
    match ingress {
        Engine::Xdp => Manner::Xdp,
        Engine::Tc => Manner::Tc,
    }
}

fn relay_reason(error: InstallError) -> RelayReason {
    match error {
        InstallError::Full => RelayReason::TableFull,
        InstallError::Taken => RelayReason::KeyTaken,
        InstallError::Resting => RelayReason::Settling,
        InstallError::MixedFamilies => RelayReason::AddressFamily,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::datapath::next_hops::tests::Rows;

    #[tokio::test]
    async fn a_question_that_the_kernel_left_unanswered_is_asked_again_soon() {
        let routes = Routes::connect().unwrap();
        let mut installer = Installer::new(Box::new(Rows::default()), routes, &[], None).await.unwrap();
        let (routes, _connection) = Routes::of_a_silent_kernel().unwrap();
        installer.routes = routes;
        installer.look(Instant::now());
        assert!(!installer.look(Instant::now()).may_retry);
        for _ in 0..2 {
            installer.prepare(Ipv4Addr::LOCALHOST.into()).await;
            assert!(installer.look(Instant::now()).may_retry);
        }
    }
}
