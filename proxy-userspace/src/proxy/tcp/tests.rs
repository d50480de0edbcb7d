//! Scripts of sessions whose client comes by TCP.

use super::super::tests::{IDLE, Script, client_ip, installs, offer, origin, retires, tuple};
use super::*;
use crate::{
    proxy::{Activity, Event, Inheritance, SessionOffer},
    session::{EndReason, Kind, offload::SETTLE, record::Record},
};
use std::time::{Duration, SystemTime};

fn endpoint() -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 1], 8443))
}

fn offer_over_tcp(name: &str) -> SessionOffer {
    let mut offer = offer(name, origin(1));
    if let Kind::WebRtc(webrtc) = &mut offer.kind {
        webrtc.tcp = Some(endpoint());
    }
    offer
}

fn path(connection: u64) -> TcpPath {
    let client = SocketAddr::new(client_ip(), 40_000 + u16::try_from(connection).unwrap());
    TcpPath { connection: ConnectionId(connection), client }
}

impl Script {
    fn connected(&mut self, session: SessionId, connection: u64) -> Vec<Action> {
        self.apply(Event::Connected { session, path: path(connection) })
    }

    fn carried(&mut self, session: SessionId, connection: u64, look: Carried) -> Vec<Action> {
        self.apply(Event::Carried(vec![(session, ConnectionId(connection), look)]))
    }

    /// Looks at a session whose client is silent on UDP, and says why it ended if it did.
    fn look(&mut self, session: SessionId) -> Option<EndReason> {
        let before: Vec<_> = self.proxy.stats().ends().collect();
        let client_idle = self.now.saturating_duration_since(self.proxy.session(session)?.born);
        let silent = Activity { client_idle, ..Activity::default() };
        let actions =
            [self.apply(Event::Activity(vec![(session, silent)])), self.apply(Event::Tick)].concat();
        let ended = retires(&actions, session);
        let reason = self.proxy.stats().ends().find(|end| !before.contains(end)).map(|(reason, _)| reason);
        assert_eq!(ended, reason.is_some(), "{actions:?}");
        reason
    }
}

fn refused(actions: &[Action]) -> Option<TcpRefusal> {
    actions.iter().find_map(|action| {
        if let Action::RefuseConnection { reason, .. } = action { Some(*reason) } else { None }
    })
}

fn closed(actions: &[Action]) -> Vec<u64> {
    let closed = |action: &Action| {
        if let Action::Disconnect { connection } = action { Some(connection.0) } else { None }
    };
    actions.iter().filter_map(closed).collect()
}

#[test]
fn a_connection_is_carried_to_where_the_origin_takes_it_and_the_kernel_has_no_part_in_it() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer_over_tcp("a"));
    let actions = script.connected(session, 1);
    let carry = Action::Carry { session, connection: ConnectionId(1), origin: endpoint() };
    assert_eq!(actions, [carry, Action::Record { session }]);
    script.wait(10 * SETTLE);
    assert!(!installs(&script.apply(Event::Tick), session));
}

#[test]
fn a_connection_is_refused_where_the_origin_takes_none_or_the_session_is_gone_or_has_enough() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer("a", origin(1)));
    assert_eq!(refused(&script.connected(session, 1)), Some(TcpRefusal::NotOffered));
    assert_eq!(refused(&script.connected(SessionId(99), 1)), Some(TcpRefusal::Ended));
    let (session, _) = script.offered(offer_over_tcp("b"));
    for connection in 0..8 {
        assert_eq!(refused(&script.connected(session, connection)), None);
    }
    assert_eq!(refused(&script.connected(session, 8)), Some(TcpRefusal::TooMany));
    script.carried(session, 3, Carried::Ended);
    assert_eq!(refused(&script.connected(session, 9)), None);
}

#[test]
fn a_session_lives_as_long_as_its_client_is_heard_over_tcp() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer_over_tcp("a"));
    script.wait(IDLE - Duration::from_secs(1));
    script.connected(session, 1);
    for _ in 0..5 {
        script.wait(IDLE - Duration::from_secs(1));
        assert_eq!(script.look(session), None);
        script.carried(session, 1, Carried::Bytes);
    }
    script.wait(IDLE);
    assert_eq!(script.look(session), Some(EndReason::Idle));
}

#[test]
fn a_session_whose_connections_have_ended_has_the_usual_time_for_its_client_to_come_back() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer_over_tcp("a"));
    script.wait(2 * IDLE / 3);
    script.connected(session, 1);
    script.carried(session, 1, Carried::Ended);
    // Longer than a client has that never came.
    script.wait(2 * IDLE / 3);
    assert_eq!(script.look(session), None);
    script.connected(session, 2);
    script.carried(session, 2, Carried::Ended);
    script.wait(IDLE);
    assert_eq!(script.look(session), Some(EndReason::Idle));
    let (never, _) = script.offered(offer_over_tcp("b"));
    script.wait(IDLE);
    assert_eq!(script.look(never), Some(EndReason::NeverConnected));
}

