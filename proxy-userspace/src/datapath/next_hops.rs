//! The next hops that flows use: chosen once per neighbour, kept fresh, re-pointed by one store each.

use std::collections::{HashMap, HashSet};

use super::{Datapath, Direction, Egress, InstallError, NextHopId, NextHopSpec};
use crate::{
    net::route::{Hop, Route},
    session::SessionId,
};

mod view;

pub use view::{Changed, View};

/// What a next hop is found by: one neighbour, sent to in one manner, behind one bottleneck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    hop: Hop,
    manner: Manner,
    mtu: Option<u32>,
}

/// How frames are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Manner {
    /// XDP redirects with addresses that userspace keeps fresh; TC resolves the neighbour while none is known.
    Xdp,
    /// TC resolves the neighbour.
    Tc,
}

/// One direction of a session's packets.
pub type User = (SessionId, Direction);

#[derive(Debug)]
struct Entry {
    id: NextHopId,
    spec: NextHopSpec,
    users: HashSet<User>,
}

/// The next hops in use.
#[derive(Debug, Default)]
pub struct NextHops {
    entries: HashMap<Key, Entry>,
    by_hop: HashMap<Hop, HashSet<Key>>,
    /// Neighbours that are used since the last [`NextHops::news`].
    added: Vec<Hop>,
    removed: Vec<Hop>,
}

impl Key {
    /// Sends along `route`.
    pub fn new(route: Route, manner: Manner) -> Self {
        Self { hop: route.hop, manner, mtu: route.mtu }
    }

    /// The neighbour.
    pub fn hop(&self) -> Hop {
        self.hop
    }
}

