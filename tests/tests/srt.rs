//! SRT end to end under every engine: libsrt at both ends, the real proxy in between.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]
#![expect(clippy::print_stdout, reason = "what a test measures is shown when it passes")]

use std::{
    collections::HashSet,
    net::SocketAddr,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use integration_tests::{
    case::Case,
    cpu,
    http::{Request, Url},
    in_cases,
    live::{Clip, Scratch, ffmpeg, finish, publish, start as start_program, until},
    netns::{Family, Routed},
    origin::Origin,
    proxy::{Engine, Proxy, Status},
    site::origin_with,
    srt::{BareCaller, Caller, CallerOptions, FORBIDDEN, Player, Publisher, Refused, SRT_PORT, SrtSession},
};
use proxy_protocol::srt::{HSV5, Kind, Rejection};
use rustix::process::Signal;

/// Long enough for a busy machine, short enough to fail before the suite's patience ends.
const PATIENCE: Duration = Duration::from_secs(20);
/// About 2.5 Mbit/s.
const RATE: u32 = 240;

in_cases!(unprivileged, xdp_v6, tc_v6: { every_player_gets_every_packet_and_libsrt_counts_no_loss });
in_cases!(xdp, tc, userspace: {
    every_player_gets_every_packet_and_libsrt_counts_no_loss,
    a12_a_lost_answer_costs_one_repetition,
    removing_the_offload_midway_loses_nothing,
    a_shutdown_ends_the_session_and_frees_its_port,
});

/// A proxy between callers and two origins that serve SRT.
struct Site<'a> {
    network: &'a Routed,
    proxy: Proxy<'a>,
    origins: [Option<Origin>; 2],
    family: Family,
}

impl<'a> Site<'a> {
    fn start(network: &'a Routed, case: Case, settings: &[(&str, &str)]) -> Self {
        Self::start_between(network, case.engine, [case.family; 2], settings)
    }

    fn start_between(
        network: &'a Routed,
        engine: Engine,
        [outside, inside]: [Family; 2],
        settings: &[(&str, &str)],
    ) -> Self {
        let proxy = Proxy::start(&network.proxy, outside.of(Routed::PROXY), engine, settings).unwrap();
        let on = |namespace, ip| {
            let ip = inside.of(ip);
            origin_with(namespace, ip, inside.of(Routed::PROXY_INSIDE), |config| {
                config.srt = Some(SocketAddr::new(ip, 0));
            })
        };
        let origins = [on(&network.origin_a, Routed::ORIGIN_A), on(&network.origin_b, Routed::ORIGIN_B)];
        proxy.wait_for_origins(2).unwrap();
        Self { network, proxy, origins: origins.map(|origin| Some(origin.unwrap())), family: outside }
    }

    fn service(&self) -> SocketAddr {
        SocketAddr::new(self.family.of(Routed::PROXY), SRT_PORT)
    }

    fn options(&self, stream_id: &str) -> CallerOptions {
        CallerOptions::new(self.service(), stream_id)
    }

    fn call(&self, stream_id: &str) -> Result<Caller, Refused> {
        let options = self.options(stream_id);
        self.network.client.enter(|| Caller::connect(&options)).unwrap()
    }

    fn publish(&self, stream: &str) -> Publisher {
        self.call(&format!("#!::r=live/{stream},m=publish")).unwrap().publish(RATE)
    }

    fn play(&self, stream: &str) -> Player {
        self.call(&format!("#!::r=live/{stream},m=request")).unwrap().play().unwrap()
    }

    fn settled(&self, engine: Engine, sessions: usize) -> Status {
        let offloaded = if engine.is_kernel() { sessions } else { 0 };
        let is_settled = |status: &Status| {
            status.sessions.iter().filter(|session| session.state != "waiting").count() == sessions
                && status.totals.offloaded == offloaded
        };
        self.proxy.wait(PATIENCE, is_settled).unwrap()
    }

    fn share_of_processor(&self, meanwhile: impl FnOnce()) -> f64 {
        let (begin, used) = (Instant::now(), cpu::used_by(self.proxy.id()).unwrap());
        meanwhile();
        (cpu::used_by(self.proxy.id()).unwrap() - used).as_secs_f64() / begin.elapsed().as_secs_f64()
    }

