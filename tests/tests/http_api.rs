//! The HTTP API of two origins through the proxy, and files beside their streams. Numbers in names are those of the defects
//! of the proxy that this one replaces.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{fs, time::Duration};

use integration_tests::{
    case::Case,
    http::{Request, Response, Url},
    in_cases,
    live::{Scratch, until},
    load::Client,
    netns::Routed,
    origin::{Origin, SessionStats},
    proxy::Engine,
    site::Site,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(15);
const TOKEN: (&str, &str) = ("PROXY_API_TOKEN", "s3cret");

in_cases!(userspace, tc: {
    defect_36_clients_and_streams_of_all_origins_are_listed,
    defect_37_a_session_is_kicked_by_its_merged_id_and_no_other_notices,
});

/// Streams `a` and `b`, each published to an origin of its own and played by one viewer.
struct Playing<'a> {
    site: Site<'a>,
    viewers: [Client; 2],
    _publishers: [Client; 2],
}

impl<'a> Playing<'a> {
    fn start(network: &'a Routed, case: Case) -> Self {
        let site = Site::start(network, case.engine, &[TOKEN]).unwrap();
        let publishers = ["a", "b"].map(|stream| site.publish(stream).unwrap());
        let viewers = ["a", "b"].map(|stream| site.play(stream).unwrap());
        for viewer in &viewers {
            viewer.wait(PATIENCE, |stats| stats.received() > 20).unwrap();
        }
        site.settled(case.forwarder(), 4).unwrap();
        assert_ne!(site.origin_of("a").unwrap(), site.origin_of("b").unwrap());
        Self { site, viewers, _publishers: publishers }
    }

    fn origin_of(&self, stream: &str) -> &Origin {
        self.site.origins[self.site.origin_of(stream).unwrap()].as_ref().unwrap()
    }

    fn sessions_of(&self, stream: &str) -> Vec<SessionStats> {
        self.origin_of(stream).stats().sessions
    }

