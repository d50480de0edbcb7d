//! Callers against a relay with real sockets: what is answered, what is handed on, and what is kept.

use std::{net::UdpSocket as StdSocket, time::Duration};

use proxy_protocol::srt::{HSV5, Kind, MAGIC};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::{
    datapath::{
        Protocol,
        userspace::{Placement, Relay, Sockets},
    },
    proxy::Event,
};

const INDUCTION: &[u8] = include_bytes!("../../../../protocol/tests/data/srt/ffmpeg_induction.bin");
const CONCLUSION: &[u8] = include_bytes!("../../../../protocol/tests/data/srt/ffmpeg_conclusion.bin");
const PATIENCE: Duration = Duration::from_secs(10);

struct Rig {
    relay: Relay,
    calls: Receiver<Call>,
    _events: Receiver<Event>,
}

/// A caller that says what libsrt says.
struct Caller(StdSocket);

impl Rig {
    fn new() -> Self {
        Self::on("127.0.0.1:0")
    }

    fn on(address: &str) -> Self {
        let (events, queue) = mpsc::channel(8);
        let sockets = Sockets::inherit(&[], &[address.parse().unwrap()], 1, Vec::new()).unwrap();
        let mut relay = Relay::placed(sockets, Placement::ByHash, events).unwrap();
        relay.resume().unwrap();
        let calls = relay.switchboard().calls().unwrap();
        Self { relay, calls, _events: queue }
    }

    fn caller(&self) -> Caller {
        let service = self.relay.addresses_of(Protocol::Srt).next().unwrap();
        let socket = StdSocket::bind((service.ip(), 0)).unwrap();
        socket.connect(service).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Caller(socket)
    }

    fn taken(&mut self) -> Option<Call> {
        self.calls.try_recv().ok()
    }

    fn counted(&self, reason: proxy_common::verdict::Reason) -> u64 {
        self.relay.totals().reasons.iter().find(|(other, _)| *other == reason).unwrap().1
    }
}

