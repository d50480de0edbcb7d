//! Two proxies that share nothing but a key: any of them can go on with any session, without a new exchange and without anybody
//! having written it down. Numbers in names are those of the defects of the proxy that this one replaces.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]
#![expect(clippy::print_stdout, reason = "what a test measures is shown when it passes")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use integration_tests::{
    case::Case,
    http::{Request, Url},
    in_cases,
    live::{until, wait_for_connections},
    load::{Client, ClientOptions, Over, Swarm},
    netns::{Direct, Family, Fleet},
    origin::{Heartbeat, Origin, OriginConfig, RtcTcp, SessionStats},
    proxy::{Engine, Proxy, Status},
    raw::{self, Endpoint},
    wire::{self, Wire},
};
use proxy_protocol::routed_ufrag::{Credentials, FleetKey};

const PATIENCE: Duration = Duration::from_secs(15);
/// From the move of the address to media by another proxy: clients check their pair every three seconds.
const GAP: Duration = Duration::from_secs(5);
/// The checks of a young session come more often; from 6.75 s on the next one is due at 9.75 s.
const SETTLED: Duration = Duration::from_secs(7);
/// A client without an answer gives its pair up after some 20 s.
const NOTICED: Duration = Duration::from_secs(30);
const KEY: &str = "one key for all of a fleet";
const SETTINGS: [(&str, &str); 1] = [("PROXY_FLEET_KEY", KEY)];

in_cases!(tc, userspace: {
    media_comes_to_another_proxy_than_signalling_went_to,
    an_address_that_moves_from_a_dead_proxy_takes_its_sessions_along,
});

/// Two proxies and two origins, all of which know each other; the first proxy has the virtual address.
struct Stage<'a> {
    network: &'a Fleet,
    proxies: [Proxy<'a>; 2],
    origins: [Origin; 2],
    swarm: Arc<Swarm>,
    family: Family,
}

impl<'a> Stage<'a> {
    fn new(network: &'a Fleet, case: Case) -> Self {
        let family = case.family;
        let start = |at: usize| {
            let ip = family.of(Fleet::PROXIES[at]);
            Proxy::start(&network.proxies[at], ip, case.engine, &SETTINGS).unwrap()
        };
        let proxies = [start(0), start(1)];
        let origins = [0, 1].map(|at| origin(network, family, at));
        proxies.iter().for_each(|proxy| proxy.wait_for_origins(2).unwrap());
        Self { network, proxies, origins, swarm: Arc::new(Swarm::start().unwrap()), family }
    }

    fn connect(&self, options: ClientOptions) -> Client {
        self.network.client.enter(|| Client::connect(&self.swarm, options)).unwrap()
    }

    /// Signals at `signalling`, which names `media` to the client.
    fn publish(&self, signalling: IpAddr, stream: &str, media: IpAddr) -> Client {
        self.connect(ClientOptions::publish(&url("whip", signalling, stream, media)).unwrap())
    }

    fn play(&self, signalling: IpAddr, stream: &str, media: IpAddr) -> Client {
        let viewer = self.connect(ClientOptions::play(&url("whep", signalling, stream, media)).unwrap());
        viewer.wait(PATIENCE, |stats| stats.received() > 50).unwrap();
        viewer
    }

    fn ips(&self) -> [IpAddr; 2] {
        Fleet::PROXIES.map(|ip| self.family.of(ip))
    }

    /// The sessions of all origins.
    fn at_origins(&self) -> Vec<SessionStats> {
        self.origins.iter().flat_map(|origin| origin.stats().sessions).collect()
    }

    fn is_taken_over(&self, case: Case, sessions: usize) -> Status {
        let offloaded = if case.expects_kernel() { sessions } else { 0 };
        let status = self.proxies[1].wait(PATIENCE, |status| {
            (status.totals.sessions, status.totals.offloaded) == (sessions, offloaded)
        });
        let status = status.unwrap();
        let resumed = status.totals.resumed.get("ufrag").copied();
        assert_eq!(
            (resumed, status.totals.admitted),
            (Some(sessions as u64), sessions as u64),
            "{status:#?}"
        );
        assert!(status.sessions.iter().all(|session| session.stream == "-" && session.role == "-"));
        status
    }
}

