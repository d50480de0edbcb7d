//! Actions on real sockets and real files: what the next process finds is what this one did.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use proxy_protocol::ice::UfragPair;
use tokio::sync::mpsc;

use super::*;
use crate::{
    datapath::userspace::Placement,
    lifecycle::{Estate, RecordFiles, owner::tests::TestDir},
    origin::OriginId,
    proxy::{Check, Limits},
    session::{SessionOffer, Tuple, source_port::SourcePorts},
};

const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A control plane with its executor.
struct Rig {
    proxy: Proxy,
    executor: Executor,
    directory: Arc<Directory>,
    _events: mpsc::Receiver<Event>,
}

impl Rig {
    fn new(dir: &TestDir) -> Self {
        dir.0.create().unwrap();
        let (events, queue) = mpsc::channel(8);
        let relay = Relay::start(&[SocketAddr::new(LOCALHOST, 0)], 1, &Placement::ByHash, events).unwrap();
        let directory = Arc::<Directory>::default();
        let records = RecordFiles::open(dir.0.records()).unwrap();
        let limits = Limits {
            max_sessions: 8,
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            srt_idle_timeout: Duration::from_secs(15),
            orphan_timeout: Duration::from_secs(600),
            relay_only: Some(RelayReason::NoEngine),
        };
        let ports = SourcePorts::new(20_000..=29_999, Duration::from_secs(45), rand::random());
        let executor = Executor::new(relay, None, Arc::clone(&directory)).with_records(Box::new(records));
        Self { proxy: Proxy::new(limits, ports), executor, directory, _events: queue }
    }

    async fn apply(&mut self, event: Event) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            for action in self.proxy.apply(event, Instant::now()) {
                queue.extend(self.executor.perform(action, &mut self.proxy).await);
            }
        }
    }

    async fn offered(&mut self, stream: &str, ufrags: &str) -> SessionId {
        let session = self.proxy.name_session();
        let offer = Box::new(SessionOffer::example(stream, ufrags));
        let media = SocketAddr::new(LOCALHOST, 9);
        self.apply(Event::Offered { session, offer, media, sources: [LOCALHOST].into() }).await;
        session
    }

    async fn checked(&mut self, session: SessionId, port: u16) {
        let check = Check {
            session,
            tuple: tuple(port),
            ifindex: 1,
            nominates: true,
            datagram: Bytes::from_static(b"check"),
            traffic_class: 0,
        };
        self.apply(Event::Checked(check)).await;
    }
}

fn tuple(port: u16) -> Tuple {
    Tuple { client: SocketAddr::new(LOCALHOST, port), local: SocketAddr::new(LOCALHOST, 8000) }
}

fn estate(dir: &TestDir) -> Estate {
    Estate::from_records(RecordFiles::open(dir.0.records()).unwrap().load().unwrap())
}

#[tokio::test]
async fn a_record_follows_its_session_from_the_offer_to_the_end() {
    let dir = TestDir::new("executor-follows");
    let mut rig = Rig::new(&dir);
    let session = rig.offered("v/live/a", "orig1:clnt1").await;
    let active = || estate(&dir).sessions[0].1.path.as_ref().map(|path| path.active);
    assert_eq!((estate(&dir).sessions[0].0, active()), (session, None));
    rig.checked(session, 5000).await;
    assert_eq!(active(), Some(tuple(5000)));
    rig.checked(session, 6000).await;
    assert_eq!(active(), Some(tuple(6000)));
    rig.apply(Event::Deleted("orig1:clnt1".parse().unwrap())).await;
    assert_eq!(estate(&dir).sessions, []);
}

