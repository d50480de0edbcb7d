//! Scripts of events against the state machine: no kernel, no socket, no registry.

use std::net::SocketAddr;

use bytes::Bytes;
use proxy_protocol::{
    ice::{IcePwd, Ufrag},
    stream_url::StreamRules,
};

use super::*;
use crate::{
    datapath::{DirectionCounters, Escalation, FlowCounters},
    origin::{Origin, OriginId},
    session::{
        Kind, Role, WebRtc,
        offload::{RelayCounters, SETTLE, SHARED_SETTLE},
    },
};

pub(super) const IDLE: Duration = Duration::from_secs(30);
pub(super) const SRT_IDLE: Duration = Duration::from_secs(15);

pub(super) struct Script {
    pub(super) proxy: Proxy,
    pub(super) now: Instant,
    pub(super) next: u64,
}

pub(super) fn origin(last: u8) -> Arc<Origin> {
    let ip = IpAddr::from([10, 0, 1, last]);
    let at = |port| Some(SocketAddr::new(ip, port));
    Arc::new(Origin {
        id: OriginId(format!("vid-{last}").into()),
        server: "vid".into(),
        device_id: String::new(),
        ip,
        rtmp: at(1935),
        http: at(8080),
        api: at(1985),
        srt: at(10080),
        rtc: at(8000),
        rtc_tcp: at(8000),
    })
}

pub(super) fn tuple(client_port: u16) -> Tuple {
    Tuple {
        client: SocketAddr::from(([192, 0, 2, 1], client_port)),
        local: SocketAddr::from(([198, 51, 100, 1], 8000)),
    }
}

pub(super) fn client_ip() -> IpAddr {
    tuple(0).client.ip()
}

fn sources() -> Arc<[IpAddr]> {
    [IpAddr::from([10, 0, 1, 254])].into()
}

pub(super) fn offer(name: &str, origin: Arc<Origin>) -> SessionOffer {
    let ufrag = |text: String| text.parse::<Ufrag>().unwrap();
    SessionOffer {
        stream: Some(StreamRules::default().rtc_url(&format!("webrtc://host/live/{name}")).unwrap()),
        origin,
        client_ip: client_ip(),
        role: Some(Role::Player),
        kind: Kind::WebRtc(WebRtc {
            ufrags: UfragPair::new(&ufrag(format!("orig{name}")), &ufrag(format!("clnt{name}"))),
            pwd: "0123456789abcdef0123456789abcdef".parse::<IcePwd>().unwrap(),
            tcp: None,
        }),
    }
}

impl Script {
    pub(super) fn new() -> Self {
        Self::with_ports(61000..=61009)
    }

    pub(super) fn with_ports(ports: std::ops::RangeInclusive<u16>) -> Self {
        let limits = Limits {
            max_sessions: 8,
            connect_timeout: IDLE,
            idle_timeout: IDLE,
            srt_idle_timeout: SRT_IDLE,
            orphan_timeout: 10 * IDLE,
            relay_only: None,
        };
        let ports = SourcePorts::new(ports, Duration::from_secs(45), 0);
        Self { proxy: Proxy::new(limits, ports), now: Instant::now(), next: 1 }
    }

