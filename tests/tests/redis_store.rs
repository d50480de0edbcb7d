//! The store of a fleet against Redis as it is: servers that die, stop, fill up, start anew and hold nonsense, Sentinels, clusters,
//! TLS and users.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]
#![expect(clippy::print_stdout, reason = "figures of a run")]

#[path = "../fuzz/src/redis.rs"]
pub mod fuzz;

use std::{
    collections::HashMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use integration_tests::{
    netns::Namespace,
    redis::{Certificate, Redis, Sentinels, cluster, until, within},
};
use proxy_protocol::stream_url::StreamKey;
use proxy_userspace::{
    config::{self, Config},
    origin::{
        Origin, OriginId,
        store::{
            FoundSession, Health, HlsId, MemberId, MemberLoad, Notice, SharedSession, Store, StoreError,
            StoredOrigin,
        },
    },
    session::Role,
};
use rustix::process::Signal;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(20);
const LIFE: Duration = Duration::from_secs(60);
const PORT: u16 = 6379;

fn settings(given: &[(&str, &str)]) -> config::Redis {
    // Unless the deadline is what is tested, a busy machine must not matter.
    let patient =
        [("PROXY_REDIS_TIMEOUT", "10s")].into_iter().filter(|(name, _)| given.iter().all(|(n, _)| n != name));
    Config::from_variables(patient.chain(given.iter().copied())).unwrap().redis
}

struct Member {
    store: Store,
    notices: mpsc::Receiver<Notice>,
}

impl Member {
    fn open(settings: &config::Redis) -> Self {
        let (store, notices) = Store::open(settings, MemberId::random());
        Self { store, notices }
    }

    async fn up(settings: &config::Redis) -> Self {
        let mut member = Self::open(settings);
        member.becomes("up", |health| *health == Health::Up).await;
        assert_eq!(member.next().await, Notice::Connected);
        member
    }

    async fn several(count: usize, settings: &config::Redis) -> Vec<Self> {
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(Self::up(settings).await);
        }
        members
    }

    async fn becomes(&self, what: &str, condition: impl FnMut(&Health) -> bool) -> Health {
        let mut health = self.store.health();
        let waited = timeout(PATIENCE, health.wait_for(condition)).await;
        let found = waited.map(|health| health.unwrap().clone());
        found.unwrap_or_else(|_| panic!("not {what}: {:?}", self.store.health().borrow()))
    }

    async fn next(&mut self) -> Notice {
        timeout(PATIENCE, self.notices.recv()).await.expect("a notice comes").expect("the store lives")
    }

    /// Waits for a notice, whatever comes before it.
    async fn hears(&mut self, expected: &Notice) {
        while self.next().await != *expected {}
    }

    /// The next notice that is not about the connection.
    async fn told(&mut self) -> Notice {
        loop {
            let notice = self.next().await;
            if !matches!(notice, Notice::Connected | Notice::Lost) {
                return notice;
            }
        }
    }
}

fn id(number: usize) -> OriginId {
    OriginId::new(&format!("vid-{number}"), "service", "1")
}

fn origin(number: usize) -> StoredOrigin {
    let at = |port: u16| Some(SocketAddr::from(([10, 0, 0, 9], port)));
    let origin = Origin {
        id: id(number),
        server: format!("vid-{number}"),
        device_id: format!("origin{number}"),
        ip: [10, 0, 0, 9].into(),
        rtmp: at(1935),
        http: at(8080),
        api: at(1985),
        srt: at(10080),
        rtc: at(8000),
        rtc_tcp: None,
    };
    StoredOrigin::new(&origin, SystemTime::now())
}

fn stream(name: impl std::fmt::Display) -> StreamKey {
    format!("__defaultVhost__/live/{name}").parse().unwrap()
}

fn session(number: usize) -> SharedSession {
    SharedSession {
        stream: stream("s1"),
        ufrags: format!("loc{number:03}:rem{number:03}").parse().unwrap(),
        origin: id(1),
        media: "10.0.0.9:8000".parse().unwrap(),
        pwd: "7u1m0b8l1d6m9y43x8zz1g9c3v2n8k5a".parse().unwrap(),
        role: Role::Player,
    }
}

/// Every store claims every stream at once, each for an origin of its own; returns what each was told.
async fn claims(members: &[Member], streams: usize, stale: Option<&OriginId>) -> Vec<Vec<OriginId>> {
    let mut tasks = JoinSet::new();
    for (at, member) in members.iter().enumerate() {
        for part in 0..8 {
            let (store, stale) = (member.store.clone(), stale.cloned());
            let candidate = if stale == Some(id(at)) { id(at + members.len()) } else { id(at) };
            tasks.spawn(async move {
                let mut told = Vec::new();
                for number in (part..streams).step_by(8) {
                    told.push((
                        at,
                        number,
                        store.claim(&stream(number), &candidate, stale.as_ref(), LIFE).await.unwrap(),
                    ));
                }
                told
            });
        }
    }
    let mut told = vec![HashMap::new(); members.len()];
    for (at, number, origin) in tasks.join_all().await.into_iter().flatten() {
        told[at].insert(number, origin);
    }
    told.iter().map(|told| (0..streams).map(|number| told[&number].clone()).collect()).collect()
}