#[tokio::test]
async fn another_executor_goes_on_with_what_it_finds() {
    let dir = TestDir::new("executor-goes-on");
    let mut before = Rig::new(&dir);
    let session = before.offered("v/live/a", "orig1:clnt1").await;
    before.checked(session, 5000).await;
    let source = before.proxy.session(session).unwrap().source;
    drop(before);
    let mut after = Rig::new(&dir);
    let left = estate(&dir);
    after.apply(Event::Adopted(Box::new(left.inheritance(vec![], vec![])))).await;
    let found = after.proxy.session(session).unwrap();
    assert_eq!((found.source, found.live().unwrap().active), (source, tuple(5000)));
    // The port is bound again, the relay knows the session, and signalling where a DELETE goes.
    assert!(std::net::UdpSocket::bind(source).is_err());
    let parts = 0..after.executor.relay().parts();
    let looks: usize = parts.map(|part| after.executor.look(part, &after.proxy).len()).sum();
    assert_eq!(looks, 1);
    let ufrags: UfragPair = "orig1:clnt1".parse().unwrap();
    assert_eq!(after.directory.origin_of(&ufrags).map(|o| o.api), Some(found.offer.origin.api));
    assert_eq!(after.offered("v/live/a", "orig2:clnt2").await, SessionId(session.0 + 1));
}

#[tokio::test]
async fn an_adopted_session_whose_port_somebody_took_ends() {
    let dir = TestDir::new("executor-taken");
    let mut before = Rig::new(&dir);
    let session = before.offered("v/live/a", "orig1:clnt1").await;
    before.checked(session, 5000).await;
    let source = before.proxy.session(session).unwrap().source;
    drop(before);
    let _stranger = std::net::UdpSocket::bind(source).unwrap();
    let mut after = Rig::new(&dir);
    let left = estate(&dir);
    after.apply(Event::Adopted(Box::new(left.inheritance(vec![], vec![])))).await;
    assert!(after.proxy.session(session).is_none());
    let ufrags = "orig1:clnt1".parse().unwrap();
    assert!(after.directory.origin_of(&ufrags).is_none());
    assert!(!after.directory.has_ended(&ufrags), "another port may be free");
    assert_eq!(estate(&dir).sessions, []);
}

#[tokio::test]
async fn a_session_whose_record_does_not_fit_is_counted_and_goes_on() {
    let dir = TestDir::new("executor-oversize");
    let mut rig = Rig::new(&dir);
    let session = rig.offered(&format!("v/live/{}", "s".repeat(1000)), "orig1:clnt1").await;
    assert!(rig.proxy.session(session).is_some());
    assert_eq!((rig.executor.records_refused(), estate(&dir).sessions.len()), (1, 0));
}

#[tokio::test]
async fn a_session_that_somebody_ended_is_over_whatever_its_client_sends() {
    let dir = TestDir::new("executor-over");
    let mut rig = Rig::new(&dir);
    let deleted = rig.offered("v/live/a", "orig1:clnt1").await;
    let moved = rig.offered("v/live/b", "orig2:clnt2").await;
    let lost = rig.offered("v/live/a", "orig3:clnt3").await;
    let to = OriginId::new("another", "s", "1");
    let origin = rig.proxy.session(lost).unwrap().offer.origin.id.clone();
    for (event, session, name) in [
        (Event::Deleted("orig1:clnt1".parse().unwrap()), deleted, "orig1:clnt1"),
        (Event::StreamMoved { stream: "v/live/b".parse().unwrap(), to }, moved, "orig2:clnt2"),
        (Event::OriginDown(origin), lost, "orig3:clnt3"),
    ] {
        let ufrags = name.parse().unwrap();
        assert!(!rig.directory.has_ended(&ufrags));
        rig.apply(event).await;
        assert!(rig.proxy.session(session).is_none(), "{name}");
        assert!(rig.directory.has_ended(&ufrags) && rig.directory.origin_of(&ufrags).is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_session_whose_client_was_not_heard_may_return() {
    let dir = TestDir::new("executor-silent");
    let mut rig = Rig::new(&dir);
    let session = rig.offered("v/live/a", "orig1:clnt1").await;
    for action in rig.proxy.apply(Event::Tick, Instant::now() + Duration::from_secs(31)) {
        assert!(rig.executor.perform(action, &mut rig.proxy).await.is_none());
    }
    assert!(rig.proxy.session(session).is_none());
    let ufrags = "orig1:clnt1".parse().unwrap();
    assert!(!rig.directory.has_ended(&ufrags) && rig.directory.origin_of(&ufrags).is_none());
}