    fn ended(&self, reason: &str, count: u64) -> Status {
        let has_ended = |status: &Status| status.totals.ended.get(reason).copied() == Some(count);
        self.proxy.wait(PATIENCE, has_ended).unwrap()
    }

    fn accepted(&self) -> Vec<SrtSession> {
        self.origins.iter().flatten().flat_map(Origin::srt_sessions).collect()
    }

    /// Waits until origins have taken so many, of which they tell later than they answer.
    fn have_accepted(&self, count: usize) -> Vec<SrtSession> {
        until("origins took the sessions", PATIENCE, || Ok(self.accepted().len() >= count)).unwrap();
        self.accepted()
    }

    /// Which of the origins has a stream.
    fn origin_of(&self, stream: &str) -> usize {
        let status = self.proxy.status().unwrap();
        let session = status.sessions.iter().find(|session| session.stream.ends_with(&format!("/{stream}")));
        let media: SocketAddr = session.unwrap().media.parse().unwrap();
        usize::from(self.origins[0].as_ref().unwrap().endpoints().srt != Some(media))
    }

    /// A stream on each origin, with its publisher.
    fn stream_on_each(&self) -> [(String, Publisher); 2] {
        let published: Vec<_> = (0..2).map(|n| (format!("of{n}"), self.publish(&format!("of{n}")))).collect();
        let mut published = <[_; 2]>::try_from(published).unwrap();
        if self.origin_of("of0") == 1 {
            published.swap(0, 1);
        }
        assert_eq!((self.origin_of(&published[0].0), self.origin_of(&published[1].0)), (0, 1));
        published
    }
}

/// Everything came in the end. At a change of the path a packet may overtake another one, which libsrt asks for again.
#[track_caller]
fn lost_nothing<'a>(players: impl IntoIterator<Item = &'a Player>) {
    for player in players {
        let (received, counts) = (player.received(), player.counts());
        assert_eq!((received.gaps, counts.dropped), (0, 0), "{received:?} {counts:?}");
    }
}

fn every_player_gets_every_packet_and_libsrt_counts_no_loss(case: Case) {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, case, &[]);
    watch(&site, case, Duration::from_secs(2));
    site.proxy.stop().unwrap();
}

/// Two players of one stream, for a while, and what that costs the proxy.
fn watch(site: &Site<'_>, case: Case, time: Duration) {
    let is_long = time >= Duration::from_secs(30);
    // Heartbeats, probes and looks cost something without anybody there, and a debug build makes more of it.
    let idle = if is_long { site.share_of_processor(|| sleep(Duration::from_secs(10))) } else { 0.0 };
    let publisher = site.publish("show");
    let players = [site.play("show"), site.play("show")];
    players.iter().for_each(|player| player.wait_for(20, 0, PATIENCE).unwrap());
    let before = site.settled(case.forwarder(), 3);
    assert!(before.sessions.iter().all(|session| session.protocol == "srt"), "{before:#?}");
    let lost_before = players.each_ref().map(|player| player.counts().lost);
    let sent_again = publisher.counts().sent_again;
    let packets = u64::from(RATE) * time.as_secs();
    let share = site.share_of_processor(|| {
        let before = players.each_ref().map(|player| player.received().packets);
        for (player, before) in players.iter().zip(before) {
            player.wait_for(packets, before, PATIENCE + time).unwrap();
        }
    });
    if is_long {
        let [share, idle] = [share, idle].map(|share| share * 100.0);
        println!(
            "{packets} packets to each of two players: {share:.2} % of a processor, {idle:.2} % without anybody"
        );
    }
    let after = site.proxy.status().unwrap();
    let moved = |datapath| after.packets(datapath) - before.packets(datapath);
    if case.expects_kernel() {
        assert!(moved("kernel") >= 3 * packets, "{after:#?}");
        assert!(moved("userspace") * 100 <= moved("kernel"), "{} of {}", moved("userspace"), moved("kernel"));
        assert!(!is_long || share - idle < 0.01, "{share} of a processor, {idle} without anybody");
        assert!(!is_long || cfg!(debug_assertions) || share < 0.01, "{share} of a processor");
    } else {
        assert!(moved("userspace") >= 3 * packets && moved("kernel") == 0, "{after:#?}");
    }
    lost_nothing(&players);
    let lost = players.each_ref().map(|player| player.counts().lost);
    assert_eq!(
        (lost, publisher.counts().sent_again),
        (lost_before, sent_again),
        "by the statistics of libsrt"
    );
}

