//! Where flows and origins are reached, asked again when routes change.
//!
//! Each destination is asked for once however many flows go there. After a change of routes all are asked again at the
//! rate of the task that asks, origins first; between changes a few are, because a path's MTU changes without notice.

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::next_hops::User;
use crate::{
    net::route::{Query, Route},
    origin::OriginId,
    session::SessionId,
};

/// Answers kept for destinations that nobody uses yet: clients that are about to.
const RECENT: usize = 4096;

/// Every destination in use, and the answers for some that may be soon.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    in_use: HashMap<Query, Destination>,
    recent: HashMap<Query, Option<Route>>,
    /// Grows with each change of routes: older answers are not to be relied on.
    generation: u64,
    serial: u64,
    first: Cycle,
    second: Cycle,
}

#[derive(Debug, Default)]
struct Destination {
    route: Option<Route>,
    generation: u64,
    serial: u64,
    users: HashSet<User>,
    origins: HashSet<OriginId>,
}

/// Whom a new answer concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Concerned {
    pub(super) sessions: HashSet<SessionId>,
    pub(super) origins: Vec<OriginId>,
}

impl Destinations {
    /// The answer that is known, if it is of now: a route, or that there is none.
    pub(super) fn known(&self, query: Query) -> Option<Option<Route>> {
        match self.in_use.get(&query).filter(|destination| destination.generation == self.generation) {
            Some(destination) => Some(destination.route),
            None => self.recent.get(&query).copied(),
        }
    }

    /// The last answer for a destination in use.
    pub(super) fn route(&self, query: Query) -> Option<Route> {
        self.in_use.get(&query)?.route
    }

    /// Keeps an answer for who may ask next.
    pub(super) fn note(&mut self, query: Query, route: Option<Route>) {
        if self.recent.len() >= RECENT {
            self.recent.clear();
        }
        self.recent.insert(query, route);
    }

    /// A direction of a flow goes there from now on.
    pub(super) fn hold(&mut self, query: Query, route: Route, user: User) {
        self.entry(query, Some(route), false).users.insert(user);
    }

    /// It does not any more.
    pub(super) fn let_go(&mut self, query: Query, user: User) {
        if let Some(destination) = self.in_use.get_mut(&query) {
            destination.users.remove(&user);
        }
        self.forget_unused(query);
    }

    /// An origin is there.
    pub(super) fn watch(&mut self, query: Query, route: Option<Route>, origin: OriginId) {
        self.entry(query, route, true).origins.insert(origin);
    }

    /// It is gone.
    pub(super) fn unwatch(&mut self, query: Query, origin: &OriginId) {
        if let Some(destination) = self.in_use.get_mut(&query) {
            destination.origins.remove(origin);
        }
        self.forget_unused(query);
    }

    /// Every destination is to be asked for again.
    pub(super) fn routes_changed(&mut self) {
        self.generation += 1;
        self.recent.clear();
        self.first.restart();
        self.second.restart();
    }

    /// What is to be asked next because routes changed, origins first.
    pub(super) fn due(&mut self, limit: usize) -> Vec<Query> {
        let mut batch = self.first.due(limit, &self.in_use);
        batch.extend(self.second.due(limit - batch.len(), &self.in_use));
        batch
    }

    /// What is to be asked next although nothing changed.
    pub(super) fn next(&mut self, limit: usize) -> Vec<Query> {
        let mut batch = self.first.next(limit / 2, &self.in_use);
        batch.extend(self.second.next(limit / 2, &self.in_use));
        batch
    }

    /// Takes an answer and says whom it concerns, if it is another than before.
    pub(super) fn answered(&mut self, query: Query, route: Option<Route>) -> Concerned {
        let generation = self.generation;
        let Some(destination) = self.in_use.get_mut(&query) else { return Concerned::default() };
        destination.generation = generation;
        if destination.route == route {
            return Concerned::default();
        }
        destination.route = route;
        Concerned {
            sessions: destination.users.iter().map(|(session, _)| *session).collect(),
            origins: destination.origins.iter().cloned().collect(),
        }
    }

    /// An answer that differs from the one others rely on is left to [`Destinations::answered`], which names them.
    fn entry(&mut self, query: Query, route: Option<Route>, is_origin: bool) -> &mut Destination {
        self.recent.remove(&query);
        let (generation, serial) = (self.generation, &mut self.serial);
        let (first, second) = (&mut self.first, &mut self.second);
        self.in_use.entry(query).or_insert_with(|| {
            *serial += 1;
            if is_origin { first } else { second }.add(query, *serial);
            Destination { route, generation, serial: *serial, ..Destination::default() }
        })
    }

    fn forget_unused(&mut self, query: Query) {
        let unused = |found: &Destination| found.users.is_empty() && found.origins.is_empty();
        if self.in_use.get(&query).is_some_and(unused) {
            self.in_use.remove(&query);
        }
        self.first.compact(&self.in_use);
        self.second.compact(&self.in_use);
    }
}