impl NextHops {
    /// The next hop for one direction of a session's packets.
    pub fn take(
        &mut self,
        user: User,
        key: Key,
        view: &View,
        datapath: &mut dyn Datapath,
    ) -> Result<NextHopId, InstallError> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.users.insert(user);
            return Ok(entry.id);
        }
        let spec = view.spec(key);
        let id = datapath.add_next_hop(&spec)?;
        self.entries.insert(key, Entry { id, spec, users: HashSet::from([user]) });
        let keys = self.by_hop.entry(key.hop).or_default();
        if keys.is_empty() {
            self.added.push(key.hop);
        }
        keys.insert(key);
        Ok(id)
    }

    /// Gives back what one direction of a session used; a next hop without users is freed.
    pub fn release(&mut self, user: User, key: Key, datapath: &mut dyn Datapath) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.users.remove(&user);
        if !entry.users.is_empty() {
            return;
        }
        datapath.remove_next_hop(entry.id);
        self.entries.remove(&key);
        if let Some(keys) = self.by_hop.get_mut(&key.hop) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_hop.remove(&key.hop);
                self.removed.push(key.hop);
            }
        }
    }

    /// Re-points what changed and names the sessions whose next hop became unusable.
    pub fn refresh(&mut self, changed: &Changed, view: &View, datapath: &mut dyn Datapath) -> Vec<SessionId> {
        let of_hops = changed.hops.iter().filter_map(|hop| self.by_hop.get(hop)).flatten();
        let mut keys: HashSet<Key> = of_hops.copied().collect();
        if !changed.links.is_empty() {
            keys.extend(self.entries.keys().filter(|key| changed.links.contains(&key.hop.ifindex)));
        }
        let mut lost = HashSet::new();
        for key in keys {
            lost.extend(self.refresh_one(key, view.spec(key), datapath));
        }
        lost.into_iter().collect()
    }

    /// Neighbours that are used now and were not, and those that are not used any more.
    pub fn news(&mut self) -> (Vec<Hop>, Vec<Hop>) {
        (std::mem::take(&mut self.added), std::mem::take(&mut self.removed))
    }

    /// Whether anything is sent to a neighbour.
    pub fn uses(&self, hop: Hop) -> bool {
        self.by_hop.contains_key(&hop)
    }

    /// Neighbours that XDP redirects to, if it can.
    pub fn redirected(&self) -> impl Iterator<Item = Hop> {
        let is_redirected = |keys: &HashSet<Key>| keys.iter().any(|key| key.manner == Manner::Xdp);
        self.by_hop.iter().filter(move |(_, keys)| is_redirected(keys)).map(|(hop, _)| *hop)
    }

    /// Devices that something is sent by.
    pub fn devices(&self) -> HashSet<u32> {
        self.by_hop.keys().map(|hop| hop.ifindex).collect()
    }

    fn refresh_one(&mut self, key: Key, spec: NextHopSpec, datapath: &mut dyn Datapath) -> Vec<SessionId> {
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.spec != spec) else {
            return Vec::new();
        };
        datapath.update_next_hop(entry.id, &spec);
        entry.spec = spec;
        tracing::info!(ifindex = spec.ifindex, neighbour = %key.hop.neighbour, ?spec.egress, "next hop changed");
        if spec.egress != Egress::Unusable {
            return Vec::new();
        }
        entry.users.iter().map(|(session, _)| *session).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        io,
        net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    };

    use proxy_common::verdict::Reason;

    use super::*;
    use crate::{
        datapath::{Arrival, AttachError, Attachment, Engine, Escalation, FlowCounters, FlowId, FlowSpec},
        net::route::{Link, Neighbour, Reachability, Table, Update},
    };

    /// The next-hop table, and devices that take programs or refuse them.
    #[derive(Default)]
    pub(in crate::datapath) struct Rows {
        pub(in crate::datapath) engines: HashMap<u32, Engine>,
        pub(in crate::datapath) detached: Vec<u32>,
        /// Devices by which frames were sent.
        pub(in crate::datapath) sent: Vec<u32>,
        pub(in crate::datapath) lost: Vec<(u32, Option<Engine>)>,
        rows: HashMap<u16, NextHopSpec>,
        next: u16,
    }

    impl Datapath for Rows {
        fn attach(&mut self, ifindex: u32) -> Result<Attachment, AttachError> {
            let refused = || AttachError { interface: format!("#{ifindex}"), reason: "refused".into() };
            let engine = *self.engines.get(&ifindex).ok_or_else(refused)?;
            Ok(Attachment { ifindex, name: format!("#{ifindex}"), engine, mode: "test", note: None })
        }
        fn detach(&mut self, ifindex: u32) {
            self.detached.push(ifindex);
        }
        fn lost(&mut self) -> Vec<(u32, Option<Engine>)> {
            std::mem::take(&mut self.lost)
        }
        fn attachments(&self) -> Vec<Attachment> {
            Vec::new()
        }
        fn add_next_hop(&mut self, hop: &NextHopSpec) -> Result<NextHopId, InstallError> {
            self.next += 1;
            self.rows.insert(self.next, *hop);
            Ok(NextHopId(self.next))
        }
        fn update_next_hop(&mut self, id: NextHopId, hop: &NextHopSpec) {
            self.rows.insert(id.0, *hop);
        }
        fn remove_next_hop(&mut self, id: NextHopId) {
            self.rows.remove(&id.0);
        }
        fn install(&mut self, _: &FlowSpec) -> Result<FlowId, InstallError> {
            Err(InstallError::Full)
        }
        fn remove(&mut self, _: FlowId) -> FlowCounters {
            FlowCounters::default()
        }
        fn send_by_xdp(&mut self, ifindex: u32, _: &[u8]) -> io::Result<()> {
            self.sent.push(ifindex);
            Ok(())
        }
        fn set_flow_hop(&mut self, _: FlowId, _: Direction, _: NextHopId) {
            unreachable!("next hops know no flow")
        }
        fn escalate(&mut self, _: FlowId, _: Escalation) {}
        fn counters(&self, _: FlowId) -> FlowCounters {
            FlowCounters::default()
        }
        fn reasons(&self) -> Vec<(Engine, Reason, u64)> {
            Vec::new()
        }
        fn arrival(&self, _: SocketAddr) -> Option<Arrival> {
            None
        }
        fn is_published(&self, _: FlowId) -> bool {
            false
        }
        fn begin_grace(&mut self) -> bool {
            false
        }
        fn end_grace(&mut self) {}
        fn lease(&mut self, _: SocketAddr, _: SocketAddr) -> Result<(), InstallError> {
            Ok(())
        }
        fn retire(&mut self, _: SocketAddr, _: SocketAddr) {}
        fn release(&mut self, _: SocketAddr, _: SocketAddr) {}
        fn bind(&mut self, _: SocketAddr, _: SocketAddr) {}
        fn unbind(&mut self, _: SocketAddr, _: SocketAddr) {}
        fn expect(&mut self, _: IpAddr) {}
        fn unexpect(&mut self, _: IpAddr) {}
        fn keep_alive(&mut self) {}
        fn table_bytes(&self) -> u64 {
            0
        }
    }

    pub(in crate::datapath) const HOP: Hop =
        Hop { ifindex: 2, neighbour: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)) };
    pub(super) const HOP_V6: Hop =
        Hop { ifindex: 2, neighbour: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)) };
    pub(super) const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const FIRST: User = (SessionId(1), Direction::ToOrigin);
    const SECOND: User = (SessionId(2), Direction::ToOrigin);

    pub(in crate::datapath) fn neighbour(mac: [u8; 6]) -> Neighbour {
        let reachability = Reachability::Answered;
        Neighbour { hop: HOP, mac: Some(mac), reachability, is_managed: false, is_foreign: false }
    }

    fn link(is_up: bool) -> Link {
        Link {
            ifindex: 2,
            name: "eth0".into(),
            mac: Some(OURS),
            mtu: 1500,
            is_up,
            is_loopback: false,
            resolves: true,
        }
    }

    pub(in crate::datapath) fn view(mac: Option<[u8; 6]>, is_up: bool) -> View {
        let v6 = mac.map(|mac| Neighbour { hop: HOP_V6, ..neighbour(mac) });
        let neighbours = mac.map(neighbour).into_iter().chain(v6).collect();
        let table = Table { links: vec![link(is_up)], neighbours };
        let mut view = View::default();
        view.apply(Update { table: Some(table), ..Update::default() });
        view.set_xdp_transmit(2, Some(true));
        view
    }

    fn key(hop: Hop, manner: Manner) -> Key {
        Key::new(Route { hop, mtu: None }, manner)
    }

    fn everything() -> Changed {
        Changed { links: HashSet::from([2]), hops: HashSet::from([HOP]) }
    }

    fn taken(manner: Manner, mac: Option<[u8; 6]>) -> (NextHops, Rows, NextHopId) {
        let (mut hops, mut rows) = (NextHops::default(), Rows::default());
        let id = hops.take(FIRST, key(HOP, manner), &view(mac, true), &mut rows).unwrap();
        (hops, rows, id)
    }

    fn redirect(dst_mac: [u8; 6]) -> Egress {
        Egress::Redirect { dst_mac, src_mac: OURS, xdp: true }
    }

    #[test]
    fn xdp_redirects_to_a_known_neighbour_and_leaves_an_unknown_one_to_tc() {
        let (_, rows, id) = taken(Manner::Xdp, Some([9; 6]));
        assert_eq!(rows.rows[&id.0].egress, redirect([9; 6]));
        let (_, rows, id) = taken(Manner::Xdp, None);
        assert_eq!(rows.rows[&id.0].egress, Egress::Neighbour);
    }

    #[test]
    fn neighbours_of_both_families_are_next_hops_alike() {
        let (mut hops, mut rows, v4) = taken(Manner::Xdp, Some([9; 6]));
        let v6 = hops.take(SECOND, key(HOP_V6, Manner::Xdp), &view(Some([9; 6]), true), &mut rows).unwrap();
        assert_ne!(v4, v6);
        assert_eq!(rows.rows[&v6.0].egress, redirect([9; 6]));
    }

    #[test]
    fn sessions_behind_one_neighbour_share_a_row_until_the_last_one_ends() {
        let (mut hops, mut rows, id) = taken(Manner::Tc, None);
        let shared = key(HOP, Manner::Tc);
        assert_eq!(hops.take(SECOND, shared, &view(None, true), &mut rows), Ok(id));
        assert_eq!(hops.news(), (vec![HOP], vec![]));
        hops.release(FIRST, shared, &mut rows);
        assert_eq!((rows.rows.len(), hops.news()), (1, (vec![], vec![])));
        hops.release(SECOND, shared, &mut rows);
        assert_eq!((rows.rows.len(), hops.news()), (0, (vec![], vec![HOP])));
    }

    #[test]
    fn a_changed_address_re_points_the_row_and_loses_nobody() {
        let (mut hops, mut rows, id) = taken(Manner::Xdp, Some([9; 6]));
        let moved = Changed { links: HashSet::new(), hops: HashSet::from([HOP]) };
        assert_eq!(hops.refresh(&moved, &view(Some([7; 6]), true), &mut rows), []);
        assert_eq!(rows.rows[&id.0].egress, redirect([7; 6]));
    }

    #[test]
    fn a_device_that_goes_down_names_the_sessions_that_used_it() {
        let (mut hops, mut rows, id) = taken(Manner::Xdp, Some([9; 6]));
        assert_eq!(hops.refresh(&everything(), &view(Some([9; 6]), false), &mut rows), [SessionId(1)]);
        assert_eq!(rows.rows[&id.0].egress, Egress::Unusable);
        assert_eq!(hops.refresh(&everything(), &view(Some([9; 6]), false), &mut rows), []);
    }
}
