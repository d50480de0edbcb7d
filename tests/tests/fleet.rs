//! Several proxies as one: origins that register with one of them, streams that are asked for at another, and Redis, proxies
//! and origins that go away. Numbers in names are those of the defects of the proxy that this one replaces.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use integration_tests::{
    fleet::{Fleet, Grounds, media_flows},
    http::{Request, Url},
    live::until,
    netns::Cluster,
    proxy::{Engine, Proxy},
};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);
/// Quick probes, so that an origin that vanishes is missed within a second.
const QUICK: [(&str, &str); 2] =
    [("PROXY_ORIGIN_PROBE_INTERVAL", "300ms"), ("PROXY_ORIGIN_PROBE_TIMEOUT", "300ms")];

fn ready(proxy: &Proxy<'_>) -> String {
    proxy.get("/readyz").unwrap()
}

#[track_caller]
fn whole(fleet: &Fleet<'_>, stream: &str) {
    let mut origins = fleet.origins_of(0, stream).unwrap();
    origins.extend(fleet.origins_of(1, stream).unwrap());
    origins.dedup();
    assert_eq!(origins.len(), 1, "{stream} is on {origins:?}");
}

#[test]
fn defect_09_a_stream_is_on_one_origin_whichever_proxy_is_asked() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 3).unwrap();
    let fleet = Fleet::start(&grounds, Engine::Tc, &[]).unwrap();
    let mut playing = Vec::new();
    for n in 0..6 {
        let stream = format!("s{n}");
        let publisher = fleet.publish(n % 2, &stream).unwrap();
        let players = [fleet.play(0, &stream).unwrap(), fleet.play(1, &stream).unwrap()];
        for player in &players {
            media_flows(player).unwrap();
        }
        whole(&fleet, &stream);
        playing.push((publisher, players));
    }
    // What is known from others costs no round trip.
    let asked = fleet.proxy(1).metric("xproxy_picks_total{how=\"asked\"}").unwrap();
    let player = fleet.play(1, "s0").unwrap();
    media_flows(&player).unwrap();
    assert_eq!(fleet.proxy(1).metric("xproxy_picks_total{how=\"asked\"}").unwrap(), asked);
}

#[test]
fn defect_12_streams_go_on_without_redis_and_new_ones_are_agreed_on() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 3, 3).unwrap();
    let mut fleet = Fleet::start(&grounds, Engine::Userspace, &[]).unwrap();
    let publisher = fleet.publish(0, "before").unwrap();
    let player = fleet.play(1, "before").unwrap();
    media_flows(&player).unwrap();
    assert_eq!(ready(fleet.proxy(0)), "ready\n");

    fleet.redis.kill().unwrap();
    let killed = Instant::now();
    for proxy in 0..3 {
        until("the proxy has noticed", PATIENCE, || Ok(ready(fleet.proxy(proxy)).contains("Redis"))).unwrap();
        assert_eq!(fleet.proxy(proxy).metric("xproxy_registry_up").unwrap(), 0);
    }
    let known = fleet.play(2, "before").unwrap();
    media_flows(&known).unwrap();
    let mut agreed = Vec::new();
    for n in 0..6 {
        let stream = format!("without{n}");
        let publisher = fleet.publish(n % 2, &stream).unwrap();
        let player = fleet.play(2, &stream).unwrap();
        media_flows(&player).unwrap();
        agreed.push((publisher, player));
    }

    // It comes back with nothing of what it knew.
    fleet.redis.restart().unwrap();
    let back = Instant::now();
    for proxy in 0..3 {
        until("Redis answers again", PATIENCE, || Ok(ready(fleet.proxy(proxy)) == "ready\n")).unwrap();
    }
    until("everything is written down", PATIENCE, || {
        let keys = fleet.redis.cli(&["--raw", "KEYS", "srs-proxy-url:*"])?;
        Ok(keys.lines().count() == 7)
    })
    .unwrap();
    let written = back.elapsed();
    let missing: u64 = [&player, &known].iter().map(|player| player.stats().missing()).sum();
    println!(
        "Redis was away for {:.1} s: {missing} RTP packets missing, 7 of 7 streams written down {:.1} s after it came back",
        (back - killed).as_secs_f64(),
        written.as_secs_f64()
    );
    assert_eq!(missing, 0);
    assert!(!player.stats().closed_by_peer);
    drop((publisher, agreed));
}