fn nobody_disagrees(told: &[Vec<OriginId>]) {
    for others in &told[1..] {
        assert!(others == &told[0], "a stream has two origins");
    }
}

fn claims_are_atomic(rounds: usize, streams: usize) {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let members = Member::several(8, &settings(&[])).await;
        let started = Instant::now();
        for round in 0..rounds {
            redis.cli(&["FLUSHDB"]).unwrap();
            if round == 1 {
                redis.cli(&["SCRIPT", "FLUSH"]).unwrap();
            }
            let told = claims(&members, streams, None).await;
            nobody_disagrees(&told);
            // One origin goes: who claims its streams first chooses, for all.
            let gone = &told[0][0];
            let anew = claims(&members, streams, Some(gone)).await;
            nobody_disagrees(&anew);
            for (before, after) in told[0].iter().zip(&anew[0]) {
                assert!(
                    after != gone && (before == gone || before == after),
                    "a stream moved though its origin lives"
                );
            }
        }
        let count = rounds * streams * members.len() * 2;
        println!("{count} claims in {:?}", started.elapsed());
    });
}

#[test]
fn defect_09_every_claim_of_a_stream_is_told_the_same_origin() {
    claims_are_atomic(2, 1000);
}

#[test]
#[ignore = "long: 100 rounds take minutes"]
fn defect_09_every_claim_of_a_stream_is_told_the_same_origin_in_a_hundred_rounds() {
    claims_are_atomic(100, 1000);
}

#[test]
fn a_claim_is_one_round_trip_that_tells_the_fleet_and_lives_on_with_each() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let (a, mut b) = (Member::up(&settings(&[])).await, Member::up(&settings(&[])).await);
        let key = "srs-proxy-url:__defaultVhost__/live/s1";
        let claimed = a.store.claim(&stream("s1"), &id(1), None, LIFE).await.unwrap();
        assert_eq!(claimed, id(1));
        assert_eq!(b.told().await, Notice::Picked { stream: stream("s1"), origin: id(1) });
        assert_eq!(redis.cli(&["GET", key]).unwrap(), "srs-proxy-server:vid-1-service-1");
        redis.cli(&["PEXPIRE", key, "5000"]).unwrap();
        let before = b.store.counts().round_trips;
        assert_eq!(b.store.claim(&stream("s1"), &id(2), None, LIFE).await.unwrap(), id(1));
        assert_eq!(b.store.counts().round_trips - before, 1);
        assert!(redis.cli(&["PTTL", key]).unwrap().parse::<u64>().unwrap() > 5000);
        // A Go proxy's pick stays for ever: it would not refresh it.
        redis.cli(&["PERSIST", key]).unwrap();
        a.store.claim(&stream("s1"), &id(2), None, LIFE).await.unwrap();
        assert_eq!(redis.cli(&["PTTL", key]).unwrap(), "-1");
        a.store.assign(&stream("s1"), &id(3), LIFE).await.unwrap();
        assert_eq!(b.told().await, Notice::Picked { stream: stream("s1"), origin: id(3) });
        let picks = b.store.picks_of(&[stream("s1"), stream("s2")]).await.unwrap();
        assert_eq!(picks, [Some(id(3)), None]);
    });
}

#[test]
fn what_is_kept_comes_back_into_an_emptied_redis_and_what_moved_is_told() {
    let namespace = Namespace::new("redis").unwrap();
    let mut redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let member = Member::up(&settings(&[])).await;
        let picks: Vec<_> = (0..1000).map(|number| (stream(number), id(number % 7))).collect();
        let before = member.store.counts().round_trips;
        assert!(member.store.keep(&picks, LIFE).await.unwrap().is_empty());
        println!("keeping {} picks: {} round trips", picks.len(), member.store.counts().round_trips - before);
        redis.kill().unwrap();
        member.becomes("down", |health| matches!(health, Health::Down { .. })).await;
        assert!(matches!(member.store.keep(&picks, LIFE).await, Err(StoreError::Down(_))));
        redis.restart().unwrap();
        member.becomes("up again", |health| *health == Health::Up).await;
        assert_eq!(redis.cli(&["DBSIZE"]).unwrap(), "0");
        // Somebody else decided in between.
        member.store.claim(&stream(3), &id(99), None, LIFE).await.unwrap();
        assert_eq!(member.store.keep(&picks, LIFE).await.unwrap(), [(stream(3), id(99))]);
        let streams: Vec<_> = picks.iter().map(|(stream, _)| stream.clone()).collect();
        let found = member.store.picks_of(&streams).await.unwrap();
        let expected = |at: usize| if at == 3 { id(99) } else { id(at % 7) };
        assert!(found.iter().enumerate().all(|(at, pick)| *pick == Some(expected(at))));
        let ttl: u64 =
            redis.cli(&["PTTL", "srs-proxy-url:__defaultVhost__/live/7"]).unwrap().parse().unwrap();
        assert!(ttl <= 60_000, "{ttl}");
    });
}