    pub(super) fn apply(&mut self, event: Event) -> Vec<Action> {
        self.proxy.apply(event, self.now)
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn offered(&mut self, offer: SessionOffer) -> (SessionId, Vec<Action>) {
        let session = SessionId(self.next);
        self.next += 1;
        let media = offer.origin.rtc.unwrap();
        let event = Event::Offered { session, offer: Box::new(offer), media, sources: sources() };
        let actions = self.apply(event);
        if matches!(actions.last(), Some(Action::Admit { .. })) {
            self.proxy.admitted(session);
        }
        (session, actions)
    }

    pub(super) fn checked(&mut self, session: SessionId, tuple: Tuple, nominates: bool) -> Vec<Action> {
        let datagram = Bytes::from_static(b"check");
        self.apply(Event::Checked(Check {
            session,
            tuple,
            ifindex: 2,
            nominates,
            datagram,
            traffic_class: 0,
        }))
    }

    /// A session that is forwarded in the kernel, on `tuple`.
    fn installed(&mut self, name: &str, origin: Arc<Origin>, tuple: Tuple, flow: u32) -> SessionId {
        let (session, _) = self.offered(offer(name, origin));
        self.checked(session, tuple, true);
        self.apply(Event::Answered(session));
        self.wait(SETTLE);
        let actions = self.apply(Event::Tick);
        assert!(installs(&actions, session), "{actions:?}");
        self.apply(Event::Installed { session, result: Ok(FlowId(flow)) });
        session
    }

    pub(super) fn reason(&self, session: SessionId) -> Option<RelayReason> {
        self.proxy.session(session).unwrap().live().unwrap().offload.reason()
    }
}

pub(super) fn installs(actions: &[Action], wanted: SessionId) -> bool {
    actions.iter().any(|action| matches!(action, Action::Install { session, .. } if *session == wanted))
}

pub(super) fn retires(actions: &[Action], wanted: SessionId) -> bool {
    actions.iter().any(|action| matches!(action, Action::Retire { session, .. } if *session == wanted))
}

pub(super) fn removed(actions: &[Action]) -> Option<FlowId> {
    actions
        .iter()
        .find_map(|action| if let Action::Remove { flow, .. } = action { Some(*flow) } else { None })
}

fn idle_for(client_idle: Duration) -> Activity {
    Activity { client_idle, ..Activity::default() }
}

#[test]
fn a_first_check_binds_activates_and_is_forwarded() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer("a", origin(1)));
    let actions = script.checked(session, tuple(5000), false);
    let (bind, activate) =
        (Action::Bind { session, tuple: tuple(5000) }, Action::Activate { session, tuple: tuple(5000) });
    assert_eq!(actions[..2], [bind, activate]);
    assert!(matches!(&actions[2], Action::Forward(check) if check.tuple == tuple(5000)), "{actions:?}");
}

#[test]
fn a_session_is_installed_once_nominated_answered_and_settled() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer("a", origin(1)));
    script.checked(session, tuple(5000), false);
    script.wait(SETTLE);
    assert!(!installs(&script.apply(Event::Tick), session));
    assert_eq!(script.reason(session), Some(RelayReason::NotNominated));
    script.checked(session, tuple(5000), true);
    assert!(!installs(&script.apply(Event::Tick), session));
    assert_eq!(script.reason(session), Some(RelayReason::NotAnswered));
    script.apply(Event::Answered(session));
    assert!(installs(&script.apply(Event::Tick), session));
}

#[test]
fn media_from_the_active_tuple_is_as_good_as_a_nomination() {
    let mut script = Script::new();
    let (session, _) = script.offered(offer("a", origin(1)));
    script.checked(session, tuple(5000), false);
    script.apply(Event::Media { session, tuple: tuple(5000), ifindex: 2 });
    script.apply(Event::Answered(session));
    script.wait(SETTLE);
    assert!(installs(&script.apply(Event::Tick), session));
}

#[test]
fn a_nominated_new_tuple_moves_the_return_path_and_ends_the_offload_first() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    let actions = script.checked(session, tuple(6000), true);
    let at = |wanted: &Action| actions.iter().position(|action| action == wanted);
    let removal = at(&Action::Remove { session, flow: FlowId(7) });
    let move_there = at(&Action::Activate { session, tuple: tuple(6000) });
    assert!(removal.is_some() && removal < move_there, "{actions:?}");
    script.wait(SETTLE);
    assert!(installs(&script.apply(Event::Tick), session));
}

#[test]
fn a_spare_tuple_does_not_move_the_return_path_but_its_answers_come_up() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    let actions = script.checked(session, tuple(6000), false);
    let what = Escalation { requests: false, responses: true };
    assert!(actions.contains(&Action::Escalate { flow: FlowId(7), what }), "{actions:?}");
    assert_eq!(removed(&actions), None);
    assert_eq!(script.proxy.session(session).unwrap().live().unwrap().active, tuple(5000));
}