    fn call(&self, network: &Routed, method: &'static str, path: &str) -> Value {
        let answer = call(network, &self.site, method, path, Some("s3cret"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(json["code"], 0, "{json}");
        json
    }
}

fn call(
    network: &Routed,
    site: &Site<'_>,
    method: &'static str,
    path: &str,
    token: Option<&str>,
) -> Response {
    let mut request = Request::new(method, Url::parse(&format!("{}{path}", site.proxy.api())).unwrap());
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    network.client.enter(|| request.send()).unwrap()
}

fn texts(items: &Value, member: &str) -> Vec<String> {
    items.as_array().unwrap().iter().map(|item| item[member].as_str().unwrap().to_owned()).collect()
}

fn defect_36_clients_and_streams_of_all_origins_are_listed(case: Case) {
    let network = Routed::new().unwrap();
    let playing = Playing::start(&network, case);
    let clients = playing.call(&network, "GET", "/api/v1/clients/");
    let listed = &clients["clients"];
    assert_eq!(listed.as_array().unwrap().len(), 4, "{clients}");
    for (stream, other) in [("a", "b"), ("b", "a")] {
        let of_stream = playing.call(&network, "GET", &format!("/api/v1/clients/?stream=live/{stream}"));
        assert_eq!(
            texts(&of_stream["clients"], "url"),
            [format!("/live/{stream}"), format!("/live/{stream}")]
        );
        let ids: Vec<_> = texts(&of_stream["clients"], "id");
        let at_origin: Vec<_> =
            playing.sessions_of(stream).into_iter().map(|session| session.client_id).collect();
        for id in &ids {
            let (id, origin) = id.split_once('@').unwrap();
            assert!(at_origin.iter().any(|other| other == id), "{id} of {at_origin:?}");
            assert_eq!(of_stream["origins"][0]["id"], origin);
        }
        assert!(texts(listed, "id").iter().any(|id| ids.contains(id)));
        let streams = playing.call(&network, "GET", &format!("/api/v1/streams/?stream=live/{stream}"));
        assert_eq!(texts(&streams["streams"], "name"), [stream]);
        let publisher = streams["streams"][0]["publish"]["cid"].as_str().unwrap();
        assert!(ids.iter().any(|id| id == publisher), "{publisher} of {ids:?}, and not of {other}");
        assert_eq!(streams["streams"][0]["id"], of_stream["clients"][0]["stream"]);
    }
    let page = playing.call(&network, "GET", "/api/v1/clients/?start=1&count=2");
    assert_eq!(texts(&page["clients"], "id"), texts(listed, "id")[1..3]);
    let summaries = playing.call(&network, "GET", "/api/v1/summaries");
    assert_eq!(texts(&summaries["origins"], "id").len(), 2);
    assert!(summaries["origins"].as_array().unwrap().iter().all(|origin| origin["data"]["ok"] == true));
    for (token, status) in [(None, 401), (Some("s3cre"), 401)] {
        assert_eq!(call(&network, &playing.site, "GET", "/api/v1/clients/", token).status, status);
    }
    assert_eq!(call(&network, &playing.site, "GET", "/api/v1/versions", None).status, 200);
    assert_eq!(call(&network, &playing.site, "GET", "/api/v1/raw?rpc=raw", Some("s3cret")).status, 403);
    playing.site.proxy.stop().unwrap();
}

fn defect_37_a_session_is_kicked_by_its_merged_id_and_no_other_notices(case: Case) {
    let network = Routed::new().unwrap();
    let playing = Playing::start(&network, case);
    let clients = playing.call(&network, "GET", "/api/v1/clients/?stream=live/a");
    let viewer =
        clients["clients"].as_array().unwrap().iter().find(|client| client["publish"] == false).unwrap();
    let id = viewer["id"].as_str().unwrap();
    let one = playing.call(&network, "GET", &format!("/api/v1/clients/{id}"));
    assert_eq!(one["client"]["id"], id);

    playing.call(&network, "DELETE", &format!("/api/v1/clients/{id}"));
    let (kicked, spared) = (playing.origin_of("a"), playing.origin_of("b"));
    assert_eq!((kicked.stats().ended, spared.stats().ended), (1, 0));
    assert!(kicked.stats().sessions.iter().all(|session| session.publish));
    let again = call(&network, &playing.site, "DELETE", &format!("/api/v1/clients/{id}"), Some("s3cret"));
    assert_eq!((again.status, again.body.as_str()), (200, "{\"code\":2049}"));
    let left = playing.call(&network, "GET", "/api/v1/clients/");
    assert_eq!(left["clients"].as_array().unwrap().len(), 3);
    assert!(!texts(&left["clients"], "id").iter().any(|other| other == id));

    // What was under way arrives, and nothing after that.
    let mut last = playing.viewers[0].stats().received();
    until("the kicked viewer gets nothing", PATIENCE, || {
        let before = playing.viewers[1].stats().received();
        playing.viewers[1].wait(PATIENCE, |stats| stats.received() > before + 20)?;
        let now = playing.viewers[0].stats().received();
        Ok(std::mem::replace(&mut last, now) == now)
    })
    .unwrap();
    let stats = playing.viewers[1].stats();
    assert_eq!((stats.missing(), stats.duplicates()), (0, 0), "{stats:?}");
    assert_eq!(spared.stats().sessions.len(), 2);
    playing.site.proxy.stop().unwrap();
}

#[test]
fn without_a_token_the_api_says_what_turns_it_on() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, Engine::Userspace, &[]).unwrap();
    let refused = call(&network, &site, "GET", "/api/v1/clients/", Some("s3cret"));
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("PROXY_API_TOKEN"), "{}", refused.body);
    site.proxy.stop().unwrap();
}

#[test]
fn files_are_served_beside_streams() {
    let network = Routed::new().unwrap();
    let scratch = Scratch::new("files").unwrap();
    fs::write(scratch.path().join("index.html"), "<h1>hello</h1>").unwrap();
    fs::write(scratch.path().join(".hidden"), "no").unwrap();
    let directory = scratch.path().to_str().unwrap();
    let site = Site::start(&network, Engine::Userspace, &[("PROXY_STATIC_FILES", directory)]).unwrap();
    let get = |path: &str| {
        let url = Url::parse(&format!("http://{}:18080{path}", Routed::PROXY)).unwrap();
        network.client.enter(|| Request::new("GET", url).send()).unwrap()
    };
    let index = get("/");
    assert_eq!((index.status, index.body.as_str()), (200, "<h1>hello</h1>"));
    assert_eq!(index.headers.get("content-type"), Some("text/html"));
    assert_eq!(index.headers.get("access-control-allow-origin"), Some("*"));
    for path in ["/.hidden", "/nothing.html", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    site.proxy.stop().unwrap();
}
