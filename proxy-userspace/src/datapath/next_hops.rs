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
pub(super) mod tests;
