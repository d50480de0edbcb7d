//! Clients and origins on loopback, with the router between them.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use proxy_protocol::stream_url::StreamKey;

use super::*;
use crate::{
    api::Server,
    config::Listen,
    net::tcp::Listeners,
    origin::{OriginId, OriginStatus, PickError, balance::Terms},
    session::Role,
};

mod credentials;

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
                     a=ice-ufrag:cl+/\r\na=ice-pwd:cccccccccccccccccccccccc\r\n";
const LOCATION: &str = "/rtc/v1/whip/?action=delete&token=t+/&app=live&stream=s&session=ab12cd34:cl+/";
const PUBLISH: &str = "/rtc/v1/whip/?app=live&stream=s&token=a+b/c%2F&&x";

/// An answer with this candidate address under each of its two media.
fn answer(candidate: &str) -> String {
    let candidate = format!("a=candidate:0 1 udp 2130706431 {candidate} typ host generation 0\r\n");
    let credentials =
        "a=ice-ufrag:ab12cd34\r\na=ice-pwd:oooooooooooooooooooooooooooooooo\r\na=setup:passive\r\n";
    format!(
        "v=0\r\no=SRS 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
         c=IN IP4 0.0.0.0\r\n{credentials}{candidate}m=video 9 UDP/TLS/RTP/SAVPF 106\r\n{credentials}a=x-own: kept \
         \r\n{candidate}"
    )
}

const ORIGIN_CANDIDATE: &str = "10.0.0.7 8000";
const OUR_CANDIDATE: &str = "127.0.0.1 18000";
const MEDIA: Receivers = Receivers { udp: Receiver { bound: None, port: 18000 }, tcp: None };

/// The answer with another candidate of this kind behind each of its candidates.
fn answer_over_tcp(answer: &str, candidate: &str, priority: u32) -> String {
    let udp = format!("{candidate} typ host generation 0\r\n");
    let tcp = format!("a=candidate:1 1 tcp {priority} {candidate} typ host tcptype passive\r\n");
    answer.replace(&udp, &[udp.as_str(), &tcp].concat())
}

#[derive(Clone, Debug)]
struct Recorded {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: String,
}

impl Recorded {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn query(&self, name: &str) -> Option<&str> {
        proxy_protocol::query::value(self.target.split_once('?')?.1, name)
    }

    /// `sdp` with those of the credentials that the query asks for.
    fn with_credentials(&self, sdp: &str, taken: &[&str]) -> String {
        let (ufrag, pwd) = ("ice-ufrag", "ice-pwd");
        let asked = |name| self.query(name).filter(|_| taken.contains(&name));
        let sdp = sdp.replace("ab12cd34", asked(ufrag).unwrap_or("ab12cd34"));
        sdp.replace(&"o".repeat(32), asked(pwd).unwrap_or("oooooooooooooooooooooooooooooooo"))
    }
}

/// What an origin does with a request.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// As SRS: 201 to an offer, 200 to a DELETE, JSON where JSON is spoken.
    Srs,
    /// The same, with media over TCP too.
    SrsOverTcp,
    /// As SRS, which takes the credentials that a query asks for.
    TakesCredentials,
    /// As SRS where another session has the user name.
    Clashes,
    /// An error of its own.
    Forbids,
    /// A JSON error, with status 200.
    JsonError,
    /// 201 with something else than SDP.
    Garbles,
    /// Nothing.
    Hangs,
}

struct TestOrigin {
    origin: Arc<Origin>,
    requests: Arc<Mutex<Vec<Recorded>>>,
    _stop: watch::Sender<bool>,
}

impl TestOrigin {
    fn start(name: &str, manner: Manner) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorder = requests.clone();
        let router = Router::new().fallback(async move |request: Request<Body>| {
            let recorded = record(request).await;
            recorder.lock().push(recorded.clone());
            reply(manner, &recorded).await
        });
        let (address, stop) = serve(router);
        Self { origin: origin(name, address), requests, _stop: stop }
    }

    fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().clone()
    }
}

