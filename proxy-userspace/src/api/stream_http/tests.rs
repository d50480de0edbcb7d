//! Players and origins on loopback, with the router between them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use super::*;
use crate::{
    api::testing::{Asked, PATIENCE, TestOrigin, get, send, text},
    config::Config,
    origin::{Origin, OriginId, Registry as _, balance::Terms, memory::MemoryRegistry},
};

/// SRS 7.0.18 with `hls_ctx on`, and what it answers to the URI in that.
const MASTER: &str = include_str!("../../../protocol/tests/data/srs_hls_master.m3u8");
const MEDIA: &str = include_str!("../../../protocol/tests/data/srs_hls_media.m3u8");
const MANIFEST: &str = include_str!("../../../protocol/tests/data/srs.mpd");
const PLAYLIST: &str = "/live/cam-1.m3u8?token=a%2Fb+c";

/// As SRS of these settings: every text has an ETag, as if something in front of it made one.
fn srs_origin(hls_ctx: bool) -> TestOrigin {
    TestOrigin::start(move |asked| srs(hls_ctx, asked))
}

fn srs(hls_ctx: bool, asked: &Asked) -> Response {
    let path = asked.target.split('?').next().unwrap_or_default();
    let (kind, body) = match path.rsplit_once('.').unwrap_or_default().1 {
        "m3u8" if hls_ctx && !asked.target.contains("hls_ctx=") => ("application/vnd.apple.mpegurl", MASTER),
        "m3u8" => ("application/vnd.apple.mpegurl", MEDIA),
        "mpd" => ("text/xml", MANIFEST),
        _ => ("video/MP2T", "0123456789"),
    };
    let body = if hls_ctx { body.to_owned() } else { body.replace("?hls_ctx=336vqi2o", "") };
    let headers = [
        ("content-type", kind),
        ("cache-control", "max-age=1"),
        ("access-control-allow-origin", "https://page.example"),
        ("etag", "\"1\""),
        ("connection", "Close"),
    ];
    (headers, body).into_response()
}

struct Rig {
    registry: Arc<MemoryRegistry>,
    config: Config,
    router: Router,
}

impl Rig {
    fn new() -> Self {
        let variables = [
            ("PROXY_ORIGIN_PROBE_INTERVAL", "0s"),
            ("PROXY_HLS_KEY", "one of a fleet"),
            ("PROXY_API_ORIGIN_TIMEOUT", "2s"),
        ];
        let config = Config::from_variables(variables).unwrap();
        let (registry, _events) = MemoryRegistry::new(config.origins, config.balancing.clone());
        let streams = Streams::new(&config, Arc::clone(&registry) as _);
        let router = router(streams, StaticFiles::new(&config));
        let ends = Connection {
            peer: SocketAddr::from(([192, 0, 2, 1], 4000)),
            local: SocketAddr::from(([192, 0, 2, 9], 18080)),
        };
        Self { registry, config, router: router.layer(Extension(ends)) }
    }

    async fn with(server: &str, origin: &TestOrigin) -> Self {
        let rig = Self::new();
        rig.register(server, origin.address).await;
        rig
    }

    async fn register(&self, server: &str, http: SocketAddr) {
        let id = OriginId::new(server, "service", "1");
        let origin = Origin { http: Some(http), ..Origin::bare(server, id, http.ip()) };
        self.registry.register(origin, Terms::default()).await.unwrap();
    }

    fn id_of(&self, server: &str) -> String {
        self.config.backend_key().id_of(server)
    }

    async fn get(&self, target: &str) -> Response {
        get(self.router.clone(), target).await
    }

    async fn ask(&self, method: Method, target: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(self.router.clone(), request.body(Body::empty()).unwrap()).await
    }

    fn picks(&self) -> usize {
        self.registry.known().picks.len()
    }
}

#[tokio::test]
async fn versions_have_the_shape_of_srs() {
    let (status, body) = text(Rig::new().get("/api/v1/versions").await).await;
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &json["code"]), (StatusCode::OK, &0.into()));
    assert!(json["data"]["major"].is_number() && json["data"]["version"].is_string());
}