/// Destinations in the order in which they are asked for. Those out of use are dropped when their turn comes.
#[derive(Debug, Default)]
struct Cycle {
    order: VecDeque<(Query, u64)>,
    /// How many have not been asked for since routes changed.
    remaining: usize,
}

impl Cycle {
    fn add(&mut self, query: Query, serial: u64) {
        self.order.push_back((query, serial));
    }

    fn restart(&mut self) {
        self.remaining = self.order.len();
    }

    fn due(&mut self, limit: usize, in_use: &HashMap<Query, Destination>) -> Vec<Query> {
        let mut batch = Vec::new();
        while self.remaining > 0 && batch.len() < limit {
            self.remaining -= 1;
            batch.extend(self.turn(in_use));
        }
        batch
    }

    fn next(&mut self, limit: usize, in_use: &HashMap<Query, Destination>) -> Vec<Query> {
        (0..limit.min(self.order.len())).filter_map(|_| self.turn(in_use)).collect()
    }

    fn turn(&mut self, in_use: &HashMap<Query, Destination>) -> Option<Query> {
        let (query, serial) = self.order.pop_front()?;
        in_use.get(&query).filter(|destination| destination.serial == serial)?;
        self.order.push_back((query, serial));
        Some(query)
    }

    /// Drops what is out of use once it is most of the list.
    fn compact(&mut self, in_use: &HashMap<Query, Destination>) {
        if self.order.len() <= 2 * in_use.len() + 64 {
            return;
        }
        self.order.retain(|(query, serial)| in_use.get(query).is_some_and(|found| found.serial == *serial));
        self.remaining = self.remaining.min(self.order.len());
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::{datapath::Direction, net::route::Hop};

    fn query(last: u8) -> Query {
        Query::to(IpAddr::from([10, 0, 0, last]))
    }

    fn via(ifindex: u32) -> Route {
        Route { hop: Hop { ifindex, neighbour: Ipv4Addr::new(10, 0, 0, 1).into() }, mtu: None }
    }

    fn user(session: u64) -> User {
        (SessionId(session), Direction::ToClient)
    }

    fn origin() -> OriginId {
        OriginId::new("one", "s", "1")
    }

    #[test]
    fn a_destination_is_asked_for_once_however_many_flows_go_there() {
        let mut destinations = Destinations::default();
        for session in 0..100 {
            destinations.hold(query(9), via(2), user(session));
        }
        destinations.routes_changed();
        assert_eq!(destinations.due(64), [query(9)]);
        assert_eq!(destinations.due(64), []);
        assert_eq!(destinations.answered(query(9), Some(via(3))).sessions.len(), 100);
        assert_eq!(destinations.answered(query(9), Some(via(3))), Concerned::default());
    }

    #[test]
    fn a_new_user_does_not_hide_a_changed_route_from_the_others() {
        let mut destinations = Destinations::default();
        destinations.hold(query(9), via(2), user(1));
        destinations.routes_changed();
        destinations.hold(query(9), via(3), user(2));
        let both = HashSet::from([SessionId(1), SessionId(2)]);
        assert_eq!(destinations.answered(query(9), Some(via(3))).sessions, both);
    }

    #[test]
    fn origins_are_asked_for_before_clients() {
        let mut destinations = Destinations::default();
        (0..10).for_each(|last| destinations.hold(query(last), via(2), user(1)));
        destinations.watch(query(99), Some(via(2)), origin());
        destinations.routes_changed();
        assert_eq!(destinations.due(2), [query(99), query(0)]);
    }

    #[test]
    fn an_answer_from_before_a_change_of_routes_is_not_known() {
        let mut destinations = Destinations::default();
        destinations.note(query(1), Some(via(2)));
        destinations.hold(query(2), via(2), user(1));
        assert_eq!(destinations.known(query(1)), Some(Some(via(2))));
        assert_eq!(destinations.known(query(2)), Some(Some(via(2))));
        destinations.routes_changed();
        assert_eq!((destinations.known(query(1)), destinations.known(query(2))), (None, None));
        destinations.answered(query(2), None);
        assert_eq!(destinations.known(query(2)), Some(None));
    }

    #[test]
    fn repeated_changes_of_routes_starve_nobody() {
        let mut destinations = Destinations::default();
        (0..10).for_each(|last| destinations.hold(query(last), via(2), user(1)));
        let mut asked = HashSet::new();
        for _ in 0..5 {
            destinations.routes_changed();
            asked.extend(destinations.due(2));
        }
        assert_eq!(asked.len(), 10);
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let mut destinations = Destinations::default();
        for round in 0..1000 {
            destinations.hold(query(9), via(2), user(round));
            destinations.watch(query(9), Some(via(2)), origin());
            destinations.let_go(query(9), user(round));
            assert!(destinations.route(query(9)).is_some(), "an origin is there");
            destinations.unwatch(query(9), &origin());
        }
        assert!(destinations.in_use.is_empty());
        assert!(destinations.second.order.len() <= 65);
        assert_eq!(destinations.next(100), []);
    }
}