async fn record(request: Request<Body>) -> Recorded {
    let (parts, body) = request.into_parts();
    let body = crate::api::body::read(body, 1 << 20).await.unwrap();
    let target = parts.uri.path_and_query().unwrap().as_str().into();
    Recorded {
        method: parts.method,
        target,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn reply(manner: Manner, request: &Recorded) -> Response {
    let sdp = answer(ORIGIN_CANDIDATE);
    match manner {
        Manner::Srs | Manner::SrsOverTcp | Manner::TakesCredentials | Manner::Clashes
            if request.method == Method::DELETE =>
        {
            StatusCode::OK.into_response()
        }
        Manner::TakesCredentials => created(request.with_credentials(&sdp, &["ice-ufrag", "ice-pwd"])),
        Manner::Clashes => created(request.with_credentials(&sdp, &["ice-pwd"])),
        Manner::SrsOverTcp => created(answer_over_tcp(&sdp, ORIGIN_CANDIDATE, 1_000)),
        Manner::Srs if request.target.starts_with("/rtc/v1/play/") => {
            let sdp = serde_json::to_string(&sdp).unwrap();
            format!("{{\"server\":\"vid\", \"code\":0,\"sdp\":{sdp},\"sessionid\":\"x\"}}\n").into_response()
        }
        Manner::Srs => created(sdp),
        Manner::Forbids => (StatusCode::FORBIDDEN, [("x-own", "1")], "refused by on_publish").into_response(),
        Manner::JsonError => "{\"code\":400}".into_response(),
        Manner::Garbles => created("SRS".into()),
        Manner::Hangs => std::future::pending().await,
    }
}

fn created(sdp: String) -> Response {
    let headers = [("content-type", "application/sdp"), ("location", LOCATION), ("connection", "Close")];
    (StatusCode::CREATED, headers, sdp).into_response()
}

fn origin(name: &str, api: SocketAddr) -> Arc<Origin> {
    Arc::new(Origin {
        id: OriginId::new(name, "v", "1"),
        server: name.into(),
        device_id: name.into(),
        ip: api.ip(),
        rtmp: None,
        http: None,
        api: Some(api),
        srt: None,
        rtc: Some("10.0.0.7:8000".parse().unwrap()),
        rtc_tcp: None,
    })
}

fn serve(router: Router) -> (SocketAddr, watch::Sender<bool>) {
    let server =
        Server::new(Listeners::bind(Listen { ip: Some(Ipv4Addr::LOCALHOST.into()), port: 0 }).unwrap());
    let address = server.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let second = Duration::from_secs(1);
    tokio::spawn(server.serve(router, second, second, stopping));
    (address, stop)
}

/// Picks the first origin that nobody reported.
#[derive(Default)]
struct ListedOrigins {
    origins: Vec<Arc<Origin>>,
    failed: Mutex<HashSet<OriginId>>,
    picked: Mutex<Vec<StreamKey>>,
    published: Mutex<Vec<(StreamKey, OriginId)>>,
}

#[async_trait::async_trait]
impl Registry for ListedOrigins {
    async fn register(&self, _: Origin, _: Terms) -> Result<(), PickError> {
        Ok(())
    }

    async fn pick(&self, stream: &StreamKey) -> Result<Arc<Origin>, PickError> {
        self.picked.lock().push(stream.clone());
        let failed = self.failed.lock();
        let mut up = self.origins.iter().filter(|origin| !failed.contains(&origin.id));
        up.next().cloned().ok_or_else(|| PickError::NoOrigin(stream.clone()))
    }

    async fn picked(&self, _: &StreamKey) -> Option<Arc<Origin>> {
        None
    }

    async fn serving(&self) -> Vec<Arc<Origin>> {
        self.origins.clone()
    }

    async fn at_rtmp(&self, _: SocketAddr) -> Option<Arc<Origin>> {
        None
    }

    async fn published(&self, stream: &StreamKey, origin: &OriginId) {
        self.published.lock().push((stream.clone(), origin.clone()));
    }

    async fn refresh(&self, _: Vec<StreamKey>) {}

    async fn carry(&self, _: HashMap<OriginId, u64>) {}

    async fn drain(&self, _: &str, _: bool) -> Result<Vec<OriginId>, PickError> {
        Ok(Vec::new())
    }

    async fn report_failure(&self, origin: &OriginId) {
        self.failed.lock().insert(origin.clone());
    }

    async fn list(&self) -> Vec<OriginStatus> {
        Vec::new()
    }
}

#[derive(Default)]
struct Sessions {
    refuses: Option<OfferError>,
    offered: Mutex<Vec<SessionOffer>>,
    refused: Mutex<Vec<OfferError>>,
    deleted: Mutex<Vec<UfragPair>>,
}

#[async_trait::async_trait]
impl SessionSink for Sessions {
    async fn offered(&self, offer: SessionOffer) -> Result<(), OfferError> {
        self.offered.lock().push(offer);
        self.refuses.map_or(Ok(()), Err)
    }

    fn refused(&self, why: OfferError) {
        self.refused.lock().push(why);
    }

    async fn deleted(&self, ufrags: &UfragPair) {
        self.deleted.lock().push(ufrags.clone());
    }

    fn origin_of(&self, ufrags: &UfragPair) -> Option<Arc<Origin>> {
        let offered = self.offered.lock();
        offered.iter().find(|offer| offer.ufrags() == Some(ufrags)).map(|offer| offer.origin.clone())
    }
}

struct Rig {
    address: SocketAddr,
    registry: Arc<ListedOrigins>,
    sessions: Arc<Sessions>,
    _stop: watch::Sender<bool>,
}

impl Rig {
    fn new(origins: &[&TestOrigin]) -> Self {
        Self::with(origins.iter().map(|origin| origin.origin.clone()).collect(), None, &Config::default())
    }

    fn with(origins: Vec<Arc<Origin>>, refuses: Option<OfferError>, config: &Config) -> Self {
        Self::receiving(MEDIA, origins, refuses, config)
    }

    fn receiving(
        media: Receivers,
        origins: Vec<Arc<Origin>>,
        refuses: Option<OfferError>,
        config: &Config,
    ) -> Self {
        let registry = Arc::new(ListedOrigins { origins, ..Default::default() });
        let sessions = Arc::new(Sessions { refuses, ..Default::default() });
        let mut config = config.clone();
        config.signalling.origin_timeout = Duration::from_millis(400);
        let resolver = Arc::new(Resolver::new(Duration::from_secs(1)));
        let fleet = config.fleet_key().map(Fleet::new).map(Arc::new);
        let signalling = Signalling::new(&config, media, registry.clone(), sessions.clone(), resolver, fleet);
        let (address, stop) = serve(router(signalling));
        Self { address, registry, sessions, _stop: stop }
    }

    async fn post(&self, target: &str, body: &str) -> Answer {
        self.send("POST", target, "Content-Type: application/sdp\r\n", body).await
    }

    async fn send(&self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        Answer::parse(&answer)
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: Vec<String>,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.lines().map(str::to_owned).collect(), body: body.into() }
    }

    fn header(&self, name: &str) -> &str {
        let fields = self.head.iter().filter_map(|line| line.split_once(": "));
        let mut named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let value = named.next().unwrap_or("");
        assert_eq!(named.next(), None, "{name} is given once");
        value
    }
}

#[tokio::test]
async fn an_exchange_passes_as_it_is_but_for_the_candidates() {
    let srs = TestOrigin::start("one", Manner::Srs);
    let rig = Rig::new(&[&srs]);
    let answered = rig.post(PUBLISH, OFFER).await;
    assert_eq!((answered.status, answered.header("content-type")), (201, "application/sdp"));
    assert_eq!(answered.header("location"), LOCATION);
    assert_eq!(answered.body, answer(OUR_CANDIDATE));
    assert!(answered.header("access-control-expose-headers").contains("Location"));
    let [seen] = &srs.requests()[..] else { panic!("one request") };
    assert_eq!((&seen.method, seen.target.as_str(), seen.body.as_str()), (&Method::POST, PUBLISH, OFFER));
    assert_eq!(seen.header("host"), rig.address.to_string());
    assert_eq!(seen.header("content-type"), "application/sdp");
}

#[tokio::test]
async fn defect_19_tcp_candidates_lead_to_the_port_that_takes_them_or_are_left_out() {
    let srs = TestOrigin::start("one", Manner::SrsOverTcp);
    let mut registered = Origin::clone(&srs.origin);
    registered.rtc_tcp = Some("10.0.0.9:8443".parse().unwrap());
    let over_tcp = Receivers { tcp: Some(Receiver { bound: None, port: 18443 }), ..MEDIA };
    let ours = answer_over_tcp(&answer(OUR_CANDIDATE), OUR_CANDIDATE, 2_130_706_430)
        .replace("2130706430 127.0.0.1 18000", "2130706430 127.0.0.1 18443");
    for (name, media, origin, expected, endpoint) in [
        ("at its registered port", over_tcp, registered.clone(), &ours, Some("10.0.0.9:8443")),
        ("at the port it lists", over_tcp, Origin::clone(&srs.origin), &ours, Some("127.0.0.1:8000")),
        ("switched off", MEDIA, registered, &answer(OUR_CANDIDATE), None),
    ] {
        let rig = Rig::receiving(media, vec![Arc::new(origin)], None, &Config::default());
        assert_eq!(&rig.post(PUBLISH, OFFER).await.body, expected, "{name}");
        let offered =
            rig.sessions.offered.lock()[0].webrtc().unwrap().tcp.map(|endpoint| endpoint.to_string());
        assert_eq!(offered.as_deref(), endpoint, "{name}");
    }
    let without = TestOrigin::start("two", Manner::Srs);
    let rig = Rig::receiving(over_tcp, vec![without.origin.clone()], None, &Config::default());
    assert_eq!(rig.post(PUBLISH, OFFER).await.body, answer(OUR_CANDIDATE));
    assert_eq!(rig.sessions.offered.lock()[0].webrtc().unwrap().tcp, None);
}

#[tokio::test]
async fn the_sink_learns_of_the_session() {
    let srs = TestOrigin::start("one", Manner::Srs);
    let rig = Rig::new(&[&srs]);
    rig.post(PUBLISH, OFFER).await;
    rig.post("/rtc/v1/whep/?app=live&stream=s", OFFER).await;
    let offered = rig.sessions.offered.lock();
    assert_eq!(offered[0].ufrags().unwrap().as_str(), "ab12cd34:cl+/");
    assert_eq!(offered[0].webrtc().unwrap().pwd.expose(), "o".repeat(32));
    assert_eq!(offered[0].stream_name(), "__defaultVhost__/live/s");
    assert_eq!(offered[0].client_ip, Ipv4Addr::LOCALHOST);
    assert_eq!(offered[0].origin, srs.origin);
    assert_eq!([offered[0].role, offered[1].role], [Some(Role::Publisher), Some(Role::Player)]);
}

#[tokio::test]
async fn only_a_trusted_peer_may_say_who_the_client_is() {
    let srs = TestOrigin::start("one", Manner::Srs);
    let mut config = Config::default();
    let forged = "X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n";
    for (trusted, forwarded, real) in
        [(vec![], "127.0.0.1", "127.0.0.1"), (vec!["127.0.0.0/8"], "203.0.113.9, 127.0.0.1", "203.0.113.9")]
    {
        config.trusted_proxies = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let rig = Rig::with(vec![srs.origin.clone()], None, &config);
        rig.send("POST", PUBLISH, forged, OFFER).await;
        let seen = srs.requests().pop().unwrap();
        assert_eq!((seen.header("x-forwarded-for"), seen.header("x-real-ip")), (forwarded, real));
        assert_eq!(rig.sessions.offered.lock()[0].client_ip.to_string(), real);
    }
}

#[tokio::test]
async fn a_megabyte_of_sdp_is_refused() {
    let srs = TestOrigin::start("one", Manner::Srs);
    let rig = Rig::new(&[&srs]);
    let answered = rig.post(PUBLISH, &"a".repeat(1 << 20)).await;
    assert_eq!(answered.status, 413);
    assert_eq!(answered.header("access-control-allow-origin"), "*");
    assert!(srs.requests().is_empty());
}

#[tokio::test]
async fn an_origin_that_hangs_costs_its_deadline() {
    let slow = TestOrigin::start("one", Manner::Hangs);
    let next = TestOrigin::start("two", Manner::Srs);
    let rig = Rig::new(&[&slow, &next]);
    let asked = Instant::now();
    assert_eq!(rig.post(PUBLISH, OFFER).await.status, 504);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert!(next.requests().is_empty(), "the slow one may have made a session");
}

#[tokio::test]
async fn a_dead_origin_is_reported_and_the_next_one_asked() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dead = origin("dead", closed);
    let next = TestOrigin::start("two", Manner::Srs);
    let rig = Rig::with(vec![dead.clone(), next.origin.clone()], None, &Config::default());
    assert_eq!(rig.post(PUBLISH, OFFER).await.status, 201);
    assert!(rig.registry.failed.lock().contains(&dead.id));
    assert_eq!(rig.sessions.offered.lock()[0].origin, next.origin);
}

