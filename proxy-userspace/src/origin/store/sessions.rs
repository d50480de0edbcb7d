//! WebRTC sessions that another proxy may take over, and the Go proxy's HLS ids.

use proxy_protocol::{ice::UfragPair, stream_url::StreamKey};

use super::{
    FoundSession, HlsId, Life, SharedSession, Store, StoreError, ValueError,
    notice::Told,
    scripts::{self, Call},
    shared_session::{MAX_HLS, MAX_SESSION},
};

/// Sessions in one round trip.
const CHUNK: usize = 256;
/// The longest id that is looked for; those of the Go proxy have seven characters.
const MAX_SPBHID: usize = 128;

impl Store {
    /// Stores a session, under its ufrags and, without its password, under its stream.
    pub async fn put_session(&self, session: &SharedSession, life: Life) -> Result<(), StoreError> {
        let keys = &self.shared.keys;
        let calls = [
            scripts::set(&keys.ufrag(&session.ufrags), &session.to_json()?, life),
            scripts::set(&keys.rtc(&session.stream), &session.to_go_json()?, life),
        ];
        self.do_all(&calls).await
    }

    /// Has sessions live on, and sets those that are missing.
    pub async fn keep_sessions(&self, sessions: &[SharedSession], life: Life) -> Result<(), StoreError> {
        let mut failure = Ok(());
        for chunk in sessions.chunks(CHUNK) {
            let call = |session: &SharedSession| {
                Ok(scripts::set(&self.shared.keys.ufrag(&session.ufrags), &session.to_json()?, life))
            };
            let calls: Result<Vec<Call>, ValueError> = chunk.iter().map(call).collect();
            match self.do_all(&calls?).await {
                Err(StoreError::Down(reason)) => return Err(StoreError::Down(reason)),
                kept => failure = failure.and(kept),
            }
        }
        failure
    }

    /// The session of a STUN USERNAME.
    pub async fn session(&self, ufrags: &UfragPair) -> Result<Option<FoundSession>, StoreError> {
        let key = self.shared.keys.ufrag(ufrags);
        let reply = self.call_one(scripts::get(&key, MAX_SESSION)).await?;
        self.read(&key, reply, MAX_SESSION, |value| FoundSession::parse(ufrags, value))
    }

    /// Removes a session that ended, and tells the fleet. What stands under its stream expires.
    pub async fn drop_session(&self, ufrags: &UfragPair) -> Result<(), StoreError> {
        let keys = &self.shared.keys;
        let mut delete = redis::cmd("DEL");
        delete.arg(keys.ufrag(ufrags));
        let notice = Told::SessionEnded { ufrags: ufrags.to_string() }.to_json(&self.shared.member)?;
        self.do_all(&[Call::write(delete), scripts::publish(&keys.channel(), &notice)]).await
    }

    /// Stores an id as a Go proxy does that is asked for a playlist.
    pub async fn put_hls(&self, hls: &HlsId, life: Life) -> Result<(), StoreError> {
        fit_spbhid(&hls.spbhid)?;
        let (keys, value) = (&self.shared.keys, hls.to_json()?);
        let calls = [
            scripts::set(&keys.hls(&hls.stream), &value, life),
            scripts::set(&keys.spbhid(&hls.spbhid), &value, life),
        ];
        self.do_all(&calls).await
    }

    /// The newest id of a stream.
    pub async fn hls_of(&self, stream: &StreamKey) -> Result<Option<HlsId>, StoreError> {
        self.hls_at(self.shared.keys.hls(stream)).await
    }

    /// What an id in a playlist stands for.
    pub async fn hls_by_id(&self, spbhid: &str) -> Result<Option<HlsId>, StoreError> {
        if fit_spbhid(spbhid).is_err() {
            return Ok(None);
        }
        self.hls_at(self.shared.keys.spbhid(spbhid)).await
    }

    async fn hls_at(&self, key: String) -> Result<Option<HlsId>, StoreError> {
        let reply = self.call_one(scripts::get(&key, MAX_HLS)).await?;
        self.read(&key, reply, MAX_HLS, HlsId::parse)
    }
}

fn fit_spbhid(spbhid: &str) -> Result<(), ValueError> {
    let is_fit =
        !spbhid.is_empty() && spbhid.len() <= MAX_SPBHID && spbhid.bytes().all(|b| b.is_ascii_graphic());
    if is_fit { Ok(()) } else { Err(ValueError::Name) }
}
