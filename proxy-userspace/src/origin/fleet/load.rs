//! How many sessions each origin has, of all proxies.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::origin::{
    OriginId,
    store::{MemberId, MemberLoad},
};

/// What a member said counts for so long; it says it every second.
pub(super) const LIFE: Duration = Duration::from_secs(10);
/// Members at most.
const MAX_MEMBERS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Loads {
    ours: HashMap<OriginId, u64>,
    others: HashMap<MemberId, (Instant, HashMap<OriginId, u64>)>,
}

impl Loads {
    /// Notes what this proxy has.
    pub(super) fn carry(&mut self, sessions: HashMap<OriginId, u64>) {
        self.ours = sessions;
    }

    /// Notes what another one has.
    pub(super) fn told(&mut self, load: MemberLoad, now: Instant) {
        let MemberLoad { member, sessions } = load;
        if self.others.len() < MAX_MEMBERS || self.others.contains_key(&member) {
            let sessions = sessions.into_iter().map(|(id, count)| (id, u64::from(count))).collect();
            self.others.insert(member, (now, sessions));
        }
    }

    /// What this proxy tells.
    pub(super) fn ours(&self, member: &MemberId) -> MemberLoad {
        let count = |count: &u64| u32::try_from(*count).unwrap_or(u32::MAX);
        let sessions = self.ours.iter().map(|(id, sessions)| (id.clone(), count(sessions))).collect();
        MemberLoad { member: member.clone(), sessions }
    }

    /// What all have that have told of late.
    pub(super) fn sums(&mut self, now: Instant) -> HashMap<OriginId, u64> {
        self.others.retain(|_, (told, _)| now < *told + LIFE);
        let mut sums = self.ours.clone();
        for (id, sessions) in self.others.values().flat_map(|(_, sessions)| sessions) {
            *sums.entry(id.clone()).or_default() += sessions;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(name: &str) -> OriginId {
        OriginId::new(name, "s", "1")
    }

    fn load(member: &str, sessions: &[(&str, u32)]) -> MemberLoad {
        let sessions = sessions.iter().map(|(name, count)| (origin(name), *count)).collect();
        MemberLoad { member: MemberId::parse(member).unwrap(), sessions }
    }

    #[test]
    fn what_members_told_last_is_added_up_for_as_long_as_they_tell() {
        let (mut loads, start) = (Loads::default(), Instant::now());
        loads.carry(HashMap::from([(origin("a"), 3)]));
        loads.told(load("other", &[("a", 9)]), start);
        loads.told(load("other", &[("a", 4), ("b", 1)]), start);
        loads.told(load("third", &[("b", 2)]), start + LIFE / 2);
        assert_eq!(loads.sums(start), HashMap::from([(origin("a"), 7), (origin("b"), 3)]));
        assert_eq!(loads.sums(start + LIFE), HashMap::from([(origin("a"), 3), (origin("b"), 2)]));
        assert_eq!(loads.ours(&MemberId::parse("me").unwrap()), load("me", &[("a", 3)]));
    }

    #[test]
    fn members_are_bounded() {
        let (mut loads, start) = (Loads::default(), Instant::now());
        for n in 0..MAX_MEMBERS + 9 {
            loads.told(load(&n.to_string(), &[("a", 1)]), start);
        }
        assert_eq!(loads.sums(start)[&origin("a")], MAX_MEMBERS as u64);
    }
}
