//! Operators and origins on loopback, with the router between them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::{Method, Request, StatusCode};
use proxy_protocol::stream_url::StreamKey;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::{
    api::testing::{Asked, PATIENCE, TestOrigin, send, text},
    config::Config,
    origin::{OriginId, balance::Terms, memory::MemoryRegistry},
};

const TOKEN: &str = "Bearer s3cret";

/// An SRS with one stream of two clients, whose ids begin with `name`.
fn srs(name: &'static str) -> TestOrigin {
    TestOrigin::start(move |asked| reply(name, asked))
}

fn reply(name: &str, asked: &Asked) -> Response {
    let head = json!({"code": 0, "server": name, "service": "s", "pid": "1"});
    let with = |member: &str, value: Value| {
        let mut answer = head.clone();
        answer[member] = value;
        answer
    };
    let client = |id: &str| json!({"id": format!("{name}{id}"), "vhost": "v", "stream": "t", "url": "/live/cam", "publish": id == "p"});
    let stream = json!({
        "id": "t", "vhost": "v", "app": "live", "name": "cam", "url": "/live/cam", "send_bytes": 12345678901234567_u64,
        "publish": {"active": true, "cid": format!("{name}p")},
    });
    let other = json!({"id": "u", "vhost": "v", "url": "/live/other", "publish": {"active": false}});
    let path = asked.target.split('?').next().unwrap_or_default();
    let answer = match (asked.method.as_str(), path) {
        ("GET", "/api/v1/clients/") => with("clients", json!([client("p"), client("q")])),
        ("GET", "/api/v1/streams/") => with("streams", json!([stream, other])),
        ("GET", "/api/v1/vhosts/") => with("vhosts", json!([{"id": "v", "name": "__defaultVhost__"}])),
        ("GET", "/api/v1/summaries") => with("data", json!({"ok": true, "self": {"pid": 1}})),
        ("GET", "/api/v1/rusages") => with("data", json!({"ok": true})),
        ("GET", "/api/v1/streams/t") => with("stream", stream),
        ("GET", _) if path == format!("/api/v1/clients/{name}p") => with("client", client("p")),
        ("DELETE", _) if path.starts_with(&format!("/api/v1/clients/{name}")) => head,
        (_, _) if path.starts_with("/api/v1/clients/") => json!({"code": 2049}),
        (_, _) => json!({"code": 1}),
    };
    json_answer(&answer)
}

fn says(body: &'static str) -> TestOrigin {
    TestOrigin::start(move |_| body.into_response())
}

struct Rig {
    registry: Arc<MemoryRegistry>,
    router: Router,
}

impl Rig {
    fn new() -> Self {
        Self::with(&[("PROXY_API_TOKEN", "other,s3cret")])
    }

    fn with(variables: &[(&str, &str)]) -> Self {
        let fixed = [("PROXY_ORIGIN_PROBE_INTERVAL", "0s"), ("PROXY_API_ORIGIN_TIMEOUT", "1s")];
        let config = Config::from_variables(fixed.into_iter().chain(variables.iter().copied())).unwrap();
        let (registry, _events) = MemoryRegistry::new(config.origins, config.balancing.clone());
        let router = router(OriginApi::new(&config, Arc::clone(&registry) as _));
        let ends = Connection {
            peer: SocketAddr::from(([192, 0, 2, 1], 4000)),
            local: SocketAddr::from(([192, 0, 2, 9], 11985)),
        };
        Self { registry, router: router.layer(Extension(ends)) }
    }

    async fn of(origins: &[(&str, &TestOrigin)]) -> Self {
        let rig = Self::new();
        for (server, origin) in origins {
            rig.register(server, Some(origin.address)).await;
        }
        rig
    }

    /// The origin's id is `<server>-s-1`, and its device id `<server>.example`.
    async fn register(&self, server: &str, api: Option<SocketAddr>) {
        let (id, device_id) = (OriginId::new(server, "s", "1"), format!("{server}.example"));
        let origin = Origin { device_id, api, ..Origin::bare(server, id, [127, 0, 0, 1].into()) };
        self.registry.register(origin, Terms::default()).await.unwrap();
    }

