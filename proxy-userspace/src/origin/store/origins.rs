//! Origins: the Go proxy's list, which concurrent writers of its kind lose entries of, and ours, which none is lost of.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Life, Store, StoreError, StoredOrigin,
    keys::MAX_ID,
    notice::{Told, fit_id},
    scripts::{self, Call, milliseconds},
    stored_origin::MAX_ORIGIN,
};
use crate::origin::OriginId;

/// Origins read at most.
const MAX_ORIGINS: usize = 4096;
/// The longest list of the Go proxy's that is read, in bytes.
const MAX_NAMES: usize = 1024 * 1024;
/// Origins read in one round trip.
const CHUNK: usize = 512;
/// How long an origin drains that nobody takes back.
const DRAINING: Duration = Duration::from_secs(30 * 24 * 3600);

impl Store {
    /// Records a heartbeat, and tells the fleet: one round trip.
    pub async fn put_origin(&self, origin: &StoredOrigin, life: Life) -> Result<(), StoreError> {
        let (id, keys) = (origin.id(), &self.shared.keys);
        fit_id(&id)?;
        let (key, value) = (keys.server(&id), origin.to_json()?);
        let notice = Told::Origin { origin: Box::new(origin.clone()) }.to_json(&self.shared.member)?;
        let calls = [
            scripts::set(&key, &value, life),
            Call::change(&scripts::ENTER, &keys.origins(), (&*id.0, milliseconds(life))),
            Call::change(&scripts::ANNOUNCE, &keys.servers(), (MAX_NAMES, MAX_ORIGINS, &key)),
            scripts::publish(&keys.channel(), &notice),
        ];
        self.do_all(&calls).await
    }

    /// Every origin that lives: two round trips, and one more when the Go proxy's list names some that are gone.
    pub async fn origins(&self) -> Result<Vec<StoredOrigin>, StoreError> {
        let (ours, listed) = self.origin_names().await?;
        let ids: Vec<OriginId> = ours.union(&listed).take(MAX_ORIGINS).cloned().collect();
        let (mut origins, mut gone) = (Vec::new(), Vec::new());
        for chunk in ids.chunks(CHUNK) {
            let calls: Vec<Call> = chunk.iter().map(|id| self.get_origin(id)).collect();
            for (id, reply) in chunk.iter().zip(self.shared.call(&calls).await?) {
                let key = self.shared.keys.server(id);
                match self.value(&key, reply, MAX_ORIGIN)? {
                    Some(value) => match StoredOrigin::parse(id, &value) {
                        Ok(origin) => origins.push(origin),
                        Err(reason) => self.shared.poisoned(&key, &reason),
                    },
                    None if !ours.contains(id) => gone.push(key),
                    None => {}
                }
            }
        }
        self.strike(gone).await;
        Ok(origins)
    }

    /// One origin, if it lives.
    pub async fn origin(&self, id: &OriginId) -> Result<Option<StoredOrigin>, StoreError> {
        let reply = self.call_one(self.get_origin(id)).await?;
        self.read(&self.shared.keys.server(id), reply, MAX_ORIGIN, |value| StoredOrigin::parse(id, value))
    }

    /// Has an origin take no new streams, or take them again, and tells the fleet. It drains for 30 days at most.
    pub async fn set_draining(&self, origin: &OriginId, on: bool) -> Result<(), StoreError> {
        fit_id(origin)?;
        let keys = &self.shared.keys;
        let change = if on {
            Call::change(&scripts::ENTER, &keys.draining(), (&*origin.0, milliseconds(DRAINING)))
        } else {
            let mut command = redis::cmd("ZREM");
            command.arg(keys.draining()).arg(&*origin.0);
            Call::write(command)
        };
        let notice = Told::Draining { origin: origin.clone(), on }.to_json(&self.shared.member)?;
        self.do_all(&[change, scripts::publish(&keys.channel(), &notice)]).await
    }

    /// Origins that take no new streams.
    pub async fn draining(&self) -> Result<Vec<OriginId>, StoreError> {
        let key = self.shared.keys.draining();
        let reply = self.call_one(Call::ask(&scripts::LIVING, &key, (MAX_ORIGINS, MAX_ID))).await?;
        Ok(self.members_of_set(&key, reply)?.into_iter().filter_map(as_id).collect())
    }

    /// The ids in our list and in the Go proxy's.
    async fn origin_names(&self) -> Result<(BTreeSet<OriginId>, BTreeSet<OriginId>), StoreError> {
        let keys = &self.shared.keys;
        let (ours, listed) = (keys.origins(), keys.servers());
        let calls =
            [Call::ask(&scripts::LIVING, &ours, (MAX_ORIGINS, MAX_ID)), scripts::get(&listed, MAX_NAMES)];
        let mut replies = self.shared.call(&calls).await?.into_iter();
        let (Some(in_ours), Some(in_list)) = (replies.next(), replies.next()) else {
            return Err(super::unexpected());
        };
        let names = |text: &[u8]| Ok(serde_json::from_slice::<Vec<String>>(text)?);
        let names = self.read(&listed, in_list, MAX_NAMES, names)?.unwrap_or_default();
        let named = names.iter().filter_map(|name| keys.origin_of(name.as_bytes())).take(MAX_ORIGINS);
        Ok((self.members_of_set(&ours, in_ours)?.into_iter().filter_map(as_id).collect(), named.collect()))
    }

    fn get_origin(&self, id: &OriginId) -> Call {
        scripts::get(&self.shared.keys.server(id), MAX_ORIGIN)
    }

    /// Takes origins that are gone off the Go proxy's list. One that comes back in this moment is missing there until its next
    /// heartbeat, and nowhere else.
    async fn strike(&self, gone: Vec<String>) {
        if gone.is_empty() {
            return;
        }
        let arguments = (MAX_NAMES, MAX_ORIGINS, gone);
        let strike = Call::change(&scripts::STRIKE, &self.shared.keys.servers(), arguments);
        if let Err(error) = self.do_all(&[strike]).await {
            tracing::debug!(%error, "failed to take dead origins off the list of the Go proxy");
        }
    }
}

fn as_id(member: Vec<u8>) -> Option<OriginId> {
    let id = OriginId(String::from_utf8(member).ok()?.into());
    fit_id(&id).is_ok().then_some(id)
}
