//! RTMP through the proxy between programs that are not ours: FFmpeg and rtmpdump on one side, nginx on the other. Numbers in
//! names are those of the defects of the proxy that this one replaces.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use integration_tests::{
    live::{
        Clip, Connection, Nginx, PATIENCE, RTMP_PORT, Scratch, Stage, connections, descriptors, finish,
        frames_in, play, publish, register, rtmp_url, start, until, wait_for_connections,
    },
    netns::{Direct, Namespace, Process},
    proxy::{Engine, Proxy},
};

/// What may be seen of three seconds of 25 frames each by somebody who comes at any time.
const THREE_SECONDS: std::ops::RangeInclusive<u32> = 60..=100;
const SOON: Duration = Duration::from_secs(10);

fn to_rtmp(url: &str) -> [&str; 3] {
    ["-f", "flv", url]
}

/// A publisher of a stream, once the origin sends nothing but media.
fn publisher(stage: &Stage<'_>, clip: &Clip, name: &str) -> Process {
    let process = start(&stage.network.client, publish(clip, &to_rtmp(&stage.rtmp(name)))).unwrap();
    wait_for_connections(&stage.proxy, PATIENCE, |listed| {
        listed.iter().any(|one| is_for(one, name) && (one.to_origin > 10_000))
    })
    .unwrap();
    wait_for_video(stage, name);
    process
}

/// What players may ask for before it is there, nginx refuses.
fn wait_for_video(stage: &Stage<'_>, name: &str) {
    let name = name.split('?').next().unwrap();
    stage.nginx.wait_for_video(&stage.network.origin, name).unwrap();
}

fn is_for(connection: &Connection, name: &str) -> bool {
    let name = name.split('?').next().unwrap();
    connection.stream.as_ref().is_some_and(|stream| stream.ends_with(&format!("/live/{name}")))
}

fn wait_until_nobody_is_connected(proxy: &Proxy<'_>) {
    wait_for_connections(proxy, SOON, <[_]>::is_empty).unwrap();
}

#[test]
fn defect_28_a_stream_published_by_ffmpeg_is_played_by_ffprobe_and_its_token_reaches_the_origin() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let stage = Stage::start(&network, &[]).unwrap();
    let before = descriptors(stage.proxy.id()).unwrap();
    let mut publisher = publisher(&stage, &clip, "token?token=abc&x=1");
    let mut player = start(&network.client, play(&stage.rtmp("token?token=def"))).unwrap();
    let listed = wait_for_connections(&stage.proxy, PATIENCE, |listed| {
        listed.iter().filter(|one| is_for(one, "token")).count() == 2
    });
    for connection in listed.unwrap() {
        assert_eq!(
            (connection.protocol.as_str(), connection.origin.as_deref()),
            ("rtmp", Some("vid-live-first-1"))
        );
    }
    let frames = frames_in(&network.client, stage.rtmp("token")).unwrap();
    assert!(THREE_SECONDS.contains(&frames), "{frames} frames");
    player.stop().unwrap();
    publisher.stop().unwrap();
    wait_until_nobody_is_connected(&stage.proxy);
    until("no descriptor is left", SOON, || Ok(descriptors(stage.proxy.id())? <= before)).unwrap();
    until("the origin tells", SOON, || {
        let sessions = stage.nginx.sessions();
        let has = |command: &str, query: &str| {
            sessions.contains(&format!("{command} \"live\" \"token\" \"{query}\""))
        };
        Ok(has("PUBLISH", "token=abc&x=1") && has("PLAY", "token=def"))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", stage.nginx.sessions()));
    stage.proxy.stop().unwrap();
}

#[test]
fn rtmpdump_records_what_ffmpeg_publishes() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let stage = Stage::start(&network, &[]).unwrap();
    let _publisher = publisher(&stage, &clip, "dumped");
    let directory = Scratch::new("dump").unwrap();
    let file = directory.path().join("dump.flv");
    let mut command = Command::new("rtmpdump");
    command.args(["--quiet", "--live", "--rtmp", &stage.rtmp("dumped"), "--flv"]).arg(&file);
    let mut dump = start(&network.client, command).unwrap();
    let enough = std::fs::metadata(clip.path()).unwrap().len();
    until("a whole clip is recorded", PATIENCE, || {
        Ok(std::fs::metadata(&file).is_ok_and(|metadata| metadata.len() > enough))
    })
    .unwrap();
    dump.stop().unwrap();
    let frames = frames_in(&network.client, &file).unwrap();
    assert!(THREE_SECONDS.contains(&frames), "{frames} frames");
}