#[tokio::test]
async fn what_is_no_media_is_refused_with_words() {
    let rig = Rig::new();
    assert_eq!(rig.get("/index.html").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(rig.ask(Method::POST, PLAYLIST, &[]).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let answer = rig.get(PLAYLIST).await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn every_uri_of_playlists_and_manifests_names_its_origin() {
    let origin = srs_origin(true);
    let rig = Rig::with("vid-1", &origin).await;
    let id = rig.id_of("vid-1");
    let (_, master) = text(rig.get(PLAYLIST).await).await;
    assert_eq!(master, MASTER.replace("?hls_ctx", &format!("?spbhid={id}&hls_ctx")));
    let link = master.lines().find(|line| line.starts_with('/')).unwrap();
    let (_, media) = text(rig.get(link).await).await;
    assert_eq!(media, MEDIA.replace("?hls_ctx", &format!("?spbhid={id}&hls_ctx")));
    assert_eq!(origin.last().target, "/live/cam-1.m3u8?hls_ctx=336vqi2o&token=a%2Fb+c");
    let (_, manifest) = text(rig.get("/live/cam-1.mpd").await).await;
    assert!(manifest.contains(&format!("spbhid={id}")), "{manifest}");
    let (_, again) = text(rig.get(PLAYLIST).await).await;
    assert_eq!(again, master, "caches hold");
}

#[tokio::test]
async fn playlists_without_contexts_of_viewers_do_too() {
    let origin = srs_origin(false);
    let rig = Rig::with("vid-1", &origin).await;
    let (_, media) = text(rig.get("/live/cam-1.m3u8").await).await;
    assert_eq!(media.matches(&format!(".ts?spbhid={}\n", rig.id_of("vid-1"))).count(), 6, "{media}");
}

#[tokio::test]
async fn defect_17_headers_of_both_sides_are_kept_but_for_what_the_new_text_changes() {
    let origin = srs_origin(false);
    let rig = Rig::with("vid-1", &origin).await;
    let headers = [
        ("host", "cdn.example"),
        ("user-agent", "player"),
        ("x-forwarded-for", "1.2.3.4"),
        ("if-none-match", "\"1\""),
        ("accept-encoding", "gzip"),
        ("connection", "close"),
    ];
    let answer = rig.ask(Method::GET, PLAYLIST, &headers).await;
    let asked = origin.last();
    for (name, value) in [
        ("host", "cdn.example"),
        ("user-agent", "player"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-real-ip", "192.0.2.1"),
    ] {
        assert_eq!(asked.headers[name], value);
    }
    for name in ["if-none-match", "accept-encoding", "connection"] {
        assert_eq!(asked.headers.get(name), None, "{name}");
    }
    let of_answer = answer.headers().clone();
    let (_, body) = text(answer).await;
    assert_eq!(of_answer["content-length"], body.len().to_string());
    assert_eq!(of_answer["content-type"], "application/vnd.apple.mpegurl");
    assert_eq!(of_answer["cache-control"], "max-age=1");
    assert_eq!(of_answer["access-control-allow-origin"], "https://page.example");
    assert!(of_answer.get("etag").is_none() && of_answer.get("connection").is_none());
    let head = rig.ask(Method::HEAD, PLAYLIST, &[("host", "cdn.example")]).await;
    assert_eq!(head.headers()["content-length"], body.len().to_string());
    assert_eq!(text(head).await.1, "");
}

#[tokio::test]
async fn what_an_origin_says_instead_of_a_playlist_passes() {
    let origin = TestOrigin::start(|asked| {
        let status = if asked.target.contains("gone") { StatusCode::NOT_FOUND } else { StatusCode::OK };
        (status, [("etag", "\"1\"")], "#EXTM3V\nx.ts\n").into_response()
    });
    let rig = Rig::with("vid-1", &origin).await;
    for (target, status) in [("/live/gone.m3u8", StatusCode::NOT_FOUND), ("/live/odd.m3u8", StatusCode::OK)] {
        let answer = rig.get(target).await;
        assert_eq!(answer.headers()["etag"], "\"1\"");
        assert_eq!(text(answer).await, (status, "#EXTM3V\nx.ts\n".to_owned()));
    }
}

#[tokio::test]
async fn a_segment_comes_from_the_origin_of_its_id_which_does_not_see_it() {
    let (first, second) = (srs_origin(true), srs_origin(true));
    let rig = Rig::with("vid-1", &first).await;
    rig.register("vid-2", second.address).await;
    for (server, origin) in [("vid-1", &first), ("vid-2", &second)] {
        let target = format!("/live/cam-1-7.ts?spbhid={}&hls_ctx=336vqi2o&token=a%2Fb+c", rig.id_of(server));
        assert_eq!(text(rig.get(&target).await).await.1, "0123456789");
        assert_eq!(origin.last().target, "/live/cam-1-7.ts?hls_ctx=336vqi2o&token=a%2Fb+c");
    }
    assert_eq!(rig.picks(), 0);
}

#[tokio::test]
async fn ranges_and_conditions_of_segments_are_the_origins_matter() {
    let origin = TestOrigin::start(|asked| match asked.headers.get("range") {
        Some(_) => (StatusCode::PARTIAL_CONTENT, [("content-range", "bytes 2-3/10")], "23").into_response(),
        None if asked.headers.contains_key("if-none-match") => {
            (StatusCode::NOT_MODIFIED, [("etag", "\"1\"")]).into_response()
        }
        None => ([("etag", "\"1\"")], "0123456789").into_response(),
    });
    let rig = Rig::with("vid-1", &origin).await;
    let target = format!("/live/s/video-7.m4s?spbhid={}", rig.id_of("vid-1"));
    let part = rig.ask(Method::GET, &target, &[("range", "bytes=2-3")]).await;
    assert_eq!(origin.last().headers["range"], "bytes=2-3");
    assert_eq!(
        (&part.headers()["content-range"], &part.headers()["content-length"]),
        (&"bytes 2-3/10".parse().unwrap(), &"2".parse().unwrap())
    );
    assert_eq!(text(part).await, (StatusCode::PARTIAL_CONTENT, "23".to_owned()));
    let since = "Wed, 25 Nov 2026 20:00:00 GMT";
    let same =
        rig.ask(Method::GET, &target, &[("if-none-match", "\"1\""), ("if-modified-since", since)]).await;
    assert_eq!(
        (same.status(), &same.headers()["etag"]),
        (StatusCode::NOT_MODIFIED, &"\"1\"".parse().unwrap())
    );
    assert_eq!(origin.last().headers["if-modified-since"], since);
    let head = rig.ask(Method::HEAD, &target, &[]).await;
    assert_eq!((head.status(), &head.headers()["content-length"]), (StatusCode::OK, &"10".parse().unwrap()));
    assert_eq!(origin.last().method, Method::HEAD);
    rig.ask(Method::OPTIONS, &target, &[("origin", "https://page.example")]).await;
    assert_eq!(
        (origin.last().method, &origin.last().headers["origin"]),
        (Method::OPTIONS, &"https://page.example".parse().unwrap())
    );
}

#[tokio::test]
async fn a_segment_whose_origin_is_gone_is_asked_for_where_the_stream_is() {
    let (gone, heir) = (srs_origin(true), srs_origin(true));
    let rig = Rig::with("vid-heir", &heir).await;
    let target = format!("/live/cam-1-7.ts?spbhid={}", rig.id_of("vid-gone"));
    assert_eq!(rig.get(&target).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(rig.picks(), 0, "it chooses none");
    rig.get("/live/cam-1.m3u8").await;
    assert_eq!(rig.get(&target).await.status(), StatusCode::OK);
    // Registered, but dead.
    rig.register("vid-gone", gone.address).await;
    gone.kill().await;
    assert_eq!(rig.get(&target).await.status(), StatusCode::OK);
    assert_eq!(heir.last().target, "/live/cam-1-7.ts");
}

#[tokio::test]
async fn a_forged_id_reaches_nobody() {
    let origin = srs_origin(true);
    let rig = Rig::with("vid-1", &origin).await;
    let id = rig.id_of("vid-1");
    let other = Config::default().backend_key().id_of("vid-1");
    for forged in [&other, "127.0.0.1:8080", "vid-1", &id[..23], "7a8b9c0", ""] {
        let answer = rig.get(&format!("/live/cam-1-7.ts?spbhid={forged}")).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{forged}");
    }
    assert!(origin.asked.lock().is_empty());
}

#[tokio::test]
async fn a_segment_without_an_id_is_found_by_its_stream() {
    let origin = srs_origin(false);
    let rig = Rig::with("vid-1", &origin).await;
    assert_eq!(rig.get("/live/cam-7.m4s").await.status(), StatusCode::NOT_FOUND);
    rig.get("/live/cam.m3u8").await;
    for target in ["/live/cam-7.m4s", "/live/cam-7.ts", "/live/cam/video-3.m4s", "/live/cam-0.key"] {
        assert_eq!(rig.get(target).await.status(), StatusCode::OK, "{target}");
        assert_eq!(origin.last().target, target);
    }
    assert_eq!(rig.picks(), 1);
}

#[tokio::test]
async fn defect_26_requests_leave_nothing_behind() {
    let origin = srs_origin(true);
    let rig = Rig::with("vid-1", &origin).await;
    let id = rig.id_of("vid-1");
    for number in 0..10_000 {
        let target = match number % 100 {
            0 => format!("/live/cam-{number}.ts?spbhid={id}"),
            1 => format!("/live/cam.m3u8?n={number}"),
            _ => format!("/live/none{number}-1.m4s?spbhid=forged{number}"),
        };
        text(rig.get(&target).await).await;
    }
    assert_eq!(rig.picks(), 1, "that of the playlist");
    assert_eq!(origin.asked.lock().len(), 200);
}

#[tokio::test]
async fn connections_to_origins_are_used_again() {
    let origin = TestOrigin::start(|_| "0123456789".into_response());
    let rig = Rig::with("vid-1", &origin).await;
    let target = format!("/live/cam-1-7.ts?spbhid={}", rig.id_of("vid-1"));
    for _ in 0..20 {
        assert_eq!(text(rig.get(&target).await).await.1, "0123456789");
    }
    let peers: std::collections::HashSet<_> = origin.asked.lock().iter().map(|asked| asked.peer).collect();
    assert!(peers.len() < 5, "{peers:?}");
}

#[tokio::test]
async fn a_body_is_passed_as_it_comes() {
    let (sender, receiver) = oneshot::channel::<()>();
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let origin = TestOrigin::start(move |_| {
        let mut rest = receiver.lock().take();
        let first = stream::once(async { Ok::<_, axum::BoxError>(Bytes::from_static(b"first")) });
        let rest = stream::once(async move {
            rest.take().expect("asked once").await?;
            Ok(Bytes::from_static(b"last"))
        });
        Body::from_stream(futures_util::StreamExt::chain(first, rest)).into_response()
    });
    let rig = Rig::with("vid-1", &origin).await;
    let mut body = rig.get(&format!("/live/cam-7.ts?spbhid={}", rig.id_of("vid-1"))).await.into_body();
    let first = timeout(PATIENCE, body.frame()).await.expect("before the end").unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    sender.send(()).unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_29_an_origin_that_stops_in_the_middle_is_given_up() {
    let origin = TestOrigin::start(|asked| {
        if asked.target.contains("silent") {
            std::thread::sleep(Duration::from_secs(3));
        }
        let first = stream::once(async { Ok::<_, axum::BoxError>(Bytes::from_static(b"first")) });
        let never = stream::pending();
        Body::from_stream(futures_util::StreamExt::chain(first, never)).into_response()
    });
    let rig = Rig::with("vid-1", &origin).await;
    let id = rig.id_of("vid-1");
    let answer = rig.get(&format!("/live/cam-7.ts?spbhid={id}")).await;
    let body = timeout(PATIENCE, answer.into_body().collect()).await.expect("an end");
    assert!(body.is_err(), "a client must not take it for the whole");
    let silent = timeout(PATIENCE, rig.get(&format!("/live/silent-7.ts?spbhid={id}"))).await.unwrap();
    assert_eq!(silent.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn defect_25_a_stream_moves_when_its_origin_cannot_be_reached() {
    let (dead, alive) = (srs_origin(true), srs_origin(true));
    let rig = Rig::with("vid-dead", &dead).await;
    rig.get(PLAYLIST).await;
    rig.register("vid-alive", alive.address).await;
    dead.kill().await;
    let (status, master) = text(rig.get(PLAYLIST).await).await;
    assert_eq!(status, StatusCode::OK, "{master}");
    assert!(master.contains(&rig.id_of("vid-alive")), "{master}");
}

#[tokio::test]
async fn a_stream_asked_for_on_a_used_connection_is_served_too() {
    let origin = TestOrigin::start(|_| "FLV".into_response());
    let rig = Rig::with("vid-1", &origin).await;
    assert_eq!(text(rig.get("/live/cam.flv?token=1").await).await.1, "FLV");
    assert_eq!(origin.last().target, "/live/cam.flv?token=1");
}
