//! What a fleet does while its Redis is in trouble: slow, full, full of nonsense, failing over. Media goes on, streams that are
//! known stay where they are, all proxies agree on new ones, and what was decided meanwhile is written down afterwards.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]
#![expect(clippy::print_stdout, reason = "what a test measures is shown when it passes")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use integration_tests::{
    fleet::{Fleet, Grounds, media_flows},
    live::until,
    load::Client,
    netns::Cluster,
    proxy::Engine,
    redis::{Redis, Sentinels},
};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);
/// What most exchanges take less than while calls to Redis end by their deadline of half a second.
const EXCHANGE: Duration = Duration::from_secs(1);
/// Less than what Redis takes.
const UNNOTICED: Duration = Duration::from_millis(1500);
const READY: &str = "ready\n";

/// Streams at two proxies, and what becomes of them.
#[derive(Default)]
struct Streams {
    publishers: Vec<Client>,
    players: Vec<Client>,
    exchanges: Vec<Duration>,
}

impl Streams {
    /// One that is known before there is any trouble.
    fn begin(fleet: &Fleet<'_>) -> Self {
        let mut streams = Self::default();
        streams.add(fleet, "before");
        streams.exchanges.clear();
        streams
    }

    /// A new stream, published at one proxy and played at both.
    #[track_caller]
    fn add(&mut self, fleet: &Fleet<'_>, stream: &str) {
        let asked = Instant::now();
        self.publishers.push(fleet.publish(0, stream).unwrap());
        self.exchanges.push(asked.elapsed());
        (0..2).for_each(|proxy| self.play(fleet, proxy, stream));
        let mut origins: Vec<_> = (0..2).flat_map(|proxy| fleet.origins_of(proxy, stream).unwrap()).collect();
        origins.dedup();
        assert_eq!(origins.len(), 1, "{stream} is on {origins:?}");
    }

    #[track_caller]
    fn play(&mut self, fleet: &Fleet<'_>, proxy: usize, stream: &str) {
        let asked = Instant::now();
        let player = fleet.play(proxy, stream).unwrap();
        self.exchanges.push(asked.elapsed());
        media_flows(&player).unwrap();
        self.players.push(player);
    }

    /// Nobody lost a packet or had to wait for one.
    #[track_caller]
    fn are_unharmed(&self, trouble: &str) {
        let stats: Vec<_> = self.players.iter().map(Client::stats).collect();
        let missing: u64 = stats.iter().map(|stats| stats.missing()).sum();
        let silence = stats.iter().map(|stats| stats.longest_silence()).max().unwrap_or_default();
        let mut exchanges = self.exchanges.clone();
        exchanges.sort_unstable();
        let (usual, slowest) = (exchanges[exchanges.len() / 2], exchanges[exchanges.len() - 1]);
        println!(
            "{trouble}: {missing} RTP packets missing at {} players, no longer without media than {silence:.2?}; an \
             exchange took {usual:.2?} (median), {slowest:.2?} at most",
            stats.len()
        );
        assert_eq!(missing, 0);
        assert!(silence < UNNOTICED, "{silence:?}");
        assert!(usual < EXCHANGE, "{usual:?}");
        assert!(stats.iter().all(|stats| !stats.closed_by_peer));
    }
}

/// Ends what makes Redis slow, whatever happens to the one who has this.
#[derive(Default)]
struct Slow(Arc<AtomicBool>);

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn says(fleet: &Fleet<'_>, proxy: usize) -> String {
    fleet.proxy(proxy).get("/readyz").unwrap()
}

#[track_caller]
fn all_say(fleet: &Fleet<'_>, what: &str, holds: impl Fn(&str) -> bool) -> Duration {
    let began = Instant::now();
    until(what, PATIENCE, || Ok((0..2).all(|proxy| holds(&says(fleet, proxy))))).unwrap();
    began.elapsed()
}

/// How many streams Redis knows the place of.
fn written(redis: &Redis<'_>) -> anyhow::Result<usize> {
    Ok(redis.cli(&["--raw", "KEYS", "srs-proxy-url:*"])?.lines().filter(|line| !line.is_empty()).count())
}

#[test]
fn a_redis_that_answers_after_two_seconds_delays_nobody() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 3).unwrap();
    let redis =
        Redis::start_open(&grounds.redis.namespace, 6379, &["--enable-debug-command", "yes"]).unwrap();
    let fleet = Fleet::start_with(redis, &grounds, Engine::Tc, &[]).unwrap();
    let mut streams = Streams::begin(&fleet);
    thread::scope(|scope| {
        let slow = Slow::default();
        let is_over = Arc::clone(&slow.0);
        let redis = &fleet.redis;
        scope.spawn(move || {
            while !is_over.load(Relaxed) {
                redis.cli(&["DEBUG", "SLEEP", "2"]).unwrap();
            }
        });
        // Whoever asks first finds out, and may have been heard.
        streams.publishers.push(fleet.publish(0, "first").unwrap());
        all_say(&fleet, "the proxies notice", |said| said.contains("Redis has not answered"));
        for n in 0..6 {
            streams.add(&fleet, &format!("slow{n}"));
        }
        streams.play(&fleet, 1, "before");
    });
    let back = all_say(&fleet, "Redis answers in time again", |said| said == READY);
    until("everything is written down", PATIENCE, || Ok(written(&fleet.redis)? == 8)).unwrap();
    streams.are_unharmed("Redis answered after 2 s");
    println!("every proxy was ready {back:.1?} after it answered at once");
}