#[tokio::test]
async fn two_dead_origins_are_enough() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let next = TestOrigin::start("three", Manner::Srs);
    let origins = vec![origin("one", closed), origin("two", closed), next.origin.clone()];
    let rig = Rig::with(origins, None, &Config::default());
    let answered = rig.post(PUBLISH, OFFER).await;
    assert_eq!(answered.status, 502);
    assert!(!answered.body.contains(&closed.port().to_string()), "{}", answered.body);
    assert!(next.requests().is_empty());
}

/// An origin that reads one request and closes, and the end of its task.
async fn closing_origin() -> (Rig, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::with(vec![origin("one", listener.local_addr().unwrap())], None, &Config::default());
    let closing = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
    });
    (rig, closing)
}

#[tokio::test]
async fn an_origin_that_closes_without_an_answer_is_not_suspected() {
    let (rig, closing) = closing_origin().await;
    let answered = rig.post(PUBLISH, OFFER).await;
    closing.await.unwrap();
    assert_eq!(answered.status, 502);
    assert!(answered.body.contains("closed the connection"), "{}", answered.body);
    assert!(rig.registry.failed.lock().is_empty());
}

#[tokio::test]
async fn an_error_of_the_origin_is_the_clients() {
    let srs = TestOrigin::start("one", Manner::Forbids);
    let rig = Rig::new(&[&srs]);
    let answered = rig.post(PUBLISH, OFFER).await;
    assert_eq!((answered.status, answered.body.as_str()), (403, "refused by on_publish"));
    assert_eq!(answered.header("x-own"), "1");
    assert!(rig.sessions.offered.lock().is_empty());
}

