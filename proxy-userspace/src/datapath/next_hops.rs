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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Direction {
    ToOrigin,
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
    /// The next hop for a session's packets to its origin.
    pub fn to_origin(
        &mut self,
        session: SessionId,
        hop: Hop,
        manner: Manner,
        view: &View,
        datapath: &mut dyn Datapath,
    ) -> Result<NextHopId, InstallError> {
        self.take((session, Direction::ToOrigin), Key { hop, manner }, view, datapath)
    }

    /// The next hop for the origin's packets to a session's client.
    pub fn to_client(
        &mut self,
        session: SessionId,
        hop: Hop,
        manner: Manner,
        view: &View,
        datapath: &mut dyn Datapath,
    ) -> Result<NextHopId, InstallError> {
        self.take((session, Direction::ToClient), Key { hop, manner }, view, datapath)
    }

    fn take(
        &mut self,
        user: (SessionId, Direction),
        key: Key,
        view: &View,
        datapath: &mut dyn Datapath,
    ) -> Result<NextHopId, InstallError> {
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
