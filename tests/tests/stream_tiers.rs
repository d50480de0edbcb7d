//! What stands before or behind the proxy: another proxy, a cache of nginx between it and many players of HLS. The origin is
//! nginx, what it serves is made by FFmpeg.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use integration_tests::{
    http::{Request, Url},
    live::{
        Cache, Clip, HTTP_PORT, Nginx, PATIENCE, RTMP_PORT, Stage, connections, frames_in, publish, register,
        sockets, start, until, wait_for_connections,
    },
    netns::{Direct, Namespace, Process},
    proxy::{Engine, Proxy},
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn http_flv_is_played_through_two_proxies() {
    const PORT: u16 = 8090;
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let inner = Stage::start(&network, &[]).unwrap();
    register(&network.proxy, Direct::ORIGIN, Nginx::RTMP_PORT, PORT).unwrap();
    let outer = Proxy::start(&network.client, Direct::CLIENT, Engine::Userspace, &[]).unwrap();
    register(&network.client, Direct::PROXY, RTMP_PORT, HTTP_PORT).unwrap();
    outer.wait_for_origins(1).unwrap();
    let url = format!("http://{}:{PORT}/live/tiers.flv", Direct::ORIGIN);
    let _origin = start(&network.origin, publish(&clip, &["-f", "flv", "-listen", "1", &url])).unwrap();
    until("ffmpeg listens", PATIENCE, || Ok(sockets(&network.origin, &["-ltn"], PORT)? == 1)).unwrap();
    let first = format!("http://{}/live/tiers.flv?token=a", SocketAddr::from((Direct::CLIENT, HTTP_PORT)));
    let frames = frames_in(&network.client, &first).unwrap();
    assert!((60..=100).contains(&frames), "{frames} frames");
    for proxy in [&outer, &inner.proxy] {
        wait_for_connections(proxy, SOON, <[_]>::is_empty).unwrap();
    }
    outer.stop().unwrap();
}

/// FFmpeg, as it writes a playlist and segments of a second where nginx serves them. Segments stay: players may be late.
fn segmented(stage: &Stage<'_>, clip: &Clip, name: &str) -> Process {
    let playlist = stage.nginx.file(&format!("live/{name}.m3u8"));
    let segments = stage.nginx.file(&format!("live/{name}-%d.ts"));
    let (playlist, segments) = (playlist.display().to_string(), segments.display().to_string());
    let options = [
        "-f",
        "hls",
        "-hls_time",
        "1",
        "-hls_list_size",
        "6",
        "-hls_flags",
        "temp_file",
        "-hls_segment_filename",
        &segments,
        &playlist,
    ];
    let process = start(&stage.network.origin, publish(clip, &options)).unwrap();
    until("a playlist has segments", PATIENCE, || {
        Ok(fs::read_to_string(&playlist).is_ok_and(|text| text.matches(".ts").count() >= 3))
    })
    .unwrap();
    process
}

#[test]
fn hls_of_ffmpeg_is_played() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let stage = Stage::start(&network, &[]).unwrap();
    let _writer = segmented(&stage, &clip, "cam");
    let frames = frames_in(&network.client, stage.http("cam.m3u8")).unwrap();
    assert!((60..=150).contains(&frames), "{frames} frames");
}

#[test]
fn defect_37_dash_of_ffmpeg_is_played() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let stage = Stage::start(&network, &[]).unwrap();
    let manifest = stage.nginx.file("live/cam.mpd");
    let to = manifest.display().to_string();
    let names = [
        "-init_seg_name",
        "cam-$RepresentationID$-init.mp4",
        "-media_seg_name",
        "cam-$RepresentationID$-$Number$.m4s",
    ];
    let options = [&["-f", "dash", "-seg_duration", "1", "-window_size", "8"][..], &names, &[&to]].concat();
    let _writer = start(&network.origin, publish(&clip, &options)).unwrap();
    let last = stage.nginx.file("live/cam-0-4.m4s");
    until("the manifest has segments", PATIENCE, || Ok(manifest.exists() && last.exists())).unwrap();
    let frames = frames_in(&network.client, stage.http("cam.mpd")).unwrap();
    assert!((50..=250).contains(&frames), "{frames} frames");
}