#[test]
fn media_from_a_spare_tuple_moves_the_return_path() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    script.checked(session, tuple(6000), false);
    let actions = script.apply(Event::Media { session, tuple: tuple(6000), ifindex: 2 });
    assert_eq!(removed(&actions), Some(FlowId(7)));
    assert_eq!(script.proxy.session(session).unwrap().live().unwrap().active, tuple(6000));
}

#[test]
fn media_from_a_tuple_that_never_authenticated_moves_nothing() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    assert_eq!(script.apply(Event::Media { session, tuple: tuple(6000), ifindex: 2 }), []);
}

#[test]
fn idle_spare_tuples_expire_and_their_answers_no_longer_come_up() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    script.checked(session, tuple(6000), false);
    let look = Activity { idle_tuples: vec![tuple(6000)], ..Activity::default() };
    let actions = script.apply(Event::Activity(vec![(session, look)]));
    assert!(actions.contains(&Action::Unbind { tuple: tuple(6000), session }));
    assert!(actions.contains(&Action::Escalate { flow: FlowId(7), what: Escalation::default() }));
}

#[test]
fn requests_come_up_while_a_session_from_the_same_client_address_is_pending() {
    let mut script = Script::new();
    script.installed("a", origin(1), tuple(5000), 7);
    let (second, actions) = script.offered(offer("b", origin(2)));
    let up = Escalation { requests: true, responses: false };
    assert!(actions.contains(&Action::Escalate { flow: FlowId(7), what: up }), "{actions:?}");
    let actions = script.checked(second, tuple(5001), true);
    assert!(actions.contains(&Action::Escalate { flow: FlowId(7), what: Escalation::default() }));
}

#[test]
fn a_second_session_takes_the_tuple_of_the_first_and_its_flow_goes() {
    let mut script = Script::new();
    let first = script.installed("a", origin(1), tuple(5000), 7);
    let (second, _) = script.offered(offer("b", origin(2)));
    let actions = script.checked(second, tuple(5000), true);
    assert_eq!(removed(&actions), Some(FlowId(7)));
    assert!(actions.contains(&Action::Unbind { tuple: tuple(5000), session: first }));
    assert!(actions.contains(&Action::Activate { session: second, tuple: tuple(5000) }));
}

#[test]
fn a_session_that_takes_a_spare_tuple_of_another_gives_up_its_flow() {
    let mut script = Script::new();
    let first = script.installed("a", origin(1), tuple(5000), 7);
    let second = script.installed("b", origin(2), tuple(5001), 8);
    let actions = script.checked(second, tuple(5000), false);
    for (session, flow) in [(first, FlowId(7)), (second, FlowId(8))] {
        assert!(actions.contains(&Action::Remove { session, flow }), "{actions:?}");
        assert_eq!(script.reason(session), Some(RelayReason::SharedTuple));
    }
    script.wait(SHARED_SETTLE);
    let actions = script.apply(Event::Tick);
    assert!(installs(&actions, second) && !installs(&actions, first), "{actions:?}");
}

#[test]
fn a_tuple_that_two_live_sessions_use_in_turn_is_not_offloaded() {
    let mut script = Script::new();
    let first = script.installed("a", origin(1), tuple(5000), 7);
    let (second, _) = script.offered(offer("b", origin(2)));
    for session in [second, first, second] {
        let actions = script.checked(session, tuple(5000), true);
        assert!(actions.contains(&Action::Bind { session, tuple: tuple(5000) }), "{actions:?}");
        script.apply(Event::Answered(session));
        script.wait(Duration::from_secs(1));
        let actions = script.apply(Event::Tick);
        assert!(!installs(&actions, first) && !installs(&actions, second), "{actions:?}");
        assert_eq!(script.reason(session), Some(RelayReason::SharedTuple));
    }
    script.wait(SHARED_SETTLE);
    assert!(installs(&script.apply(Event::Tick), second));
}

