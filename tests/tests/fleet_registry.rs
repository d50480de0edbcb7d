//! What the registries of several proxies come to by one Redis, without the proxies around them. Numbers in names are those of the
//! defects of the proxy that this one replaces.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use integration_tests::{
    netns::Namespace,
    redis::{Redis, within},
};
use proxy_protocol::stream_url::StreamKey;
use proxy_userspace::{
    config::Config,
    origin::{
        Origin, OriginId, Registry as _,
        balance::Terms,
        fleet::FleetRegistry,
        memory::MemoryRegistry,
        probe::NetworkProbe,
        store::{Health, MemberId, Store},
    },
};
use rustix::process::Signal;
use tokio::{
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 6379;

/// A proxy's registry and the tasks that go with it, which end with this value.
struct Member {
    registry: Arc<FleetRegistry>,
    _tasks: JoinSet<()>,
}

impl Member {
    /// Heartbeats alone decide what is up, and a busy machine does not make Redis slow.
    async fn start(given: &[(&str, &str)]) -> Self {
        let plain = [
            ("PROXY_LOAD_BALANCER_TYPE", "redis"),
            ("PROXY_ORIGIN_PROBE_INTERVAL", "0s"),
            ("PROXY_REDIS_TIMEOUT", "10s"),
        ];
        let variables = plain.into_iter().chain(given.iter().copied());
        let Config { redis, origins, balancing, .. } = Config::from_variables(variables).unwrap();
        let (local, _events) = MemoryRegistry::new(origins, balancing);
        let (store, notices) = Store::open(&redis, MemberId::random());
        let mut health = store.health();
        let registry = FleetRegistry::new(origins, Arc::clone(&local), store);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&registry).watch(notices));
        tasks.spawn(local.watch(Arc::new(NetworkProbe { timeout: origins.probe_timeout })));
        health.wait_for(|health| *health == Health::Up).await.unwrap();
        Self { registry, _tasks: tasks }
    }

    async fn several(count: usize) -> Vec<Self> {
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(Self::start(&[]).await);
        }
        members
    }

    async fn register(&self, server: &str) {
        self.registry.register(named(server), Terms::default()).await.unwrap();
    }

    /// Waits until so many origins serve.
    async fn knows(&self, origins: usize) {
        let known = async {
            while self.registry.serving().await.len() != origins {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, known).await.unwrap();
    }
}

/// An origin that nobody talks to.
fn named(server: &str) -> Origin {
    Origin {
        id: OriginId::new(server, "service", "1"),
        server: server.into(),
        device_id: server.into(),
        ip: [10, 0, 0, 9].into(),
        rtmp: Some(([10, 0, 0, 9], 1935).into()),
        http: None,
        api: None,
        srt: None,
        rtc: None,
        rtc_tcp: None,
    }
}

fn stream(name: impl std::fmt::Display) -> StreamKey {
    format!("__defaultVhost__/live/{name}").parse().unwrap()
}

#[test]
fn defect_11_an_origin_that_is_gone_by_the_time_of_the_answer_is_not_proposed_again() {
    const LIFE: Duration = Duration::from_secs(2);
    let namespace = Namespace::new("redis").unwrap();
    let redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        // What is known has to be asked for again soon.
        let member = Member::start(&[("PROXY_PICK_TTL", "2s")]).await;
        member.register("one").await;
        member.register("two").await;
        let registry = &member.registry;
        let first = registry.pick(&stream("s")).await.unwrap();
        sleep(LIFE / 3).await;
        redis.signal(Signal::STOP).unwrap();
        let asking = tokio::spawn({
            let registry = Arc::clone(registry);
            async move { registry.pick(&stream("s")).await }
        });
        while registry.counts().asked < 2 {
            yield_now().await;
        }
        registry.report_failure(&first.id).await;
        redis.signal(Signal::CONT).unwrap();
        let second = asking.await.unwrap().unwrap();
        assert_ne!(second.id, first.id);
    });
}

#[test]
fn defect_12_origins_stay_while_redis_is_away_for_longer_than_their_registrations_live() {
    const TTL: Duration = Duration::from_secs(3);
    let namespace = Namespace::new("redis").unwrap();
    let mut redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let settings = [("PROXY_ORIGIN_SERVER_TTL", "3s")];
        let (told, other) = (Member::start(&settings).await, Member::start(&settings).await);
        told.register("one").await;
        other.knows(1).await;
        redis.kill().unwrap();
        sleep(2 * TTL).await;
        assert_eq!(other.registry.pick(&stream("s")).await.unwrap().server, "one");
        // Nobody has heard of the origin since, nor will be told of it.
        drop(told);
        redis.restart().unwrap();
        let back = Instant::now();
        other.knows(0).await;
        let silent = back.elapsed();
        println!("an origin whose proxy is gone too is given up {silent:.1?} after Redis came back");
        assert!(silent > TTL / 2, "{silent:?}");
    });
}

#[test]
fn streams_that_come_at_once_are_spread_although_loads_are_told_late() {
    const ORIGINS: usize = 10;
    const STREAMS: usize = 1000;
    let namespace = Namespace::new("redis").unwrap();
    let _redis = Redis::start(&namespace, PORT, &[]).unwrap();
    within(&namespace, async || {
        let members = Member::several(8).await;
        for n in 0..ORIGINS {
            members[n % members.len()].register(&format!("origin{n}")).await;
        }
        for member in &members {
            member.knows(ORIGINS).await;
        }
        let asked = Instant::now();
        let mut asking = JoinSet::new();
        for (at, member) in members.iter().enumerate() {
            for n in 0..STREAMS {
                let registry = Arc::clone(&member.registry);
                asking.spawn(async move { registry.pick(&stream(format!("s{at}-{n}"))).await });
            }
        }
        let mut counts = BTreeMap::<_, usize>::new();
        for picked in asking.join_all().await {
            *counts.entry(picked.unwrap().server.clone()).or_default() += 1;
        }
        let (most, mean) = (counts.values().max().unwrap(), members.len() * STREAMS / ORIGINS);
        println!(
            "{} proxies picked {STREAMS} streams each in {:.1?}: {most} at the fullest of {ORIGINS} origins, {mean} at each in \
             the mean",
            members.len(),
            asked.elapsed()
        );
        assert!(10 * most <= 13 * mean, "{counts:?}");
    });
}