#[tokio::test]
async fn without_an_origin_the_client_may_try_again() {
    let rig = Rig::new(&[]);
    let answered = rig.post(PUBLISH, OFFER).await;
    assert_eq!((answered.status, answered.header("retry-after")), (503, "5"));
}

#[tokio::test]
async fn a_delete_reaches_the_origin_of_the_session() {
    let other = TestOrigin::start("other", Manner::Srs);
    let srs = TestOrigin::start("one", Manner::Srs);
    let mut rig = Rig::new(&[&srs]);
    let location = rig.post(PUBLISH, OFFER).await.header("location").to_owned();
    let sessions = rig.sessions.clone();
    // The stream has moved in the meantime; the session has not.
    rig = Rig::new(&[&other]);
    rig.sessions.offered.lock().extend(sessions.offered.lock().drain(..));
    let answered = rig.send("DELETE", &location, "", "").await;
    assert_eq!((answered.status, answered.body.as_str()), (200, ""));
    let seen = srs.requests().pop().unwrap();
    assert_eq!((seen.method, seen.target.as_str()), (Method::DELETE, LOCATION));
    assert!(other.requests().is_empty());
    assert_eq!(rig.sessions.deleted.lock()[0].as_str(), "ab12cd34:cl+/");
}

#[tokio::test]
async fn a_delete_of_an_unknown_session_goes_where_its_stream_is() {
    let srs = TestOrigin::start("one", Manner::Srs);
    let rig = Rig::new(&[&srs]);
    assert_eq!(rig.send("DELETE", LOCATION, "", "").await.status, 200);
    assert_eq!(srs.requests()[0].target, LOCATION);
    assert_eq!(rig.registry.picked.lock()[0].as_str(), "__defaultVhost__/live/s");
}