/// A player of HLS: it fetches the playlist each second, and every segment once.
fn play_hls(playlist: &str, end: Instant) -> Vec<String> {
    const REFRESH: Duration = Duration::from_secs(1);
    let (mut seen, mut fetched) = (BTreeSet::new(), Vec::new());
    let playlist = Url::parse(playlist).unwrap();
    while Instant::now() < end {
        let next = Instant::now() + REFRESH;
        for uri in uris(&get(playlist.clone())) {
            if seen.insert(uri.clone()) {
                let url = playlist.resolve(&format!("/live/{uri}")).unwrap();
                assert!(get(url).starts_with('G'), "{uri} is no segment");
                fetched.push(uri);
            }
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    fetched
}

fn get(url: Url) -> String {
    let answer = Request::new("GET", url.clone()).send().unwrap();
    assert_eq!(answer.status, 200, "{url:?}: {}", answer.body);
    answer.body
}

fn uris(playlist: &str) -> Vec<String> {
    playlist.lines().filter(|line| line.contains(".ts")).map(str::to_owned).collect()
}

/// What each of many players has fetched.
fn play_many(namespace: &Namespace, players: usize, playlist: &str, duration: Duration) -> Vec<Vec<String>> {
    let end = Instant::now() + duration;
    namespace.enter(|| {
        thread::scope(|scope| {
            let playing: Vec<_> = (0..players).map(|_| scope.spawn(|| play_hls(playlist, end))).collect();
            playing.into_iter().map(|player| player.join().unwrap()).collect()
        })
    })
}

fn path(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// The segments that the origin was asked for, as often as it was.
fn asked(nginx: &Nginx) -> Vec<String> {
    let log = nginx.requests();
    let segments = log.lines().filter_map(|line| line.split_whitespace().nth(1)).map(path);
    segments.filter(|path| path.ends_with(".ts")).map(str::to_owned).collect()
}

#[track_caller]
fn fetches_are_shared_by_a_cache_alone(players: usize, duration: Duration) {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let stage = Stage::start(&network, &[]).unwrap();
    let _writer = segmented(&stage, &clip, "cam");
    let played = play_many(&network.client, players, &stage.http("cam.m3u8"), duration);
    let fetched: usize = played.iter().map(Vec::len).sum();
    assert!(played.iter().all(|segments| segments.len() > 3), "{played:?}");
    assert_eq!(asked(&stage.nginx).len(), fetched, "each player's fetch is one at the origin");

    let cache = Cache::start(&network.client, SocketAddr::from((Direct::PROXY, HTTP_PORT))).unwrap();
    let before = asked(&stage.nginx).len();
    let played = play_many(&network.client, players, &cache.url("/live/cam.m3u8"), duration);
    // By their names: what the proxy adds to these must not change.
    let distinct: BTreeSet<_> = played.iter().flatten().map(|uri| path(uri)).collect();
    let asked = asked(&stage.nginx).split_off(before);
    assert_eq!(asked.len(), distinct.len(), "one fetch for each segment: {asked:?}");
    assert!(played.iter().map(Vec::len).sum::<usize>() > distinct.len() * players / 2);
    assert!(connections(&stage.proxy).unwrap().is_empty(), "nothing of HLS is a stream that lasts");
    stage.proxy.stop().unwrap();
}

#[test]
fn many_players_of_hls_cost_the_origin_one_fetch_for_each_segment_behind_a_cache() {
    fetches_are_shared_by_a_cache_alone(20, Duration::from_secs(6));
}

#[test]
#[ignore = "long: a minute, twice"]
fn two_hundred_players_of_hls_cost_the_origin_one_fetch_for_each_segment_behind_a_cache() {
    fetches_are_shared_by_a_cache_alone(200, Duration::from_secs(60));
}
