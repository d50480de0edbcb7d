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
    /// Whether devices transmit XDP frames, where the kernel tells.
    xdp_transmit: HashMap<u32, bool>,
    /// Whether what XDP redirects arrives at neighbours, where that was seen.
    delivered: HashMap<Hop, bool>,
    wants_proof: bool,
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

    /// Notes whether a device transmits XDP frames, if the kernel tells; true if that is news.
    pub fn set_xdp_transmit(&mut self, ifindex: u32, transmits: Option<bool>) -> bool {
        let before = match transmits {
            Some(transmits) => self.xdp_transmit.insert(ifindex, transmits),
            None => self.xdp_transmit.remove(&ifindex),
        };
        before != transmits
    }

    /// Notes whether what XDP redirects arrives at a neighbour; true if frames go another way by it.
    pub fn set_delivered(&mut self, hop: Hop, is_delivered: bool) -> bool {
        let before = self.redirects(hop);
        self.delivered.insert(hop, is_delivered);
        self.redirects(hop) != before
    }

    /// Nothing is sent to a neighbour any more.
    pub fn forget_delivered(&mut self, hop: Hop) {
        self.delivered.remove(&hop);
    }

    /// Whether XDP may redirect to a neighbour, as far as its device is concerned.
    pub fn may_redirect(&self, hop: Hop) -> bool {
        self.xdp_transmit.get(&hop.ifindex) != Some(&false)
    }

    /// Whether XDP redirects only to neighbours at which something was seen to arrive.
    pub fn set_wants_proof(&mut self, wants_proof: bool) {
        self.wants_proof = wants_proof;
    }

    /// Whether XDP redirects to a neighbour. The kernel tells since 6.3 what a device can; that something arrives is
    /// better proof, and the only one before.
    fn redirects(&self, hop: Hop) -> bool {
        match (self.xdp_transmit.get(&hop.ifindex), self.delivered.get(&hop)) {
            (Some(false), _) => false,
            (Some(true) | None, Some(is_delivered)) => *is_delivered,
            (Some(true), None) => !self.wants_proof,
            (None, None) => false,
        }
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
                Egress::Redirect { dst_mac, src_mac, xdp: self.redirects(key.hop) }
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
                self.delivered.retain(|hop, _| hop.ifindex != ifindex);
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
    fn a5_xdp_redirects_where_the_kernel_or_an_answer_tells_that_frames_arrive() {
        let rows = [
            ("nothing can be proved, and the kernel tells that it can", false, Some(true), None, true),
            ("nothing can be proved, and the kernel does not tell", false, None, None, false),
            ("it is not proved yet", true, Some(true), None, false),
            ("it is proved", true, Some(true), Some(true), true),
            ("it was seen that it cannot", true, Some(true), Some(false), false),
            ("the kernel tells that it cannot", true, Some(false), Some(true), false),
            ("the kernel does not tell, and it is proved", true, None, Some(true), true),
        ];
        for (name, wants_proof, transmits, delivered, redirects) in rows {
            let mut view = view(Some([9; 6]), true);
            view.set_wants_proof(wants_proof);
            view.set_xdp_transmit(2, transmits);
            if let Some(delivered) = delivered {
                view.set_delivered(HOP, delivered);
            }
            let spec = view.spec(Key::new(Route { hop: HOP, mtu: None }, Manner::Xdp));
            let expected = Egress::Redirect { dst_mac: [9; 6], src_mac: OURS, xdp: redirects };
            assert_eq!(spec.egress, expected, "{name}");
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