/// The list as a Go proxy maintains it: read, thought about, written.
fn go_forgets_everybody_but(redis: &Redis<'_>, key: &str) {
    redis.cli(&["SET", "srs-proxy-all-servers", &format!("[\"{key}\"]")]).unwrap();
}

#[test]
fn defect_10_no_origin_is_lost_among_those_that_register_at_once() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let members = Member::several(4, &settings(&[])).await;
        let mut tasks = JoinSet::new();
        for number in 0..60 {
            let store = members[number % members.len()].store.clone();
            tasks.spawn(async move { store.put_origin(&origin(number), LIFE).await.unwrap() });
        }
        // A Go proxy with an origin of its own writes back what it read before all of this.
        redis.cli(&["SET", "srs-proxy-server:vid-100-service-1", &json_of(100)]).unwrap();
        go_forgets_everybody_but(&redis, "srs-proxy-server:vid-100-service-1");
        tasks.join_all().await;
        let names = redis.cli(&["GET", "srs-proxy-all-servers"]).unwrap();
        let listed: Vec<String> = serde_json::from_str(&names).unwrap();
        assert!(!names.contains("\\/"), "{names}");
        assert!(listed.contains(&"srs-proxy-server:vid-100-service-1".to_owned()), "{names}");
        go_forgets_everybody_but(&redis, "srs-proxy-server:vid-100-service-1");
        let mut found: Vec<_> =
            members[0].store.origins().await.unwrap().iter().map(StoredOrigin::id).collect();
        found.sort();
        let mut expected: Vec<_> = (0..60).chain([100]).map(id).collect();
        expected.sort();
        assert_eq!(found, expected);
        // The next heartbeat brings the Go proxies what they forgot.
        members[0].store.put_origin(&origin(7), LIFE).await.unwrap();
        let names = redis.cli(&["GET", "srs-proxy-all-servers"]).unwrap();
        assert_eq!(names, r#"["srs-proxy-server:vid-100-service-1","srs-proxy-server:vid-7-service-1"]"#);
    });
}

fn json_of(number: usize) -> String {
    serde_json::to_string(&origin(number)).unwrap()
}

#[test]
fn defect_34_origins_cost_one_round_trip_to_tell_and_two_to_ask_for() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let mut members = Member::several(2, &settings(&[("PROXY_REDIS_KEY_PREFIX", "fleet")])).await;
        for number in 0..100 {
            members[0].store.put_origin(&origin(number), LIFE).await.unwrap();
        }
        let heard = members[1].told().await;
        let Notice::Origin(heard) = heard else { panic!("{heard:?}") };
        assert_eq!(heard.id(), id(0));
        // Scripts that Redis does not know yet are sent twice.
        members[0].store.origins().await.unwrap();
        let before = members[0].store.counts().round_trips;
        members[0].store.put_origin(&origin(3), LIFE).await.unwrap();
        let put = members[0].store.counts().round_trips;
        let found = members[0].store.origins().await.unwrap();
        let asked = members[0].store.counts().round_trips;
        assert_eq!((put - before, asked - put, found.len()), (1, 2, 100));
        assert_eq!(members[1].store.origin(&id(3)).await.unwrap().map(|origin| origin.id()), Some(id(3)));
        // Gone is what expired, and what nobody has; the Go proxy's list forgets it too.
        redis.cli(&["DEL", "fleet:srs-proxy-server:vid-3-service-1"]).unwrap();
        redis.cli(&["ZREM", "fleet:srs-xproxy-origins", "vid-3-service-1"]).unwrap();
        assert_eq!(members[1].store.origin(&id(3)).await.unwrap(), None);
        assert_eq!(members[1].store.origins().await.unwrap().len(), 99);
        let names = redis.cli(&["GET", "fleet:srs-proxy-all-servers"]).unwrap();
        assert!(
            !names.contains("vid-3-") && names.contains("fleet:srs-proxy-server:vid-4-service-1"),
            "{names}"
        );
        let keys = redis.cli(&["KEYS", "*"]).unwrap();
        assert!(keys.lines().all(|key| key.starts_with("fleet:")), "{keys}");
    });
}

