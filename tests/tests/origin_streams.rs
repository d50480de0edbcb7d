//! The streams over TCP of the test origin, between programs that are not ours: first by themselves, for what is counted
//! behind a proxy must be right without one, then through the proxy.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use integration_tests::{
    http::{Request, Url},
    live::{
        Clip, HTTP_PORT, PATIENCE, RTMP_PORT, Scratch, ffmpeg, finish, frames_in, play, publish, start,
        until, wait_for_connections,
    },
    netns::{Direct, End, MTU, Namespace, Process, join},
    origin::{LiveStats, Origin, OriginConfig},
    proxy::{Engine, Proxy},
    site,
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 70, 1, 1);
const ORIGIN: Ipv4Addr = Ipv4Addr::new(10, 70, 1, 2);
const SOON: Duration = Duration::from_secs(10);
/// What may be seen of three seconds of 25 frames each by somebody who comes at any time.
const THREE_SECONDS: std::ops::RangeInclusive<u32> = 60..=100;

/// An origin, and clients on the other side of a link.
struct Stage {
    origin: Origin,
    client: Namespace,
    _far: Namespace,
}

impl Stage {
    fn new(adjust: impl FnOnce(&mut OriginConfig) + Send) -> Self {
        let (client, far) = (Namespace::new("client").unwrap(), Namespace::new("origin").unwrap());
        let end = |namespace, address| End { namespace, interface: "eth0", address: Some(address) };
        join(end(&client, CLIENT), end(&far, ORIGIN), MTU).unwrap();
        let origin = far.enter(|| {
            let mut config = OriginConfig::on(ORIGIN);
            adjust(&mut config);
            Origin::start(config).unwrap()
        });
        Self { origin, client, _far: far }
    }

    fn rtmp(&self, stream: &str) -> String {
        format!("rtmp://{}/live/{stream}", self.origin.endpoints().rtmp.unwrap())
    }

    fn http(&self, file: &str) -> String {
        format!("http://{}/live/{file}", self.origin.endpoints().http.unwrap())
    }

    /// A publisher, once media has come from it.
    fn publisher(&self, clip: &Clip, stream: &str) -> Process {
        let command = publish(clip, &["-f", "flv", &self.rtmp(stream)]);
        let process = start(&self.client, command).unwrap();
        self.wait(stream, |stats| stats.video_frames > 0);
        process
    }

    #[track_caller]
    fn wait(&self, stream: &str, holds: impl Fn(&LiveStats) -> bool) {
        let name = format!("live/{stream}");
        until(&name, PATIENCE, || {
            Ok(self.origin.stats().live.iter().any(|stats| (stats.stream == name) && holds(stats)))
        })
        .unwrap_or_else(|error| panic!("{error}: {:#?}", self.origin.stats().live));
    }

    fn get(&self, url: &str) -> (u16, String) {
        let request = Request::new("GET", Url::parse(url).unwrap());
        let response = self.client.enter(|| request.send()).unwrap();
        (response.status, response.body)
    }