#[tokio::test]
async fn a_patch_passes() {
    let srs = TestOrigin::start("one", Manner::Forbids);
    let rig = Rig::new(&[&srs]);
    assert_eq!(rig.send("PATCH", LOCATION, "", "a=ice-ufrag:x").await.status, 403);
    let seen = srs.requests().pop().unwrap();
    assert_eq!((seen.method, seen.body.as_str()), (Method::PATCH, "a=ice-ufrag:x"));
    assert!(rig.sessions.deleted.lock().is_empty());
}

#[tokio::test]
async fn a_patch_that_the_origin_does_not_know_is_a_method_not_allowed() {
    let (rig, closing) = closing_origin().await;
    assert_eq!(rig.send("PATCH", LOCATION, "", "a=ice-ufrag:x").await.status, 405);
    closing.await.unwrap();
}

#[tokio::test]
async fn a_path_without_its_last_slash_is_not_redirected() {
    let srs = TestOrigin::start("one", Manner::Srs);
    let rig = Rig::new(&[&srs]);
    let answered = rig.post("/rtc/v1/whip?app=live&stream=s&token=a+b%2F", OFFER).await;
    assert_eq!(answered.status, 201);
    assert_eq!(srs.requests()[0].target, "/rtc/v1/whip/?app=live&stream=s&token=a+b%2F");
}