#[test]
fn a_full_redis_delays_nobody() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 3).unwrap();
    let fleet = Fleet::start(&grounds, Engine::Tc, &[]).unwrap();
    let mut streams = Streams::begin(&fleet);
    fleet.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    for n in 0..6 {
        streams.add(&fleet, &format!("full{n}"));
    }
    streams.play(&fleet, 1, "before");
    all_say(&fleet, "the proxies say so", |said| said.contains("Redis has refused"));
    assert_eq!(written(&fleet.redis).unwrap(), 1);
    fleet.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    let back = all_say(&fleet, "Redis takes writes again", |said| said == READY);
    until("everything is written down", PATIENCE, || Ok(written(&fleet.redis)? == 7)).unwrap();
    streams.are_unharmed("Redis was full");
    println!("every proxy was ready {back:.1?} after it had room");
}

#[test]
fn nonsense_in_redis_harms_nobody() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 3).unwrap();
    let fleet = Fleet::start(&grounds, Engine::Tc, &[]).unwrap();
    let mut streams = Streams::begin(&fleet);
    let key = "srs-proxy-url:__defaultVhost__/live";
    assert_eq!(fleet.redis.cli(&["EXISTS", &format!("{key}/before")]).unwrap(), "1");
    let long = "x".repeat(100_000);
    let nonsense = ["", "{", "null", "[1,2]", "{\"server_id\":7}", "\u{fffd}", long.as_str()];
    for (n, value) in nonsense.iter().enumerate() {
        let known = fleet.redis.cli(&["--raw", "KEYS", "*"]).unwrap();
        for key in known.lines() {
            fleet.redis.cli(&["SET", key, value]).unwrap();
        }
        fleet.redis.cli(&["SET", &format!("{key}/poisoned{n}"), value]).unwrap();
        streams.add(&fleet, &format!("poisoned{n}"));
        streams.add(&fleet, &format!("fresh{n}"));
    }
    fleet.redis.cli(&["DEL", &format!("{key}/before")]).unwrap();
    fleet.redis.cli(&["LPUSH", &format!("{key}/before"), "of another type"]).unwrap();
    streams.play(&fleet, 0, "before");
    all_say(&fleet, "Redis is taken for well", |said| said == READY);
    for proxy in 0..2 {
        fleet.proxy(proxy).wait_for_origins(3).unwrap();
    }
    streams.are_unharmed("Redis was full of nonsense");
}

#[test]
fn streams_go_on_while_sentinels_choose_another_master() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 3).unwrap();
    let sentinels = Sentinels::start(&grounds.redis.namespace, grounds.redis.address).unwrap();
    let urls = sentinels.urls();
    let settings = [("PROXY_REDIS_URL", urls.as_str()), ("PROXY_REDIS_SENTINEL_MASTER", Sentinels::NAME)];
    let replica = sentinels.replica;
    let fleet = Fleet::start_with(sentinels.master, &grounds, Engine::Tc, &settings).unwrap();
    let mut streams = Streams::begin(&fleet);
    until("the replica knows the stream", PATIENCE, || Ok(written(&replica)? == 1)).unwrap();
    let killed = Instant::now();
    fleet.redis.signal(Signal::KILL).unwrap();
    for n in 0..4 {
        streams.add(&fleet, &format!("between{n}"));
    }
    all_say(&fleet, "the proxies follow the new master", |said| said == READY);
    let followed = killed.elapsed();
    assert!(replica.cli(&["ROLE"]).unwrap().starts_with("master"));
    streams.add(&fleet, "after");
    until("everything is written down", PATIENCE, || Ok(written(&replica)? == 6)).unwrap();
    streams.are_unharmed("a master died");
    println!("every proxy was ready {followed:.1?} after its end");
}

#[test]
#[ignore = "long: a minute without Redis"]
fn defect_12_a_minute_without_redis_takes_nothing_from_anybody() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 3).unwrap();
    // Nobody but the proxy that an origin registers with hears of it meanwhile.
    let mut fleet = Fleet::start(&grounds, Engine::Tc, &[("PROXY_ORIGIN_SERVER_TTL", "15s")]).unwrap();
    let mut streams = Streams::begin(&fleet);
    fleet.redis.kill().unwrap();
    let killed = Instant::now();
    for n in 0..6 {
        streams.add(&fleet, &format!("without{n}"));
        streams.play(&fleet, 1, "before");
        thread::sleep((killed + Duration::from_secs(10) * (n + 1)).saturating_duration_since(Instant::now()));
        for proxy in 0..2 {
            fleet.proxy(proxy).wait_for_origins(3).unwrap();
        }
    }
    fleet.redis.restart().unwrap();
    let away = killed.elapsed();
    let back = all_say(&fleet, "Redis answers again", |said| said == READY);
    until("everything is written down", PATIENCE, || Ok(written(&fleet.redis)? == 7)).unwrap();
    streams.are_unharmed(&format!("Redis was away for {away:.0?}"));
    println!("every proxy was ready {back:.1?} after it came back empty");
}