fn origin(network: &Fleet, family: Family, at: usize) -> Origin {
    let ip = family.of(Fleet::ORIGINS[at]);
    let [first, second] = Fleet::INSIDE.map(|ip| Proxy::register_url(family.of(ip)));
    let mut config = OriginConfig::on(ip);
    config.rtc_tcp = RtcTcp::At(SocketAddr::new(ip, 0));
    let heartbeat = Heartbeat::every_second(first, "origin", ip);
    config.heartbeat = Some(Heartbeat { copies: vec![second], ..heartbeat });
    network.origins[at].enter(|| Origin::start(config)).unwrap()
}

fn url(protocol: &str, signalling: IpAddr, stream: &str, media: IpAddr) -> String {
    let api = SocketAddr::new(signalling, 11985);
    format!("http://{api}/rtc/v1/{protocol}/?app=live&stream={stream}&eip={media}")
}

#[track_caller]
fn lost_nothing(client: &Client) {
    let stats = client.stats();
    assert_eq!((stats.missing(), stats.duplicates()), (0, 0), "{stats:?}");
    assert!(stats.decrypted > 0, "{stats:?}");
}

fn media_comes_to_another_proxy_than_signalling_went_to(case: Case) {
    let network = Fleet::new().unwrap();
    let stage = Stage::new(&network, case);
    let [first, second] = stage.ips();
    let publishers = ["a", "b"].map(|stream| stage.publish(first, stream, second));
    let viewers = ["a", "a", "b"].map(|stream| stage.play(first, stream, second));
    stage.is_taken_over(case, 5);
    viewers.iter().for_each(lost_nothing);
    let [a, b] = stage.origins.each_ref().map(|origin| origin.stats().sessions.len());
    assert!(a > 0 && b > 0, "both streams are on one origin");
    assert_eq!(stage.proxies[0].status().unwrap().packets("userspace"), 0);
    // Either proxy ends them where they are, whoever carries them and wherever it would send a new stream.
    for (viewer, proxy) in viewers.into_iter().zip([1, 0, 1]) {
        let resource = viewer.exchange().resource.as_ref().unwrap().target().to_owned();
        let url = Url::parse(&format!("{}{resource}", stage.proxies[proxy].api())).unwrap();
        let sessions = stage.at_origins().len();
        let deleted = network.client.enter(|| Request::new("DELETE", url).send()).unwrap();
        assert_eq!(deleted.status, 200);
        until("it ends", PATIENCE, || Ok(stage.at_origins().len() == sessions - 1)).unwrap();
    }
    let status = stage.proxies[1].wait(PATIENCE, |status| status.totals.ended["deleted"] == 2).unwrap();
    // Who carries a session that ended elsewhere forgets it once its client is silent.
    assert_eq!(status.totals.sessions, 3, "{status:#?}");
    drop(publishers);
}

/// Publishes where the players' proxy has no part in it.
fn publish_beside(stage: &Stage<'_>, at: usize, stream: &str) -> Client {
    let url = format!("{}/rtc/v1/whip/?app=live&stream={stream}", stage.origins[at].base_url());
    stage
        .network
        .router2
        .enter(|| Client::connect(&stage.swarm, ClientOptions::publish(&url).unwrap()))
        .unwrap()
}

/// Which of the origins a player of the stream is sent to.
fn origin_with(stage: &Stage<'_>, stream: &str) -> usize {
    let has = |origin: &Origin| {
        origin.stats().sessions.iter().any(|session| session.stream == format!("live/{stream}"))
    };
    stage.origins.iter().position(has).unwrap()
}

