//! Which neighbours are to be resolved, asked and released, and when.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use super::super::next_hops::{Changed, NextHops, View};
use crate::net::route::{Care, Hop, Keeper, Reachability};

/// Every neighbour in use is asked this often, as long as there are not too many: one that moved without telling is
/// then noticed within this time and the three seconds the kernel waits for an answer.
const ROUND: Duration = Duration::from_secs(2);
/// Neighbours asked in one step at most.
const STEP: usize = 256;

/// The neighbours in use, in the order in which they are asked.
#[derive(Debug)]
pub(super) struct Upkeep {
    keeper: Option<Keeper>,
    ring: VecDeque<Hop>,
    listed: HashSet<Hop>,
    last: Option<Instant>,
}

impl Upkeep {
    pub(super) fn new(keeper: Keeper) -> Self {
        Self { keeper: Some(keeper), ring: VecDeque::new(), listed: HashSet::new(), last: None }
    }

    /// Follows what next hops use and what became of it.
    pub(super) fn follow(&mut self, hops: &mut NextHops, changed: &Changed, view: &View) {
        let (added, removed) = hops.news();
        let mut batch: Vec<Care> = added.iter().filter_map(|hop| care(*hop, view)).collect();
        self.ring.extend(added.into_iter().filter(|hop| self.listed.insert(*hop)));
        let is_lost = |hop: &&Hop| hops.uses(**hop) && !answers(**hop, view);
        batch.extend(changed.hops.iter().filter(is_lost).filter_map(|hop| care(*hop, view)));
        let unused = removed.into_iter().filter(|hop| !hops.uses(*hop));
        batch.extend(unused.filter_map(|hop| release(hop, view)));
        self.hand_over(batch);
    }

    /// Asks those whose turn it is.
    pub(super) fn round(&mut self, hops: &NextHops, view: &View, now: Instant) {
        let since = self.last.replace(now).map_or(ROUND, |last| now.saturating_duration_since(last));
        let share = self.ring.len() as f64 * since.as_secs_f64() / ROUND.as_secs_f64();
        let turns = (share.ceil() as usize).min(STEP).min(self.ring.len());
        let mut batch = Vec::with_capacity(turns);
        for hop in (0..turns).filter_map(|_| self.ring.pop_front()).collect::<Vec<_>>() {
            if hops.uses(hop) {
                self.ring.push_back(hop);
                batch.extend(care(hop, view));
            } else {
                self.listed.remove(&hop);
            }
        }
        self.hand_over(batch);
    }

    /// Asks neighbours out of turn.
    pub(super) fn ask(&self, hops: &[Hop], view: &View) {
        self.hand_over(hops.iter().filter_map(|hop| care(*hop, view)).collect());
    }

    /// Gives back neighbours that were asked out of turn.
    pub(super) fn done(&self, asked: &[Hop], hops: &NextHops, view: &View) {
        let unused = asked.iter().filter(|hop| !hops.uses(**hop));
        self.hand_over(unused.filter_map(|hop| release(*hop, view)).collect());
    }

    /// Gives back everything.
    pub(super) async fn close(&mut self, view: &View) {
        let last = self.ring.drain(..).filter_map(|hop| release(hop, view)).collect();
        if let Some(keeper) = self.keeper.take() {
            keeper.close(last).await;
        }
    }

    fn hand_over(&self, batch: Vec<Care>) {
        let Some(keeper) = self.keeper.as_ref().filter(|_| !batch.is_empty()) else { return };
        if let Err(batch) = keeper.take(batch) {
            tracing::debug!(neighbours = batch.len(), "neighbours wait for their next turn");
        }
    }
}

/// Whether the kernel has an address for the neighbour, and has not just failed to confirm it.
pub(super) fn answers(hop: Hop, view: &View) -> bool {
    view.neighbour(hop).is_some_and(|found| found.reachability == Reachability::Answered)
}

fn care(hop: Hop, view: &View) -> Option<Care> {
    if hop.neighbour.is_unspecified() || !view.link(hop.ifindex)?.resolves {
        return None;
    }
    let Some(neighbour) = view.neighbour(hop) else { return Some(Care::Resolve(hop)) };
    if neighbour.is_foreign {
        return None;
    }
    Some(match neighbour.reachability {
        Reachability::Answered => Care::Ask(hop),
        Reachability::Asked | Reachability::Unknown => Care::Resolve(hop),
    })
}

fn release(hop: Hop, view: &View) -> Option<Care> {
    // Whatever was asked is managed by us, also while the view has the state between the two messages of a question.
    let neighbour = view.neighbour(hop).filter(|found| !found.is_foreign)?;
    Some(Care::Release { hop, is_known: neighbour.mac.is_some() })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::net::route::{Link, Neighbour, Table, Update};

    const HOP: Hop = Hop { ifindex: 2, neighbour: std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)) };

    fn view(resolves: bool, neighbour: Option<(Reachability, bool)>) -> View {
        let link = Link {
            ifindex: 2,
            name: "eth0".into(),
            mac: Some([2; 6]),
            mtu: 1500,
            is_up: true,
            is_loopback: false,
            resolves,
        };
        let neighbours = neighbour.map(|(reachability, is_foreign)| Neighbour {
            hop: HOP,
            mac: Some([9; 6]).filter(|_| reachability != Reachability::Unknown),
            reachability,
            is_managed: true,
            is_foreign,
        });
        let mut view = View::default();
        let table = Some(Table { links: vec![link], neighbours: neighbours.into_iter().collect() });
        view.apply(Update { table, ..Update::default() });
        view
    }

    #[test]
    fn a_neighbour_is_asked_if_it_is_known_and_resolved_if_it_is_not() {
        assert_eq!(care(HOP, &view(true, Some((Reachability::Answered, false)))), Some(Care::Ask(HOP)));
        assert_eq!(care(HOP, &view(true, Some((Reachability::Unknown, false)))), Some(Care::Resolve(HOP)));
        assert_eq!(care(HOP, &view(true, None)), Some(Care::Resolve(HOP)));
    }

    #[test]
    fn what_an_operator_made_and_devices_without_neighbours_are_left_alone() {
        let fixed = view(true, Some((Reachability::Answered, true)));
        assert_eq!((care(HOP, &fixed), release(HOP, &fixed)), (None, None));
        assert_eq!(care(HOP, &view(false, None)), None);
    }

    #[test]
    fn only_what_we_manage_is_released() {
        let ours = view(true, Some((Reachability::Answered, false)));
        assert_eq!(release(HOP, &ours), Some(Care::Release { hop: HOP, is_known: true }));
        assert_eq!(release(HOP, &view(true, None)), None);
    }
}