fn removing_the_offload_midway_loses_nothing(case: Case) {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, case, &[]);
    let _publisher = site.publish("show");
    let players = [site.play("show"), site.play("show")];
    players.iter().for_each(|player| player.wait_for(20, 0, PATIENCE).unwrap());
    for _ in 0..3 {
        site.settled(case.forwarder(), 3);
        site.proxy.switch_offload(false).unwrap();
        site.settled(Engine::Userspace, 3);
        site.proxy.switch_offload(true).unwrap();
    }
    site.settled(case.forwarder(), 3);
    for player in &players {
        player.wait_for(100, player.received().packets, PATIENCE).unwrap();
    }
    lost_nothing(&players);
}

/// The answer that says that the origin took the call is longer than the one with the cookie.
fn a12_a_lost_answer_costs_one_repetition(case: Case) {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, case, &[]);
    let rules = "table netdev lossy {
        chain ingress {
            type filter hook ingress device \"eth0\" priority 0;
            udp sport 20080 udp length > 72 @th,64,16 0x8000 limit rate 1/day burst 1 packets counter drop
        }
    }";
    network.client.run("nft", &[rules]).unwrap();
    let publisher = site.publish("show");
    let players = [site.play("show")];
    players[0].wait_for(50, 0, PATIENCE).unwrap();
    let dropped = network.client.run("nft", &["list", "table", "netdev", "lossy"]).unwrap();
    assert!(dropped.contains("counter packets 1 "), "{dropped}");
    let sessions = site.have_accepted(2);
    assert_eq!(sessions.len(), 2, "one for each caller: {sessions:#?}");
    let status = site.settled(case.forwarder(), 2);
    assert_eq!(status.totals.srt_calls.get("answered"), Some(&2), "{status:#?}");
    lost_nothing(&players);
    drop(publisher);
}

fn a_shutdown_ends_the_session_and_frees_its_port(case: Case) {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, case, &[]);
    let publisher = site.publish("show");
    let player = site.play("show");
    player.wait_for(20, 0, PATIENCE).unwrap();
    site.settled(case.forwarder(), 2);
    drop(player);
    let status = site.ended("closed", 1);
    assert_eq!((status.totals.sessions, status.totals.ports_leased), (1, 1), "{status:#?}");
    drop(publisher);
    let status = site.ended("closed", 2);
    assert_eq!((status.totals.ports_leased, status.totals.ports_resting), (0, 2), "{status:#?}");
    until("the origin was told", PATIENCE, || Ok(site.accepted().iter().any(|session| session.has_ended)))
        .unwrap();
}

fn tc() -> Case {
    Case { engine: Engine::Tc, family: Family::V4 }
}

#[test]
fn a_caller_that_is_killed_is_forgotten_when_it_was_silent_for_long_enough() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[("PROXY_SRT_IDLE_TIMEOUT", "3s")]);
    let _publisher = site.publish("show");
    let mut command = Command::new("srt-live-transmit");
    command.arg("-a:no").arg(transmit_url(&site, "#!::r=live/show,m=request")).arg("file://con");
    let program = start_program(&network.client, command).unwrap();
    site.settled(Engine::Tc, 2);
    program.signal(Signal::KILL).unwrap();
    let status = site.ended("idle", 1);
    assert_eq!(status.totals.offloaded, 1, "{status:#?}");
}

#[test]
fn each_side_may_speak_another_ip_version() {
    for (outside, inside) in [(Family::V6, Family::V4), (Family::V4, Family::V6)] {
        let network = Routed::new().unwrap();
        let site = Site::start_between(&network, Engine::Tc, [outside, inside], &[]);
        let _publisher = site.publish("show");
        let player = site.play("show");
        player.wait_for(50, 0, PATIENCE).unwrap();
        let status = site.settled(Engine::Userspace, 2);
        let reasons: HashSet<_> = status.sessions.iter().map(|session| session.reason.as_deref()).collect();
        assert_eq!(reasons, [Some("address_family")].into(), "{status:#?}");
        lost_nothing([&player]);
    }
}