#[test]
fn a_session_that_was_never_heard_ends_and_its_port_rests() {
    let mut script = Script::with_ports(61000..=61000);
    let (session, _) = script.offered(offer("a", origin(1)));
    script.wait(IDLE);
    assert!(retires(&script.apply(Event::Tick), session));
    let refused = |actions: &[Action]| {
        matches!(actions.last(), Some(Action::Refuse { reason: Refusal::PortsExhausted, .. }))
    };
    assert!(refused(&script.offered(offer("b", origin(1))).1));
    script.wait(Duration::from_secs(45));
    assert!(!refused(&script.offered(offer("c", origin(1))).1));
}

#[test]
fn a_silent_client_ends_its_session_whatever_the_origin_sends() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    assert_eq!(script.apply(Event::Activity(vec![(session, idle_for(IDLE / 2))])), []);
    let actions = script.apply(Event::Activity(vec![(session, idle_for(IDLE))]));
    assert_eq!(removed(&actions), Some(FlowId(7)));
    assert!(retires(&actions, session));
}

#[test]
fn a_close_alert_ends_the_session_only_when_silence_follows() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    let closing = |client_idle| {
        let kernel = FlowCounters { closing: true, ..FlowCounters::default() };
        Event::Activity(vec![(
            session,
            Activity { kernel: Some(kernel), client_idle, ..Activity::default() },
        )])
    };
    let actions = script.apply(closing(Duration::from_millis(100)));
    assert!(!retires(&actions, session));
    let actions = script.apply(closing(CLOSE_QUIET));
    assert!(retires(&actions, session));
}

#[test]
fn delete_ends_the_session_at_once() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    let actions = script.apply(Event::Deleted(offer("a", origin(1)).ufrags().unwrap().clone()));
    assert!(retires(&actions, session) && removed(&actions) == Some(FlowId(7)));
    assert_eq!(script.proxy.sessions().count(), 0);
    assert!(script.proxy.by_tuple.is_empty() && script.proxy.by_client_ip.is_empty());
    assert!(script.proxy.by_ufrags.is_empty() && script.proxy.pending.is_empty());
}

#[test]
fn an_origin_that_goes_down_takes_only_its_own_sessions_with_it() {
    let mut script = Script::new();
    let first = script.installed("a", origin(1), tuple(5000), 7);
    let second = script.installed("b", origin(2), tuple(5001), 8);
    let actions = script.apply(Event::OriginDown(origin(1).id.clone()));
    assert!(retires(&actions, first) && !retires(&actions, second));
}

#[test]
fn a_flow_that_does_not_forward_is_removed_with_its_reason_and_tried_again_later() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    let look = |relayed| {
        let relay = RelayCounters { to_origin: relayed, to_client: 0 };
        let kernel = FlowCounters {
            to_origin: DirectionCounters::default(),
            to_client: DirectionCounters::default(),
            closing: false,
        };
        Event::Activity(vec![(session, Activity { relay, kernel: Some(kernel), ..Activity::default() })])
    };
    script.apply(look(10));
    assert_eq!(removed(&script.apply(look(100))), Some(FlowId(7)));
    assert_eq!(script.reason(session), Some(RelayReason::HookMissed));
    script.wait(Duration::from_secs(14));
    assert!(!installs(&script.apply(Event::Tick), session));
    script.wait(Duration::from_secs(1));
    assert!(installs(&script.apply(Event::Tick), session));
}

#[test]
fn a_flow_without_a_way_is_tried_again_when_the_network_changes() {
    let mut script = Script::new();
    let lost = script.installed("a", origin(1), tuple(5000), 7);
    let doubted = script.installed("b", origin(2), tuple(5001), 8);
    assert_eq!(removed(&script.apply(Event::NextHopLost(vec![lost]))), Some(FlowId(7)));
    let result = Err(RelayReason::NoAnswer);
    script.proxy.sessions.get_mut(&doubted).unwrap().live_mut().unwrap().offload =
        Offload::relayed(RelayReason::Settling, script.now);
    script.apply(Event::Installed { session: doubted, result });
    script.wait(Duration::from_secs(1));
    assert!(!installs(&script.apply(Event::Tick), lost));
    script.apply(Event::NetworkChanged);
    let actions = script.apply(Event::Tick);
    assert!(installs(&actions, lost));
    assert!(!installs(&actions, doubted), "the network was not what it failed for");
}