    /// A request whose answer nobody has read yet.
    fn ask(&self, target: &str) -> TcpStream {
        let address = self.origin.endpoints().http.unwrap();
        let mut stream = self.client.enter(|| TcpStream::connect(address)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
        stream
    }
}

/// FFprobe plays each of these at once.
#[track_caller]
fn are_played(namespace: &Namespace, urls: &[String]) {
    let frames: Vec<_> = thread::scope(|scope| {
        let players: Vec<_> = urls.iter().map(|url| scope.spawn(move || frames_in(namespace, url))).collect();
        players.into_iter().map(|player| player.join().unwrap()).collect()
    });
    for (url, frames) in urls.iter().zip(frames) {
        let frames = frames.unwrap_or_else(|error| panic!("{url}: {error:#}"));
        assert!(THREE_SECONDS.contains(&frames), "{url}: {frames} frames");
    }
}

#[test]
fn what_ffmpeg_publishes_is_played_by_rtmp_http_flv_http_ts_and_hls() {
    let (clip, stage) = (Clip::get().unwrap(), Stage::new(|_| {}));
    let mut publisher = stage.publisher(&clip, "s");
    stage.wait("s", |stats| stats.segments > 3);
    let urls = [stage.rtmp("s"), stage.http("s.flv"), stage.http("s.ts"), stage.http("s.m3u8")];
    are_played(&stage.client, &urls);
    stage.wait("s", |stats| stats.rtmp_players + stats.http_flv_players + stats.http_ts_players == 0);
    publisher.stop().unwrap();
    stage.wait("s", |stats| !stats.is_published && (stats.left_behind == 0));
    let stats = stage.origin.stats().live.remove(0);
    let span = u64::from(stats.last_ms - stats.first_ms.unwrap());
    assert_eq!(span / 40 + 1, stats.video_frames, "a publisher loses nothing: {stats:?}");
}

#[test]
fn rtmpdump_plays_too() {
    let (clip, stage) = (Clip::get().unwrap(), Stage::new(|_| {}));
    let _publisher = stage.publisher(&clip, "s");
    let directory = Scratch::new("dump").unwrap();
    let file = directory.path().join("dump.flv");
    let mut command = Command::new("rtmpdump");
    command.args(["--quiet", "--live", "--rtmp", &stage.rtmp("s"), "--flv"]).arg(&file);
    let mut dump = start(&stage.client, command).unwrap();
    let enough = fs::metadata(clip.path()).unwrap().len();
    until("a whole clip is recorded", PATIENCE, || {
        Ok(fs::metadata(&file).is_ok_and(|file| file.len() > enough))
    })
    .unwrap();
    dump.stop().unwrap();
    stage.wait("s", |stats| stats.rtmp_players == 0);
    let frames = frames_in(&stage.client, &file).unwrap();
    assert!(THREE_SECONDS.contains(&frames), "{frames} frames");
}

#[test]
fn hls_players_have_contexts_as_those_of_srs_unless_told_otherwise() {
    let (clip, stage) = (Clip::get().unwrap(), Stage::new(|_| {}));
    let _publisher = stage.publisher(&clip, "s");
    stage.wait("s", |stats| stats.segments > 0);
    let (status, master) = stage.get(&stage.http("s.m3u8?token=a%2Fb+c"));
    let head = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,AVERAGE-BANDWIDTH=1\n/live/s.m3u8?hls_ctx=";
    assert_eq!(status, 200);
    let rest = master.strip_prefix(head).unwrap_or_else(|| panic!("{master}"));
    let context = rest.strip_suffix("&token=a%2Fb+c\n").unwrap_or_else(|| panic!("{master}"));
    assert_eq!(context.len(), 8);
    let (_, media) = stage.get(&stage.http(&format!("s.m3u8?hls_ctx={context}")));
    let segments = media.lines().filter(|line| !line.starts_with('#'));
    assert!(segments.clone().all(|line| line.ends_with(&format!(".ts?hls_ctx={context}"))), "{media}");
    let (status, segment) = stage.get(&stage.http(segments.clone().next_back().unwrap()));
    assert!((status == 200) && segment.starts_with('G'), "{status}");
    assert_eq!(stage.get(&stage.http("s-100000.ts?hls_ctx=1")).0, 404);
    assert_eq!(stage.get(&stage.http("absent.m3u8")).0, 404);

    let stage = Stage::new(|config| config.hls.contexts = false);
    let _publisher = stage.publisher(&clip, "s");
    stage.wait("s", |stats| stats.segments > 0);
    let (_, media) = stage.get(&stage.http("s.m3u8"));
    let segment = media.lines().find(|line| !line.starts_with('#')).unwrap();
    assert!(segment.ends_with(".ts"), "{media}");
    assert_eq!(stage.get(&stage.http(segment)).0, 200);
}

#[test]
fn heads_of_streams_are_those_of_srs_and_come_with_the_stream() {
    let (clip, stage) = (Clip::get().unwrap(), Stage::new(|_| {}));
    let mut waiting = ["/live/s.flv", "/live/s.ts"].map(|target| stage.ask(target));
    stage.wait("s", |stats| stats.http_flv_players + stats.http_ts_players == 2);
    for stream in &mut waiting {
        stream.set_nonblocking(true).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::WouldBlock,
            "nothing is said before there is a publisher"
        );
        stream.set_nonblocking(false).unwrap();
    }
    let mut publisher = stage.publisher(&clip, "s");
    for (stream, kind) in waiting.iter_mut().zip(["video/x-flv", "video/MP2T"]) {
        let head = format!(
            "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Type: {kind}\r\nServer: SRS/7.0.18(Hang)\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        let body: &[u8] = match kind {
            "video/x-flv" => b"9\r\nFLV\x01\x05\0\0\0\x09\r\n4\r\n\0\0\0\0\r\n",
            _ => b"",
        };
        let expected = [head.as_bytes(), body].concat();
        let mut got = vec![0; expected.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&expected));
    }
    publisher.stop().unwrap();
    for mut stream in waiting {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.len() > 1000 && !rest.ends_with(b"\r\n0\r\n\r\n"), "an answer ends with its publisher");
    }
}