#[test]
fn a_registration_expires_by_the_clock_of_redis() {
    let namespace = Namespace::new("redis").unwrap();
    let _redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let member = Member::up(&settings(&[])).await;
        member.store.put_origin(&origin(1), Duration::from_millis(300)).await.unwrap();
        member.store.put_origin(&origin(2), LIFE).await.unwrap();
        let end = Instant::now() + PATIENCE;
        while member.store.origins().await.unwrap().len() > 1 {
            assert!(Instant::now() < end);
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(member.store.origins().await.unwrap()[0].id(), id(2));
    });
}

#[test]
fn a_store_opens_without_redis_and_finds_it_later() {
    let namespace = Namespace::new("redis").unwrap();
    let (member, down) = within(&namespace, async || {
        let member = Member::open(&settings(&[]));
        let refused =
            |health: &Health| matches!(health, Health::Down { reason, .. } if reason.contains("refused"));
        let down = member.becomes("down", refused).await;
        let started = Instant::now();
        let claimed = member.store.claim(&stream("s1"), &id(1), None, LIFE).await;
        assert!(matches!(claimed, Err(StoreError::Down(_))), "{claimed:?}");
        assert!(started.elapsed() < Duration::from_secs(1), "a call waited for a server that is not there");
        let redis = Redis::start(&namespace, PORT, &[]).unwrap();
        member.becomes("up", |health| *health == Health::Up).await;
        assert_eq!(member.store.claim(&stream("s1"), &id(1), None, LIFE).await.unwrap(), id(1));
        drop(redis);
        (member.store.counts(), down)
    });
    assert!(member.failures <= 1, "{member:?}");
    assert!(!format!("{down:?}").is_empty());
}

#[test]
fn defect_12_a_redis_that_hangs_is_an_error_within_the_deadline_and_no_pick_changes() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let mut member = Member::up(&settings(&[("PROXY_REDIS_TIMEOUT", "500ms")])).await;
        until_answered(async || member.store.claim(&stream("s1"), &id(1), None, LIFE).await).await;
        redis.signal(Signal::STOP).unwrap();
        let started = Instant::now();
        let claimed = member.store.claim(&stream("s1"), &id(2), None, LIFE).await;
        assert!(matches!(claimed, Err(StoreError::Down(_))), "{claimed:?}");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        member.becomes("down", |health| matches!(health, Health::Down { .. })).await;
        member.hears(&Notice::Lost).await;
        // Nobody waits for a dead connection: a thousand calls take no time.
        let started = Instant::now();
        for _ in 0..1000 {
            assert!(matches!(member.store.picks_of(&[stream("s1")]).await, Err(StoreError::Down(_))));
        }
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        redis.signal(Signal::CONT).unwrap();
        member.becomes("up", |health| *health == Health::Up).await;
        member.hears(&Notice::Connected).await;
        let again =
            until_answered(async || member.store.claim(&stream("s1"), &id(2), None, LIFE).await).await;
        assert_eq!(again, id(1));
    });
}

/// A deadline of half a second may be missed on a busy machine, again and again.
async fn until_answered<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_redis_that_stops_is_found_without_a_call() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let member = Member::up(&settings(&[("PROXY_REDIS_TIMEOUT", "500ms")])).await;
        redis.signal(Signal::STOP).unwrap();
        member.becomes("down", |health| matches!(health, Health::Down { .. })).await;
        redis.signal(Signal::CONT).unwrap();
        member.becomes("up", |health| *health == Health::Up).await;
    });
}

#[test]
fn a_full_redis_refuses_writes_and_answers_reads() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &["--maxmemory-policy", "noeviction"]).unwrap();
    within(&namespace, async || {
        let member = Member::up(&settings(&[])).await;
        member.store.put_origin(&origin(1), LIFE).await.unwrap();
        member.store.claim(&stream("s1"), &id(1), None, LIFE).await.unwrap();
        redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
        let refused = member.store.claim(&stream("s2"), &id(1), None, LIFE).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Refused(reason) if reason.contains("OOM")), "{refused}");
        assert!(member.store.put_origin(&origin(2), LIFE).await.is_err());
        let full =
            |health: &Health| matches!(health, Health::Refusing { reason, .. } if reason.contains("OOM"));
        member.becomes("refusing", full).await;
        assert_eq!(
            member.store.claim(&stream("s1"), &id(2), None, LIFE).await.unwrap(),
            id(1),
            "what is there is answered"
        );
        assert_eq!(member.store.origins().await.unwrap().len(), 1);
        assert_eq!(member.store.picks_of(&[stream("s1")]).await.unwrap(), [Some(id(1))]);
        redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
        member.becomes("up without a call", |health| *health == Health::Up).await;
    });
}

