//! The next hops that flows use: chosen once per neighbour, kept fresh, re-pointed by one store each.

use std::collections::{HashMap, HashSet};

use super::{Datapath, Egress, InstallError, NextHopId, NextHopSpec};
use crate::{
    net::route::{Hop, Link, Neighbour},
    session::SessionId,
};

/// What a next hop is found by: one neighbour, sent to in one manner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    hop: Hop,
    manner: Manner,
}

/// How frames are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Manner {
    /// XDP redirects with addresses that userspace keeps fresh; TC resolves the neighbour while none is known.
    Xdp,
    /// TC resolves the neighbour.
    Tc,
}

#[derive(Debug)]
struct Entry {
    id: NextHopId,
    spec: NextHopSpec,
    users: HashSet<(SessionId, Direction)>,
}

/// Which of a session's packets use a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Client to origin.
    ToOrigin,
    /// Origin to client.
    ToClient,
}

/// What the kernel said at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every device.
    pub links: Vec<Link>,
    /// Every usable neighbour.
    pub neighbours: Vec<Neighbour>,
    /// Devices that transmit XDP frames.
    pub xdp_transmit: HashSet<u32>,
}

impl View {
    /// The device with this index.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.ifindex == ifindex)
    }

    fn mac(&self, hop: Hop) -> Option<[u8; 6]> {
        self.neighbours.iter().find(|neighbour| neighbour.hop == hop).map(|neighbour| neighbour.mac)
    }

    fn spec(&self, key: Key) -> NextHopSpec {
        let Some(link) = self.link(key.hop.ifindex).filter(|link| link.is_up) else {
            return NextHopSpec { ifindex: key.hop.ifindex, mtu: 0, egress: Egress::Unusable };
        };
        let egress = match (key.manner, link.mac, self.mac(key.hop)) {
            _ if link.is_loopback => Egress::Stack,
            (Manner::Xdp, Some(src_mac), Some(dst_mac)) => {
                Egress::Redirect { dst_mac, src_mac, xdp: self.xdp_transmit.contains(&link.ifindex) }
            }
            (Manner::Xdp | Manner::Tc, _, _) => Egress::Neighbour,
        };
        NextHopSpec { ifindex: link.ifindex, mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX), egress }
    }
}

/// The next hops in use.
#[derive(Debug, Default)]
pub struct NextHops(HashMap<Key, Entry>);

impl NextHops {
    /// The next hop for one direction of a session's packets.
    pub fn take(
        &mut self,
        user: (SessionId, Direction),
        hop: Hop,
        manner: Manner,
        view: &View,
        datapath: &mut dyn Datapath,
    ) -> Result<NextHopId, InstallError> {
        let key = Key { hop, manner };
        if let Some(entry) = self.0.get_mut(&key) {
            entry.users.insert(user);
            return Ok(entry.id);
        }
        let spec = view.spec(key);
        let id = datapath.add_next_hop(&spec)?;
        self.0.insert(key, Entry { id, spec, users: HashSet::from([user]) });
        Ok(id)
    }

    /// Gives back what `session` uses; a next hop without users is freed.
    pub fn release(&mut self, session: SessionId, datapath: &mut dyn Datapath) {
        self.0.retain(|_, entry| {
            entry.users.retain(|(user, _)| *user != session);
            let used = !entry.users.is_empty();
            if !used {
                datapath.remove_next_hop(entry.id);
            }
            used
        });
    }

