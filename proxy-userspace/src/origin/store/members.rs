//! What the members of a fleet tell of their load.

use super::{
    Life, MemberId, MemberLoad, Store, StoreError,
    keys::MAX_ID,
    notice::{MAX_NOTICE, Told, fit_id},
    scripts::{self, Call, milliseconds},
};

/// Members read at most.
const MAX_MEMBERS: usize = 256;
/// Members read in one round trip.
const CHUNK: usize = 64;

impl Store {
    /// Tells the fleet a load, and keeps it for those who ask later.
    pub async fn put_load(&self, load: &MemberLoad, life: Life) -> Result<(), StoreError> {
        load.sessions.keys().try_for_each(fit_id)?;
        let (keys, member) = (&self.shared.keys, load.member.as_str());
        let notice = Told::Load { load: load.clone() }.to_json(&self.shared.member)?;
        let calls = [
            scripts::set(&keys.load(member), &load.to_json()?, life),
            Call::change(&scripts::ENTER, &keys.members(), (member, milliseconds(life))),
            scripts::publish(&keys.channel(), &notice),
        ];
        self.do_all(&calls).await
    }

    /// The loads of members that live, our own included.
    pub async fn loads(&self) -> Result<Vec<MemberLoad>, StoreError> {
        let keys = &self.shared.keys;
        let set = keys.members();
        let reply = self.call_one(Call::ask(&scripts::LIVING, &set, (MAX_MEMBERS, MAX_ID))).await?;
        let names =
            self.members_of_set(&set, reply)?.into_iter().filter_map(|name| String::from_utf8(name).ok());
        let members: Vec<MemberId> = names.filter_map(|name| MemberId::parse(&name)).collect();
        let mut loads = Vec::new();
        for chunk in members.chunks(CHUNK) {
            let at: Vec<String> = chunk.iter().map(|member| keys.load(member.as_str())).collect();
            let calls: Vec<Call> = at.iter().map(|key| scripts::get(key, MAX_NOTICE)).collect();
            for (key, reply) in at.iter().zip(self.shared.call(&calls).await?) {
                loads.extend(self.read(key, reply, MAX_NOTICE, MemberLoad::parse)?);
            }
        }
        Ok(loads)
    }
}