fn json_offer() -> String {
    serde_json::json!({ "sdp": OFFER, "streamurl": "webrtc://127.0.0.1/live/s?token=x", "api": "x" })
        .to_string()
}

#[tokio::test]
async fn the_json_api_keeps_everything_but_the_candidates() {
    let srs = TestOrigin::start("one", Manner::Srs);
    let rig = Rig::new(&[&srs]);
    let answered = rig.post("/rtc/v1/play/", &json_offer()).await;
    let sdp = serde_json::to_string(&answer(OUR_CANDIDATE)).unwrap();
    let expected = format!("{{\"server\":\"vid\", \"code\":0,\"sdp\":{sdp},\"sessionid\":\"x\"}}\n");
    assert_eq!((answered.status, answered.body), (200, expected));
    assert_eq!(srs.requests()[0].body, json_offer());
    let offered = rig.sessions.offered.lock();
    assert_eq!((offered[0].stream_name(), offered[0].role_name()), ("__defaultVhost__/live/s", "player"));
}

#[tokio::test]
async fn a_json_error_passes_as_it_is() {
    let srs = TestOrigin::start("one", Manner::JsonError);
    let rig = Rig::new(&[&srs]);
    let answered = rig.post("/rtc/v1/publish/", &json_offer()).await;
    assert_eq!((answered.status, answered.body.as_str()), (200, "{\"code\":400}"));
    assert!(rig.sessions.offered.lock().is_empty());
}

