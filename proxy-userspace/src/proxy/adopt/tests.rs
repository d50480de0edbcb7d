//! Scripts of events after another process: what it left is listed, followed and ended as if it were our own.

use std::time::SystemTime;

use super::super::tests::{IDLE, Script, client_ip, installs, offer, origin, removed, retires, tuple};
use super::*;
use crate::{
    datapath::DirectionCounters,
    proxy::{Activity, Event, Refusal},
    session::{RelayReason, offload::SETTLE, source_port::Rest},
};

const BORN: Duration = Duration::from_secs(100);

fn source(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 254], port))
}

fn record(name: &str, last: u8, port: u16, client_port: Option<u16>) -> Record {
    let offer = offer(name, origin(last));
    let media = offer.origin.rtc.unwrap();
    let path = client_port.map(|port| Path { active: tuple(port), ifindex: 3, backups: vec![] });
    Record { offer, media, source: source(port), born: SystemTime::UNIX_EPOCH, path, used_tcp: false }
}

fn flow(id: u32, last: u8, port: u16, client_port: u16) -> InheritedFlow {
    InheritedFlow {
        id: FlowId(id),
        client: tuple(client_port).client,
        source: source(port),
        origin: origin(last).rtc.unwrap(),
    }
}

fn left(sessions: Vec<(u64, Record)>, flows: Vec<InheritedFlow>) -> Inheritance {
    Inheritance {
        sessions: sessions.into_iter().map(|(id, record)| (SessionId(id), record)).collect(),
        flows,
        rests: vec![],
        next_session: 1,
        today: SystemTime::UNIX_EPOCH + BORN,
    }
}

fn adopted(script: &mut Script, left: Inheritance) -> Vec<Action> {
    script.now += 2 * BORN;
    script.apply(Event::Adopted(Box::new(left)))
}

fn idle_orphan(flow: u32, idle: Duration, closing: bool) -> Event {
    let to_origin = DirectionCounters { idle, ..DirectionCounters::default() };
    Event::Orphans(vec![(FlowId(flow), FlowCounters { to_origin, closing, ..FlowCounters::default() })])
}

#[test]
fn a_session_with_a_flow_goes_on_in_the_kernel() {
    let mut script = Script::new();
    let session = SessionId(40);
    let actions = adopted(
        &mut script,
        left(vec![(40, record("a", 1, 61003, Some(5000)))], vec![flow(7, 1, 61003, 5000)]),
    );
    assert_eq!(actions[0], Action::Readmit { session, tuples: vec![tuple(5000)] });
    let is_bound_at_once = |action: &Action| matches!(action, Action::Bind { .. } | Action::Activate { .. });
    assert!(!actions.iter().any(is_bound_at_once), "its port may be lost: {actions:?}");
    assert_eq!(removed(&actions), None);
    assert!(!actions.contains(&Action::Record { session }), "its record is there");
    let found = script.proxy.session(session).unwrap();
    assert_eq!((found.flow(), script.now - found.born), (Some(FlowId(7)), BORN));
    assert_eq!(script.proxy.stats().adopted, 1);
    script.wait(SETTLE);
    assert_eq!(script.apply(Event::Tick), []);
}

#[test]
fn a_session_without_a_flow_is_relayed_and_installed_again() {
    let mut script = Script::new();
    let session = SessionId(40);
    adopted(&mut script, left(vec![(40, record("a", 1, 61003, Some(5000)))], vec![]));
    assert_eq!(script.reason(session), Some(RelayReason::Settling));
    script.apply(Event::Media { session, tuple: tuple(5000), ifindex: 3 });
    script.apply(Event::Answered(session));
    script.wait(SETTLE);
    assert!(installs(&script.apply(Event::Tick), session));
}

#[test]
fn an_adopted_client_that_moves_is_followed() {
    let mut script = Script::new();
    adopted(&mut script, left(vec![(40, record("a", 1, 61003, Some(5000)))], vec![flow(7, 1, 61003, 5000)]));
    let session = SessionId(40);
    let actions = script.checked(session, tuple(6000), true);
    assert_eq!(removed(&actions), Some(FlowId(7)));
    assert!(actions.contains(&Action::Activate { session, tuple: tuple(6000) }));
    assert_eq!(actions.last(), Some(&Action::Record { session }));
}