fn an_address_that_moves_from_a_dead_proxy_takes_its_sessions_along(case: Case) {
    let network = Fleet::new().unwrap();
    let stage = Stage::new(&network, case);
    let everywhere = stage.family.of(Fleet::VIRTUAL);
    let publisher = stage.publish(everywhere, "p", everywhere);
    let early = stage.connect(ClientOptions::play(&url("whep", everywhere, "q", everywhere)).unwrap());
    let source = publish_beside(&stage, origin_with(&stage, "q"), "q");
    let viewer = stage.play(everywhere, "q", everywhere);
    early.wait(PATIENCE, |stats| stats.received() > 50).unwrap();
    let offloaded = if case.expects_kernel() { 3 } else { 0 };
    stage.proxies[0].wait(PATIENCE, |status| status.totals.offloaded == offloaded).unwrap();
    let sessions = usernames(&stage);
    for client in [&publisher, &early, &viewer] {
        client.wait(PATIENCE, |stats| stats.posted.elapsed() > SETTLED).unwrap();
    }

    let Stage { proxies: [dies, goes_on], origins, swarm, family, .. } = stage;
    let publishes = |origins: &[Origin; 2]| {
        let sessions = origins.iter().flat_map(|origin| origin.stats().sessions);
        sessions.filter(|session| session.stream == "live/p").map(|session| session.packets_in).sum::<u64>()
    };
    let died = Instant::now();
    dies.kill().unwrap();
    network.move_virtual_address().unwrap();
    let moved = Instant::now();
    let (published, played) =
        (publishes(&origins), [&early, &viewer].map(|player| player.stats().received()));
    // What was under way has arrived long before a client checks its pair again.
    let mut gaps: [Option<Duration>; 3] = [None; 3];
    until("media is back", PATIENCE, || {
        let counts = [publishes(&origins), early.stats().received(), viewer.stats().received()];
        for ((gap, count), before) in gaps.iter_mut().zip(counts).zip([published, played[0], played[1]]) {
            if gap.is_none() && count > before + 10 {
                *gap = Some(moved.elapsed());
            }
        }
        Ok(gaps.iter().all(Option::is_some))
    })
    .unwrap();
    let silences = [&early, &viewer].map(|player| player.stats().longest_silence());
    println!(
        "{case:?}: the address moved within {:?}, then media was back after {gaps:?} (a publisher, two players); players heard \
         nothing for {silences:?}",
        moved - died
    );
    assert!(gaps.iter().flatten().all(|gap| *gap <= GAP), "{gaps:?}");

    let stage = Rest { proxy: goes_on, origins };
    stage.is_taken_over(case, 3);
    assert_eq!(usernames_of(&stage.origins), sessions, "there was no new exchange");
    drop((publisher, source, swarm, family));
}

/// What is left of a stage whose first proxy is gone.
struct Rest<'a> {
    proxy: Proxy<'a>,
    origins: [Origin; 2],
}

impl Rest<'_> {
    fn is_taken_over(&self, case: Case, sessions: usize) {
        let offloaded = if case.expects_kernel() { sessions } else { 0 };
        let status = self.proxy.wait(PATIENCE, |status| {
            (status.totals.sessions, status.totals.offloaded) == (sessions, offloaded)
        });
        assert_eq!(status.unwrap().totals.resumed.get("ufrag"), Some(&(sessions as u64)));
    }
}

fn usernames(stage: &Stage<'_>) -> Vec<String> {
    usernames_of(&stage.origins)
}

fn usernames_of(origins: &[Origin; 2]) -> Vec<String> {
    let sessions = origins.iter().flat_map(|origin| origin.stats().sessions);
    sessions.map(|session| session.username).collect()
}