#[test]
fn whatever_ends_a_session_closes_its_connections() {
    let ends: [fn(&mut Script, SessionId) -> Event; 3] = [
        |script, session| {
            Event::Deleted(script.proxy.session(session).unwrap().offer.ufrags().unwrap().clone())
        },
        |_, _| Event::OriginDown(origin(1).id.clone()),
        |_, _| Event::Shutdown,
    ];
    for end in ends {
        let mut script = Script::new();
        let (session, _) = script.offered(offer_over_tcp("a"));
        for connection in [1, 2, 3] {
            script.connected(session, connection);
        }
        script.carried(session, 2, Carried::Ended);
        let event = end(&mut script, session);
        let actions = script.apply(event);
        assert_eq!(closed(&actions), [1, 3]);
        assert!(retires(&actions, session));
        assert_eq!(script.carried(session, 1, Carried::Ended), []);
    }
}

#[test]
fn a_client_may_use_both_transports_and_go_from_one_to_the_other() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer_over_tcp("a"));
    script.connected(session, 1);
    script.checked(session, tuple(5000), true);
    script.apply(Event::Answered(session));
    script.wait(SETTLE);
    assert!(installs(&script.apply(Event::Tick), session), "what comes by UDP is forwarded as ever");
    script.wait(IDLE);
    script.carried(session, 1, Carried::Bytes);
    assert_eq!(script.look(session), None, "silent on UDP, heard over TCP");
    script.carried(session, 1, Carried::Ended);
    let heard = Activity { client_idle: Duration::ZERO, ..Activity::default() };
    script.wait(IDLE);
    script.apply(Event::Activity(vec![(session, heard)]));
    assert!(script.proxy.session(session).is_some(), "silent over TCP, heard on UDP");
}

#[test]
fn a_close_seen_on_udp_ends_no_session_that_is_heard_over_tcp() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer_over_tcp("a"));
    script.checked(session, tuple(5000), true);
    script.connected(session, 1);
    let closing = |client_idle| Activity { client_idle, closing: true, ..Activity::default() };
    script.wait(Duration::from_secs(60));
    script.carried(session, 1, Carried::Bytes);
    script.apply(Event::Activity(vec![(session, closing(Duration::from_secs(60)))]));
    assert!(script.proxy.session(session).is_some());
    script.wait(Duration::from_secs(3));
    script.apply(Event::Activity(vec![(session, closing(Duration::from_secs(63)))]));
    assert!(script.proxy.session(session).is_none());
}

/// Whether checks from the client's address come up, as they must while some session is awaited from there.
fn is_awaited(script: &mut Script) -> bool {
    let (probe, _) = script.offered(offer("probe", origin(2)));
    script.checked(probe, tuple(9000), true);
    script.apply(Event::Answered(probe));
    script.wait(SETTLE);
    let actions = script.apply(Event::Tick);
    let escalation = actions.iter().find_map(|action| {
        if let Action::Install { session, escalation, .. } = action
            && *session == probe
        {
            Some(*escalation)
        } else {
            None
        }
    });
    let ufrags = script.proxy.session(probe).unwrap().offer.ufrags().unwrap().clone();
    script.apply(Event::Deleted(ufrags));
    escalation.expect("it is installed").requests
}

#[test]
fn a_session_is_awaited_by_udp_only_while_it_has_no_connection() {
    let mut script = Script::new();
    assert!(!is_awaited(&mut script));
    let (session, _) = script.offered(offer_over_tcp("a"));
    assert!(is_awaited(&mut script));
    script.connected(session, 1);
    script.connected(session, 2);
    assert!(!is_awaited(&mut script));
    script.carried(session, 1, Carried::Ended);
    assert!(!is_awaited(&mut script));
    script.carried(session, 2, Carried::Ended);
    assert!(is_awaited(&mut script));
    script.connected(session, 3);
    script.checked(session, tuple(5000), true);
    assert!(!is_awaited(&mut script));
    script.carried(session, 3, Carried::Ended);
    assert!(!is_awaited(&mut script), "it has come by UDP");
    let (other, _) = script.offered(offer_over_tcp("b"));
    script.connected(other, 4);
    script.apply(Event::Shutdown);
    assert!(!is_awaited(&mut script));
}

#[test]
fn an_adopted_session_that_used_tcp_has_time_to_come_again() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer_over_tcp("a"));
    script.connected(session, 1);
    let now = (script.now, SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
    let record = Record::of(script.proxy.session(session).unwrap(), now).unwrap();
    let mut heir = Script::new();
    let sessions = vec![(session, record)];
    let today = now.1 + 10 * IDLE;
    heir.now += 20 * IDLE;
    let left = Inheritance { sessions, flows: vec![], rests: vec![], next_session: 1, today };
    heir.apply(Event::Adopted(Box::new(left)));
    assert_eq!(heir.look(session), None);
    assert_eq!(refused(&heir.connected(session, 7)), None);
    heir.carried(session, 7, Carried::Ended);
    heir.wait(IDLE);
    assert_eq!(heir.look(session), Some(EndReason::Idle));
}
