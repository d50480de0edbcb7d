//! What a change of links, neighbours or routes means for what is attached and installed.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{Aftermath, Held, Installer, Leg, NetworkChange, Plan, upkeep, xdp_features};
use crate::{
    datapath::{Direction, next_hops::Changed},
    net::route::{Answers, Hop, Query, Update},
    session::{RelayReason, SessionId},
};

/// Destinations asked for at once.
const BATCH: usize = 64;
/// Destinations asked for each second although no route changed.
const BACKGROUND: usize = 32;
/// A gateway that is there answers within this time.
const GATEWAY: Duration = Duration::from_secs(1);
const GATEWAY_STEP: Duration = Duration::from_millis(20);

impl Installer {
    /// Reads everything once and attaches where packets are expected.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let table = Some(self.routes.table().await?);
        let changed = self.view.apply(Update { table, ..Update::default() });
        self.learn_features(changed.links.iter().copied());
        self.gateways = self.routes.default_hops().await?.into_iter().collect();
        if self.ingress.is_careful() {
            self.hear_gateways().await;
        }
        let gateways: Vec<Hop> = self.gateways.iter().copied().collect();
        for ifindex in self.ingress.first(&self.view, &gateways)? {
            self.ingress.keep(ifindex);
            // A refusal is logged; the sessions it concerns carry the reason.
            let _refused = self.attach(ifindex);
        }
        Ok(())
    }

    /// The next change of the network; dropping the future loses none.
    pub async fn changed(&mut self) -> NetworkChange {
        tokio::select! {
            Some(update) = self.updates.recv() => NetworkChange::Update(update),
            Some(answers) = self.lookups.next() => NetworkChange::Answers(answers),
            else => std::future::pending().await,
        }
    }

    /// Does what a change asks for.
    pub fn apply(&mut self, change: NetworkChange) -> Aftermath {
        let lost = match change {
            NetworkChange::Update(update) => self.updated(update),
            NetworkChange::Answers(answers) => self.answered(answers),
        };
        self.ask_again();
        Aftermath { lost, may_retry: false }
    }

    /// Once a second: what the kernel does not tell of by itself.
    pub fn look(&mut self, now: Instant) -> Aftermath {
        let devices: Vec<u32> = self.hops.devices().into_iter().collect();
        let lost = self.renew_features(devices);
        self.upkeep.round(&self.hops, &self.view, now);
        self.judge_gateways(now);
        self.may_retry |= self.ingress.mend(self.datapath.as_mut(), now);
        let background = self.destinations.next(BACKGROUND);
        if !background.is_empty() {
            // If the task is busy, it is with more urgent ones.
            let _busy = self.lookups.ask(background);
        }
        Aftermath { lost, may_retry: std::mem::take(&mut self.may_retry) }
    }

    fn updated(&mut self, mut update: Update) -> Vec<SessionId> {
        let routes = update.routes;
        let defaults = std::mem::take(&mut update.defaults);
        let changed = self.view.apply(update);
        self.learn_features(changed.links.iter().copied());
        for ifindex in &changed.links {
            self.link_changed(*ifindex);
        }
        self.follow_defaults(&defaults);
        if routes || !changed.links.is_empty() {
            self.destinations.routes_changed();
            self.may_retry = true;
        }
        let lost = self.hops.refresh(&changed, &self.view, self.datapath.as_mut());
        self.upkeep.follow(&mut self.hops, &changed, &self.view);
        lost
    }

    fn link_changed(&mut self, ifindex: u32) {
        let Some(link) = self.view.link(ifindex) else {
            self.gateways.retain(|gateway| gateway.ifindex != ifindex);
            return self.ingress.gone(ifindex, self.datapath.as_mut());
        };
        let is_wanted = self.ingress.is_selected(link)
            || (self.ingress.is_automatic() && (link.is_loopback || self.serves_origin(ifindex)));
        self.ingress.changed(ifindex);
        if is_wanted {
            // A refusal is logged; the sessions it concerns carry the reason.
            let _refused = self.attach(ifindex);
        }
    }

    fn serves_origin(&self, ifindex: u32) -> bool {
        let mut routes = self.origins.values().filter_map(|query| self.destinations.route(*query));
        routes.any(|route| route.hop.ifindex == ifindex)
    }

    fn follow_defaults(&mut self, defaults: &HashSet<Hop>) {
        for gateway in defaults {
            self.gateways.insert(*gateway);
            if self.ingress.is_automatic() {
                self.ingress.keep(gateway.ifindex);
                // A refusal is logged; the sessions it concerns carry the reason.
                let _refused = self.attach(gateway.ifindex);
            }
        }
    }

    fn answered(&mut self, answers: Answers) -> Vec<SessionId> {
        let mut lost = Vec::new();
        for (query, answer) in answers {
            // What was not answered in time is asked again when its turn comes.
            let Ok(route) = answer else { continue };
            let before = self.destinations.route(query);
            let concerned = self.destinations.answered(query, route);
            if concerned.sessions.is_empty() && concerned.origins.is_empty() {
                continue;
            }
            self.may_retry |= route.is_some();
            if let Some(route) = route.filter(|_| !concerned.origins.is_empty()) {
                // A refusal is logged; the sessions it concerns carry the reason.
                let _refused = self.attach(route.hop.ifindex);
            }
            lost.extend(
                concerned.sessions.into_iter().filter(|session| self.follow_route(*session).is_err()),
            );
            if let Some(before) = before {
                self.leave(before.hop.ifindex);
            }
        }
        self.upkeep.follow(&mut self.hops, &Changed::default(), &self.view);
        lost
    }

    fn ask_again(&mut self) {
        if self.lookups.is_idle() {
            let due = self.destinations.due(BATCH);
            if !due.is_empty() {
                // An idle task takes a batch.
                let _taken = self.lookups.ask(due);
            }
        }
    }

    /// Re-points a flow along the routes there are now.
    fn follow_route(&mut self, session: SessionId) -> Result<(), RelayReason> {
        let Some(held) = self.held.get(&session) else { return Ok(()) };
        let (ingress, flow) = (held.from_client, held.flow);
        let (to_origin, to_client) = (held.to_origin, held.to_client);
        let route = |query: Query| Ok((query, self.destinations.route(query).ok_or(RelayReason::NoRoute)?));
        let (origin, client) = (route(to_origin.query)?, route(to_client.query)?);
        let plan = self.plan(ingress, origin, client)?;
        let Plan { to_origin: (_, _, origin), to_client: (_, _, client) } = plan;
        for (direction, leg, key) in
            [(Direction::ToOrigin, to_origin, origin), (Direction::ToClient, to_client, client)]
        {
            if leg.key != key {
                let user = (session, direction);
                let taken = self.hops.take(user, key, &self.view, self.datapath.as_mut());
                let id = taken.map_err(super::relay_reason)?;
                self.datapath.set_flow_hop(flow, direction, id);
                self.hops.release(user, leg.key, self.datapath.as_mut());
                self.set_leg(session, direction, Leg { key, ..leg });
            }
        }
        Ok(())
    }

    fn set_leg(&mut self, session: SessionId, direction: Direction, leg: Leg) {
        let Some(Held { from_origin, to_origin, to_client, .. }) = self.held.get_mut(&session) else {
            return;
        };
        match direction {
            Direction::ToOrigin => {
                self.ingress.let_go(*from_origin);
                *from_origin = leg.key.hop().ifindex;
                self.ingress.hold(*from_origin);
                *to_origin = leg;
            }
            Direction::ToClient => *to_client = leg,
        }
    }

    /// Every tick: whether what XDP redirects arrives, or would.
    pub fn prove_delivery(&mut self, now: Instant) {
        let changed = self.delivery.round(&self.hops, &mut self.view, self.datapath.as_mut(), now);
        if !changed.is_empty() {
            // Another way to a next hop makes none unusable.
            let _none_lost = self.hops.refresh(&changed, &self.view, self.datapath.as_mut());
        }
    }

    /// Re-points what uses devices that transmit XDP frames now and did not, or the reverse.
    pub(super) fn renew_features(&mut self, devices: Vec<u32>) -> Vec<SessionId> {
        let links = self.learn_features(devices.into_iter());
        let changed = Changed { links, hops: HashSet::new() };
        self.hops.refresh(&changed, &self.view, self.datapath.as_mut())
    }

    /// Asks which devices transmit XDP frames, and names those for which that is news.
    fn learn_features(&mut self, devices: impl Iterator<Item = u32>) -> HashSet<u32> {
        let mut news = HashSet::new();
        for ifindex in devices {
            let there = self.view.link(ifindex).and_then(|_| xdp_features(ifindex));
            let transmits = there.map(|features| features.has_ndo_xmit());
            if self.view.set_xdp_transmit(ifindex, transmits) {
                news.insert(ifindex);
            }
        }
        news
    }

    /// Waits until gateways have answered, or one did not: only one that answers now can be lost later.
    async fn hear_gateways(&mut self) {
        let gateways: Vec<Hop> =
            self.gateways.iter().filter(|gateway| !gateway.neighbour.is_unspecified()).copied().collect();
        self.upkeep.ask(&gateways, &self.view);
        let end = Instant::now() + GATEWAY;
        while Instant::now() < end {
            tokio::time::sleep(GATEWAY_STEP).await;
            while let Ok(update) = self.updates.try_recv() {
                self.view.apply(update);
            }
            if gateways.iter().all(|gateway| upkeep::answers(*gateway, &self.view)) {
                break;
            }
        }
        self.upkeep.done(&gateways, &self.hops, &self.view);
    }

    fn judge_gateways(&mut self, now: Instant) {
        let (waiting, over) = self.ingress.trials(now);
        self.upkeep.ask(&waiting, &self.view);
        for ifindex in over {
            let view = &self.view;
            let answers = |gateway| upkeep::answers(gateway, view);
            let gateways = self.ingress.judge(ifindex, answers, self.datapath.as_mut());
            self.upkeep.done(&gateways, &self.hops, view);
        }
    }
}