    async fn ask(&self, method: Method, target: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        timeout(PATIENCE, send(self.router.clone(), request.body(Body::empty()).unwrap()))
            .await
            .expect("an answer")
    }

    async fn get(&self, target: &str) -> (StatusCode, Value) {
        json_of(self.ask(Method::GET, target, &[("authorization", TOKEN)]).await).await
    }

    async fn delete(&self, target: &str) -> (StatusCode, Value) {
        json_of(self.ask(Method::DELETE, target, &[("authorization", TOKEN)]).await).await
    }
}

async fn json_of(response: Response) -> (StatusCode, Value) {
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert_eq!(response.headers()["content-type"], "application/json");
    let (status, body) = text(response).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

fn each(items: &Value, member: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    items.as_array().unwrap().iter().map(|item| text(&item[member])).collect()
}

#[tokio::test]
async fn defect_37_the_api_of_all_origins_is_that_of_one() {
    let (a, b) = (srs("a"), srs("b"));
    let rig = Rig::of(&[("a", &a), ("b", &b)]).await;
    let (status, clients) = rig.get("/api/v1/clients/").await;
    assert_eq!(
        (status, &clients["code"], &clients["server"]),
        (StatusCode::OK, &0.into(), &"srs-xproxy".into())
    );
    let ids = ["ap@a-s-1", "aq@a-s-1", "bp@b-s-1", "bq@b-s-1"];
    assert_eq!(each(&clients["clients"], "id"), ids);
    assert_eq!(each(&clients["clients"], "origin"), ["a-s-1", "a-s-1", "b-s-1", "b-s-1"]);
    assert_eq!(clients["origins"], json!([{"id": "a-s-1", "code": 0}, {"id": "b-s-1", "code": 0}]));
    let (_, streams) = rig.get("/api/v1/streams").await;
    assert_eq!(streams["streams"][0]["publish"]["cid"], ids[0]);
    assert_eq!(streams["streams"][2]["vhost"], "v@b-s-1");
    assert_eq!(clients["clients"][0]["stream"], streams["streams"][0]["id"]);
    assert_eq!(streams["streams"][0]["send_bytes"], 12_345_678_901_234_567_u64);
    let (_, vhosts) = rig.get("/api/v1/vhosts/").await;
    assert_eq!(each(&vhosts["vhosts"], "id"), ["v@a-s-1", "v@b-s-1"]);
    let (_, summaries) = rig.get("/api/v1/summaries").await;
    assert_eq!(each(&summaries["origins"], "id"), ["a-s-1", "b-s-1"]);
    assert_eq!(summaries["origins"][1]["data"]["ok"], true);
}

#[tokio::test]
async fn pages_go_over_origins_and_each_is_asked_for_what_may_be_on_them() {
    let (a, b) = (srs("a"), srs("b"));
    let rig = Rig::of(&[("a", &a), ("b", &b)]).await;
    let (_, page) = rig.get("/api/v1/clients/?start=1&count=2").await;
    assert_eq!(each(&page["clients"], "id"), ["aq@a-s-1", "bp@b-s-1"]);
    assert_eq!(b.last().target, "/api/v1/clients/?start=0&count=3");
    let (_, page) = rig.get("/api/v1/clients/?start=4").await;
    assert_eq!(page["clients"], json!([]));
}

#[tokio::test]
async fn defect_36_origins_are_listed_with_what_they_serve() {
    let a = srs("a");
    let rig = Rig::of(&[("a", &a)]).await;
    let (status, list) = rig.get("/api/v1/origins").await;
    assert_eq!(status, StatusCode::OK);
    let origin = &list["origins"][0];
    assert_eq!(
        (&origin["id"], &origin["state"], &origin["streams"]),
        (&"a-s-1".into(), &"up".into(), &0.into())
    );
    assert_eq!(origin["endpoints"]["api"], a.address.to_string());
}

#[tokio::test]
async fn without_a_token_in_the_settings_it_is_off() {
    let a = srs("a");
    let rig = Rig::with(&[]);
    rig.register("a", Some(a.address)).await;
    for target in ["/api/v1/clients/", "/api/v1/raw", "/api/v1/origins", "/api/v1/"] {
        let (status, answer) = rig.get(target).await;
        assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &403.into()));
        assert!(answer["message"].as_str().unwrap().contains("PROXY_API_TOKEN"), "{answer}");
    }
    assert!(a.asked.lock().is_empty());
}