#[test]
fn a_replica_refuses_writes_and_answers_reads() {
    let namespace = Namespace::new("redis").unwrap();
    let master = Redis::start(&namespace, PORT, &[]).unwrap();
    let replica = Redis::start(&namespace, 6380, &["--replicaof", "127.0.0.1", "6379"]).unwrap();
    within(&namespace, async || {
        let writer = Member::up(&settings(&[])).await;
        writer.store.put_origin(&origin(1), LIFE).await.unwrap();
        writer.store.claim(&stream("s1"), &id(1), None, LIFE).await.unwrap();
        until("the replica has caught up", || Ok(replica.cli(&["DBSIZE"])? == master.cli(&["DBSIZE"])?))
            .unwrap();
        let reader = Member::up(&settings(&[("PROXY_REDIS_PORT", "6380")])).await;
        let refused = reader.store.assign(&stream("s1"), &id(2), LIFE).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Refused(reason) if reason.contains("READONLY")), "{refused}");
        reader.becomes("refusing", |health| matches!(health, Health::Refusing { .. })).await;
        assert_eq!(reader.store.origins().await.unwrap().len(), 1);
        assert_eq!(reader.store.picks_of(&[stream("s1")]).await.unwrap(), [Some(id(1))]);
    });
}

#[test]
fn nonsense_in_redis_counts_as_nothing() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let member = Member::up(&settings(&[])).await;
        let pick = |name: &str| format!("srs-proxy-url:__defaultVhost__/live/{name}");
        redis.cli(&["LPUSH", &pick("list"), "a"]).unwrap();
        redis.cli(&["SET", &pick("text"), "somebody else's"]).unwrap();
        redis.cli(&["SET", &pick("line"), "srs-proxy-server:a\nb"]).unwrap();
        redis.cli(&["SET", &pick("empty"), "srs-proxy-server:"]).unwrap();
        redis
            .cli(&[
                "EVAL",
                "redis.call('SET', KEYS[1], 'srs-proxy-server:' .. string.rep('x', 10000000))",
                "1",
                &pick("long"),
            ])
            .unwrap();
        redis
            .cli(&["EVAL", "redis.call('SET', KEYS[1], 'srs-proxy-server:\\255')", "1", &pick("bytes")])
            .unwrap();
        let names = ["list", "text", "line", "empty", "long", "bytes"];
        let streams: Vec<_> = names.map(stream).into();
        assert!(member.store.picks_of(&streams).await.unwrap().iter().all(Option::is_none));
        for stream in &streams {
            assert_eq!(member.store.claim(stream, &id(1), None, LIFE).await.unwrap(), id(1), "{stream}");
        }
        assert!(member.store.picks_of(&streams).await.unwrap().iter().all(|pick| *pick == Some(id(1))));
        origins_survive_nonsense(&member, &redis).await;
        assert!(member.store.counts().poisoned >= 10, "{:?}", member.store.counts());
        assert_eq!(*member.store.health().borrow(), Health::Up);
    });
}

async fn origins_survive_nonsense(member: &Member, redis: &Redis<'_>) {
    let set = |key: &str, value: &str| redis.cli(&["SET", key, value]).unwrap();
    for (number, value) in [(2, "{"), (3, "[]"), (4, "{\"ip\":\"10.0.0.9\"}")] {
        set(&format!("srs-proxy-server:vid-{number}-service-1"), value);
        member.store.put_origin(&origin(number), LIFE).await.unwrap();
        set(&format!("srs-proxy-server:vid-{number}-service-1"), value);
    }
    member.store.put_origin(&origin(5), LIFE).await.unwrap();
    set("srs-proxy-server:vid-5-service-1", &json_of(6));
    redis
        .cli(&[
            "EVAL",
            "redis.call('SET', KEYS[1], string.rep('x', 10000000))",
            "1",
            "srs-proxy-server:vid-5-service-1",
        ])
        .unwrap();
    member.store.put_origin(&origin(1), LIFE).await.unwrap();
    let found = |origins: Vec<StoredOrigin>| origins.iter().map(StoredOrigin::id).collect::<Vec<_>>();
    assert_eq!(found(member.store.origins().await.unwrap()), [id(1)]);
    for list in ["{", "{}", "[1,null,[],\"x\",\"srs-proxy-server:vid-1-service-1\"]", "3", "[[[["] {
        set("srs-proxy-all-servers", list);
        assert_eq!(found(member.store.origins().await.unwrap()), [id(1)], "{list}");
        member.store.put_origin(&origin(1), LIFE).await.unwrap();
        let names: Vec<String> =
            serde_json::from_str(&redis.cli(&["GET", "srs-proxy-all-servers"]).unwrap()).unwrap();
        assert!(names.contains(&"srs-proxy-server:vid-1-service-1".to_owned()), "{list} {names:?}");
    }
    for key in ["srs-proxy-all-servers", "srs-xproxy-origins"] {
        redis.cli(&["DEL", key]).unwrap();
        redis.cli(&["HSET", key, "a", "b"]).unwrap();
        member.store.origins().await.unwrap();
        member.store.put_origin(&origin(1), LIFE).await.unwrap();
        assert_eq!(found(member.store.origins().await.unwrap()), [id(1)], "{key}");
    }
}

