//! Streams on their way to an origin: the fleet is asked whether they may go there.
//!
//! Hundreds may be at once. Each counts as a stream of the origin that is proposed for it, once, however many clients wait for
//! the same answer.

use std::collections::HashMap;

use proxy_protocol::stream_url::StreamKey;

use crate::origin::OriginId;

#[derive(Debug, Default)]
pub(super) struct Pending {
    proposals: HashMap<StreamKey, Proposal>,
    streams: HashMap<OriginId, usize>,
}

#[derive(Debug)]
struct Proposal {
    origin: OriginId,
    waiting: usize,
}

impl Pending {
    /// Another one waits for the answer.
    pub(super) fn begin(&mut self, stream: &StreamKey, origin: &OriginId) {
        let waiting = self.remove(stream).map_or(0, |before| before.waiting);
        *self.streams.entry(origin.clone()).or_default() += 1;
        self.proposals.insert(stream.clone(), Proposal { origin: origin.clone(), waiting: waiting + 1 });
    }

    /// One of those that wait has an answer, or has given up.
    pub(super) fn end(&mut self, stream: &StreamKey) {
        let Some(proposal) = self.proposals.get_mut(stream) else { return };
        proposal.waiting -= 1;
        if proposal.waiting == 0 {
            self.remove(stream);
        }
    }

    pub(super) fn origin_of(&self, stream: &StreamKey) -> Option<&OriginId> {
        self.proposals.get(stream).map(|proposal| &proposal.origin)
    }

    pub(super) fn streams_of(&self, origin: &OriginId) -> usize {
        self.streams.get(origin).copied().unwrap_or(0)
    }

    fn remove(&mut self, stream: &StreamKey) -> Option<Proposal> {
        let proposal = self.proposals.remove(stream)?;
        if let Some(streams) = self.streams.get_mut(&proposal.origin) {
            *streams -= 1;
            if *streams == 0 {
                self.streams.remove(&proposal.origin);
            }
        }
        Some(proposal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamKey {
        format!("__defaultVhost__/live/{name}").parse().unwrap()
    }

    fn origin(name: &str) -> OriginId {
        OriginId::new(name, "service", "1")
    }

    #[test]
    fn a_stream_counts_once_however_many_wait_for_it() {
        let (mut pending, one, s, t) = (Pending::default(), origin("one"), stream("s"), stream("t"));
        pending.begin(&s, &one);
        pending.begin(&s, &one);
        pending.begin(&t, &one);
        assert_eq!((pending.streams_of(&one), pending.origin_of(&s)), (2, Some(&one)));
        pending.end(&s);
        assert_eq!(pending.streams_of(&one), 2);
        pending.end(&s);
        assert_eq!((pending.streams_of(&one), pending.origin_of(&s)), (1, None));
        pending.end(&t);
        pending.end(&t);
        assert!(pending.proposals.is_empty() && pending.streams.is_empty());
    }

    #[test]
    fn those_who_waited_go_along_with_what_is_proposed_next() {
        let (mut pending, one, two, s) = (Pending::default(), origin("one"), origin("two"), stream("s"));
        pending.begin(&s, &one);
        pending.begin(&s, &two);
        assert_eq!((pending.streams_of(&one), pending.streams_of(&two)), (0, 1));
        pending.end(&s);
        assert_eq!(pending.origin_of(&s), Some(&two));
        pending.end(&s);
        assert!(pending.proposals.is_empty() && pending.streams.is_empty());
    }
}