#[test]
fn a_source_port_that_cannot_be_bound_is_replaced_and_at_last_refused() {
    let mut script = Script::with_ports(61000..=61001);
    let session = SessionId(1);
    let offer = Box::new(offer("a", origin(1)));
    let media = offer.origin.rtc.unwrap();
    let first = script.apply(Event::Offered { session, offer, media, sources: sources() });
    let second = script.apply(Event::SourceUnusable { session, sources: sources() });
    let (Action::Admit { source: a, .. }, Action::Admit { source: b, .. }) = (&first[0], &second[0]) else {
        panic!("{first:?} {second:?}")
    };
    assert_ne!(a, b);
    let last = script.apply(Event::SourceUnusable { session, sources: sources() });
    assert_eq!(last[0], Action::Refuse { session, reason: Refusal::PortsExhausted });
    assert_eq!(script.proxy.sessions().count(), 0);
}

#[test]
fn sessions_above_the_limit_and_duplicates_are_refused() {
    let mut script = Script::new();
    script.offered(offer("a", origin(1)));
    let (_, actions) = script.offered(offer("a", origin(1)));
    assert!(matches!(actions[0], Action::Refuse { reason: Refusal::DuplicateUfrag, .. }));
    for i in 0..7 {
        script.offered(offer(&format!("x{i}"), origin(1)));
    }
    let (_, actions) = script.offered(offer("last", origin(1)));
    assert!(matches!(actions[0], Action::Refuse { reason: Refusal::Full, .. }));
}

#[test]
fn a_session_refuses_more_spare_tuples_than_its_limit() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    let bound = (6000..6020).filter(|port| !script.checked(session, tuple(*port), false).is_empty()).count();
    assert_eq!(bound, 8);
    assert_eq!(script.proxy.stats().tuples_refused, 12);
}

#[test]
fn switching_offload_off_returns_every_session_to_userspace_until_it_is_on_again() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    assert_eq!(removed(&script.apply(Event::SwitchOffload(false))), Some(FlowId(7)));
    assert_eq!(script.apply(Event::Tick), []);
    assert_eq!(script.reason(session), Some(RelayReason::SwitchedOff));
    script.apply(Event::SwitchOffload(true));
    assert!(installs(&script.apply(Event::Tick), session));
}

#[test]
fn without_an_engine_sessions_say_so_and_the_switch_changes_nothing() {
    let mut script = Script::new();
    script.proxy.limits.relay_only = Some(RelayReason::NoEngine);
    let (session, _) = script.offered(offer("a", origin(1)));
    script.checked(session, tuple(5000), true);
    script.apply(Event::Answered(session));
    script.apply(Event::SwitchOffload(true));
    script.wait(SETTLE);
    assert_eq!(script.apply(Event::Tick), []);
    assert_eq!(script.reason(session), Some(RelayReason::NoEngine));
}

#[test]
fn moves_and_ends_are_not_counted_as_failed_offloads() {
    let mut script = Script::new();
    let session = script.installed("a", origin(1), tuple(5000), 7);
    script.checked(session, tuple(6000), true);
    script.apply(Event::Deleted(offer("a", origin(1)).ufrags().unwrap().clone()));
    assert!(script.proxy.stats().relayed().all(|(_, count)| count == 0));
}

#[test]
fn shutdown_removes_every_flow() {
    let mut script = Script::new();
    let first = script.installed("a", origin(1), tuple(5000), 7);
    let actions = script.apply(Event::Shutdown);
    assert!(retires(&actions, first) && removed(&actions) == Some(FlowId(7)));
}