#[test]
fn everybody_hears_what_one_tells() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let (a, mut b) = (Member::up(&settings(&[])).await, Member::up(&settings(&[])).await);
        a.store.set_draining(&id(1), true).await.unwrap();
        assert_eq!(b.told().await, Notice::Draining { origin: id(1), on: true });
        assert_eq!(b.store.draining().await.unwrap(), [id(1)]);
        a.store.set_draining(&id(1), false).await.unwrap();
        assert_eq!(b.told().await, Notice::Draining { origin: id(1), on: false });
        assert!(b.store.draining().await.unwrap().is_empty());
        let load =
            MemberLoad { member: a.store.member().clone(), sessions: [(id(1), 40), (id(2), 2)].into() };
        a.store.put_load(&load, LIFE).await.unwrap();
        assert_eq!(b.told().await, Notice::Load(load.clone()));
        assert_eq!(b.store.loads().await.unwrap(), [load]);
        for nonsense in ["", "{", "{\"from\":\"x\",\"kind\":\"later\"}", "{\"from\":\"x\",\"kind\":\"load\"}"]
        {
            redis.cli(&["PUBLISH", "srs-xproxy-notices", nonsense]).unwrap();
        }
        a.store.drop_session(&session(1).ufrags).await.unwrap();
        assert_eq!(b.told().await, Notice::SessionEnded(session(1).ufrags));
    });
}

#[test]
fn who_does_not_listen_is_told_to_ask_and_stores_go_on() {
    let namespace = Namespace::new("redis").unwrap();
    let _redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let (a, mut b) = (Member::up(&settings(&[])).await, Member::up(&settings(&[])).await);
        let streams: Vec<_> = (0..6000).map(|number| (stream(number), id(1))).collect();
        for (stream, origin) in &streams {
            a.store.claim(stream, origin, None, LIFE).await.unwrap();
        }
        let end = Instant::now() + PATIENCE;
        while b.store.counts().notices_dropped == 0 {
            assert!(Instant::now() < end, "{:?}", b.store.counts());
            sleep(Duration::from_millis(20)).await;
        }
        let mut picked = 0;
        while let Notice::Picked { .. } = b.next().await {
            picked += 1;
        }
        // The last one that was taken is a request to ask.
        assert!(picked < streams.len(), "{picked}");
        a.store.drop_session(&session(1).ufrags).await.unwrap();
        b.hears(&Notice::SessionEnded(session(1).ufrags)).await;
    });
}

#[test]
fn defect_24_sessions_live_for_as_long_as_they_are_kept() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let (a, b) = (Member::up(&settings(&[])).await, Member::up(&settings(&[])).await);
        let sessions: Vec<_> = (0..300).map(session).collect();
        for session in &sessions {
            a.store.put_session(session, LIFE).await.unwrap();
        }
        let found = b.store.session(&sessions[7].ufrags).await.unwrap();
        assert_eq!(found, Some(FoundSession::Shared(sessions[7].clone())));
        let key = "srs-proxy-ufrag:loc007:rem007";
        redis.cli(&["PEXPIRE", key, "5000"]).unwrap();
        redis.cli(&["DEL", "srs-proxy-ufrag:loc008:rem008"]).unwrap();
        a.store.keep_sessions(&sessions, LIFE).await.unwrap();
        assert!(redis.cli(&["PTTL", key]).unwrap().parse::<u64>().unwrap() > 5000);
        assert!(b.store.session(&sessions[8].ufrags).await.unwrap().is_some());
        let under_the_stream = redis.cli(&["GET", "srs-proxy-rtc:__defaultVhost__/live/s1"]).unwrap();
        assert_eq!(under_the_stream, r#"{"stream_url":"__defaultVhost__/live/s1","ufrag":"loc299:rem299"}"#);
        a.store.drop_session(&sessions[7].ufrags).await.unwrap();
        assert_eq!(b.store.session(&sessions[7].ufrags).await.unwrap(), None);
    });
}