#[test]
fn who_encrypts_is_taken_as_well() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[]);
    // The origin has no secret: libsrt takes the call, as it does without a proxy.
    let options = CallerOptions {
        passphrase: Some("a secret of two".to_owned()),
        ..site.options("#!::r=live/show,m=publish")
    };
    let caller = network.client.enter(|| Caller::connect(&options)).unwrap();
    // `SRT_REJ_UNSECURE` of the origin, if it insists.
    assert!(caller.is_ok() || caller.as_ref().err() == Some(&Refused(11)), "{caller:?}");
}

#[test]
fn callers_are_told_why_they_are_refused() {
    let network = Routed::new().unwrap();
    let proxy = Proxy::start(&network.proxy, Routed::PROXY, Engine::Tc, &[]).unwrap();
    let to = SocketAddr::from((Routed::PROXY, SRT_PORT));
    let refused = |id: &str| {
        let options = CallerOptions::new(to, id);
        network.client.enter(|| Caller::connect(&options)).unwrap().unwrap_err()
    };
    assert_eq!(refused("#!::r=live/show,m=request"), Refused(1503), "no origin is known");
    assert_eq!(refused("#!::r=live/show,m=steal"), Refused(1405));
    assert_eq!(refused("#!::m=publish,r=/"), Refused(1400));
    proxy.stop().unwrap();
    let site = Site::start(&network, tc(), &[]);
    // What the origin says passes.
    let refused = site.call(&format!("#!::r=live/{FORBIDDEN},m=request")).unwrap_err();
    assert_eq!(refused, Refused(1403));
    let status = site.ended("rejected", 1);
    assert_eq!(
        (status.totals.sessions, status.totals.srt_calls.get("rejected")),
        (0, Some(&1)),
        "{status:#?}"
    );
    let bare = network.client.enter(|| BareCaller::new(site.service(), 7, "live/show")).unwrap();
    bare.induce().unwrap();
    let (_, cookie) = bare.hear(PATIENCE).unwrap();
    bare.conclude(cookie, 4).unwrap();
    assert_eq!(bare.hear(PATIENCE).unwrap().0, Kind::Rejection(Rejection::VERSION));
}

#[test]
fn who_is_one_too_many_is_told() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[("PROXY_MAX_SESSIONS", "1")]);
    let _publisher = site.publish("show");
    assert_eq!(site.call("#!::r=live/show,m=request").unwrap_err(), Refused(1402));
    assert_eq!(site.proxy.status().unwrap().totals.sessions, 1);
}

#[test]
fn an_origin_where_nobody_listens_is_passed_over() {
    const STREAMS: usize = 6;
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[]);
    let rtmp = site.origins[0].as_ref().unwrap().endpoints().rtmp.unwrap();
    let heartbeat = serde_json::json!({
        "ip": rtmp.ip().to_string(), "server": "vid-closed", "service": "first", "pid": "1", "device_id": "closed",
        "rtmp": [rtmp.port().to_string()], "srt": ["udp://0.0.0.0:9"],
    });
    let url = Url::parse(&Proxy::register_url(Routed::PROXY_INSIDE)).unwrap();
    let request = Request::new("POST", url).body("application/json", heartbeat.to_string());
    network.origin_a.enter(|| request.send()).unwrap();
    site.proxy.wait_for_origins(3).unwrap();
    let publishers: Vec<_> = (0..STREAMS).map(|n| site.publish(&format!("show{n}"))).collect();
    let status = site.proxy.status().unwrap();
    assert_eq!(status.totals.sessions, publishers.len(), "{status:#?}");
    // Its host says so, which is sooner than that nobody answers.
    assert!(status.reason("origin_unreachable") > 0, "{status:#?}");
    assert!(status.totals.ended.get("unanswered").is_some_and(|ended| *ended > 0), "{status:#?}");
}

#[test]
fn defect_02_a_conclusion_out_of_nowhere_changes_nothing() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[]);
    let bare = network.client.enter(|| BareCaller::new(site.service(), 7, "live/show")).unwrap();
    bare.conclude(0x418d_5e4e, HSV5).unwrap();
    let seen = |status: &Status| status.reason("bad_cookie") == 1;
    let status = site.proxy.wait(PATIENCE, seen).unwrap();
    assert_eq!((status.totals.sessions, status.totals.ports_leased), (0, 0), "{status:#?}");
    assert!(site.accepted().is_empty());
    let _publisher = site.publish("show");
}