#[tokio::test]
async fn a_session_that_the_proxy_cannot_take_is_deleted_at_the_origin() {
    for (error, words) in [(OfferError::Full, "sessions"), (OfferError::PortsExhausted, "source port")] {
        let srs = TestOrigin::start("one", Manner::Srs);
        let rig = Rig::with(vec![srs.origin.clone()], Some(error), &Config::default());
        let answered = rig.post(PUBLISH, OFFER).await;
        assert_eq!((answered.status, answered.header("retry-after")), (503, "5"));
        assert!(answered.body.contains(words), "{}", answered.body);
        let released = srs.requests().pop().unwrap();
        assert_eq!((released.method, released.target.as_str()), (Method::DELETE, LOCATION));
    }
}

#[tokio::test]
async fn a8_more_new_sessions_than_a_network_may_begin_never_reach_an_origin() {
    for (per_source, in_all, expected) in
        [(1, 1000, (429, OfferError::TooManyOfSource)), (1000, 1, (503, OfferError::TooManyInAll))]
    {
        let mut config = Config::default();
        config.signalling.new_sessions_per_source = per_source;
        config.signalling.new_sessions_in_all = in_all;
        let srs = TestOrigin::start("one", Manner::Srs);
        let rig = Rig::with(vec![srs.origin.clone()], None, &config);
        for _ in 0..10 {
            assert_eq!(rig.post(PUBLISH, OFFER).await.status, 201);
        }
        let answered = rig.post(PUBLISH, OFFER).await;
        assert_eq!((answered.status, answered.header("retry-after")), (expected.0, "5"));
        assert_eq!((srs.requests().len(), rig.sessions.refused.lock().as_slice()), (10, &[expected.1][..]));
    }
}

#[tokio::test]
async fn an_answer_without_sdp_is_the_origins_fault() {
    let srs = TestOrigin::start("one", Manner::Garbles);
    let rig = Rig::new(&[&srs]);
    assert_eq!(rig.post(PUBLISH, OFFER).await.status, 502);
    assert_eq!(srs.requests().pop().unwrap().method, Method::DELETE);
}

#[tokio::test]
async fn an_unusable_offer_never_reaches_an_origin() {
    let srs = TestOrigin::start("one", Manner::Srs);
    let rig = Rig::new(&[&srs]);
    for (target, body) in
        [(PUBLISH, ""), (PUBLISH, "v=0\r\n"), ("/rtc/v1/play/", "{}"), ("/rtc/v1/play/", OFFER)]
    {
        assert_eq!(rig.post(target, body).await.status, 400, "{body:?}");
    }
    assert!(srs.requests().is_empty());
}

#[tokio::test]
async fn options_are_answered_by_the_proxy() {
    let rig = Rig::new(&[]);
    let answered = rig.send("OPTIONS", PUBLISH, "Origin: https://page.example\r\n", "").await;
    assert_eq!((answered.status, answered.body.as_str()), (200, ""));
    assert_eq!(answered.header("access-control-allow-origin"), "*");
    assert_eq!(answered.header("access-control-allow-methods"), "*");
    assert_eq!(answered.header("access-control-allow-headers"), "*, Authorization");
}

#[tokio::test]
async fn versions_carry_both_shapes() {
    let answered = Rig::new(&[]).send("GET", "/api/v1/versions", "", "").await;
    let versions: Value = serde_json::from_str(&answered.body).unwrap();
    assert!(versions["signature"].is_string() && versions["version"].is_string());
    assert!(versions["code"] == 0 && versions["data"]["major"].is_number());
}

#[tokio::test]
async fn nothing_else_is_open() {
    let srs = TestOrigin::start("one", Manner::Srs);
    let rig = Rig::new(&[&srs]);
    for target in ["/api/v1/streams/", "/api/v1/raw", "/", "/rtc/v1/"] {
        assert_eq!(rig.send("GET", target, "", "").await.status, 404, "{target}");
    }
    assert_eq!(rig.send("GET", PUBLISH, "", "").await.status, 405);
    assert!(srs.requests().is_empty());
}