#[test]
fn what_a_go_proxy_wrote_is_understood() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    let captured = include_str!("../../proxy-userspace/src/origin/store/go_proxy.tsv");
    for line in captured.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.splitn(3, '\t').collect();
        redis.cli(&["SET", parts[0], parts[2]]).unwrap();
    }
    within(&namespace, async || {
        let member = Member::up(&settings(&[])).await;
        let ids = [OriginId::new("vid-46p14mm", "z2s3w865", "42583"), OriginId::new("vid-bare", "s", "7")];
        let found: Vec<_> = member.store.origins().await.unwrap().iter().map(StoredOrigin::id).collect();
        assert_eq!(found, ids);
        let picks = member.store.picks_of(&[stream("s1"), stream("pub"), stream("none")]).await.unwrap();
        assert_eq!(picks, [Some(ids[0].clone()), Some(ids[0].clone()), None]);
        assert_eq!(member.store.claim(&stream("pub"), &ids[1], None, LIFE).await.unwrap(), ids[0]);
        let ufrags = "5r3x0k72:aB+/".parse().unwrap();
        let session = FoundSession::OfGo { stream: stream("s1"), ufrags };
        assert_eq!(member.store.session(&"5r3x0k72:aB+/".parse().unwrap()).await.unwrap(), Some(session));
        let hls = HlsId {
            spbhid: "067270c".into(),
            stream: stream("s1"),
            full_url: "http://127.0.0.1/live/s1.m3u8".into(),
        };
        assert_eq!(member.store.hls_by_id("067270c").await.unwrap().as_ref(), Some(&hls));
        assert_eq!(member.store.hls_of(&stream("s1")).await.unwrap().as_ref(), Some(&hls));
        redis.cli(&["FLUSHDB"]).unwrap();
        member.store.put_hls(&hls, LIFE).await.unwrap();
        let written = redis.cli(&["GET", "srs-proxy-spbhid:067270c"]).unwrap();
        assert!(captured.contains(&format!("\t{written}\n")), "{written}");
        assert_eq!(redis.cli(&["GET", "srs-proxy-hls:__defaultVhost__/live/s1"]).unwrap(), written);
        assert_eq!(member.store.counts().poisoned, 0);
    });
}

#[test]
fn the_master_that_sentinels_name_is_followed() {
    let namespace = Namespace::new("redis").unwrap();
    let mut sentinels = Sentinels::start(&namespace, Ipv4Addr::LOCALHOST).unwrap();
    within(&namespace, async || {
        let urls = sentinels.urls();
        let given = [
            ("PROXY_REDIS_URL", urls.as_str()),
            ("PROXY_REDIS_SENTINEL_MASTER", Sentinels::NAME),
            ("PROXY_REDIS_TIMEOUT", "2s"),
        ];
        let member = Member::up(&settings(&given)).await;
        until_answered(async || member.store.claim(&stream("s1"), &id(1), None, LIFE).await).await;
        until("the replica has the pick", || Ok(sentinels.replica.cli(&["DBSIZE"])? == "1")).unwrap();
        let started = Instant::now();
        sentinels.master.kill().unwrap();
        member.becomes("down", |health| matches!(health, Health::Down { .. })).await;
        let again =
            until_answered(async || member.store.claim(&stream("s1"), &id(2), None, LIFE).await).await;
        println!("a new master after {:.1} s", started.elapsed().as_secs_f64());
        assert_eq!(again, id(1));
        assert!(sentinels.replica.cli(&["ROLE"]).unwrap().starts_with("master"));
    });
}

#[test]
fn a_cluster_holds_the_keys_and_passes_on_notices() {
    let namespace = Namespace::new("redis").unwrap();
    let mut nodes = cluster(&namespace, [7001, 7002, 7003]).unwrap();
    within(&namespace, async || {
        let url = |port: u16| {
            let urls = format!("redis://127.0.0.1:{port},redis://127.0.0.1:7001");
            settings(&[
                ("PROXY_REDIS_URL", &urls),
                ("PROXY_REDIS_MODE", "cluster"),
                ("PROXY_REDIS_TIMEOUT", "5s"),
            ])
        };
        let mut members = vec![Member::up(&url(7001)).await, Member::up(&url(7003)).await];
        members[0].store.claim(&stream("s1"), &id(1), None, LIFE).await.unwrap();
        assert_eq!(members[1].told().await, Notice::Picked { stream: stream("s1"), origin: id(1) });
        nobody_disagrees(&claims(&members, 200, None).await);
        let held: Vec<u32> =
            nodes.iter().map(|node| node.cli(&["DBSIZE"]).unwrap().parse().unwrap()).collect();
        assert!(held.iter().all(|keys| *keys > 20), "{held:?}");
        let streams: Vec<_> = (0..200).map(stream).collect();
        assert!(members[0].store.picks_of(&streams).await.unwrap().iter().all(Option::is_some));
        let picks: Vec<_> = streams.iter().map(|stream| (stream.clone(), id(7))).collect();
        assert_eq!(members[0].store.keep(&picks, LIFE).await.unwrap().len(), 200);
        for number in 0..20 {
            members[0].store.put_origin(&origin(number), LIFE).await.unwrap();
        }
        assert_eq!(members[1].store.origins().await.unwrap().len(), 20);
        members[0].store.put_session(&session(1), LIFE).await.unwrap();
        assert!(members[1].store.session(&session(1).ufrags).await.unwrap().is_some());
        // A part of the keys is gone: the store is down as a whole until the node is back.
        nodes[1].kill().unwrap();
        members[0].becomes("down", |health| matches!(health, Health::Down { .. })).await;
        nodes[1].restart().unwrap();
        members[0].becomes("up", |health| *health == Health::Up).await;
        until_answered(async || members[0].store.keep(&picks, LIFE).await).await;
    });
}