#[test]
fn a_connection_is_left_to_the_client_although_srs_says_that_it_closes() {
    const FOR_PAGES: &str = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: *\r\n\
        Access-Control-Allow-Methods: *\r\nAccess-Control-Expose-Headers: *\r\n\
        Access-Control-Allow-Credentials: false\r\nAccess-Control-Request-Private-Network: true\r\n";
    let stage = Stage::new(|_| {});
    let address = stage.origin.endpoints().http.unwrap();
    let mut stream = stage.client.enter(|| TcpStream::connect(address)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    for (field, for_pages) in
        [("", ""), ("Origin: http://page\r\n", FOR_PAGES), ("Connection: close\r\n", "")]
    {
        write!(stream, "GET /live/absent.m3u8 HTTP/1.1\r\nHost: h\r\n{field}\r\n").unwrap();
        let answer = format!(
            "HTTP/1.1 404 Not Found\r\nConnection: Close\r\n{for_pages}Content-Length: 9\r\n\
             Content-Type: text/plain; charset=utf-8\r\nServer: SRS/7.0.18(Hang)\r\n\r\nNot Found"
        );
        let mut got = vec![0; answer.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), answer);
    }
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_second_publisher_of_a_stream_is_refused_and_the_first_goes_on() {
    let (clip, stage) = (Clip::get().unwrap(), Stage::new(|_| {}));
    let mut first = stage.publisher(&clip, "s");
    let second = finish(&stage.client, publish(&clip, &["-f", "flv", &stage.rtmp("s?token=1")])).unwrap();
    assert!(second.has_failed(), "{second:?}");
    are_played(&stage.client, &[stage.rtmp("s")]);
    first.stop().unwrap();
    stage.wait("s", |stats| !stats.is_published);
    let _third = stage.publisher(&clip, "s");
}

#[test]
fn a_player_that_takes_nothing_is_left_behind_and_the_publisher_goes_on() {
    let (clip, stage) = (Clip::get().unwrap(), Stage::new(|_| {}));
    // As fast as it can.
    let mut command = ffmpeg();
    command.args(["-stream_loop", "-1", "-i"]).arg(clip.path()).args([
        "-c",
        "copy",
        "-f",
        "flv",
        &stage.rtmp("s"),
    ]);
    let _publisher = start(&stage.client, command).unwrap();
    stage.wait("s", |stats| stats.video_frames > 0);
    let _slow = stage.ask("/live/s.flv");
    stage.wait("s", |stats| stats.left_behind == 1);
    let frames = |stage: &Stage| stage.origin.stats().live[0].video_frames;
    let then = frames(&stage);
    stage.wait("s", |stats| stats.is_published && (stats.video_frames > then));
}

#[test]
fn all_connections_end_with_the_origin() {
    let (clip, mut stage) = (Clip::get().unwrap(), Stage::new(|_| {}));
    let mut publisher = stage.publisher(&clip, "s");
    let mut players =
        [stage.rtmp("s"), stage.http("s.flv")].map(|url| start(&stage.client, play(&url)).unwrap());
    stage.wait("s", |stats| stats.rtmp_players + stats.http_flv_players == 2);
    stage.origin = stage._far.enter(|| Origin::start(OriginConfig::on(ORIGIN)).unwrap());
    publisher.wait(SOON).unwrap();
    for player in &mut players {
        player.wait(SOON).unwrap();
    }
    assert_eq!(stage.origin.stats().live, []);
}

#[track_caller]
fn are_played_through_the_proxy(contexts: bool) {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let proxy = Proxy::start(&network.proxy, Direct::PROXY, Engine::Userspace, &[]).unwrap();
    let origin = site::origin_with(&network.origin, Direct::ORIGIN, Direct::PROXY_INSIDE, |config| {
        config.hls.contexts = contexts;
    })
    .unwrap();
    proxy.wait_for_origins(1).unwrap();
    let rtmp = format!("rtmp://{}/live/s", SocketAddr::from((Direct::PROXY, RTMP_PORT)));
    let _publisher = start(&network.client, publish(&clip, &["-f", "flv", &rtmp])).unwrap();
    until("there are segments", PATIENCE, || Ok(origin.stats().live.iter().any(|stats| stats.segments > 3)))
        .unwrap();
    let http = |file| format!("http://{}/live/{file}", SocketAddr::from((Direct::PROXY, HTTP_PORT)));
    are_played(&network.client, &[rtmp, http("s.flv"), http("s.ts"), http("s.m3u8")]);
    wait_for_connections(&proxy, SOON, |listed| {
        (listed.len() == 1) && listed.iter().all(|one| one.joined.as_deref() == Some("copy"))
    })
    .unwrap();
}

#[test]
fn all_protocols_are_played_through_the_proxy() {
    are_played_through_the_proxy(true);
}

#[test]
fn all_protocols_are_played_through_the_proxy_without_contexts_of_hls_players() {
    are_played_through_the_proxy(false);
}