#[test]
fn an_adopted_session_ends_by_delete_alert_silence_and_the_end_of_its_origin() {
    let closing = Activity { closing: true, client_idle: CLOSE_QUIET, ..Activity::default() };
    let silent = Activity { client_idle: IDLE, ..Activity::default() };
    let session = SessionId(40);
    for event in [
        Event::Deleted(offer("a", origin(1)).ufrags().unwrap().clone()),
        Event::Activity(vec![(session, closing)]),
        Event::Activity(vec![(session, silent)]),
        Event::OriginDown(origin(1).id.clone()),
        Event::Shutdown,
    ] {
        let mut script = Script::new();
        adopted(
            &mut script,
            left(vec![(40, record("a", 1, 61003, Some(5000)))], vec![flow(7, 1, 61003, 5000)]),
        );
        let what = format!("{event:?}");
        let actions = script.apply(event);
        assert!(retires(&actions, session) && removed(&actions) == Some(FlowId(7)), "{what}: {actions:?}");
        assert_eq!(script.proxy.port_usage().resting, 1, "{what}");
    }
}

#[test]
fn a_client_that_has_not_been_heard_is_awaited() {
    let mut script = Script::new();
    let session = SessionId(40);
    let mut awaited = record("a", 1, 61003, None);
    awaited.born = SystemTime::UNIX_EPOCH + BORN - IDLE / 2;
    let other = record("b", 2, 61003, Some(5001));
    let actions = adopted(&mut script, left(vec![(40, awaited), (41, other)], vec![flow(8, 2, 61003, 5001)]));
    let requests = Escalation { requests: true, responses: false };
    assert!(actions.contains(&Action::Escalate { flow: FlowId(8), what: requests }), "{actions:?}");
    let actions = script.checked(session, tuple(5000), true);
    assert!(actions.contains(&Action::Activate { session, tuple: tuple(5000) }));
    assert!(script.proxy.pending.is_empty());
}

#[test]
fn a_client_that_never_comes_is_not_awaited_longer_than_by_the_process_before() {
    let mut script = Script::new();
    let mut awaited = record("a", 1, 61003, None);
    awaited.born = SystemTime::UNIX_EPOCH + BORN - IDLE / 2;
    adopted(&mut script, left(vec![(40, awaited)], vec![]));
    assert!(!retires(&script.apply(Event::Tick), SessionId(40)));
    script.wait(IDLE / 2);
    assert!(retires(&script.apply(Event::Tick), SessionId(40)));
}

#[test]
fn a_flow_to_where_the_client_is_no_more_is_removed() {
    let mut script = Script::new();
    let actions = adopted(
        &mut script,
        left(vec![(40, record("a", 1, 61003, Some(6000)))], vec![flow(7, 1, 61003, 5000)]),
    );
    assert_eq!(removed(&actions), Some(FlowId(7)));
    assert_eq!(script.reason(SessionId(40)), Some(RelayReason::Settling));
}

#[test]
fn new_sessions_get_numbers_above_the_adopted_ones() {
    let mut script = Script::new();
    adopted(&mut script, left(vec![(40, record("a", 1, 61003, None))], vec![flow(9, 2, 61004, 5009)]));
    // 41 is the name of the flow without a record.
    assert_eq!(script.proxy.name_session(), SessionId(42));
    let mut script = Script::new();
    adopted(&mut script, Inheritance { next_session: 90, ..left(vec![], vec![]) });
    assert_eq!(script.proxy.name_session(), SessionId(90));
}

#[test]
fn adopted_ports_and_rests_are_not_leased() {
    let mut script = Script::with_ports(61000..=61002);
    let rest = Rest { source: source(61001), origin: origin(1).rtc.unwrap(), left: Duration::from_secs(20) };
    let what_is_left = left(vec![(40, record("a", 1, 61000, Some(5000)))], vec![flow(9, 1, 61002, 5009)]);
    adopted(&mut script, Inheritance { rests: vec![rest], ..what_is_left });
    script.next = 100;
    let full = Action::Refuse { session: SessionId(100), reason: Refusal::PortsExhausted };
    assert_eq!(script.offered(offer("b", origin(1))).1, [full]);
    script.wait(Duration::from_secs(20));
    let (_, actions) = script.offered(offer("b", origin(1)));
    let leased = |action: &Action| matches!(action, Action::Admit { source: s, .. } if *s == source(61001));
    assert!(actions.iter().any(leased), "{actions:?}");
}