#[test]
fn defect_01_a_silent_origin_delays_nobody_who_calls_another_one() {
    const SILENT: u32 = 40;
    const OTHERS: u32 = 300;
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[]);
    let [(on_a, _a), (on_b, _b)] = site.stream_on_each();
    let silence = "table inet silent {
        chain input {
            type filter hook input priority 0
            meta l4proto udp drop
        }
    }";
    network.origin_a.run("nft", &[silence]).unwrap();
    let begin = |id: u32, stream: &str| {
        let stream_id = format!("#!::r=live/{stream},m=request");
        let caller = network.client.enter(|| BareCaller::new(site.service(), id, stream_id)).unwrap();
        caller.induce().unwrap();
        let (_, cookie) = caller.hear(PATIENCE).unwrap();
        (caller, cookie)
    };
    let silent: Vec<_> = (1..=SILENT).map(|id| begin(id, &on_a)).collect();
    let others: Vec<_> = (1001..=1000 + OTHERS).map(|id| begin(id, &on_b)).collect();
    for (caller, cookie) in silent.iter().chain(&others) {
        caller.conclude(*cookie, HSV5).unwrap();
    }
    // One after another, the calls of the silent origin would take most of a minute by themselves.
    let end = Instant::now() + PATIENCE;
    for (caller, cookie) in &others {
        let answer = loop {
            match caller.hear(Duration::from_millis(500)) {
                Ok((kind, _)) => break kind,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            // libsrt repeats it as well.
            caller.conclude(*cookie, HSV5).unwrap();
        };
        assert_eq!(answer, Kind::Conclusion);
    }
    site.have_accepted(OTHERS as usize);
}

#[test]
fn a_dead_origin_is_called_no_more_and_the_other_one_takes_its_streams() {
    let network = Routed::new().unwrap();
    let mut site = Site::start(&network, tc(), &[]);
    let [(on_a, publisher), (on_b, _kept)] = site.stream_on_each();
    let kept = site.play(&on_b);
    kept.wait_for(20, 0, PATIENCE).unwrap();
    site.settled(Engine::Tc, 3);
    // It is stopped, so its callers are told.
    site.origins[0] = None;
    until("the publisher was told", PATIENCE, || Ok(publisher.is_over())).unwrap();
    let _again = site.publish(&on_a);
    let moved = || site.accepted().iter().any(|session| session.stream_id.contains(&on_a));
    until("the other origin has it", PATIENCE, || Ok(moved())).unwrap();
    let before = kept.received().packets;
    kept.wait_for(50, before, PATIENCE).unwrap();
    lost_nothing([&kept]);
}

#[test]
fn callers_are_told_at_once_when_their_origin_or_the_proxy_is_gone() {
    /// libsrt by itself takes five seconds of silence for the end.
    const TOLD: Duration = Duration::from_secs(2);
    let network = Routed::new().unwrap();
    let quick = [("PROXY_ORIGIN_PROBE_INTERVAL", "300ms"), ("PROXY_ORIGIN_PROBE_TIMEOUT", "300ms")];
    let site = Site::start(&network, tc(), &quick);
    let [(on_a, publisher), (_, kept)] = site.stream_on_each();
    let player = site.play(&on_a);
    player.wait_for(20, 0, PATIENCE).unwrap();
    site.settled(Engine::Tc, 3);
    network.origin_a.ip(&["link", "set", "eth0", "down"]).unwrap();
    let vanished = Instant::now();
    site.ended("origin_down", 2);
    let noticed = vanished.elapsed();
    until("its callers are told", TOLD, || Ok(publisher.is_over() && player.is_over())).unwrap();
    println!(
        "an origin vanished: noticed after {noticed:.1?}, its callers told after {:.1?}",
        vanished.elapsed()
    );
    assert!(!kept.is_over());
    site.proxy.signal(Signal::INT).unwrap();
    until("all others are told", TOLD, || Ok(kept.is_over())).unwrap();
}

#[test]
fn a_caller_that_starts_again_from_its_port_is_a_new_one() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[]);
    let _publisher = site.publish("show");
    let from = SocketAddr::from((Routed::CLIENT, 45_000));
    let request = |id| {
        let caller = BareCaller::from(from, site.service(), id, "#!::r=live/show,m=request")?;
        caller.induce()?;
        let (_, cookie) = caller.hear(PATIENCE)?;
        caller.conclude(cookie, HSV5)?;
        assert_eq!(caller.hear(PATIENCE)?.0, Kind::Conclusion);
        anyhow::Ok(())
    };
    network.client.enter(|| request(7)).unwrap();
    site.settled(Engine::Tc, 2);
    // Nobody said that the first one was over.
    network.client.enter(|| request(8)).unwrap();
    let status = site.ended("replaced", 1);
    assert_eq!(status.totals.sessions, 2, "{status:#?}");
    assert_eq!(site.have_accepted(3).len(), 3);
}