#[tokio::test]
async fn only_who_has_a_token_is_let_in_and_origins_do_not_see_it() {
    let a = srs("a");
    let rig = Rig::of(&[("a", &a)]).await;
    for given in
        [None, Some("Bearer s3cre"), Some("Bearer other,s3cret"), Some("Basic s3cret"), Some("Bearer ")]
    {
        let headers: Vec<_> = given.map(|given| ("authorization", given)).into_iter().collect();
        let refused = rig.ask(Method::GET, "/api/v1/clients/", &headers).await;
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        let (status, answer) = json_of(refused).await;
        assert_eq!((status, &answer["code"]), (StatusCode::UNAUTHORIZED, &401.into()), "{given:?}");
    }
    assert!(a.asked.lock().is_empty());
    let headers = [
        ("authorization", "bearer other"),
        ("cookie", "session=1"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-secret", "1"),
    ];
    assert_eq!(
        rig.ask(Method::GET, "/api/v1/clients/?callback=f&method=DELETE&x=1", &headers).await.status(),
        200
    );
    let asked = a.last();
    let mut names: Vec<_> = asked.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["host", "user-agent", "x-forwarded-for", "x-real-ip"]);
    assert_eq!(asked.headers["x-forwarded-for"], "192.0.2.1");
    assert_eq!((asked.method, asked.target.as_str()), (Method::GET, "/api/v1/clients/?start=0&count=10"));
}

#[tokio::test]
async fn pages_of_a_browser_may_use_it() {
    let rig = Rig::new();
    let headers = [("origin", "https://page.example"), ("access-control-request-method", "DELETE")];
    let preflight = rig.ask(Method::OPTIONS, "/api/v1/clients/x", &headers).await;
    assert_eq!(preflight.status(), StatusCode::OK);
    assert_eq!(preflight.headers()["access-control-allow-headers"], "*, Authorization");
    assert_eq!(preflight.headers()["access-control-allow-methods"], "*");
}

#[tokio::test]
async fn the_raw_api_is_refused_however_it_is_written() {
    let a = srs("a");
    let rig = Rig::of(&[("a", &a)]).await;
    for target in [
        "/api/v1/raw",
        "/api/v1/raw?rpc=reload",
        "/api/v1/raw/x",
        "/api/v1/RAW",
        "/api/v1/%72aw",
        "/api/v1//raw",
        "/api/v1/raw.",
        "/api/v1/clients/../raw",
        "/api/v1/clients/%2e%2e%2fraw",
        "/api/v1/clients/x%2f..%2f..%2fraw",
        "/api/v1/streams/..@a-s-1",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::HEAD] {
            let refused = rig.ask(method.clone(), target, &[("authorization", TOKEN)]).await;
            assert!(refused.status().is_client_error(), "{method} {target}: {refused:?}");
        }
    }
    assert!(a.asked.lock().is_empty(), "{:?}", a.asked.lock());
}

#[tokio::test]
async fn only_clients_are_deleted_and_nothing_is_posted() {
    let a = srs("a");
    let rig = Rig::of(&[("a", &a)]).await;
    for (method, target) in [
        (Method::POST, "/api/v1/clients/ap@a-s-1"),
        (Method::DELETE, "/api/v1/clients/"),
        (Method::DELETE, "/api/v1/streams/t@a-s-1"),
        (Method::PUT, "/api/v1/summaries"),
        (Method::DELETE, "/api/v1/origins"),
    ] {
        let refused = rig.ask(method.clone(), target, &[("authorization", TOKEN)]).await;
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {target}");
        assert!(refused.headers()["allow"].to_str().unwrap().starts_with("GET, HEAD, OPTIONS"));
    }
    assert!(a.asked.lock().is_empty());
}