#[test]
fn tls_is_spoken_and_whom_to_is_verified() {
    let (namespace, certificate, stranger) =
        (Namespace::new("redis").unwrap(), Certificate::new().unwrap(), Certificate::new().unwrap());
    let redis = Redis::start_with_tls(&namespace, PORT, &certificate).unwrap();
    within(&namespace, async || {
        let with = |url: &str, certificate: &Certificate| {
            let ca = certificate.authority().display().to_string();
            settings(&[("PROXY_REDIS_URL", url), ("PROXY_REDIS_CA", &ca)])
        };
        let mut members = [
            Member::up(&with("rediss://127.0.0.1:6379", &certificate)).await,
            Member::up(&with("rediss://localhost:6379", &certificate)).await,
        ];
        members[0].store.assign(&stream("s1"), &id(1), LIFE).await.unwrap();
        assert_eq!(members[1].told().await, Notice::Picked { stream: stream("s1"), origin: id(1) });
        assert_eq!(redis.cli(&["DBSIZE"]).unwrap(), "1");
        let refused =
            |health: &Health| matches!(health, Health::Down { reason, .. } if reason.contains("ertificate"));
        Member::open(&with("rediss://127.0.0.1:6379", &stranger)).becomes("distrusted", refused).await;
        Member::open(&settings(&[("PROXY_REDIS_URL", "rediss://127.0.0.1:6379")]))
            .becomes("distrusted", refused)
            .await;
        let missing = [("PROXY_REDIS_URL", "rediss://127.0.0.1:6379"), ("PROXY_REDIS_CA", "/nowhere/ca.pem")];
        let unread = |health: &Health| matches!(health, Health::Down { reason, .. } if reason.contains("/nowhere/ca.pem"));
        Member::open(&settings(&missing)).becomes("without authorities", unread).await;
    });
}

#[test]
fn users_log_in_and_what_they_may_not_do_is_said() {
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    let rights = ["on", ">fleet-pass", "~srs-*", "&srs-*"];
    let commands = ["+@read", "+@write", "+@scripting", "+@pubsub", "+@connection", "+time"];
    redis.cli(&[&["ACL", "SETUSER", "fleet"], &rights[..], &commands[..]].concat()).unwrap();
    redis
        .cli(&["ACL", "SETUSER", "mute", "on", ">mute-pass", "~srs-*", "&srs-*", "+@all", "-publish"])
        .unwrap();
    redis.cli(&["ACL", "SETUSER", "default", "resetpass", ">default-pass"]).unwrap();
    within(&namespace, async || {
        let fleet = [("PROXY_REDIS_USERNAME", "fleet"), ("PROXY_REDIS_PASSWORD", "fleet-pass")];
        let (a, mut b) = (Member::up(&settings(&fleet)).await, Member::up(&settings(&fleet)).await);
        a.store.put_origin(&origin(1), LIFE).await.unwrap();
        assert!(matches!(b.told().await, Notice::Origin(_)));
        assert_eq!(b.store.origins().await.unwrap().len(), 1);
        let go = Member::up(&settings(&[("PROXY_REDIS_PASSWORD", "default-pass")])).await;
        assert_eq!(go.store.origins().await.unwrap().len(), 1);
        let wrong = [("PROXY_REDIS_USERNAME", "fleet"), ("PROXY_REDIS_PASSWORD", "hunter2")];
        let denied = Member::open(&settings(&wrong));
        let health =
            denied.becomes("denied", |health| format!("{health:?}").contains("authentication failed")).await;
        assert!(!format!("{health:?} {denied:?}", denied = denied.store).contains("hunter2"));
        let none = Member::open(&settings(&[]));
        none.becomes("denied", |health| format!("{health:?}").contains("NOAUTH")).await;
        let mute = Member::up(&settings(&[("PROXY_REDIS_URL", "redis://mute:mute-pass@127.0.0.1")])).await;
        let refused = mute.store.put_origin(&origin(2), LIFE).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Refused(reason) if reason.contains("NOPERM")), "{refused}");
        mute.becomes("refusing", |health| format!("{health:?}").contains("NOPERM")).await;
        assert_eq!(mute.store.origins().await.unwrap().len(), 2, "what its user may do is done");
    });
}

#[test]
fn redis_value_corpus_holds() {
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/redis_value")).unwrap() {
        fuzz::value(&fs::read(file.unwrap().path()).unwrap());
    }
    let long = "x".repeat(1 << 20);
    fuzz::value(format!("{{\"server_id\":\"{long}\"}}").as_bytes());
    fuzz::value("[".repeat(1 << 20).as_bytes());
}