#[test]
fn b6_a_session_goes_on_under_the_next_process() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[("PROXY_ON_STOP", "keep")]);
    let _publisher = site.publish("show");
    let player = site.play("show");
    player.wait_for(20, 0, PATIENCE).unwrap();
    site.settled(Engine::Tc, 2);
    let runtime = site.proxy.runtime();
    let mut command = Proxy::command(Engine::Tc).unwrap();
    command.env("PROXY_ON_STOP", "keep").env("PROXY_TAKE_OVER", "on");
    let heir = Proxy::spawn_in(&network.proxy, Routed::PROXY, command, runtime).unwrap();
    let status =
        heir.wait(PATIENCE, |status| status.totals.adopted == 2 && status.totals.offloaded == 2).unwrap();
    assert!(status.sessions.iter().all(|session| session.protocol == "srt"), "{status:#?}");
    player.wait_for(100, player.received().packets, PATIENCE).unwrap();
    lost_nothing([&player]);
    drop(player);
    let ended = heir.wait(PATIENCE, |status| status.totals.ended.get("closed") == Some(&1)).unwrap();
    assert_eq!(ended.totals.sessions, 1, "{ended:#?}");
    heir.interrupt().unwrap();
}

/// As srt-live-transmit writes it.
fn transmit_url(site: &Site<'_>, stream_id: &str) -> String {
    format!("srt://{}?mode=caller&latency=1000&streamid={stream_id}", site.service())
}

#[test]
fn programs_of_others_publish_and_play() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[]);
    let scratch = Scratch::new("srt-programs").unwrap();
    let clip = Clip::get().unwrap();
    // FFmpeg counts latency in microseconds.
    let url = |mode: &str| {
        format!("srt://{}?latency=1000000&pkt_size=1316&streamid=#!::r=live/show,m={mode}", site.service())
    };
    let _publisher =
        start_program(&network.client, publish(&clip, &["-f", "mpegts", &url("publish")])).unwrap();
    site.settled(Engine::Tc, 1);
    let statistics = scratch.path().join("stats.json");
    let mut transmit = Command::new("srt-live-transmit");
    transmit.args(["-a:no", "-s:50", "-pf:json", &format!("-statsout:{}", statistics.display())]);
    transmit.arg(transmit_url(&site, "#!::r=live/show,m=request")).arg("file://con");
    let transmitting = start_program(&network.client, transmit).unwrap();
    let mut player = ffmpeg();
    player.args(["-t", "3", "-i", &url("request"), "-map", "0:v", "-f", "framemd5", "-"]);
    let frames = finish(&network.client, player).unwrap().success().unwrap();
    let pictures = frames.lines().filter(|line| !line.starts_with('#')).count();
    assert!(pictures > 20, "{pictures} pictures\n{frames}");
    let lost = || loss(&std::fs::read_to_string(&statistics).unwrap_or_default());
    until("statistics of libsrt", PATIENCE, || Ok(lost().is_some_and(|(received, _)| received > 100)))
        .unwrap();
    assert_eq!(lost().map(|(_, lost)| lost), Some(0));
    drop(transmitting);
}

/// Packets received and lost, by the statistics of libsrt in JSON.
fn loss(json: &str) -> Option<(u64, u64)> {
    let lines = json
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line.trim_matches(',')).ok());
    let mut sums = None;
    for line in lines {
        let number = |name: &str| line["recv"][name].as_u64();
        let (received, lost) = sums.unwrap_or((0, 0));
        sums = Some((received + number("packets")?, lost + number("packetsLost")?));
    }
    sums
}

#[test]
fn a_few_seconds_cost_next_to_nothing() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[]);
    watch(&site, tc(), Duration::from_secs(5));
}

#[test]
#[ignore = "long: a minute of two players"]
fn a_minute_costs_less_than_a_hundredth_of_a_processor() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, tc(), &[]);
    watch(&site, tc(), Duration::from_secs(60));
}