/// Nothing can be done for clients that know a proxy's own address: they notice and begin anew.
#[test]
fn clients_of_a_proxys_own_address_begin_anew_at_another_proxy() {
    let network = Fleet::new().unwrap();
    let stage = Stage::new(&network, Case { engine: Engine::Userspace, family: Family::V4 });
    let [first, second] = stage.ips();
    let publisher = stage.publish(first, "a", first);
    let viewer = stage.play(first, "a", first);
    let Stage { network, proxies: [dies, goes_on], origins, swarm, .. } = stage;
    let died = Instant::now();
    dies.kill().unwrap();
    let lost =
        [&publisher, &viewer].map(|client| client.wait(NOTICED, |stats| stats.lost.is_some()).unwrap());
    let noticed = lost.map(|stats| stats.lost.unwrap().duration_since(died));
    println!("clients of the dead proxy's own address noticed after {noticed:?} (publisher, player)");
    assert_eq!(goes_on.status().unwrap().totals.sessions, 0, "nothing of theirs comes here");
    // SRS refuses a second publisher until it has given the first one up; another stream need not wait.
    let again = |options| network.client.enter(|| Client::connect(&swarm, options)).unwrap();
    let _publisher = again(ClientOptions::publish(&url("whip", second, "again", second)).unwrap());
    let viewer = again(ClientOptions::play(&url("whep", second, "again", second)).unwrap());
    viewer.wait(PATIENCE, |stats| stats.received() > 50).unwrap();
    lost_nothing(&viewer);
    drop(origins);
}

#[test]
fn media_over_tcp_comes_to_another_proxy_than_signalling_went_to() {
    let network = Fleet::new().unwrap();
    let stage = Stage::new(&network, Case { engine: Engine::Userspace, family: Family::V4 });
    let [first, second] = stage.ips();
    let over = Over::TcpAt(SocketAddr::new(second, 18000));
    let publish = ClientOptions::publish(&url("whip", first, "a", second)).unwrap();
    let _publisher = stage.connect(publish.over(over));
    let play = ClientOptions::play(&url("whep", first, "a", second)).unwrap();
    let viewer = stage.connect(play.over(over));
    viewer.wait(PATIENCE, |stats| stats.received() > 50).unwrap();
    lost_nothing(&viewer);
    wait_for_connections(&stage.proxies[1], PATIENCE, |listed| {
        listed.len() == 2 && listed.iter().all(|one| one.stream.is_none() && one.origin.is_some())
    })
    .unwrap();
    let resumed = || stage.proxies[1].metric("xproxy_sessions_resumed_total{how=\"ufrag\"}");
    until("both are counted", PATIENCE, || Ok(resumed().is_ok_and(|sessions| sessions == 2))).unwrap();
}

/// A proxy whose fleet has a key, a raw origin that knows nothing of it, and a client.
fn wire(network: &Direct) -> Wire<'_> {
    let case = Case { engine: Engine::Userspace, family: Family::V4 };
    Wire::start(network, case, &SETTINGS).unwrap()
}

/// A session that another proxy of the fleet made at this run of an origin.
fn made_elsewhere(origin: &str) -> (String, String) {
    let Credentials { ufrag, pwd } = FleetKey::new(KEY.as_bytes()).credentials(origin, rand::random());
    (format!("{ufrag}:clnt"), pwd.expose().to_owned())
}

fn service() -> SocketAddr {
    SocketAddr::new(Direct::PROXY.into(), 18000)
}