#[track_caller]
fn is_played_when_joined_by(means: &str) {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let stage = Stage::start(&network, &[("PROXY_TCP_JOIN", means)]).unwrap();
    let _publisher = publisher(&stage, &clip, means);
    let frames = frames_in(&network.client, stage.rtmp(means)).unwrap();
    assert!(THREE_SECONDS.contains(&frames), "{frames} frames");
    wait_for_connections(&stage.proxy, SOON, |listed| listed.len() == 1).unwrap();
}

#[test]
fn defect_27_a_stream_is_played_when_the_proxy_chooses_how_to_join() {
    is_played_when_joined_by("auto");
}

#[test]
fn defect_27_a_stream_is_played_when_joined_by_copying() {
    is_played_when_joined_by("copy");
}

#[test]
fn defect_27_a_stream_is_played_when_joined_by_splicing() {
    is_played_when_joined_by("splice");
}

#[test]
fn a_stream_is_published_and_played_through_two_proxies() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let inner = Stage::start(&network, &[]).unwrap();
    let outer = Proxy::start(&network.client, Direct::CLIENT, Engine::Userspace, &[]).unwrap();
    register(&network.client, Direct::PROXY, RTMP_PORT, RTMP_PORT).unwrap();
    outer.wait_for_origins(1).unwrap();
    let url = rtmp_url(Direct::CLIENT, "tiers?token=abc");
    let mut publisher = start(&network.client, publish(&clip, &to_rtmp(&url))).unwrap();
    let carries = |listed: &[Connection]| listed.iter().any(|one| one.to_origin > 10_000);
    wait_for_connections(&inner.proxy, PATIENCE, carries).unwrap();
    wait_for_video(&inner, "tiers");
    let frames = frames_in(&network.client, &url).unwrap();
    assert!(THREE_SECONDS.contains(&frames), "{frames} frames");
    publisher.stop().unwrap();
    for proxy in [&outer, &inner.proxy] {
        wait_until_nobody_is_connected(proxy);
    }
    until("the origin tells", SOON, || Ok(inner.nginx.sessions().contains("\"tiers\" \"token=abc\"")))
        .unwrap();
    outer.stop().unwrap();
}

/// Opens a connection to the proxy's RTMP port from the namespace of the thread.
fn connect() -> TcpStream {
    let address = SocketAddr::from((Direct::PROXY, RTMP_PORT));
    let stream = TcpStream::connect_timeout(&address, SOON).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// How long a plain handshake takes if nothing else of the machine holds it up: the fastest of several.
fn quickest_handshake(namespace: &Namespace) -> Duration {
    const TIMES: usize = 15;
    (0..TIMES).map(|_| handshake(namespace)).min().unwrap()
}

/// How long a plain handshake takes, from the connection on: two round trips.
fn handshake(namespace: &Namespace) -> Duration {
    let begin = Instant::now();
    let mut stream = namespace.enter(connect);
    let mut hello = [0; 1537];
    hello[0] = 3;
    stream.write_all(&hello).unwrap();
    let mut answer = [0; 1 + 2 * 1536];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], 3);
    begin.elapsed()
}

#[test]
fn defect_29_clients_that_never_finish_their_handshake_delay_nobody_and_are_disconnected() {
    const MANY: usize = 300;
    const TIMEOUT: Duration = Duration::from_secs(8);
    /// What a scheduler may do to the quickest of several on a machine that is never idle.
    const NOISE: Duration = Duration::from_millis(20);
    let network = Direct::new().unwrap();
    let stage = Stage::start(&network, &[("PROXY_API_CLIENT_TIMEOUT", "8s")]).unwrap();
    let alone = quickest_handshake(&network.client);
    wait_until_nobody_is_connected(&stage.proxy);
    let begin = Instant::now();
    let mut idle: Vec<TcpStream> = network.client.enter(|| (0..MANY).map(|_| connect()).collect());
    // Half of them begin one.
    for stream in idle.iter_mut().step_by(2) {
        stream.write_all(&[3; 100]).unwrap();
    }
    wait_for_connections(&stage.proxy, SOON, |listed| listed.len() == MANY).unwrap();
    let among = quickest_handshake(&network.client);
    // Its own round trips once more are what the others may cost it.
    assert!(among <= 2 * alone + NOISE, "alone {alone:?}, among {MANY} {among:?}");
    let waiting = connections(&stage.proxy).unwrap().len();
    assert!(waiting >= MANY, "{waiting} were still waiting {:?} after the first came", begin.elapsed());
    for stream in &mut idle {
        // To its end: signals interrupt a single read that has a time-out.
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(matches!(ended, Ok(0)) || is_reset(&ended), "{ended:?}");
    }
    let had = begin.elapsed();
    assert!((TIMEOUT..2 * TIMEOUT).contains(&had), "they had {had:?}");
    wait_until_nobody_is_connected(&stage.proxy);
}

