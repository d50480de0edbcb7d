//! Where a new stream may go, and what counts until the fleet has answered.

use std::sync::Arc;

use proxy_protocol::stream_url::StreamKey;

use super::FleetRegistry;
use crate::origin::{
    Origin,
    memory::{MemoryRegistry, now},
    registry::{Origins, Refusal},
};

/// Where the fleet is asked to place a stream.
pub(super) struct Proposal<'a> {
    pub(super) origin: Arc<Origin>,
    /// For as long as this lives, unless the stream is there already.
    _counts: Option<Counted<'a>>,
}

impl Proposal<'_> {
    /// Where it is, as far as is known.
    pub(super) fn of_known(origin: Arc<Origin>) -> Self {
        Self { origin, _counts: None }
    }
}

struct Counted<'a> {
    local: &'a MemoryRegistry,
    stream: &'a StreamKey,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.local.with(|origins| origins.end_proposal(self.stream));
    }
}

impl FleetRegistry {
    /// Where a new stream may go. Others may have placed it already without Redis, and not written that down: then where every
    /// proxy comes to by itself.
    pub(super) async fn propose<'a>(&'a self, stream: &'a StreamKey) -> Result<Proposal<'a>, Refusal> {
        let choose = |origins: &mut Origins| {
            let origin = if self.accord.lock().is_doubtful(now()) {
                origins.agree(stream)
            } else {
                origins.propose(stream, &mut rand::rng())
            }?;
            origins.begin_proposal(stream, &origin.id);
            Ok(origin)
        };
        let origin = self.local.decide(choose).await?;
        Ok(Proposal { origin, _counts: Some(Counted { local: &self.local, stream }) })
    }
}
