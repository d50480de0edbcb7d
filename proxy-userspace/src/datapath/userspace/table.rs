//! The relay's tables: sessions by USERNAME, by tuple, by source address.
//!
//! The control plane writes them, workers read them; a worker holds the lock of one shard for one look-up.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{
    peer::{Bound, Peer},
    sharded::Sharded,
};
use crate::{
    proxy::Activity,
    session::{SessionId, Tuple},
};

#[derive(Debug, Default)]
pub(super) struct Table {
    by_session: Sharded<SessionId, Arc<Peer>>,
    by_username: Sharded<Box<str>, Arc<Peer>>,
    by_tuple: Sharded<Tuple, Bound>,
    /// What belongs together in several tables is changed by one thread at a time.
    writing: Mutex<()>,
}

impl Table {
    pub(super) fn insert(&self, peer: Arc<Peer>) {
        let _writing = self.writing.lock();
        peer.source.add(&peer);
        if let Some(ufrags) = peer.ufrags() {
            self.by_username.insert(ufrags.as_str().into(), Arc::clone(&peer));
        }
        self.by_session.insert(peer.session, peer);
    }

    pub(super) fn remove(&self, session: SessionId) {
        let _writing = self.writing.lock();
        let Some(peer) = self.by_session.remove(&session) else { return };
        if let Some(ufrags) = peer.ufrags() {
            self.by_username.remove(ufrags.as_str());
        }
        peer.source.remove(&peer);
        for leg in peer.take_legs() {
            self.release(session, leg.tuple);
        }
    }

    pub(super) fn bind(&self, session: SessionId, tuple: Tuple, now: u64) {
        let _writing = self.writing.lock();
        if let Some(peer) = self.by_session(session) {
            let leg = peer.add_leg(tuple, now);
            self.by_tuple.insert(tuple, Bound { peer, leg });
        }
    }

    pub(super) fn unbind(&self, session: SessionId, tuple: Tuple) {
        let _writing = self.writing.lock();
        self.release(session, tuple);
        if let Some(peer) = self.by_session(session) {
            peer.remove_leg(tuple);
        }
    }

    pub(super) fn activate(&self, session: SessionId, tuple: Tuple) {
        let _writing = self.writing.lock();
        if let Some(Bound { peer, leg }) = self.by_tuple(&tuple).filter(|bound| bound.peer.session == session)
        {
            peer.activate(leg);
        }
    }

    pub(super) fn by_tuple(&self, tuple: &Tuple) -> Option<Bound> {
        self.by_tuple.get(tuple)
    }

    pub(super) fn by_username(&self, username: &str) -> Option<Arc<Peer>> {
        self.by_username.get(username)
    }

    pub(super) fn by_session(&self, session: SessionId) -> Option<Arc<Peer>> {
        self.by_session.get(&session)
    }

    /// How many parts the sessions are in.
    pub(super) fn parts(&self) -> usize {
        self.by_session.shards()
    }

    /// What the sessions of one part did.
    pub(super) fn look(&self, part: usize, now: u64, idle: Duration) -> Vec<(SessionId, Activity)> {
        self.by_session.visit(part, |peer| (peer.session, peer.activity(now, idle)))
    }

    fn release(&self, session: SessionId, tuple: Tuple) {
        self.by_tuple.remove_if(&tuple, |bound| bound.peer.session == session);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::{
        datapath::userspace::peer::{Identity, SourceSocket},
        net::udp::UdpSocket,
    };

    fn source() -> Arc<SourceSocket> {
        let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false).unwrap();
        Arc::new(SourceSocket::new(socket))
    }

    fn peer(id: u32, source: &Arc<SourceSocket>) -> Arc<Peer> {
        let ufrags = format!("orig{id}:clnt").parse().unwrap();
        let pwd = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let origin = SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + id), 8000));
        let identity = Identity::WebRtc(ufrags, pwd);
        Arc::new(Peer::new(SessionId(id.into()), identity, origin, Arc::clone(source), 0))
    }

    fn tuple(port: u16) -> Tuple {
        Tuple { client: ([127, 0, 0, 1], port).into(), local: ([127, 0, 0, 1], 8000).into() }
    }

    #[test]
    fn a_look_at_very_many_sessions_comes_in_small_parts() {
        const SESSIONS: u32 = 100_000;
        let (table, source) = (Table::default(), source());
        (1..=SESSIONS).for_each(|id| table.insert(peer(id, &source)));
        let parts: Vec<usize> =
            (0..table.parts()).map(|part| table.look(part, 5, Duration::from_secs(30)).len()).collect();
        assert_eq!(parts.iter().sum::<usize>(), SESSIONS as usize);
        assert!(parts.iter().all(|sessions| *sessions < 2 * SESSIONS as usize / parts.len()), "{parts:?}");
    }

    #[test]
    fn a_session_is_found_by_each_of_its_names_until_it_is_removed() {
        let (table, source) = (Table::default(), source());
        let (one, two) = (peer(1, &source), peer(2, &source));
        [&one, &two].into_iter().for_each(|peer| table.insert(Arc::clone(peer)));
        table.bind(one.session, tuple(1), 7);
        table.activate(one.session, tuple(1));
        let found = |table: &Table| {
            let by_tuple = table.by_tuple(&tuple(1)).map(|bound| bound.peer.session);
            let by_name = table.by_username("orig1:clnt").map(|peer| peer.session);
            [by_tuple, by_name, source.peer(one.origin).map(|peer| peer.session)]
        };
        assert_eq!(found(&table), [Some(one.session); 3]);
        assert!(one.is_active(tuple(1)));
        table.remove(one.session);
        assert_eq!(found(&table), [None; 3]);
        assert_eq!(source.peer(two.origin).map(|peer| peer.session), Some(two.session));
    }

    #[test]
    fn a_tuple_that_another_session_took_survives_the_end_of_the_first() {
        let (table, source) = (Table::default(), source());
        let (one, two) = (peer(1, &source), peer(2, &source));
        [&one, &two].into_iter().for_each(|peer| table.insert(Arc::clone(peer)));
        table.bind(one.session, tuple(1), 0);
        table.bind(two.session, tuple(1), 0);
        table.unbind(one.session, tuple(1));
        table.remove(one.session);
        assert_eq!(table.by_tuple(&tuple(1)).map(|bound| bound.peer.session), Some(two.session));
    }
}
