//! What the proxies of a fleet have in common: the key under which ufrags name origins.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use proxy_protocol::{
    ice::IcePwd,
    routed_ufrag::{Credentials, FleetKey, OriginTag, RoutedUfrag},
};

use crate::origin::{Origin, OriginId};

/// Tags are forgotten once there are so many more than origins.
const SPARE_TAGS: usize = 256;

/// Makes ICE credentials that lead every proxy of the fleet to the origin, and reads them.
#[derive(Debug)]
pub struct Fleet {
    key: FleetKey,
    /// A tag costs a MAC, and every ufrag is compared with those of all origins.
    tags: Mutex<HashMap<OriginId, OriginTag>>,
}

impl Fleet {
    /// A fleet that shares `key`.
    pub fn new(key: FleetKey) -> Self {
        Self { key, tags: Mutex::default() }
    }

    /// What a new session at `origin` is to have.
    pub fn credentials(&self, origin: &Origin) -> Credentials {
        self.key.credentials(name_of(origin), rand::random())
    }

    /// The origin among `origins` that a ufrag was made for, and the password of the session.
    pub fn find(&self, ufrag: &str, origins: Vec<Arc<Origin>>) -> Option<(Arc<Origin>, IcePwd)> {
        let routed = RoutedUfrag::parse(ufrag)?;
        let named = self.tagged(routed.tag(), origins);
        named.into_iter().find_map(|origin| {
            let pwd = self.key.pwd_of(&routed, name_of(&origin))?;
            Some((origin, pwd))
        })
    }

    /// Whether these credentials are ours, and lead every proxy of the fleet to `origin`.
    pub fn has_made(&self, origin: &Origin, ufrag: &str, pwd: &IcePwd) -> bool {
        let routed = RoutedUfrag::parse(ufrag);
        let made = routed.and_then(|routed| self.key.pwd_of(&routed, name_of(origin)));
        made.as_ref() == Some(pwd)
    }

    fn tagged(&self, tag: OriginTag, mut origins: Vec<Arc<Origin>>) -> Vec<Arc<Origin>> {
        let mut tags = self.tags.lock();
        if tags.len() > origins.len() + SPARE_TAGS {
            tags.clear();
        }
        origins.retain(|origin| match tags.get(&origin.id) {
            Some(known) => *known == tag,
            None => *tags.entry(origin.id.clone()).or_insert(self.key.tag_of(name_of(origin))) == tag,
        });
        origins
    }
}

/// What every proxy calls this run of an origin: one that starts anew knows no session of the run before, and has another
/// name.
fn name_of(origin: &Origin) -> &str {
    &origin.id.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionOffer;

    fn fleet() -> Fleet {
        Fleet::new(FleetKey::new(b"one key for all of a fleet"))
    }

    fn origin(server: &str, pid: u32) -> Arc<Origin> {
        let example = SessionOffer::example("__defaultVhost__/live/show", "ab12cd34:cl+/").origin;
        let id = OriginId::new(server, "s", &pid.to_string());
        Arc::new(Origin { id, server: server.into(), ..Origin::clone(&example) })
    }

    #[test]
    fn any_proxy_that_knows_the_origin_finds_it() {
        let origins: Vec<_> = (0..100).map(|pid| origin("vid-1", pid)).collect();
        for wanted in &origins {
            let made = fleet().credentials(wanted);
            let (found, pwd) = fleet().find(made.ufrag.as_str(), origins.clone()).unwrap();
            assert_eq!((found.id.clone(), pwd), (wanted.id.clone(), made.pwd));
        }
    }

    #[test]
    fn a_run_that_came_after_is_another_origin() {
        let made = fleet().credentials(&origin("vid-1", 7));
        assert!(fleet().find(made.ufrag.as_str(), vec![origin("vid-1", 8), origin("vid-2", 7)]).is_none());
        assert!(fleet().find(made.ufrag.as_str(), Vec::new()).is_none());
    }

    #[test]
    fn a_tag_without_its_mac_names_nobody() {
        let (origin, other) = (origin("vid-1", 7), FleetKey::new(b"another fleet's key"));
        let (ours, theirs) = (fleet().credentials(&origin), other.credentials(&origin.id.0, 7));
        let (prefix, mac) = (ours.ufrag.as_str().split_at(19).0, theirs.ufrag.as_str().split_at(19).1);
        assert!(fleet().find(&format!("{prefix}{mac}"), vec![origin]).is_none());
    }

    #[test]
    fn tags_of_origins_that_are_gone_are_forgotten() {
        let fleet = fleet();
        let ufrag = fleet.credentials(&origin("vid-1", 1)).ufrag;
        (0..10_000).for_each(|pid| drop(fleet.find(ufrag.as_str(), vec![origin("vid-1", pid)])));
        assert!(fleet.tags.lock().len() <= SPARE_TAGS + 2);
    }
}