#[test]
fn defect_22_a_flood_of_made_up_user_names_creates_nothing_and_holds_up_nobody() {
    const FLOOD: usize = 20_000;
    const AT_ONCE: usize = 1000;
    let network = Direct::new().unwrap();
    let wire = wire(&network);
    // Its origin takes no credentials of ours: everything works with those of its answer.
    let (session, source) = wire.connected().unwrap();
    let flooder = wire.other_client().unwrap();
    let media = [0x80, 96, 0, 1];
    let mut slowest = Duration::ZERO;
    for round in 0..FLOOD / AT_ONCE {
        for _ in 0..AT_ONCE {
            let (username, pwd) = match round % 3 {
                // Of the form of ours, made with a key that is not.
                0 => (format!("1{:031}:clnt", rand::random::<u64>()), raw::PWD.to_owned()),
                // Of a run of an origin that is gone.
                1 => made_elsewhere(&format!("raw1-raw-{}", 2 + rand::random::<u16>())),
                _ => (format!("{}:clnt", rand::random::<u64>()), raw::PWD.to_owned()),
            };
            flooder.send(&raw::check_signed(&username, &pwd, true), session.proxy, 0).ok();
        }
        let sent = Instant::now();
        wire.client.send(&media, session.proxy, 0).unwrap();
        let (meta, payload) = wire.origin.media.receive().unwrap();
        assert_eq!((meta.peer, payload), (source, media.to_vec()));
        slowest = slowest.max(sent.elapsed());
    }
    println!("behind a thousand made-up user names a datagram took {slowest:?} at most");
    let turned_away = |status: &Status| {
        ["unknown_user", "policed", "control_busy"].iter().map(|reason| status.reason(reason)).sum::<u64>()
    };
    let status = wire.proxy.wait(PATIENCE, |status| turned_away(status) > 1000).unwrap();
    assert_eq!((status.totals.sessions, status.totals.admitted), (1, 1), "{status:#?}");
    // A session of the fleet still begins.
    let (username, pwd) = made_elsewhere("raw1-raw-1");
    let late = wire.other_client().unwrap();
    begins(&wire, &late, &raw::check_signed(&username, &pwd, true));
}

/// Sends a check until the origin has it.
#[track_caller]
fn begins(wire: &Wire<'_>, client: &Endpoint, check: &[u8]) {
    let end = Instant::now() + PATIENCE;
    loop {
        client.send(check, service(), 0).unwrap();
        match wire.origin.media.receive_within(Duration::from_millis(200)).unwrap() {
            Some((_, payload)) if payload == check => return,
            Some(_) | None => assert!(Instant::now() < end, "the check does not reach the origin"),
        }
    }
}

#[test]
fn defect_23_a_right_ufrag_with_a_wrong_signature_creates_nothing() {
    let network = Direct::new().unwrap();
    let wire = wire(&network);
    let (username, pwd) = made_elsewhere("raw1-raw-1");
    for _ in 0..5 {
        wire.client.send(&raw::check(&username, true), service(), 0).unwrap();
    }
    let status = wire.proxy.wait(PATIENCE, |status| status.reason("bad_integrity") == 5).unwrap();
    assert_eq!((status.totals.sessions, status.totals.admitted, status.totals.ports_leased), (0, 0, 0));
    assert!(wire.origin.media.receive_within(Duration::from_millis(100)).unwrap().is_none());
    begins(&wire, &wire.client, &raw::check_signed(&username, &pwd, true));
    assert_eq!(wire.proxy.status().unwrap().totals.resumed.get("ufrag"), Some(&1));
}

#[test]
fn a_proxy_that_does_not_know_the_origin_yet_drops_and_goes_on_once_it_does() {
    let network = Direct::new().unwrap();
    let wire = wire(&network);
    let (username, pwd) = made_elsewhere("raw2-raw-1");
    let check = raw::check_signed(&username, &pwd, true);
    wire.client.send(&check, service(), 0).unwrap();
    let status = wire.proxy.wait(PATIENCE, |status| status.reason("unknown_user") == 1).unwrap();
    assert_eq!(status.totals.sessions, 0, "{status:#?}");
    let origin = wire::registered_as(&network, Family::V4, &wire.proxy, 2).unwrap();
    let end = Instant::now() + PATIENCE;
    while wire.proxy.status().unwrap().totals.sessions == 0 {
        assert!(Instant::now() < end);
        wire.client.send(&check, service(), 0).unwrap();
        sleep(Duration::from_millis(50));
    }
    assert_eq!(origin.media.receive().unwrap().1, check);
}
