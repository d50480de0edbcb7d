//! A proxy on loopback that clients of another one come to: relay, control loop and registry as they run, and an origin's socket.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use proxy_protocol::{
    routed_ufrag::{Credentials, FleetKey},
    stun::{Class, MessageBuilder, Method, TransactionId},
};
use tokio::time::sleep;

use super::*;
use crate::{
    api::signalling::SessionSink as _,
    config,
    connections::Connections,
    control::snapshot::Snapshot,
    datapath::{
        Protocol,
        userspace::{Placement, Relay},
    },
    directory::Directory,
    executor::Executor,
    origin::{OriginId, memory::MemoryRegistry},
    proxy::{Limits, Proxy},
    session::{RelayReason, source_port::SourcePorts},
};

const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing comes that is to come within this.
const QUIET: Duration = Duration::from_millis(100);
const STREAM: &str = "__defaultVhost__/live/show";

struct Rig {
    control: Control,
    gate: Gate,
    roaming: Arc<Roaming>,
    origin: Arc<Origin>,
    media: UdpSocket,
    client: UdpSocket,
    proxy: SocketAddr,
    tasks: JoinSet<()>,
}

fn key() -> FleetKey {
    FleetKey::new(b"one key for all of a fleet")
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn origin(media: &UdpSocket) -> Origin {
    let example = SessionOffer::example(STREAM, "ab12cd34:cl+/").origin;
    Origin { rtc: Some(media.local_addr().unwrap()), ..Origin::clone(&example) }
}

impl Rig {
    /// Without anybody who looks into strays.
    async fn idle(finder: Option<Arc<dyn SessionFinder>>) -> Self {
        let (events, event_queue) = mpsc::channel(64);
        let relay = Relay::start(&[SocketAddr::new(LOCALHOST, 0)], 1, &Placement::ByHash, events).unwrap();
        let (proxy, gate, directory) =
            (relay.addresses_of(Protocol::WebRtc).next().unwrap(), relay.gate(), Arc::<Directory>::default());
        let limits = Limits {
            max_sessions: 64,
            connect_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            srt_idle_timeout: PATIENCE,
            orphan_timeout: PATIENCE,
            relay_only: Some(RelayReason::NoEngine),
        };
        let ports = SourcePorts::new(30_000..=39_999, Duration::from_secs(45), rand::random());
        let executor = Executor::new(relay, None, Arc::clone(&directory));
        let (control, mut control_loop) =
            Control::new(Proxy::new(limits, ports), executor, directory, &[LOCALHOST]);
        control_loop.begin(None).await.unwrap();
        let unwatched =
            config::Origins { probe_interval: Duration::ZERO, ..config::Config::default().origins };
        let (registry, origin_events) = MemoryRegistry::new(unwatched, config::Balancing::default());
        let media = socket();
        registry.register_static(origin(&media)).unwrap();
        let origin = registry.serving().await.remove(0);
        let registry: Arc<dyn Registry> = registry;
        let mut tasks = JoinSet::new();
        let connections = Arc::new(Connections::default());
        tasks.spawn(control_loop.run(event_queue, origin_events, Arc::clone(&registry), connections));
        let fleet = Some(Arc::new(Fleet::new(key())));
        let roaming = Roaming::new(gate.clone(), control.clone(), registry, fleet, finder);
        Self { control, gate, roaming, origin, media, client: socket(), proxy, tasks }
    }

    async fn new() -> Self {
        Self::finding(None).await
    }

    async fn finding(finder: Option<Arc<dyn SessionFinder>>) -> Self {
        let mut rig = Self::idle(finder).await;
        rig.tasks.spawn(Arc::clone(&rig.roaming).run());
        let handed_over = async {
            while rig.gate.has_place_for_strays().is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, handed_over).await.unwrap();
        rig
    }

    /// The USERNAME and password of a session that another proxy made.
    fn elsewhere(&self) -> (String, IcePwd) {
        made_for(&self.origin.id.0)
    }

    fn send(&self, datagram: &[u8]) {
        self.client.send_to(datagram, self.proxy).unwrap();
    }

    /// Sends `datagram`, which the origin gets as it is.
    #[track_caller]
    fn reaches_the_origin(&self, datagram: &[u8]) {
        self.send(datagram);
        let mut buffer = [0; 2048];
        let (length, _) = self.media.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], datagram);
    }

    async fn until(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let end = Instant::now() + PATIENCE;
        loop {
            let snapshot = self.control.snapshot().await.unwrap();
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(Instant::now() < end, "{snapshot:#?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until so many datagrams came to this end, and no session was made for them.
    async fn opens_nothing(&self, reason: Reason, datagrams: u64) {
        let snapshot = self.until(|snapshot| counted(snapshot, reason) == datagrams).await;
        assert_eq!((snapshot.sessions.len(), snapshot.totals.admitted), (0, 0), "{snapshot:#?}");
        self.media.set_read_timeout(Some(QUIET)).unwrap();
        self.media.recv_from(&mut [0; 64]).expect_err("the origin hears nothing of it");
        self.media.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

fn made_for(origin: &str) -> (String, IcePwd) {
    let Credentials { ufrag, pwd } = key().credentials(origin, rand::random());
    (format!("{ufrag}:clnt"), pwd)
}

/// The same with another last digit, so with another MAC.
fn forged(username: &str) -> String {
    let (ufrag, client) = username.split_once(':').unwrap();
    let (rest, last) = ufrag.split_at(ufrag.len() - 1);
    format!("{rest}{}:{client}", if last == "0" { "1" } else { "0" })
}

fn counted(snapshot: &Snapshot, reason: Reason) -> u64 {
    let rows = snapshot.totals.reasons.iter().filter(|row| row.reason == reason.as_str());
    rows.map(|row| row.packets).sum()
}

fn check(username: &str, pwd: &[u8]) -> Vec<u8> {
    let request = MessageBuilder::new(Class::Request, Method::BINDING, TransactionId(rand::random()));
    request.username(username).use_candidate().integrity(pwd).fingerprint().build()
}

/// A place where sessions are written down.
#[derive(Default)]
struct Written {
    sessions: Mutex<HashMap<UfragPair, FoundSession>>,
    asked: AtomicU64,
    hangs: AtomicBool,
}

#[async_trait::async_trait]
impl SessionFinder for Written {
    async fn find(&self, ufrags: &UfragPair) -> Option<FoundSession> {
        self.asked.fetch_add(1, Relaxed);
        // Others come meanwhile.
        sleep(Duration::from_millis(50)).await;
        if self.hangs.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        self.sessions.lock().get(ufrags).cloned()
    }
}

impl Written {
    fn write(&self, username: &str, found: FoundSession) {
        self.sessions.lock().insert(username.parse().unwrap(), found);
    }
}

fn found(origin: &Arc<Origin>, pwd: &IcePwd) -> FoundSession {
    FoundSession {
        origin: Arc::clone(origin),
        pwd: pwd.clone(),
        stream: Some(STREAM.parse().unwrap()),
        role: Some(Role::Publisher),
        tcp: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_another_proxy_goes_on_with_the_first_request_that_verifies() {
    let rig = Rig::new().await;
    let (username, pwd) = rig.elsewhere();
    rig.reaches_the_origin(&check(&username, pwd.as_key()));
    rig.reaches_the_origin(&check(&username, pwd.as_key()));
    let snapshot = rig.control.snapshot().await.unwrap();
    let [session] = &snapshot.sessions[..] else { panic!("one session: {snapshot:#?}") };
    assert_eq!((&session.stream, session.role), (&None, None), "a ufrag does not tell");
    assert_eq!(session.client, Some(rig.client.local_addr().unwrap().to_string()));
    assert_eq!((session.origin.as_str(), session.state), (&*rig.origin.id.0, "userspace"));
    assert_eq!(snapshot.totals.resumed.get("ufrag"), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_23_a_right_ufrag_with_a_wrong_password_creates_nothing_and_keeps_nobody_out() {
    let rig = Rig::new().await;
    let (username, pwd) = rig.elsewhere();
    for _ in 0..5 {
        rig.send(&check(&username, b"a password that somebody made up"));
    }
    rig.opens_nothing(Reason::BadIntegrity, 5).await;
    rig.reaches_the_origin(&check(&username, pwd.as_key()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_no_origin_that_serves_opens_nothing() {
    let rig = Rig::new().await;
    let gone = made_for("vid-gone-s-1");
    let (made, pwd) = rig.elsewhere();
    let forged = forged(&made);
    let drawn_by_srs = "9b22ga66:clnt".to_owned();
    for username in [gone.0, forged, drawn_by_srs] {
        rig.send(&check(&username, pwd.as_key()));
    }
    rig.opens_nothing(Reason::UnknownUser, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_deleted_is_not_begun_again_by_what_its_client_still_sends() {
    let rig = Rig::new().await;
    let (username, pwd) = rig.elsewhere();
    rig.reaches_the_origin(&check(&username, pwd.as_key()));
    rig.control.deleted(&username.parse().unwrap()).await;
    rig.until(|snapshot| snapshot.sessions.is_empty()).await;
    rig.send(&check(&username, pwd.as_key()));
    let snapshot = rig.until(|snapshot| counted(snapshot, Reason::UnknownUser) == 1).await;
    assert_eq!((snapshot.sessions.len(), snapshot.totals.admitted), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_written_down_is_found_and_is_all_that_was_written() {
    let written = Arc::new(Written::default());
    let rig = Rig::finding(Some(written.clone())).await;
    let pwd: IcePwd = "0123456789abcdef0123456789abcdef".parse().unwrap();
    written.write("9b22ga66:clnt", found(&rig.origin, &pwd));
    rig.send(&check("9b22ga66:clnt", b"a password that somebody made up"));
    rig.opens_nothing(Reason::BadIntegrity, 1).await;
    rig.reaches_the_origin(&check("9b22ga66:clnt", pwd.as_key()));
    let snapshot = rig.control.snapshot().await.unwrap();
    assert_eq!(snapshot.sessions[0].stream.as_deref(), Some(STREAM));
    assert_eq!(snapshot.sessions[0].role, Some("publisher"));
    assert_eq!(snapshot.totals.resumed.get("store"), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_ufrag_does_not_tell_is_filled_in_if_it_was_written_down_for_the_same_origin() {
    let written = Arc::new(Written::default());
    let rig = Rig::finding(Some(written.clone())).await;
    let other = Arc::new(Origin { id: OriginId::new("vid-other", "s", "1"), ..Origin::clone(&rig.origin) });
    for (origin, stream) in [(&rig.origin, Some(STREAM)), (&other, None)] {
        let (username, pwd) = rig.elsewhere();
        written.write(&username, found(origin, &pwd));
        rig.reaches_the_origin(&check(&username, pwd.as_key()));
        let sessions = rig.control.snapshot().await.unwrap().sessions;
        let newest = sessions.last().unwrap();
        assert_eq!((newest.stream.as_deref(), newest.origin.as_str()), (stream, &*rig.origin.id.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_with_one_username_ask_once_and_one_that_nobody_knew_is_not_asked_for_again_at_once() {
    let written = Arc::new(Written::default());
    let rig = Rig::finding(Some(written.clone())).await;
    let pwd: IcePwd = "0123456789abcdef0123456789abcdef".parse().unwrap();
    for _ in 0..20 {
        rig.send(&check("nobody:knows", pwd.as_key()));
    }
    rig.opens_nothing(Reason::UnknownUser, 20).await;
    assert_eq!(written.asked.load(Relaxed), 1);
    assert!(rig.roaming.searches.lock().is_empty());
    // For longer than the machine may take to come to the next one.
    rig.roaming.unknown.lock().insert("other:name".parse().unwrap(), Instant::now() + PATIENCE);
    rig.send(&check("other:name", pwd.as_key()));
    rig.opens_nothing(Reason::UnknownUser, 21).await;
    assert_eq!(written.asked.load(Relaxed), 1);
    written.write("nobody:knows", found(&rig.origin, &pwd));
    let end = Instant::now() + PATIENCE;
    while rig.control.snapshot().await.unwrap().sessions.is_empty() {
        assert!(Instant::now() < end);
        rig.send(&check("nobody:knows", pwd.as_key()));
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(written.asked.load(Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_does_not_answer_holds_up_nobody_whose_ufrag_tells() {
    let written = Arc::new(Written::default());
    written.hangs.store(true, Relaxed);
    let rig = Rig::finding(Some(written.clone())).await;
    for user in 0..2 * QUESTIONS {
        rig.send(&check(&format!("user{user}:clnt"), b"a password that somebody made up"));
    }
    rig.until(|_| written.asked.load(Relaxed) >= QUESTIONS as u64).await;
    let (username, pwd) = rig.elsewhere();
    rig.reaches_the_origin(&check(&username, pwd.as_key()));
    let snapshot = rig.control.snapshot().await.unwrap();
    assert_eq!((snapshot.sessions.len(), snapshot.totals.resumed.get("ufrag")), (1, Some(&1)));
    assert!(written.asked.load(Relaxed) <= QUESTIONS as u64, "no more at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_network_cannot_have_everybody_elses_questions_asked() {
    let rig = Rig::finding(Some(Arc::new(Written::default()))).await;
    let asks = |client: IpAddr, times: u32| {
        let mut questions = rig.roaming.questions.lock();
        (0..times).filter(|_| questions.take(prefix(client), Instant::now()).is_ok()).count()
    };
    assert!(asks([192, 0, 2, 1].into(), 100_000) < 2_000);
    assert_eq!(asks([198, 51, 100, 1].into(), 100), 100);
}

/// The relay's part: nobody looks into strays, and it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_22_strays_that_nobody_has_time_for_are_dropped_and_counted_while_others_go_on() {
    let rig = Rig::idle(None).await;
    let (queue, _kept) = mpsc::channel(4);
    rig.gate.set_strays_aside(queue, is_routed);
    let offer =
        SessionOffer { origin: Arc::clone(&rig.origin), ..SessionOffer::example(STREAM, "ab12cd34:cl+/") };
    let pwd = offer.webrtc().unwrap().pwd.clone();
    rig.control.offered(offer).await.unwrap();
    for _ in 0..100 {
        let (username, pwd) = rig.elsewhere();
        rig.send(&check(&username, pwd.as_key()));
    }
    rig.send(&check("random:name", pwd.as_key()));
    rig.reaches_the_origin(&check("ab12cd34:cl+/", pwd.as_key()));
    let snapshot = rig.until(|snapshot| counted(snapshot, Reason::ControlBusy) == 96).await;
    assert_eq!(counted(&snapshot, Reason::UnknownUser), 1, "it was of no form that anybody could know");
}

#[test]
fn only_names_that_somebody_may_know_are_looked_into() {
    let (routed, _) = made_for("vid-1-s-1");
    assert!(is_routed(&routed) && is_username(&routed));
    for (name, is_any) in [("9b22ga66:clnt", true), ("", false), (&routed[..32], false), (&routed[1..], true)]
    {
        assert_eq!((is_routed(name), is_username(name)), (false, is_any), "{name}");
    }
}
