//! Scripts of SRT calls: one tuple, an answer or none, and what ends them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    super::tests::{SRT_IDLE, Script, installs, origin, removed, retires},
    *,
};
use crate::{
    datapath::{Escalation, FlowCounters, FlowId, Protocol},
    proxy::{Activity, Event, Refusal},
    session::{RelayReason, SessionOffer, offload::SETTLE, record::Record},
};

const ANSWER: Bytes = Bytes::from_static(b"answer");

fn caller(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn call(script: &mut Script, port: u16, socket: u32) -> (SessionId, Vec<Action>) {
    let mut offer = SessionOffer::example_call("v/live/a", caller(port), socket);
    offer.origin = origin(1);
    let session = SessionId(script.next);
    script.next += 1;
    let media = offer.origin.srt.unwrap();
    let sources = Arc::from([std::net::IpAddr::from([10, 0, 1, 254])]);
    let event = Event::Offered { session, offer: Box::new(offer), media, sources };
    let actions = script.apply(event);
    script.proxy.admitted(session);
    (session, actions)
}

fn established(script: &mut Script, port: u16, socket: u32) -> SessionId {
    let (session, _) = call(script, port, socket);
    script.apply(Event::Established { session, answer: ANSWER });
    session
}

fn installed(script: &mut Script, port: u16, flow: u32) -> SessionId {
    let session = established(script, port, 1);
    script.wait(SETTLE);
    assert!(installs(&script.apply(Event::Tick), session));
    script.apply(Event::Installed { session, result: Ok(FlowId(flow)) });
    session
}

fn look(idle: Duration, closing: bool) -> Activity {
    Activity { client_idle: idle, closing, ..Activity::default() }
}

#[test]
fn a_caller_is_relayed_from_the_start_and_live_with_the_answer() {
    let mut script = Script::new();
    let (session, actions) = call(&mut script, 5000, 1);
    let tuple = script.proxy.session(session).unwrap().offer.srt().unwrap().tuple;
    assert!(matches!(actions[0], Action::Admit { .. }), "{actions:?}");
    assert_eq!(actions[1..], [Action::Bind { session, tuple }, Action::Activate { session, tuple }]);
    assert!(script.proxy.session(session).unwrap().live().is_none());
    assert!(!installs(&script.apply(Event::Tick), session));
    let actions = script.apply(Event::Established { session, answer: ANSWER });
    assert_eq!(actions, [Action::Record { session }]);
    let live = script.proxy.session(session).unwrap().live().unwrap();
    assert!(live.nominated && live.answered && live.active == tuple);
}

#[test]
fn an_answered_call_is_installed_as_srt_once_settled() {
    let mut script = Script::new();
    let session = established(&mut script, 5000, 1);
    assert!(!installs(&script.apply(Event::Tick), session));
    script.wait(SETTLE);
    let actions = script.apply(Event::Tick);
    let Some(Action::Install { flow, escalation, .. }) = actions.first() else { panic!("{actions:?}") };
    assert_eq!((flow.protocol, *escalation), (Protocol::Srt, Escalation::default()));
}

#[test]
fn a_call_without_an_answer_leaves_no_record_and_one_with_it_does() {
    let mut script = Script::new();
    let (session, _) = call(&mut script, 5000, 1);
    let now = (script.now, std::time::SystemTime::now());
    let record = |script: &Script| Record::of(script.proxy.session(session).unwrap(), now);
    assert_eq!(record(&script), None);
    script.apply(Event::Established { session, answer: ANSWER });
    let record = record(&script).unwrap();
    assert_eq!(record.offer.srt().unwrap().answer, Some(ANSWER));
}

#[test]
fn an_origin_that_refuses_or_is_silent_ends_the_call_and_its_port_rests() {
    for reason in [EndReason::Rejected, EndReason::Unanswered] {
        let mut script = Script::new();
        let (session, _) = call(&mut script, 5000, 1);
        let tuple = script.proxy.session(session).unwrap().offer.srt().unwrap().tuple;
        let actions = script.apply(Event::HungUp { session, reason });
        assert!(actions.contains(&Action::Unbind { tuple, session }), "{actions:?}");
        assert!(retires(&actions, session));
        assert_eq!(script.proxy.port_usage().resting, 1);
        assert!(script.proxy.stats().ends().any(|end| end == (reason, 1)));
    }
}

#[test]
fn who_hung_up_too_late_ends_nothing() {
    let mut script = Script::new();
    let session = established(&mut script, 5000, 1);
    assert_eq!(script.apply(Event::HungUp { session, reason: EndReason::Unanswered }), []);
    assert!(script.proxy.session(session).is_some());
}

#[test]
fn a_caller_that_calls_anew_from_its_port_takes_the_place_of_its_session() {
    let mut script = Script::new();
    let before = installed(&mut script, 5000, 7);
    let (after, actions) = call(&mut script, 5000, 2);
    assert_eq!(removed(&actions), Some(FlowId(7)));
    assert!(retires(&actions, before));
    let tuple = script.proxy.session(after).unwrap().offer.srt().unwrap().tuple;
    let bound = actions
        .iter()
        .rposition(|action| matches!(action, Action::Bind { session, .. } if *session == after));
    let unbound = actions.iter().position(|action| *action == Action::Unbind { tuple, session: before });
    assert!(unbound < bound, "{actions:?}");
    assert!(script.proxy.stats().ends().any(|end| end == (EndReason::Replaced, 1)));
}

#[test]
fn a_refused_call_ends_no_other() {
    let mut script = Script::with_ports(61000..=61000);
    let before = established(&mut script, 5000, 1);
    let (after, actions) = call(&mut script, 5000, 2);
    assert_eq!(actions, [Action::Refuse { session: after, reason: Refusal::PortsExhausted }]);
    assert!(script.proxy.session(before).is_some());
}

#[test]
fn a_port_that_cannot_be_bound_is_replaced_and_the_caller_bound_again() {
    let mut script = Script::new();
    let (session, actions) = {
        let mut offer = SessionOffer::example_call("v/live/a", caller(5000), 1);
        offer.origin = origin(1);
        let session = script.proxy.name_session();
        let media = offer.origin.srt.unwrap();
        let sources: Arc<[_]> = [std::net::IpAddr::from([10, 0, 1, 254])].into();
        let offer = Box::new(offer);
        script.apply(Event::Offered { session, offer, media, sources: sources.clone() });
        (session, script.apply(Event::SourceUnusable { session, sources }))
    };
    let tuple = script.proxy.session(session).unwrap().offer.srt().unwrap().tuple;
    assert!(matches!(actions[0], Action::Admit { .. }), "{actions:?}");
    assert_eq!(actions[1..], [Action::Bind { session, tuple }, Action::Activate { session, tuple }]);
}

#[test]
fn a_shutdown_and_two_seconds_of_silence_end_a_session() {
    let mut script = Script::new();
    let session = installed(&mut script, 5000, 7);
    let short = look(Duration::from_secs(1), true);
    assert!(!retires(&script.apply(Event::Activity(vec![(session, short)])), session));
    let long = look(Duration::from_secs(2), false);
    let actions = script.apply(Event::Activity(vec![(session, long)]));
    assert!(retires(&actions, session) && removed(&actions) == Some(FlowId(7)));
    assert!(script.proxy.stats().ends().any(|end| end == (EndReason::Closed, 1)));
}

#[test]
fn a_shutdown_that_the_kernel_forwarded_counts_as_well() {
    let mut script = Script::new();
    let session = installed(&mut script, 5000, 7);
    let kernel = FlowCounters { closing: true, ..FlowCounters::default() };
    let seen = Activity { kernel: Some(kernel), ..look(Duration::from_secs(3), false) };
    assert!(retires(&script.apply(Event::Activity(vec![(session, seen)])), session));
}

#[test]
fn a_silent_caller_is_forgotten_after_the_time_of_srt() {
    let mut script = Script::new();
    let session = installed(&mut script, 5000, 7);
    let short = look(SRT_IDLE - Duration::from_millis(1), false);
    assert!(!retires(&script.apply(Event::Activity(vec![(session, short)])), session));
    assert!(retires(&script.apply(Event::Activity(vec![(session, look(SRT_IDLE, false))])), session));
}

#[test]
fn an_origin_that_goes_down_and_a_stop_end_calls_in_every_state() {
    for event in [|| Event::OriginDown(origin(1).id.clone()), || Event::Shutdown] {
        let mut script = Script::new();
        let (calling, live) = (call(&mut script, 5000, 1).0, established(&mut script, 5001, 2));
        let actions = script.apply(event());
        assert!(retires(&actions, calling) && retires(&actions, live));
    }
}

#[test]
fn no_check_is_asked_for_on_an_srt_flow() {
    let mut script = Script::new();
    let session = installed(&mut script, 5000, 7);
    // A WebRTC session is awaited from the same address.
    let actions = script.offered(super::super::tests::offer("w", origin(1))).1;
    assert!(!actions.iter().any(|action| matches!(action, Action::Escalate { .. })), "{actions:?}");
    assert_eq!(script.proxy.session(session).unwrap().flow(), Some(FlowId(7)));
}

#[test]
fn an_adopted_session_is_relayed_and_installed_again() {
    let mut script = Script::new();
    let session = established(&mut script, 5000, 1);
    let record =
        Record::of(script.proxy.session(session).unwrap(), (script.now, std::time::SystemTime::now()));
    let mut heir = Script::new();
    let left = crate::proxy::Inheritance {
        sessions: vec![(session, record.unwrap())],
        flows: vec![],
        rests: vec![],
        next_session: 9,
        today: std::time::SystemTime::now(),
    };
    let actions = heir.apply(Event::Adopted(Box::new(left)));
    let tuple = heir.proxy.session(session).unwrap().offer.srt().unwrap().tuple;
    assert_eq!(actions, [Action::Readmit { session, tuples: vec![tuple] }]);
    heir.wait(SETTLE);
    assert!(installs(&heir.apply(Event::Tick), session));
    assert_eq!(heir.reason(session), Some(RelayReason::Settling));
}
