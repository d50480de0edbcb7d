//! The test origin and the load client against each other, without a proxy: what they count in end-to-end tests
//! must be right by itself.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use integration_tests::http::{Arrived, Request, Response, Server, Url};
use integration_tests::load::{Client, ClientOptions, Swarm};
use integration_tests::netns::{End, MTU, Namespace, available, join};
use integration_tests::origin::{Candidate, Heartbeat, HeartbeatFormat, Origin, OriginConfig, SessionStats};
use proxy_protocol::sdp::Answer;
use str0m::{
    Rtc,
    media::{Direction, MediaKind},
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 70, 0, 1);
const ORIGIN: Ipv4Addr = Ipv4Addr::new(10, 70, 0, 2);
const LIMIT: Duration = Duration::from_secs(10);
const STEADY: Duration = Duration::from_secs(2);

/// A client namespace, and an origin in another.
struct Stage {
    swarm: Arc<Swarm>,
    origin: Origin,
    client: Namespace,
    _origin_namespace: Namespace,
}

impl Stage {
    fn new(adjust: impl FnOnce(&mut OriginConfig) + Send) -> Self {
        let (client, origin_namespace) =
            (Namespace::new("client").unwrap(), Namespace::new("origin").unwrap());
        let end = |namespace, address| End { namespace, interface: "eth0", address: Some(address) };
        join(end(&client, CLIENT), end(&origin_namespace, ORIGIN), MTU).unwrap();
        let origin = origin_namespace.enter(|| {
            let mut config = OriginConfig::on(ORIGIN);
            adjust(&mut config);
            Origin::start(config).unwrap()
        });
        Self { swarm: Arc::new(Swarm::start().unwrap()), origin, client, _origin_namespace: origin_namespace }
    }

    fn url(&self, call: &str, stream: &str) -> String {
        format!("{}/rtc/v1/{call}/?app=live&stream={stream}", self.origin.base_url())
    }

    fn connect(&self, options: ClientOptions) -> Client {
        self.client.enter(|| Client::connect(&self.swarm, options).unwrap())
    }

    fn publish(&self, stream: &str) -> Client {
        let publisher = self.connect(ClientOptions::publish(&self.url("whip", stream)).unwrap());
        publisher.wait(LIMIT, |stats| stats.connected_after.is_some()).unwrap();
        publisher
    }

    fn play(&self, stream: &str) -> Client {
        let player = self.connect(ClientOptions::play(&self.url("whep", stream)).unwrap());
        player.wait(LIMIT, |stats| stats.first_media_after.is_some()).unwrap();
        player
    }

    fn stop(&self, client: Client) {
        self.client.enter(|| client.stop().unwrap());
    }