#[test]
fn a_proxy_that_starts_without_redis_serves_once_it_knows_an_origin() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 1, 1).unwrap();
    let redis = grounds.start_redis().unwrap();
    redis.signal(Signal::STOP).unwrap();
    let mut command = Proxy::command(Engine::Userspace).unwrap();
    let address = grounds.redis.address.to_string();
    command.env("PROXY_LOAD_BALANCER_TYPE", "redis").env("PROXY_REDIS_HOST", &address);
    let starting = std::thread::scope(|scope| {
        let starting =
            scope.spawn(|| Proxy::spawn(&grounds.proxies[0].namespace, grounds.proxies[0].address, command));
        // Not ready before there is an origin.
        sleep(Duration::from_secs(1));
        assert!(!starting.is_finished());
        let origin = grounds.start_origin(0, 0).unwrap();
        (starting.join().unwrap().unwrap(), origin)
    });
    let (proxy, _origin) = starting;
    assert!(ready(&proxy).contains("ready, although Redis"), "{}", ready(&proxy));
    redis.signal(Signal::CONT).unwrap();
    until("Redis answers", PATIENCE, || Ok(ready(&proxy) == "ready\n")).unwrap();
    until("the origin is told", PATIENCE, || {
        Ok(redis.cli(&["KEYS", "srs-proxy-server:*"])?.lines().count() == 1)
    })
    .unwrap();
}

#[test]
fn defect_11_streams_of_an_origin_that_dies_are_picked_anew_by_every_proxy() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 2).unwrap();
    let mut fleet = Fleet::start(&grounds, Engine::Userspace, &QUICK).unwrap();
    let publisher = fleet.publish(0, "s").unwrap();
    let player = fleet.play(1, "s").unwrap();
    media_flows(&player).unwrap();
    let [at] = fleet.origins_of(0, "s").unwrap()[..] else { panic!("one session") };
    let index = grounds.origins.iter().position(|pod| pod.address == at).unwrap();

    drop(fleet.origins[index].take());
    let died = Instant::now();
    for proxy in 0..2 {
        fleet.proxy(proxy).wait(PATIENCE, |status| status.sessions.is_empty()).unwrap();
    }
    let ended = died.elapsed();
    let publisher_again = fleet.publish(1, "s").unwrap();
    let player_again = fleet.play(0, "s").unwrap();
    media_flows(&player_again).unwrap();
    println!(
        "an origin died: sessions ended after {:.1} s, media again after {:.1} s",
        ended.as_secs_f64(),
        died.elapsed().as_secs_f64()
    );
    assert_ne!(fleet.origins_of(0, "s").unwrap()[0], at);
    whole(&fleet, "s");
    drop((publisher, player, publisher_again));
}

#[test]
fn a_publisher_takes_players_along_that_guessed_another_origin() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 2).unwrap();
    let fleet = Fleet::start(&grounds, Engine::Userspace, &[]).unwrap();
    let early = fleet.play(1, "s").unwrap();
    let [guessed] = fleet.origins_of(1, "s").unwrap()[..] else { panic!("one session") };
    // The proxy of the publisher cannot reach that one.
    let rules = format!(
        "table ip apart {{
            chain output {{
                type filter hook output priority 0;
                ip daddr {guessed} tcp dport != 0 reject with tcp reset
            }}
        }}"
    );
    grounds.proxies[0].namespace.run("nft", &[rules]).unwrap();
    let publisher = fleet.publish(0, "s").unwrap();
    let [at] = fleet.origins_of(0, "s").unwrap()[..] else { panic!("one session") };
    assert_ne!(at, guessed);
    let status = fleet.proxy(1).wait(PATIENCE, |status| status.sessions.is_empty()).unwrap();
    assert_eq!(status.totals.ended.get("stream_moved"), Some(&1), "{status:#?}");
    let player = fleet.play(1, "s").unwrap();
    media_flows(&player).unwrap();
    assert_eq!(fleet.origins_of(1, "s").unwrap(), [at]);
    drop((early, publisher));
}

