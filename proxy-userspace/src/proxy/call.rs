//! Sessions that an SRT caller begins: one call, one tuple, and an origin that answers or does not.

use std::time::Instant;

use bytes::Bytes;

use super::{Action, Proxy};
use crate::session::{EndReason, Kind, Live, Session, SessionId, State, Tuple};

impl Proxy {
    /// Makes room for a call from this tuple. A caller whose cookie is right is there, so whoever had the tuple is not.
    pub(super) fn replace(&mut self, tuple: Tuple, now: Instant, out: &mut Vec<Action>) {
        self.end_orphans(now, out, |orphan| orphan.flow.client == tuple.client);
        if let Some(&holder) = self.by_tuple.get(&tuple) {
            self.end(holder, EndReason::Replaced, now, out);
        }
    }

    /// Relays a caller from the start: what follows its origin's answer may come at any moment after it.
    pub(super) fn bind_caller(&mut self, id: SessionId, out: &mut Vec<Action>) {
        let Some(srt) = self.sessions.get(&id).and_then(|session| session.offer.srt()) else { return };
        let tuple = srt.tuple;
        self.bind(id, tuple, out);
        out.push(Action::Activate { session: id, tuple });
    }

    /// The origin answered, so both sides have been heard and the tuple is the one.
    pub(super) fn established(&mut self, id: SessionId, answer: Bytes, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| is_called(session)) else { return };
        let Kind::Srt(srt) = &mut session.offer.kind else { return };
        srt.answer = Some(answer);
        let mut live = Live::new(srt.tuple, srt.ifindex, true, now);
        live.answered = true;
        session.state = State::Live(Box::new(live));
        self.touched.push(id);
    }

    /// A call that is over; one that has been answered by now is none of these.
    pub(super) fn hung_up(&mut self, id: SessionId, reason: EndReason, now: Instant, out: &mut Vec<Action>) {
        if self.sessions.get(&id).is_some_and(is_called) {
            self.end(id, reason, now, out);
        }
    }
}

fn is_called(session: &Session) -> bool {
    session.offer.srt().is_some() && session.live().is_none()
}

#[cfg(test)]
mod tests;