    fn wait_for_origin(&self, what: &str, condition: impl Fn(&[SessionStats]) -> bool) {
        let end = Instant::now() + LIMIT;
        while !condition(&self.origin.stats().sessions) {
            assert!(Instant::now() < end, "{what}: {:?}", self.origin.stats());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn five_players_get_every_packet_of_a_publisher() {
    if !available() {
        return;
    }
    let stage = Stage::new(|_| {});
    let publisher = stage.publish("s");
    let players: Vec<_> = (0..5).map(|_| stage.play("s")).collect();
    thread::sleep(STEADY);
    for player in &players {
        let stats = player.stats();
        assert_eq!(stats.tracks.len(), 2, "audio and video: {stats:?}");
        assert!(stats.received() > 200, "{} packets", stats.received());
        assert_eq!((stats.missing(), stats.duplicates(), stats.reordered()), (0, 0, 0));
        assert_eq!(stats.decrypted, stats.received());
    }
    assert!(publisher.stats().sent > 0);
    assert_eq!(stage.origin.stats().refused, 0);
}

#[test]
fn delete_ends_a_session_and_an_unknown_one_is_answered_the_same() {
    if !available() {
        return;
    }
    let stage = Stage::new(|_| {});
    let publisher = stage.publish("s");
    let resource = publisher.exchange().resource.clone().unwrap();
    assert!(resource.target().starts_with("/rtc/v1/whip/?action=delete&token="), "{resource:?}");
    stage.stop(publisher);
    stage.wait_for_origin("the session ends", <[_]>::is_empty);
    let again = stage.client.enter(|| Request::new("DELETE", resource).send().unwrap());
    assert_eq!((again.status, again.body.as_str()), (200, ""));
}

#[test]
fn the_json_api_carries_media_too() {
    if !available() {
        return;
    }
    let stage = Stage::new(|_| {});
    let legacy = |call: &str| Url::parse(&format!("{}/rtc/v1/{call}/", stage.origin.base_url())).unwrap();
    let stream = "webrtc://origin/live/legacy?vhost=x";
    let mut publish = ClientOptions::publish(&stage.url("whip", "unused")).unwrap().legacy(stream);
    publish.url = legacy("publish");
    let mut play = ClientOptions::play(&stage.url("whep", "unused")).unwrap().legacy(stream);
    play.url = legacy("play");
    let _publisher = stage.connect(publish);
    let player = stage.connect(play);
    let stats = player.wait(LIMIT, |stats| stats.decrypted > 50).unwrap();
    assert_eq!(stats.missing(), 0);
}

#[test]
fn a_player_goes_on_after_it_changed_its_port() {
    if !available() {
        return;
    }
    let stage = Stage::new(|_| {});
    let _publisher = stage.publish("s");
    let player = stage.play("s");
    let before = player.stats().local;
    stage.client.enter(|| player.migrate().unwrap());
    let recovered = |stats: &integration_tests::load::ClientStats| {
        stats.migrations.last().is_some_and(|migration| migration.recovery().is_some())
    };
    let stats = player.wait(LIMIT, recovered).unwrap();
    let recovery = stats.migrations[0].recovery().unwrap();
    assert!(stats.local != before && recovery < Duration::from_secs(1), "{recovery:?}");
    let (now, received) = (Instant::now(), stats.decrypted);
    let later = player.wait(LIMIT, |stats| stats.decrypted > received + 100).unwrap();
    assert_eq!(later.missing_between(now, Instant::now()), 0);
    stage.wait_for_origin("the origin follows", |all| {
        all.iter().any(|session| session.moves == 1 && session.remote == Some(stats.local))
    });
}

#[test]
fn a_second_session_may_use_the_address_of_an_abandoned_one() {
    if !available() {
        return;
    }
    let stage = Stage::new(|_| {});
    let _publishers = [stage.publish("a"), stage.publish("b")];
    let socket = stage.client.enter(|| UdpSocket::bind((CLIENT, 0)).unwrap());
    let again = socket.try_clone().unwrap();
    let first = stage.connect(ClientOptions::play(&stage.url("whep", "a")).unwrap().socket(socket));
    first.wait(LIMIT, |stats| stats.first_media_after.is_some()).unwrap();
    drop(first);
    let second = stage.connect(ClientOptions::play(&stage.url("whep", "b")).unwrap().socket(again));
    second.wait(LIMIT, |stats| stats.decrypted > 50).unwrap();
}

#[test]
fn an_origin_that_believes_addresses_first_keeps_a_reused_one_with_its_old_session() {
    if !available() {
        return;
    }
    let stage = Stage::new(|config| config.address_first = true);
    let _publishers = [stage.publish("a"), stage.publish("b")];
    let socket = stage.client.enter(|| UdpSocket::bind((CLIENT, 0)).unwrap());
    let again = socket.try_clone().unwrap();
    let first = stage.connect(ClientOptions::play(&stage.url("whep", "a")).unwrap().socket(socket));
    first.wait(LIMIT, |stats| stats.first_media_after.is_some()).unwrap();
    drop(first);
    let second = stage.connect(ClientOptions::play(&stage.url("whep", "b")).unwrap().socket(again));
    assert!(second.wait(STEADY, |stats| stats.connected_after.is_some()).is_err());
    assert!(stage.origin.stats().refused > 0, "requests with another user name are refused");
}

#[test]
fn an_abandoned_session_ends_after_its_time_out() {
    if !available() {
        return;
    }
    let stage = Stage::new(|config| config.session_timeout = Duration::from_secs(1));
    drop(stage.publish("s"));
    stage.wait_for_origin("the session ends", <[_]>::is_empty);
}

#[test]
fn the_answer_has_the_shape_of_srs() {
    if !available() {
        return;
    }
    let stage = Stage::new(|config| config.candidates.push(Candidate { ip: ORIGIN.into(), port: Some(9) }));
    let url = format!(
        "{}&eip=192.0.2.9:7000&ice-ufrag=abcd+/12&ice-pwd={}",
        stage.url("whip", "s"),
        "p".repeat(32)
    );
    let publisher = stage.connect(ClientOptions::publish(&url).unwrap());
    let answer = &publisher.exchange().answer;
    let media_port = stage.origin.endpoints().rtc.port();
    let listed = [format!("{ORIGIN} {media_port}"), format!("{ORIGIN} 9"), "192.0.2.9 7000".to_owned()];
    let lines = (0..).zip(listed).map(|(index, listed)| {
        format!("a=candidate:{index} 1 udp 2130706431 {listed} typ host generation 0\r\n")
    });
    let block = lines.collect::<String>();
    assert_eq!(answer.matches(&block).count(), 2, "{block} under both m-lines of {answer}");
    assert_eq!(answer.matches("a=candidate:").count(), 6, "{answer}");
    for (line, count) in [("a=ice-lite", 1), ("a=ice-ufrag:abcd+/12", 2), ("a=setup:passive", 2)] {
        assert_eq!(answer.matches(&format!("{line}\r\n")).count(), count, "{line} in {answer}");
    }
    let session =
        &publisher.exchange().resource.as_ref().unwrap().target().rsplit_once("session=").unwrap().1;
    assert!(session.starts_with("abcd+/12:"), "{session}");
}

#[test]
fn credentials_that_are_asked_for_are_taken_as_srs_takes_them() {
    if !available() {
        return;
    }
    let stage = Stage::new(|_| {});
    let (ufrag, pwd, offer) = ("u".repeat(32), "p".repeat(32), players_offer());
    let play = |asked: &str| {
        let url = Url::parse(&format!("{}{asked}", stage.url("whep", "s"))).unwrap();
        stage.client.enter(|| Request::new("POST", url).body("application/sdp", offer.as_str()).send())
    };
    let both = format!("&ice-ufrag={ufrag}&ice-pwd={pwd}");
    let credentials = |answer: &str| {
        let answer = Answer::parse(answer).unwrap();
        (answer.ufrag().to_string(), answer.pwd().expose().to_owned())
    };
    assert_eq!(credentials(&play(&both).unwrap().body), (ufrag.clone(), pwd.clone()));
    // Somebody has this user name by now.
    let (drawn, kept) = credentials(&play(&both).unwrap().body);
    assert_eq!((drawn.len(), kept), (8, pwd.clone()));
    for refused in
        ["&ice-ufrag=abc", &format!("&ice-ufrag={ufrag}u"), "&ice-pwd=short", &format!("&ice-pwd={pwd}p")]
    {
        assert!(play(refused).is_err(), "{refused} was answered");
    }
}

fn players_offer() -> String {
    let mut rtc = Rtc::new(Instant::now());
    let mut api = rtc.sdp_api();
    api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
    api.apply().unwrap().0.to_sdp_string()
}

#[test]
fn the_address_by_which_a_client_calls_the_origin_is_a_candidate() {
    if !available() {
        return;
    }
    let stage = Stage::new(|_| {});
    let mut publish =
        ClientOptions::publish(&stage.url("whip", "s")).unwrap().legacy("webrtc://10.2.0.1/live/s");
    publish.url = Url::parse(&format!("{}/rtc/v1/publish/", stage.origin.base_url())).unwrap();
    let publisher = stage.connect(publish);
    let media_port = stage.origin.endpoints().rtc.port();
    let block = format!(
        "a=candidate:0 1 udp 2130706431 10.2.0.1 {media_port} typ host generation 0\r\n\
         a=candidate:1 1 udp 2130706431 {ORIGIN} {media_port} typ host generation 0\r\n"
    );
    let answer = &publisher.exchange().answer;
    assert_eq!(answer.matches(&block).count(), 2, "{answer}");
}

/// Sends a request to an origin on the loopback; `None` is a connection closed without an answer.
fn ask(origin: &Origin, method: &'static str, target: &str, page: Option<&str>) -> Option<Response> {
    let url = Url::parse(&format!("{}{target}", origin.base_url())).unwrap();
    let page = page.map(|page| ("Origin", page));
    page.into_iter()
        .fold(Request::new(method, url), |request, (name, value)| request.header(name, value))
        .send()
        .ok()
}

fn fields(response: &Response) -> Vec<(&str, &str)> {
    let mut fields: Vec<_> = response.headers.iter().collect();
    fields.sort_unstable();
    fields
}

#[test]
fn failures_redirects_and_empty_replies_are_those_of_srs() {
    let origin = Origin::start(OriginConfig::on(Ipv4Addr::LOCALHOST)).unwrap();
    let without_slash = ask(&origin, "POST", "/rtc/v1/whip?app=live&stream=s", None).unwrap();
    assert_eq!(without_slash.status, 302);
    assert_eq!(without_slash.headers.get("location"), Some("/rtc/v1/whip/?app=live&stream=s"));
    assert_eq!(ask(&origin, "POST", "/rtc/v1/play/", None).unwrap().body, r#"{"code":400}"#);
    for method in ["PATCH", "POST"] {
        assert!(ask(&origin, method, "/rtc/v1/whip/?app=live&stream=s", None).is_none(), "{method}");
    }
    let deleted = ask(&origin, "DELETE", "/rtc/v1/whip/?session=a:b&token=t", None).unwrap();
    let plain = [("Connection", "Close"), ("Content-Length", "0"), ("Server", "SRS/7.0.18(Hang)")];
    assert_eq!((deleted.status, fields(&deleted)), (200, plain.to_vec()));
}

#[test]
fn only_a_page_is_told_what_it_may_read() {
    let origin = Origin::start(OriginConfig::on(Ipv4Addr::LOCALHOST)).unwrap();
    let target = "/rtc/v1/whip/?app=live&stream=s";
    let preflight = ask(&origin, "OPTIONS", target, Some("http://localhost")).unwrap();
    let expected = [
        ("Access-Control-Allow-Credentials", "false"),
        ("Access-Control-Allow-Headers", "*"),
        ("Access-Control-Allow-Methods", "*"),
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Expose-Headers", "*"),
        ("Access-Control-Request-Private-Network", "true"),
        ("Connection", "Close"),
        ("Content-Length", "0"),
        ("Server", "SRS/7.0.18(Hang)"),
    ];
    assert_eq!((preflight.status, fields(&preflight)), (200, expected.to_vec()));
    assert!(
        ask(&origin, "OPTIONS", target, None).unwrap().headers.get("access-control-allow-origin").is_none()
    );
}

#[test]
fn the_heartbeat_has_exactly_the_members_of_srs() {
    let new = r#"{"device_id":"origin1","ip":"127.0.0.1","server":"vid-1","service":"s1","pid":"PID","rtmp":["RTMP"],"http":["HTTP"],"api":["API"],"rtc":["udp://0.0.0.0:RTC"]}"#;
    check_heartbeat(HeartbeatFormat::New, Some("secret"), new);
    check_heartbeat(HeartbeatFormat::Old, None, r#"{"device_id":"origin1","ip":"127.0.0.1"}"#);
}

#[track_caller]
fn check_heartbeat(format: HeartbeatFormat, token: Option<&str>, expected: &str) {
    let (sender, posted) = mpsc::channel::<Arrived>();
    let proxy = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), move |request| {
        sender.send(request.clone()).ok();
        Some(Response::new(200, "application/json", r#"{"code":0}"#))
    });
    let proxy = proxy.unwrap();
    let url = format!("http://{}/api/v1/srs/register", proxy.address());
    let mut config = OriginConfig::on(Ipv4Addr::LOCALHOST);
    (config.server_id, config.service_id) = ("vid-1".into(), "s1".into());
    let heartbeat = Heartbeat::every_second(url, "origin1", Ipv4Addr::LOCALHOST);
    config.heartbeat = Some(Heartbeat { bearer: token.map(str::to_owned), format, ..heartbeat });
    let origin = Origin::start(config).unwrap();
    let request = posted.recv_timeout(LIMIT).unwrap();
    let endpoints = origin.endpoints();
    let expected = expected
        .replace("PID", &std::process::id().to_string())
        .replace("RTMP", &endpoints.rtmp.unwrap().port().to_string())
        .replace("HTTP", &endpoints.http.unwrap().port().to_string())
        .replace("API", &endpoints.api.port().to_string())
        .replace("RTC", &endpoints.rtc.port().to_string());
    assert_eq!(
        (request.method.as_str(), request.path(), &request.body),
        ("POST", "/api/v1/srs/register", &expected)
    );
    let bearer = token.map(|token| format!("Bearer {token}"));
    assert_eq!(request.headers.get("authorization"), bearer.as_deref());
}