impl Caller {
    fn ask(&self, datagram: &[u8]) -> Vec<u8> {
        self.0.send(datagram).unwrap();
        let mut buffer = [0; 2048];
        let length = self.0.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    fn cookie(&self) -> u32 {
        Handshake::parse(&self.ask(INDUCTION)).unwrap().cookie
    }

    fn conclusion(cookie: u32, change: impl Fn(&mut Handshake<'_>)) -> Vec<u8> {
        let mut conclusion = Handshake { cookie, ..Handshake::parse(CONCLUSION).unwrap() };
        change(&mut conclusion);
        conclusion.encode()
    }

    /// Something that is answered whatever came before it, so that what came before has been seen.
    fn barrier(&self) {
        self.cookie();
    }
}

fn refusal(answer: &[u8]) -> Rejection {
    match Handshake::parse(answer).unwrap().kind {
        Kind::Rejection(reason) => reason,
        other @ (Kind::Induction | Kind::Conclusion | Kind::Other(_)) => panic!("{other:?}"),
    }
}

#[test]
fn a_first_request_is_answered_and_nothing_is_kept_of_it() {
    let mut rig = Rig::new();
    let caller = rig.caller();
    let answer = caller.ask(INDUCTION);
    let answer = Handshake::parse(&answer).unwrap();
    let request = Handshake::parse(INDUCTION).unwrap();
    assert_eq!((answer.version, answer.extension_field, answer.kind), (HSV5, MAGIC, Kind::Induction));
    assert_eq!((answer.destination, answer.socket), (request.socket, request.socket));
    assert_eq!(answer.peer_ip, caller.0.local_addr().unwrap().ip());
    assert_ne!(answer.cookie, 0);
    assert!(rig.taken().is_none() && rig.relay.shared.calls.open.lock().is_empty());
}

#[test]
fn defect_35_an_ipv6_caller_gets_its_own_address() {
    let rig = Rig::on("[::1]:0");
    let answer = rig.caller().ask(INDUCTION);
    assert_eq!(Handshake::parse(&answer).unwrap().peer_ip, Ipv6Addr::LOCALHOST);
}

#[test]
fn defect_02_a_conclusion_without_an_induction_creates_nothing() {
    let mut rig = Rig::new();
    let caller = rig.caller();
    caller.0.send(CONCLUSION).unwrap();
    caller.barrier();
    assert!(rig.taken().is_none());
    assert_eq!(rig.counted(proxy_common::verdict::Reason::BadCookie), 1);
    // Another caller's cookie is no better.
    caller.0.send(&Caller::conclusion(rig.caller().cookie(), |_| {})).unwrap();
    caller.barrier();
    assert!(rig.taken().is_none());
    assert_eq!(rig.counted(proxy_common::verdict::Reason::BadCookie), 2);
}

#[test]
fn defect_03_datagrams_of_strangers_leave_nothing() {
    let mut rig = Rig::new();
    let caller = rig.caller();
    for id in 0..500_u32 {
        let mut datagram = [0x40; 32];
        datagram[12..16].copy_from_slice(&id.to_be_bytes());
        caller.0.send(&datagram).unwrap();
        caller.0.send(&CONCLUSION[..id as usize % CONCLUSION.len()]).unwrap();
        if id % 50 == 0 {
            caller.barrier();
        }
    }
    caller.barrier();
    assert!(rig.taken().is_none() && rig.relay.shared.calls.open.lock().is_empty());
    assert_eq!(rig.relay.source_sockets(), 0);
}

#[test]
fn a_second_request_with_the_cookie_is_one_call_however_often_it_comes() {
    let mut rig = Rig::new();
    let caller = rig.caller();
    let conclusion = Caller::conclusion(caller.cookie(), |_| {});
    for _ in 0..5 {
        caller.0.send(&conclusion).unwrap();
    }
    caller.barrier();
    let call = rig.taken().unwrap();
    assert_eq!((&*call.request, call.tuple.client), (&*conclusion, caller.0.local_addr().unwrap()));
    assert!(rig.taken().is_none());
    // Until it is over.
    drop(call);
    caller.0.send(&conclusion).unwrap();
    caller.barrier();
    assert!(rig.taken().is_some());
}

#[test]
fn a_cookie_that_another_process_made_is_accepted_by_its_heir() {
    let before = Rig::new();
    let key = before.relay.cookie_key();
    let heir = Rig::new();
    // Its key is asked for too late.
    heir.caller().barrier();
    heir.relay.set_cookie_key(key.clone());
    assert_ne!(heir.relay.cookie_key(), key);
    let heir = Rig::new();
    heir.relay.set_cookie_key(key.clone());
    assert_eq!(heir.relay.cookie_key(), key);
}

#[test]
fn an_old_caller_and_a_rendezvous_are_told_why_not() {
    let mut rig = Rig::new();
    let caller = rig.caller();
    let old = Caller::conclusion(caller.cookie(), |request| request.version = 4);
    assert_eq!(refusal(&caller.ask(&old)), Rejection::VERSION);
    let wave = Caller::conclusion(0, |request| {
        (request.kind, request.extensions) = (Kind::Other(0), &[]);
    });
    assert_eq!(refusal(&caller.ask(&wave)), Rejection::ROGUE);
    assert!(rig.taken().is_none());
}

#[test]
fn calls_are_limited_in_number_and_the_others_told() {
    let mut rig = Rig::new();
    let (mut calls, mut refused, mut ports) = (Vec::new(), 0, std::collections::HashSet::new());
    while ports.len() < 1100 {
        // Not all at once: a process may have no more than 1024 descriptors.
        let caller = rig.caller();
        if !ports.insert(caller.0.local_addr().unwrap().port()) {
            continue;
        }
        let conclusion = Caller::conclusion(caller.cookie(), |_| {});
        caller.0.send(&conclusion).unwrap();
        let answer = caller.ask(INDUCTION);
        refused += usize::from(matches!(Handshake::parse(&answer).unwrap().kind, Kind::Rejection(_)));
        calls.extend(rig.taken());
    }
    // The budget of one address comes back while the test runs.
    assert!(calls.len() >= EACH.burst as usize && calls.len() + refused == ports.len(), "{refused}");
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_from_where_it_called() {
    let mut rig = Rig::new();
    let caller = rig.caller();
    caller.0.send(&Caller::conclusion(caller.cookie(), |_| {})).unwrap();
    caller.barrier();
    let call = rig.taken().unwrap();
    rig.relay.switchboard().refuse(&call, Rejection::DOWN);
    let mut buffer = [0; 2048];
    let length = caller.0.recv(&mut buffer).unwrap();
    assert_eq!(refusal(&buffer[..length]), Rejection::DOWN);
}