    /// Re-points what changed and names the sessions whose next hop became unusable.
    pub fn refresh(&mut self, view: &View, datapath: &mut dyn Datapath) -> Vec<SessionId> {
        let mut lost = HashSet::new();
        for (key, entry) in &mut self.0 {
            let spec = view.spec(*key);
            if spec == entry.spec {
                continue;
            }
            datapath.update_next_hop(entry.id, &spec);
            entry.spec = spec;
            tracing::info!(ifindex = spec.ifindex, neighbour = %key.hop.neighbour, ?spec.egress, "next hop changed");
            if spec.egress == Egress::Unusable {
                lost.extend(entry.users.iter().map(|(session, _)| *session));
            }
        }
        lost.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use proxy_common::verdict::Reason;

    use super::*;
    use crate::datapath::{
        Arrival, AttachError, Attachment, Engine, Escalation, FlowCounters, FlowDirection, FlowId, FlowSpec,
    };

    /// The next-hop table alone.
    #[derive(Default)]
    struct Rows {
        rows: HashMap<u16, NextHopSpec>,
        next: u16,
    }

    impl Datapath for Rows {
        fn attach(&mut self, _: u32) -> Result<Attachment, AttachError> {
            unreachable!("next hops attach nothing")
        }
        fn detach(&mut self, _: u32) {}
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
        fn set_flow_hop(&mut self, _: FlowId, _: FlowDirection, _: NextHopId) {}
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

    const HOP: Hop = Hop { ifindex: 2, neighbour: Ipv4Addr::new(10, 0, 0, 1) };
    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn view(mac: Option<[u8; 6]>, is_up: bool) -> View {
        let link =
            Link { ifindex: 2, name: "eth0".into(), mac: Some(OURS), mtu: 1500, is_up, is_loopback: false };
        let neighbours = mac.map(|mac| Neighbour { hop: HOP, mac }).into_iter().collect();
        View { links: vec![link], neighbours, xdp_transmit: HashSet::from([2]) }
    }

    fn taken(manner: Manner, mac: Option<[u8; 6]>) -> (NextHops, Rows, NextHopId) {
        let (mut hops, mut rows) = (NextHops::default(), Rows::default());
        let user = (SessionId(1), Direction::ToOrigin);
        let id = hops.take(user, HOP, manner, &view(mac, true), &mut rows).unwrap();
        (hops, rows, id)
    }

    #[test]
    fn xdp_redirects_to_a_known_neighbour_and_leaves_an_unknown_one_to_tc() {
        let (_, rows, id) = taken(Manner::Xdp, Some([9; 6]));
        let redirect = Egress::Redirect { dst_mac: [9; 6], src_mac: OURS, xdp: true };
        assert_eq!(rows.rows[&id.0].egress, redirect);
        let (_, rows, id) = taken(Manner::Xdp, None);
        assert_eq!(rows.rows[&id.0].egress, Egress::Neighbour);
    }

    #[test]
    fn sessions_behind_one_neighbour_share_a_row_until_the_last_one_ends() {
        let (mut hops, mut rows, id) = taken(Manner::Tc, None);
        let second = (SessionId(2), Direction::ToOrigin);
        assert_eq!(hops.take(second, HOP, Manner::Tc, &view(None, true), &mut rows), Ok(id));
        hops.release(SessionId(1), &mut rows);
        assert_eq!(rows.rows.len(), 1);
        hops.release(SessionId(2), &mut rows);
        assert_eq!(rows.rows.len(), 0);
    }

    #[test]
    fn a_changed_address_re_points_the_row_and_loses_nobody() {
        let (mut hops, mut rows, id) = taken(Manner::Xdp, Some([9; 6]));
        assert_eq!(hops.refresh(&view(Some([7; 6]), true), &mut rows), []);
        let redirect = Egress::Redirect { dst_mac: [7; 6], src_mac: OURS, xdp: true };
        assert_eq!(rows.rows[&id.0].egress, redirect);
    }

    #[test]
    fn a_device_that_goes_down_names_the_sessions_that_used_it() {
        let (mut hops, mut rows, id) = taken(Manner::Xdp, Some([9; 6]));
        assert_eq!(hops.refresh(&view(Some([9; 6]), false), &mut rows), [SessionId(1)]);
        assert_eq!(rows.rows[&id.0].egress, Egress::Unusable);
        assert_eq!(hops.refresh(&view(Some([9; 6]), false), &mut rows), []);
    }
}