#[test]
fn an_origin_that_drains_at_one_proxy_gets_no_new_stream_from_any() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 2).unwrap();
    let fleet = Fleet::start(&grounds, Engine::Userspace, &[]).unwrap();
    let publisher = fleet.publish(0, "old").unwrap();
    let [at] = fleet.origins_of(0, "old").unwrap()[..] else { panic!("one session") };
    fleet.proxy(0).drain("POST", at).unwrap();
    let states = |proxy: usize| {
        let origins = fleet.proxy(proxy).origins().unwrap();
        origins.iter().filter(|origin| origin.state == "draining").count()
    };
    until("the other proxy knows", PATIENCE, || Ok(states(1) == 1)).unwrap();
    let new: Vec<_> = (0..6).map(|n| fleet.publish(n % 2, &format!("new{n}")).unwrap()).collect();
    for n in 0..6 {
        assert_ne!(fleet.origins_of(n % 2, &format!("new{n}")).unwrap(), [at]);
    }
    let player = fleet.play(1, "old").unwrap();
    media_flows(&player).unwrap();
    assert_eq!(fleet.origins_of(1, "old").unwrap(), [at], "it keeps the old");
    fleet.proxy(0).drain("DELETE", at).unwrap();
    until("the other proxy knows", PATIENCE, || Ok(states(1) == 0)).unwrap();
    drop((publisher, new));
}

#[test]
fn new_streams_avoid_an_origin_that_has_many_sessions_at_another_proxy() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 2).unwrap();
    let fleet = Fleet::start(&grounds, Engine::Userspace, &[]).unwrap();
    let publisher = fleet.publish(0, "popular").unwrap();
    let players: Vec<_> = (0..11).map(|_| fleet.play(0, "popular").unwrap()).collect();
    let [at, ..] = fleet.origins_of(0, "popular").unwrap()[..] else { panic!("sessions") };
    until("the other proxy is told of them", PATIENCE, || {
        Ok(fleet.proxy(1).origins()?.iter().any(|origin| origin.ip == at && origin.sessions == 12))
    })
    .unwrap();
    // Each counts as a stream at once and as a session too when the next load is told.
    let new: Vec<_> = (0..5).map(|n| fleet.publish(1, &format!("new{n}")).unwrap()).collect();
    for n in 0..5 {
        assert_ne!(fleet.origins_of(1, &format!("new{n}")).unwrap(), [at]);
    }
    drop((publisher, players, new));
}

#[test]
fn defect_39_a_proxy_under_sigterm_lets_its_sessions_end_and_takes_no_more() {
    let cluster = Cluster::new().unwrap();
    let grounds = Grounds::new(&cluster, 2, 1).unwrap();
    let mut fleet = Fleet::start(&grounds, Engine::Tc, &[("PROXY_WEBRTC_IDLE_TIMEOUT", "3s")]).unwrap();
    let publisher = fleet.publish(1, "s").unwrap();
    let player = fleet.play(0, "s").unwrap();
    media_flows(&player).unwrap();

    let leaving = fleet.proxies[0].take().unwrap();
    leaving.signal(Signal::TERM).unwrap();
    until("it is not ready", PATIENCE, || Ok(leaving.get("/readyz").is_err())).unwrap();
    let refused = Url::parse(&leaving.whep("s")).unwrap();
    let refused = grounds
        .client
        .namespace
        .enter(|| Request::new("POST", refused).body("application/sdp", "v=0").send());
    assert!(refused.is_err(), "connections are refused");
    media_flows(&player).unwrap();
    assert_eq!(leaving.status().unwrap().sessions.len(), 1);
    assert_eq!(player.stats().missing(), 0);
    drop(player);
    // SRS is told nothing by a player that vanishes: the session ends by its silence.
    leaving.wait_for_end().unwrap();
    let player = fleet.play(1, "s").unwrap();
    media_flows(&player).unwrap();
    drop(publisher);
}