#[test]
fn a_flow_without_a_record_goes_on_until_its_client_is_silent() {
    let mut script = Script::new();
    let actions = adopted(&mut script, left(vec![], vec![flow(9, 1, 61000, 5009)]));
    assert_eq!(removed(&actions), None);
    assert_eq!(script.proxy.flows().collect::<Vec<_>>(), [(SessionId(1), FlowId(9))]);
    assert_eq!(script.apply(idle_orphan(9, IDLE / 2, false)), []);
    assert_eq!(removed(&script.apply(idle_orphan(9, IDLE, false))), Some(FlowId(9)));
    assert_eq!(script.proxy.port_usage().resting, 1);
    assert_eq!(script.proxy.flows().count(), 0);
}

#[test]
fn a_flow_without_a_record_ends_after_a_close_alert_and_silence() {
    let mut script = Script::new();
    adopted(&mut script, left(vec![], vec![flow(9, 1, 61000, 5009)]));
    assert_eq!(script.apply(idle_orphan(9, Duration::ZERO, true)), []);
    assert_eq!(removed(&script.apply(idle_orphan(9, CLOSE_QUIET, false))), Some(FlowId(9)));
}

#[test]
fn a_session_that_comes_by_the_tuple_of_a_flow_without_a_record_takes_it() {
    let mut script = Script::new();
    adopted(&mut script, left(vec![], vec![flow(9, 1, 61000, 5009)]));
    script.next = 100;
    let (session, actions) = script.offered(offer("b", origin(2)));
    let requests = Escalation { requests: true, responses: false };
    assert!(actions.contains(&Action::Escalate { flow: FlowId(9), what: requests }), "{actions:?}");
    let actions = script.checked(session, tuple(5009), true);
    assert_eq!(removed(&actions), Some(FlowId(9)));
}

#[test]
fn flows_without_a_record_go_when_nothing_may_stay_in_the_kernel() {
    for event in [Event::Shutdown, Event::SwitchOffload(false)] {
        let mut script = Script::new();
        adopted(&mut script, left(vec![], vec![flow(9, 1, 61000, 5009)]));
        assert_eq!(removed(&script.apply(event)), Some(FlowId(9)));
    }
}

#[test]
fn the_flow_of_a_session_whose_port_is_lost_goes_on_by_itself() {
    let mut script = Script::new();
    let session = SessionId(40);
    adopted(&mut script, left(vec![(40, record("a", 1, 61003, Some(5000)))], vec![flow(7, 1, 61003, 5000)]));
    let actions = script.apply(Event::SourceUnusable { session, sources: [].into() });
    assert!(retires(&actions, session) && removed(&actions).is_none(), "{actions:?}");
    let is_unbound = |action: &Action| matches!(action, Action::Unbind { .. });
    assert!(!actions.iter().any(is_unbound), "the tuple is the flow's: {actions:?}");
    let none = Escalation { requests: false, responses: false };
    assert!(actions.contains(&Action::Escalate { flow: FlowId(7), what: none }), "{actions:?}");
    assert!(script.proxy.by_tuple.is_empty() && script.proxy.by_client_ip.is_empty());
    assert_eq!(script.proxy.flows().collect::<Vec<_>>(), [(session, FlowId(7))]);
    assert_eq!(removed(&script.apply(idle_orphan(7, IDLE, false))), Some(FlowId(7)));
}

#[test]
fn of_two_records_that_claim_one_port_the_first_counts() {
    let mut script = Script::new();
    let sessions = vec![(40, record("a", 1, 61003, Some(5000))), (41, record("b", 1, 61003, Some(5001)))];
    adopted(&mut script, left(sessions, vec![]));
    let ids: Vec<_> = script.proxy.sessions().map(|(id, _)| id).collect();
    assert_eq!(ids, [SessionId(40)]);
    assert!(script.proxy.by_client_ip.contains_key(&client_ip()));
}

#[test]
fn a_record_is_written_whenever_what_it_holds_changes() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer("a", origin(1)));
    let records = |actions: Vec<Action>| actions.contains(&Action::Record { session });
    assert!(records(script.checked(session, tuple(5000), false)), "first heard");
    assert!(!records(script.checked(session, tuple(5000), true)), "nominated");
    assert!(records(script.checked(session, tuple(6000), false)), "a spare tuple");
    assert!(records(script.checked(session, tuple(6000), true)), "moved");
    let look = Activity { idle_tuples: vec![tuple(5000)], ..Activity::default() };
    assert!(records(script.apply(Event::Activity(vec![(session, look)]))), "a spare tuple expired");
    assert!(!records(script.apply(Event::Shutdown)), "ended");
}