#[tokio::test]
async fn what_is_about_one_item_goes_to_its_origin() {
    let (a, b) = (srs("a"), srs("b"));
    let rig = Rig::of(&[("a", &a), ("b", &b)]).await;
    for id in ["bp@b-s-1", "bp%40b-s-1", "bp@b", "bp@b.example", "bp?origin=b-s-1"] {
        let (status, answer) = rig.get(&format!("/api/v1/clients/{id}")).await;
        assert_eq!((status, &answer["client"]["id"]), (StatusCode::OK, &"bp@b-s-1".into()), "{id}");
        assert_eq!(answer["server"], "b");
        assert_eq!(b.last().target, "/api/v1/clients/bp");
    }
    let (_, kicked) = rig.delete("/api/v1/clients/bq@b-s-1").await;
    assert_eq!(kicked, json!({"code": 0, "server": "b", "service": "s", "pid": "1"}));
    assert_eq!((b.last().method, b.last().target.as_str()), (Method::DELETE, "/api/v1/clients/bq"));
    assert!(a.asked.lock().is_empty());
    let (status, stream) = rig.get("/api/v1/streams/t@a-s-1").await;
    assert_eq!((status, &stream["stream"]["publish"]["cid"]), (StatusCode::OK, &"ap@a-s-1".into()));
}

#[tokio::test]
async fn an_origin_says_itself_what_it_does_not_have() {
    let a = srs("a");
    let rig = Rig::of(&[("a", &a)]).await;
    assert_eq!(rig.get("/api/v1/clients/none@a-s-1").await, (StatusCode::OK, json!({"code": 2049})));
    assert_eq!(rig.delete("/api/v1/clients/none@a-s-1").await, (StatusCode::OK, json!({"code": 2049})));
}

#[tokio::test]
async fn an_id_without_an_origin_is_looked_for_and_taken_only_if_one_origin_has_it() {
    let (a, b) = (srs("a"), srs("b"));
    let rig = Rig::of(&[("a", &a), ("b", &b)]).await;
    assert_eq!(rig.get("/api/v1/clients/bp").await.1["client"]["id"], "bp@b-s-1");
    assert_eq!(rig.delete("/api/v1/clients/bp").await.1["code"], 0);
    assert_eq!(b.last().method, Method::DELETE);
    assert!(a.asked.lock().iter().all(|asked| asked.method == Method::GET));
    let (status, answer) = rig.get("/api/v1/clients/none").await;
    assert_eq!(
        (status, &answer["message"]),
        (StatusCode::NOT_FOUND, &"no origin has the client none".into())
    );
    let (status, answer) = rig.get("/api/v1/streams/t").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(answer["message"].as_str().unwrap().ends_with("t@a-s-1, t@b-s-1"), "{answer}");
}

#[tokio::test]
async fn nobody_is_kicked_while_another_origin_may_have_the_id() {
    let (a, odd) = (srs("a"), says("{"));
    let rig = Rig::of(&[("a", &a), ("b", &odd)]).await;
    let (status, answer) = rig.delete("/api/v1/clients/ap").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(answer["message"].as_str().unwrap().contains("b-s-1"), "{answer}");
    assert!(a.asked.lock().iter().all(|asked| asked.method == Method::GET));
    assert_eq!(rig.get("/api/v1/clients/ap").await.0, StatusCode::OK, "looking does no harm");
}

