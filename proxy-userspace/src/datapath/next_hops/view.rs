//! What the kernel last said of links and neighbours.

use std::collections::{HashMap, HashSet};

use super::{Key, Manner};
use crate::{
    datapath::{Egress, NextHopSpec},
    net::route::{Hop, Link, Neighbour, Table, Update},
};

/// What the kernel last said; kept up to date by [`Update`]s.
#[derive(Clone, Debug, Default)]
pub struct View {
    links: HashMap<u32, Link>,
    neighbours: HashMap<Hop, Neighbour>,
    /// Devices that transmit XDP frames.
    xdp_transmit: HashSet<u32>,
}

/// What an update changed of what next hops are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Devices that are new, different or gone.
    pub links: HashSet<u32>,
    /// Neighbours whose address is new, different or unknown now.
    pub hops: HashSet<Hop>,
}

impl Changed {
    /// Nothing did.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.hops.is_empty()
    }
}

impl View {
    /// Takes an update and says what it changed.
    pub fn apply(&mut self, update: Update) -> Changed {
        let mut changed = update.table.map(|table| self.replace(table)).unwrap_or_default();
        for (ifindex, link) in update.links {
            self.set_link(ifindex, link, &mut changed);
        }
        for (hop, neighbour) in update.neighbours {
            self.set_neighbour(hop, neighbour, &mut changed);
        }
        changed
    }

    /// Notes whether a device transmits XDP frames; true if that is news.
    pub fn set_xdp_transmit(&mut self, ifindex: u32, transmits: bool) -> bool {
        if transmits { self.xdp_transmit.insert(ifindex) } else { self.xdp_transmit.remove(&ifindex) }
    }

    /// Every device.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The device with this index.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// The device with this name.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The entry of the neighbour table.
    pub fn neighbour(&self, hop: Hop) -> Option<&Neighbour> {
        self.neighbours.get(&hop)
    }

    /// Neighbours that a process of ours has the kernel manage.
    pub fn managed_by_us(&self) -> Vec<Hop> {
        let ours = self.neighbours.values().filter(|found| found.is_managed && !found.is_foreign);
        ours.map(|found| found.hop).collect()
    }

    /// Whether frames can be sent there now.
    pub fn is_usable(&self, key: Key) -> bool {
        self.spec(key).egress != Egress::Unusable
    }

    /// The row of the next-hop table.
    pub(super) fn spec(&self, key: Key) -> NextHopSpec {
        let Some(link) = self.link(key.hop.ifindex).filter(|link| link.is_up) else {
            return NextHopSpec { ifindex: key.hop.ifindex, mtu: 0, egress: Egress::Unusable };
        };
        let mac = self.neighbours.get(&key.hop).and_then(|neighbour| neighbour.mac);
        let egress = match (key.manner, link.mac, mac) {
            _ if link.is_loopback => Egress::Stack,
            (Manner::Xdp, Some(src_mac), Some(dst_mac)) => {
                Egress::Redirect { dst_mac, src_mac, xdp: self.xdp_transmit.contains(&link.ifindex) }
            }
            (Manner::Xdp | Manner::Tc, _, _) => Egress::Neighbour,
        };
        let mtu = key.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        NextHopSpec { ifindex: link.ifindex, mtu: u16::try_from(mtu).unwrap_or(u16::MAX), egress }
    }

    fn replace(&mut self, table: Table) -> Changed {
        let mut changed = Changed::default();
        let links: HashMap<_, _> = table.links.into_iter().map(|link| (link.ifindex, link)).collect();
        let gone: Vec<u32> =
            self.links.keys().filter(|ifindex| !links.contains_key(ifindex)).copied().collect();
        gone.into_iter().for_each(|ifindex| self.set_link(ifindex, None, &mut changed));
        links.into_iter().for_each(|(ifindex, link)| self.set_link(ifindex, Some(link), &mut changed));
        let there: HashMap<_, _> = table.neighbours.into_iter().map(|entry| (entry.hop, entry)).collect();
        let gone: Vec<Hop> = self.neighbours.keys().filter(|hop| !there.contains_key(hop)).copied().collect();
        gone.into_iter().for_each(|hop| self.set_neighbour(hop, None, &mut changed));
        there.into_iter().for_each(|(hop, entry)| self.set_neighbour(hop, Some(entry), &mut changed));
        changed
    }

    fn set_link(&mut self, ifindex: u32, link: Option<Link>, changed: &mut Changed) {
        if self.links.get(&ifindex) != link.as_ref() {
            changed.links.insert(ifindex);
        }
        match link {
            Some(link) => {
                self.links.insert(ifindex, link);
            }
            None => {
                self.links.remove(&ifindex);
                self.xdp_transmit.remove(&ifindex);
                self.neighbours.retain(|hop, _| hop.ifindex != ifindex);
            }
        }
    }

    fn set_neighbour(&mut self, hop: Hop, neighbour: Option<Neighbour>, changed: &mut Changed) {
        let mac = neighbour.and_then(|neighbour| neighbour.mac);
        let before = match neighbour {
            Some(neighbour) => self.neighbours.insert(hop, neighbour),
            None => self.neighbours.remove(&hop),
        };
        if before.and_then(|before| before.mac) != mac {
            changed.hops.insert(hop);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{super::tests::*, *};
    use crate::net::route::{Reachability, Route};

    #[test]
    fn the_smaller_of_device_and_route_limits_the_next_hop() {
        let view = view(Some([9; 6]), true);
        for (mtu, limit) in [(None, 1500), (Some(1400), 1400), (Some(9000), 1500)] {
            let key = Key::new(Route { hop: HOP, mtu }, Manner::Xdp);
            assert_eq!(view.spec(key).mtu, limit, "{mtu:?}");
        }
    }

    #[test]
    fn an_answer_that_tells_nothing_new_changes_nothing() {
        let mut view = view(Some([9; 6]), true);
        let asked = Neighbour { reachability: Reachability::Asked, ..neighbour([9; 6]) };
        let update = Update { neighbours: [(HOP, Some(asked))].into(), ..Update::default() };
        assert!(view.apply(update).is_empty());
        assert_eq!(view.neighbour(HOP).unwrap().reachability, Reachability::Asked);
    }

    #[test]
    fn a_device_that_is_gone_takes_its_neighbours_along() {
        let mut view = view(Some([9; 6]), true);
        let changed = view.apply(Update { links: [(2, None)].into(), ..Update::default() });
        assert_eq!(changed.links, HashSet::from([2]));
        assert_eq!(view.neighbour(HOP), None);
    }

    #[test]
    fn a_full_table_names_what_is_different_new_and_gone() {
        let mut view = view(Some([9; 6]), true);
        let new = Hop { ifindex: 2, neighbour: Ipv4Addr::new(10, 0, 0, 7).into() };
        let links = view.links().cloned().collect();
        let neighbours = vec![Neighbour { hop: new, ..neighbour([1; 6]) }];
        let table = Some(Table { links, neighbours });
        let changed = view.apply(Update { table, ..Update::default() });
        assert_eq!(changed, Changed { links: HashSet::new(), hops: HashSet::from([HOP, HOP_V6, new]) });
    }
}
