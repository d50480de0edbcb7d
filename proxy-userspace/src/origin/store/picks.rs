//! Which origin each stream is on: decided once, by a script on the stream's key.

use proxy_protocol::stream_url::StreamKey;
use redis::Value;

use super::{
    Life, Store, StoreError,
    link::Reply,
    notice::{Told, fit_id},
    scripts::{self, Call, milliseconds},
};
use crate::origin::OriginId;

/// Streams in one round trip.
const CHUNK: usize = 256;
/// Bytes of a pick that are read; a longer one is none.
const MAX_PICK: usize = 2048;

impl Store {
    /// The origin of `stream`, which lives on for `life`; `candidate` from now on if the stream has none, or the `stale` one.
    /// One round trip: whoever else claims the stream gets the same answer. The candidate must not be the stale one.
    pub async fn claim(
        &self,
        stream: &StreamKey,
        candidate: &OriginId,
        stale: Option<&OriginId>,
        life: Life,
    ) -> Result<OriginId, StoreError> {
        let stale = stale.map(|id| self.shared.keys.server(id).into_bytes()).unwrap_or_default();
        let value = self.claim_key(stream, candidate, &stale, life).await?;
        match self.shared.keys.origin_of(&value) {
            Some(origin) => Ok(origin),
            // It begins like a server key and is none: it counts as no answer.
            None => {
                let value = self.claim_key(stream, candidate, &value, life).await?;
                self.shared.keys.origin_of(&value).ok_or_else(super::unexpected)
            }
        }
    }

    /// Puts `stream` on `origin`, wherever it was: its publisher is there.
    pub async fn assign(&self, stream: &StreamKey, origin: &OriginId, life: Life) -> Result<(), StoreError> {
        let keys = &self.shared.keys;
        let notice = self.picked(stream, origin)?;
        let arguments =
            (keys.server_prefix(), milliseconds(life), keys.server(origin), keys.channel(), notice);
        self.call_one(Call::change(&scripts::ASSIGN, &keys.pick(stream), arguments)).await??;
        Ok(())
    }

    /// Has picks live on, and sets those that are missing. Tells which streams are on another origin by now.
    pub async fn keep(
        &self,
        picks: &[(StreamKey, OriginId)],
        life: Life,
    ) -> Result<Vec<(StreamKey, OriginId)>, StoreError> {
        let keys = &self.shared.keys;
        let (mut moved, mut failure) = (Vec::new(), None);
        for chunk in picks.chunks(CHUNK) {
            let calls: Vec<Call> =
                chunk.iter().map(|(stream, origin)| self.keep_one(stream, origin, life)).collect();
            for ((stream, origin), reply) in chunk.iter().zip(self.shared.call(&calls).await?) {
                match reply.map_err(StoreError::from).and_then(text) {
                    Ok(value) => {
                        let other = keys.origin_of(&value).filter(|other| other != origin);
                        moved.extend(other.map(|other| (stream.clone(), other)));
                    }
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        failure.map_or(Ok(moved), Err)
    }

    /// The origins of streams, of those that have one.
    pub async fn picks_of(&self, streams: &[StreamKey]) -> Result<Vec<Option<OriginId>>, StoreError> {
        let mut picks = Vec::with_capacity(streams.len());
        for chunk in streams.chunks(CHUNK) {
            let calls: Vec<Call> =
                chunk.iter().map(|stream| scripts::get(&self.shared.keys.pick(stream), MAX_PICK)).collect();
            for (stream, reply) in chunk.iter().zip(self.shared.call(&calls).await?) {
                picks.push(self.pick_in(stream, reply)?);
            }
        }
        Ok(picks)
    }

    fn pick_in(&self, stream: &StreamKey, reply: Reply) -> Result<Option<OriginId>, StoreError> {
        let key = self.shared.keys.pick(stream);
        let value = self.value(&key, reply, MAX_PICK)?;
        let origin = value.as_deref().map(|value| self.shared.keys.origin_of(value));
        if origin == Some(None) {
            self.shared.poisoned(&key, &"it names no server key");
        }
        Ok(origin.flatten())
    }

    async fn claim_key(
        &self,
        stream: &StreamKey,
        candidate: &OriginId,
        stale: &[u8],
        life: Life,
    ) -> Result<Vec<u8>, StoreError> {
        let keys = &self.shared.keys;
        let notice = self.picked(stream, candidate)?;
        let arguments =
            (keys.server_prefix(), milliseconds(life), keys.server(candidate), stale, keys.channel(), notice);
        text(self.call_one(Call::change(&scripts::CLAIM, &keys.pick(stream), arguments)).await??)
    }

    fn keep_one(&self, stream: &StreamKey, origin: &OriginId, life: Life) -> Call {
        let keys = &self.shared.keys;
        let arguments = (keys.server_prefix(), milliseconds(life), keys.server(origin));
        Call::change(&scripts::KEEP, &keys.pick(stream), arguments)
    }

    fn picked(&self, stream: &StreamKey, origin: &OriginId) -> Result<Vec<u8>, StoreError> {
        fit_id(origin)?;
        Ok(Told::Picked { stream: stream.to_string(), origin: origin.clone() }
            .to_json(&self.shared.member)?)
    }
}

fn text(value: Value) -> Result<Vec<u8>, StoreError> {
    super::as_bytes(value).ok_or_else(super::unexpected)
}