#[tokio::test]
async fn a_stream_is_asked_for_where_it_is_and_nowhere_else() {
    let (a, b) = (srs("a"), srs("b"));
    let rig = Rig::of(&[("a", &a)]).await;
    let stream: StreamKey = "__defaultVhost__/live/cam".parse().unwrap();
    rig.registry.pick(&stream).await.unwrap();
    rig.register("b", Some(b.address)).await;
    let (_, streams) = rig.get("/api/v1/streams/?stream=live/cam&vhost=__defaultVhost__").await;
    assert_eq!(each(&streams["streams"], "id"), ["t@a-s-1"]);
    assert_eq!(streams["total"], 1);
    let (_, clients) = rig.get("/api/v1/clients/?stream=live%2Fcam&start=1").await;
    assert_eq!(each(&clients["clients"], "id"), ["aq@a-s-1"]);
    let (_, other) = rig.get("/api/v1/clients/?stream=live/nobody").await;
    assert_eq!((&other["code"], &other["clients"], &other["origins"]), (&0.into(), &json!([]), &json!([])));
    assert!(b.asked.lock().is_empty());
    assert_eq!(rig.registry.known().picks.len(), 1, "none is chosen");
    let (_, named) = rig.get("/api/v1/clients/?stream=live/cam&origin=b").await;
    assert_eq!(each(&named["clients"], "id"), ["bp@b-s-1", "bq@b-s-1"]);
}

#[tokio::test]
async fn an_origin_can_be_named() {
    let (a, b) = (srs("a"), srs("b"));
    let rig = Rig::of(&[("a", &a), ("b", &b)]).await;
    for name in ["b-s-1", "b", "b.example", "%62"] {
        let (_, clients) = rig.get(&format!("/api/v1/clients/?origin={name}")).await;
        assert_eq!(each(&clients["clients"], "id"), ["bp@b-s-1", "bq@b-s-1"], "{name}");
    }
    let (_, usage) = rig.get("/api/v1/rusages?origin=b").await;
    assert_eq!(usage, json!({"code": 0, "server": "b", "service": "s", "pid": "1", "data": {"ok": true}}));
    assert!(a.asked.lock().is_empty());
    let (status, answer) = rig.get("/api/v1/rusages?origin=c").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["message"], "no origin called \"c\" is up; these are up: a-s-1, b-s-1");
}