fn is_reset(read: &std::io::Result<usize>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn defect_28_a_publisher_is_told_that_there_is_no_origin() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let proxy = Proxy::start(&network.proxy, Direct::PROXY, Engine::Userspace, &[]).unwrap();
    let url = rtmp_url(Direct::PROXY, "nowhere");
    let publisher = finish(&network.client, publish(&clip, &to_rtmp(&url))).unwrap();
    assert!(publisher.has_failed(), "{publisher:?}");
    assert!(publisher.complaints.contains("no origin is up for this stream"), "{publisher:?}");
    let player = finish(&network.client, play(&url)).unwrap();
    assert!(player.has_failed(), "{player:?}");
    wait_until_nobody_is_connected(&proxy);
}

#[test]
fn defect_28_a_publisher_is_told_that_the_origin_cannot_be_reached() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let mut stage = Stage::start(&network, &[]).unwrap();
    stage.nginx.kill().unwrap();
    let publisher = finish(&network.client, publish(&clip, &to_rtmp(&stage.rtmp("late")))).unwrap();
    assert!(publisher.has_failed(), "{publisher:?}");
    let reasons = ["no origin is up for this stream", "the origin of this stream cannot be reached"];
    assert!(reasons.iter().any(|reason| publisher.complaints.contains(reason)), "{publisher:?}");
    wait_until_nobody_is_connected(&stage.proxy);
}

#[test]
fn defect_28_the_second_publisher_of_a_stream_is_refused_and_the_first_goes_on() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let stage = Stage::start(&network, &[]).unwrap();
    let _publisher = publisher(&stage, &clip, "taken");
    let second = finish(&network.client, publish(&clip, &to_rtmp(&stage.rtmp("taken")))).unwrap();
    assert!(second.has_failed(), "{second:?}");
    wait_for_connections(&stage.proxy, SOON, |listed| listed.len() == 1).unwrap();
    let frames = frames_in(&network.client, stage.rtmp("taken")).unwrap();
    assert!(THREE_SECONDS.contains(&frames), "{frames} frames");
}

#[test]
fn clients_that_speak_http_or_tls_to_the_port_of_rtmp_are_disconnected_at_once() {
    const WELL_BELOW_THE_TIMEOUT: Duration = Duration::from_secs(5);
    let network = Direct::new().unwrap();
    let stage = Stage::start(&network, &[("PROXY_API_CLIENT_TIMEOUT", "20s")]).unwrap();
    for scheme in ["http", "https"] {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--insecure"]);
        command.arg(format!("{scheme}://{}/", SocketAddr::from((Direct::PROXY, RTMP_PORT))));
        let begin = Instant::now();
        let curl = finish(&network.client, command).unwrap();
        assert!(curl.has_failed() && (begin.elapsed() < WELL_BELOW_THE_TIMEOUT), "{scheme}: {curl:?}");
        wait_until_nobody_is_connected(&stage.proxy);
    }
}

#[test]
fn publisher_and_player_end_with_their_origin_and_the_proxy_forgets_them() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let mut stage = Stage::start(&network, &[]).unwrap();
    let mut publisher = publisher(&stage, &clip, "killed");
    let mut player = start(&network.client, play(&stage.rtmp("killed"))).unwrap();
    wait_for_connections(&stage.proxy, PATIENCE, |listed| listed.iter().any(|one| one.to_client > 10_000))
        .unwrap();
    stage.nginx.kill().unwrap();
    for client in [&mut player, &mut publisher] {
        client.wait(SOON).unwrap();
    }
    wait_until_nobody_is_connected(&stage.proxy);
    stage.nginx = Nginx::start(&network.origin, Direct::ORIGIN).unwrap();
    stage.proxy.wait_for_origins(1).unwrap();
    stage.proxy.stop().unwrap();
}

#[test]
fn defect_11_streams_of_an_origin_that_vanishes_end_so_that_clients_come_again() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let stage = Stage::start(&network, &[("PROXY_ORIGIN_PROBE_INTERVAL", "500ms")]).unwrap();
    let mut publisher = publisher(&stage, &clip, "cut-off");
    let mut player = start(&network.client, play(&stage.rtmp("cut-off"))).unwrap();
    wait_for_connections(&stage.proxy, PATIENCE, |listed| listed.iter().any(|one| one.to_client > 10_000))
        .unwrap();
    // Nothing tells the proxy's sockets: they would wait for a quarter of an hour.
    network.origin.ip(&["link", "set", "eth0", "down"]).unwrap();
    for client in [&mut player, &mut publisher] {
        client.wait(PATIENCE).unwrap();
    }
    wait_until_nobody_is_connected(&stage.proxy);
}