#[tokio::test]
async fn an_origin_that_has_no_answer_is_named_and_the_rest_still_comes() {
    let (a, dead) = (srs("a"), srs("dead"));
    let rig = Rig::of(&[("a", &a), ("dead", &dead)]).await;
    rig.register("mute", None).await;
    dead.kill().await;
    let (status, clients) = rig.get("/api/v1/clients/").await;
    assert_eq!((status, &clients["code"]), (StatusCode::OK, &0.into()));
    assert_eq!(each(&clients["clients"], "id"), ["ap@a-s-1", "aq@a-s-1"]);
    let expected = json!([
        {"id": "a-s-1", "code": 0},
        {"id": "dead-s-1", "code": 502, "error": "failed to connect to the origin"},
        {"id": "mute-s-1", "code": 502, "error": "the origin registered no HTTP API"},
    ]);
    assert_eq!(clients["origins"], expected);
    let (status, alone) = rig.get("/api/v1/clients/?origin=dead").await;
    assert_eq!((status, &alone["code"]), (StatusCode::BAD_GATEWAY, &502.into()));
    assert_eq!(rig.get("/api/v1/rusages?origin=mute").await.0, StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_origins_cost_neither_time_nor_room() {
    let endless = TestOrigin::start(|_| {
        let piece = Bytes::from_static(&[b' '; 1 << 16]);
        Body::from_stream(stream::repeat_with(move || Ok::<_, axum::BoxError>(piece.clone()))).into_response()
    });
    let silent = TestOrigin::start(|_| {
        std::thread::sleep(Duration::from_secs(2));
        "late".into_response()
    });
    let stuck = TestOrigin::start(|_| {
        let first = stream::iter([Ok::<_, axum::BoxError>(Bytes::from_static(b"{\"code\":0,"))]);
        Body::from_stream(futures_util::StreamExt::chain(first, stream::pending())).into_response()
    });
    let deep = TestOrigin::start(|_| "[".repeat(1 << 20).into_response());
    let status = TestOrigin::start(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let locked = TestOrigin::start(|_| StatusCode::UNAUTHORIZED.into_response());
    let good = srs("good");
    let origins = [
        ("0-bad-json", &says("<html>")),
        ("1-bad-type", &says(r#"{"code":0,"clients":{"a":1}}"#)),
        ("2-bad-item", &says(r#"{"code":0,"clients":[1]}"#)),
        ("3-code", &says(r#"{"code":1061}"#)),
        ("4-deep", &deep),
        ("5-endless", &endless),
        ("6-silent", &silent),
        ("7-status", &status),
        ("8-stuck", &stuck),
        ("9-locked", &locked),
        ("good", &good),
    ];
    let rig = Rig::of(&origins).await;
    let began = Instant::now();
    let (status, clients) = rig.get("/api/v1/clients/").await;
    assert!(began.elapsed() < PATIENCE);
    assert_eq!((status, &clients["code"]), (StatusCode::OK, &0.into()));
    assert_eq!(each(&clients["clients"], "id"), ["goodp@good-s-1", "goodq@good-s-1"]);
    let errors = each(&clients["origins"], "error");
    for (error, expected) in errors.iter().zip([
        "the origin's answer is not JSON as SRS writes it",
        "the origin's answer has no usable `clients`",
        "the origin's answer has no usable `clients`",
        "the origin answered with code 1061",
        "the origin's answer is not JSON as SRS writes it",
        "the origin's answer is larger than 16777216 bytes",
        "the origin did not answer in time",
        "the origin answered with status 500 Internal Server Error",
        "the origin did not answer in time",
        "the origin answered with status 401 Unauthorized; if its API wants a password, PROXY_ORIGIN_API_AUTH sets it",
        "null",
    ]) {
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn ids_of_any_kind_are_shown_and_only_those_of_srs_are_taken() {
    let odd = says(
        r#"{"code":0,"clients":[{"id":"a/../raw"},{"id":"a%2f"},{"id":"\u0000\r\n"},{"id":"x"},{"id":"x"},{"id":["x"]}]}"#,
    );
    let rig = Rig::of(&[("odd", &odd)]).await;
    let (_, clients) = rig.get("/api/v1/clients/").await;
    let ids = each(&clients["clients"], "id");
    assert_eq!(
        ids,
        ["a/../raw@odd-s-1", "a%2f@odd-s-1", "\0\r\n@odd-s-1", "x@odd-s-1", "x@odd-s-1", "[\"x\"]"]
    );
    let asked = odd.asked.lock().len();
    for id in ["a%2f..%2fraw@odd-s-1", "a%252f@odd-s-1", "%00%0d%0a@odd-s-1"] {
        assert_eq!(rig.delete(&format!("/api/v1/clients/{id}")).await.0, StatusCode::BAD_REQUEST, "{id}");
    }
    assert_eq!(odd.asked.lock().len(), asked);
}

#[tokio::test]
async fn a_kick_is_not_repeated() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::new();
    rig.register("a", Some(listener.local_addr().unwrap())).await;
    let kicks = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&kicks);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.readable().await.unwrap();
            counting.fetch_add(1, Ordering::SeqCst);
        }
    });
    assert_eq!(rig.delete("/api/v1/clients/x@a").await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(kicks.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn origins_that_want_a_password_get_it() {
    let a = srs("a");
    let rig = Rig::with(&[("PROXY_API_TOKEN", "s3cret"), ("PROXY_ORIGIN_API_AUTH", "admin:pa:ss")]);
    rig.register("a", Some(a.address)).await;
    assert_eq!(rig.get("/api/v1/summaries").await.0, StatusCode::OK);
    assert_eq!(a.last().headers["authorization"], "Basic YWRtaW46cGE6c3M=");
}

#[tokio::test]
async fn without_origins_lists_are_empty() {
    let rig = Rig::new();
    let (status, streams) = rig.get("/api/v1/streams/").await;
    assert_eq!((status, &streams["code"], &streams["streams"]), (StatusCode::OK, &0.into(), &json!([])));
    let (status, answer) = rig.get("/api/v1/rusages?origin=x").await;
    assert_eq!(
        (status, &answer["message"]),
        (StatusCode::NOT_FOUND, &"no origin called \"x\" is up; none is".into())
    );
}
