use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::stream_url::StreamRules;

const CLIENTS: &str = include_str!("../../tests/data/srs_api/clients.json");
const STREAMS: &str = include_str!("../../tests/data/srs_api/streams.json");
const VHOSTS: &str = include_str!("../../tests/data/srs_api/vhosts.json");
const ORIGIN: &str = "vid-1m3n6a0-0a1b2c3d-77";
const US: Identity<'_> = Identity { name: "srs-xproxy", pid: 4711 };

fn all(kind: Kind, body: &str) -> List {
    list(kind, body.as_bytes(), ORIGIN, None, MOST_ITEMS).unwrap()
}

fn values(list: &List) -> Vec<Value> {
    list.items.iter().map(|item| serde_json::from_str(item).unwrap()).collect()
}

/// What a list becomes, with whatever `change` says about it.
#[track_caller]
fn becomes(kind: Kind, body: &str, change: impl Fn(&mut Value)) {
    let mut expected: Value = serde_json::from_str(body).unwrap();
    let items = expected[kind.list()].as_array_mut().unwrap();
    items.iter_mut().for_each(|item| {
        change(item);
        item["origin"] = ORIGIN.into();
    });
    assert_eq!(values(&all(kind, body)), *items);
    assert!(!items.is_empty());
}

fn qualify(value: &mut Value) {
    *value = format!("{}@{ORIGIN}", value.as_str().unwrap()).into();
}

#[test]
fn ids_of_items_and_between_items_name_their_origin_and_nothing_else_changes() {
    becomes(Kind::Vhost, VHOSTS, |vhost| qualify(&mut vhost["id"]));
    becomes(Kind::Stream, STREAMS, |stream| {
        ["id", "vhost"].iter().for_each(|name| qualify(&mut stream[*name]));
        if stream["publish"]["cid"].is_string() {
            qualify(&mut stream["publish"]["cid"]);
        }
    });
    becomes(Kind::Client, CLIENTS, |client| {
        ["id", "vhost", "stream"].iter().for_each(|name| qualify(&mut client[*name]));
    });
}

#[test]
fn numbers_and_members_that_nobody_knows_keep_their_bytes_and_their_order() {
    let body = r#"{"code":0,"streams":[{"zz":1.50,"id":"a","big":18446744073709551616,"e":1e400,"x":{"b":1,"a":2}}]}"#;
    let expected =
        r#"{"zz":1.50,"id":"a@o","big":18446744073709551616,"e":1e400,"x":{"b":1,"a":2},"origin":"o"}"#;
    assert_eq!(list(Kind::Stream, body.as_bytes(), "o", None, 1).unwrap().items, [expected]);
}

#[test]
fn what_is_no_id_passes_as_it_is() {
    let body =
        r#"{"code":0,"streams":[{"id":7,"vhost":"","publish":{"active":false,"cid":null}},{"publish":[]}]}"#;
    let expected = [
        r#"{"id":7,"vhost":"","publish":{"active":false,"cid":null},"origin":"o"}"#,
        r#"{"publish":[],"origin":"o"}"#,
    ];
    assert_eq!(list(Kind::Stream, body.as_bytes(), "o", None, 9).unwrap().items, expected);
}

#[test]
fn an_origin_cannot_speak_for_another_one() {
    let body = r#"{"code":0,"clients":[{"origin":"other","id":"a@other","origin":1}]}"#;
    let items = list(Kind::Client, body.as_bytes(), "o", None, 9).unwrap().items;
    assert_eq!(items, [r#"{"id":"a@other@o","origin":"o"}"#]);
    assert_eq!(Target::of_path("/api/v1/clients/a@other@o"), one_of(Kind::Client, "a", Some("other@o")));
}

#[test]
fn a_list_holds_what_belongs_to_one_stream() {
    let rules = StreamRules { vhosts: vec!["cdn.example".into()], go_compatible: false };
    let body = json!({"code": 0, "clients": [
        {"id": "1", "url": "/live/a"},
        {"id": "2", "url": "/live/a2"},
        {"id": "3", "url": "cdn.example/live/a"},
        {"id": "4", "url": "/live/a"},
        {"id": "5"},
        {"id": "6", "url": ["/live/a"]},
    ]})
    .to_string();
    for (address, ids) in [("rtmp://h/live", &["1@o", "4@o"][..]), ("rtmp://cdn.example/live", &["3@o"])] {
        let stream = rules.rtmp(address, "a").unwrap();
        let found = list(Kind::Client, body.as_bytes(), "o", Some(&stream), MOST_ITEMS).unwrap();
        assert_eq!(values(&found).iter().map(|client| client["id"].clone()).collect::<Vec<_>>(), ids);
        assert_eq!(found.total, Some(ids.len() as u64));
    }
}

#[test]
fn what_is_no_list_is_refused() {
    let refused = |body: &str| list(Kind::Stream, body.as_bytes(), "o", None, 9).unwrap_err();
    for body in ["", "[]", "{", "null", r#"{"streams":[]}"#, r#"{"code":"0","streams":[]}"#, "{\"code\":0}x"]
    {
        assert_eq!(refused(body), AnswerError::Malformed, "{body}");
    }
    for body in [r#"{"code":0}"#, r#"{"code":0,"streams":{}}"#, r#"{"code":0,"streams":[{},1]}"#] {
        assert_eq!(refused(body), AnswerError::Missing("streams"), "{body}");
    }
    assert_eq!(refused(r#"{"code":2048}"#), AnswerError::Code(2048));
    assert_eq!(list(Kind::Stream, b"{\"code\":0,\"\xff\":1}", "o", None, 9), Err(AnswerError::Malformed));
}

#[test]
fn every_truncation_of_a_list_is_refused() {
    for end in 0..CLIENTS.trim_end().len() {
        assert_eq!(list(Kind::Client, &CLIENTS.as_bytes()[..end], "o", None, 9), Err(AnswerError::Malformed));
    }
}

#[test]
fn an_item_by_itself_is_qualified_too() {
    let body = br#"{"code":0,"server":"vid-1","pid":"7","client":{"id":"a","vhost":"v","stream":"s"}}"#;
    let expected = r#"{"code":0,"server":"vid-1","pid":"7","client":{"id":"a@o","vhost":"v@o","stream":"s@o","origin":"o"}}"#;
    assert_eq!(one(Kind::Client, body, "o"), Ok(Answer { code: 0, json: expected.into() }));
    let gone = Answer { code: 2049, json: r#"{"code":2049}"#.into() };
    assert_eq!(one(Kind::Client, br#"{ "code": 2049 }"#, "o"), Ok(gone));
    assert_eq!(one(Kind::Client, br#"{"code":0,"stream":{}}"#, "o"), Err(AnswerError::Missing("client")));
}

fn of_origin(ids: &[u32], total: Option<u64>) -> List {
    List { items: ids.iter().map(|id| format!(r#"{{"id":"{id}"}}"#)).collect(), total }
}

#[track_caller]
fn merged(page: Page, lists: &[&[u32]]) -> Value {
    let mut merged = MergedList::new(Kind::Client, page, 1 << 20);
    for (number, ids) in lists.iter().enumerate() {
        merged.add(&format!("o{number}"), Ok(of_origin(ids, Some(ids.len() as u64))));
    }
    let (code, json) = merged.into_json(US);
    assert_eq!(code, 0);
    serde_json::from_str(&json).unwrap()
}

#[test]
fn pages_go_over_all_origins() {
    let lists = [&[1, 2, 3][..], &[], &[4], &[5, 6]];
    for (start, count, ids) in
        [(0, 10, "1 2 3 4 5 6"), (0, 2, "1 2"), (2, 3, "3 4 5"), (3, 1, "4"), (5, 10, "6"), (6, 10, "")]
    {
        let merged = merged(Page { start, count }, &lists);
        let clients = merged["clients"].as_array().unwrap();
        let found: Vec<_> = clients.iter().map(|client| client["id"].as_str().unwrap()).collect();
        assert_eq!(found.join(" "), ids, "{start} {count}");
        assert_eq!((&merged["total"], merged["origins"].as_array().unwrap().len()), (&6.into(), 4));
    }
}

#[test]
fn an_origin_that_failed_is_named_and_the_rest_still_comes() {
    let mut merged = MergedList::new(Kind::Client, Page { start: 0, count: 10 }, 1 << 20);
    merged.add("a", Err((504, "the origin did not answer in time".into())));
    merged.add("b", Ok(of_origin(&[1], None)));
    let expected = r#"{"code":0,"server":"srs-xproxy","service":"srs-xproxy","pid":"4711","clients":[{"id":"1"}],"origins":[{"id":"a","code":504,"error":"the origin did not answer in time"},{"id":"b","code":0}]}"#;
    assert_eq!(merged.into_json(US), (0, expected.to_owned()));
}

fn combined<const N: usize>(answers: [(&str, Result<Answer, Failure>); N]) -> (u16, String) {
    let mut combined = Combined::new(1 << 20);
    answers.into_iter().for_each(|(origin, answered)| combined.add(origin, answered));
    combined.into_json(US)
}

#[test]
fn nobody_answers_is_an_error_and_nobody_is_there_is_none() {
    let merged = || MergedList::new(Kind::Client, Page { start: 0, count: 10 }, 1 << 20);
    assert_eq!(merged().into_json(US).0, 0);
    let mut failed = merged();
    failed.add("a", Err((504, "why".into())));
    let (code, json) = failed.into_json(US);
    assert_eq!((code, serde_json::from_str::<Value>(&json).unwrap()["code"].clone()), (502, 502.into()));
    assert_eq!(combined([]).0, 0);
    assert_eq!(combined([("a", Err((504, "why".into())))]).0, 502);
}

#[test]
fn one_origin_cannot_take_all_the_room() {
    let mut merged = MergedList::new(Kind::Client, Page { start: 0, count: 10 }, 30);
    merged.add("a", Ok(of_origin(&[1, 2], None)));
    merged.add("b", Ok(of_origin(&[3, 4], None)));
    merged.add("c", Ok(of_origin(&[5], None)));
    let answer: Value = serde_json::from_str(&merged.into_json(US).1).unwrap();
    assert_eq!(answer["clients"], json!([{"id": "1"}, {"id": "2"}, {"id": "5"}]));
    assert_eq!(answer["origins"][1]["code"], 502);
}

#[test]
fn what_each_origin_has_one_of_comes_one_after_the_other() {
    let summary =
        plain(br#"{"code":0,"id":"mine","server":"vid-1","data":{"ok":true,"now_ms":1.0}}"#).unwrap();
    let (_, json) = combined([("a", Ok(summary)), ("b", Err((502, "why".into())))]);
    let origins = r#""origins":[{"id":"a","code":0,"server":"vid-1","data":{"ok":true,"now_ms":1.0}},{"id":"b","code":502,"error":"why"}]}"#;
    assert!(json.ends_with(origins), "{json}");
}

#[test]
fn pages_are_read_as_srs_does() {
    for (query, start, count) in [
        ("", 0, 10),
        ("start=&count=", 0, 10),
        ("count=0", 0, 1),
        ("count=-1&start=-7", 0, 1),
        ("start=5x&count=3y", 5, 3),
        ("start=99999999999999999999", MOST_ITEMS, 0),
        ("count=99999999999999999999", 0, MOST_ITEMS),
        ("start=99990&count=20", 99_990, 10),
    ] {
        assert_eq!(Page::of_query(query), Page { start, count }, "{query}");
    }
    assert_eq!(Page::of_query_or_all("").count, MOST_ITEMS);
}

fn one_of(kind: Kind, id: &str, origin: Option<&str>) -> Result<Target, PathError> {
    Ok(Target::One(kind, ItemId { id: id.into(), origin: origin.map(str::to_owned) }))
}

#[test]
fn paths_name_what_is_asked_for() {
    for (path, target, asked) in [
        ("/api/v1/streams", Ok(Target::List(Kind::Stream)), "/api/v1/streams/"),
        ("/api/v1/clients/", Ok(Target::List(Kind::Client)), "/api/v1/clients/"),
        ("/api/v1/clients/a1", one_of(Kind::Client, "a1", None), "/api/v1/clients/a1"),
        ("/api/v1/clients/a1@vid-1-s-7", one_of(Kind::Client, "a1", Some("vid-1-s-7")), "/api/v1/clients/a1"),
        (
            "/api/v1/vhosts/vid-1%40o%2F%251",
            one_of(Kind::Vhost, "vid-1", Some("o/%1")),
            "/api/v1/vhosts/vid-1",
        ),
        ("/api/v1/summaries", Ok(Target::Single("summaries")), "/api/v1/summaries"),
        ("/api/v1/rusages/", Ok(Target::Single("rusages")), "/api/v1/rusages"),
        ("/api/v1/origins", Ok(Target::Origins), "/api/v1/origins"),
    ] {
        let found = Target::of_path(path);
        assert_eq!(found, target, "{path}");
        assert_eq!(found.unwrap().to_path(), asked);
    }
}

#[test]
fn ids_that_srs_does_not_give_are_refused() {
    let long = "a".repeat(65);
    for id in [&*long, "a%2Fb", "%2e%2e", "..", ".", "a%00", "a%0d%0a", "a b", "a?b", "%ff", "@o", "a%252f"] {
        let refused = Target::of_path(&format!("/api/v1/clients/{id}")).unwrap_err();
        assert_eq!(refused, PathError::Id, "{id}");
    }
    for path in ["/api/v1/clients//a", "/api/v1/clients/a/b", "/api/v1/clients/a/", "/api/v1/summaries/1"] {
        assert_eq!(Target::of_path(path), Err(PathError::Unknown), "{path}");
    }
}

#[test]
fn the_raw_api_is_refused_however_it_is_written() {
    for path in [
        "/api/v1/raw",
        "/api/v1/raw/",
        "/api/v1/raw/reload",
        "/api/v1//raw",
        "//api/v1/raw",
        "/api//v1///raw",
        "/api/v1/RAW",
        "/API/V1/Raw",
        "/api/v1/r%61w",
        "/api/v1/%72%61%77?rpc=reload",
        "/api/v1/raw.",
        "/api/v1/raw%20",
        "/api/v1/./raw",
        "/api/v1/clients/../raw",
        "/api/v1/clients/%2e%2e/raw",
        "/api/v1/clients/..%2fraw",
        "/api/v1%2fraw",
        "/api/v1/clients/a/raw",
        "/api/v1/streams/raw@o/..",
    ] {
        let path = path.split('?').next().unwrap();
        assert!(Target::of_path(path).is_err(), "{path}");
    }
    assert_eq!(Target::of_path("/api/v1/%72aw"), Err(PathError::Raw));
    // A client may be called so; that is below clients, and stays there.
    assert_eq!(Target::of_path("/api/v1/clients/raw").unwrap().to_path(), "/api/v1/clients/raw");
}

proptest! {
    #[test]
    fn any_path_is_about_something_known_or_nothing(path in "/api/v1/[a-z]{0,8}/?.{0,20}|.*") {
        if let Ok(target) = Target::of_path(&path) {
            let asked = target.to_path();
            prop_assert!(asked.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte)));
            prop_assert!(!asked.contains("//") && !asked.contains("/../") && !asked.ends_with("/.."));
            prop_assert!(!asked.starts_with("/api/v1/raw"));
        }
    }

    #[test]
    fn an_id_is_read_as_it_was_written(id in "[A-Za-z0-9_-]{1,64}", origin in "[^\0]{1,40}") {
        let escaped: String = qualified_id(&id, &origin).bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/v1/clients/{escaped}");
        prop_assert_eq!(Target::of_path(&path), one_of(Kind::Client, &id, Some(&origin)));
    }

    #[test]
    fn any_answer_is_read_or_refused(body in any::<Vec<u8>>()) {
        for kind in Kind::ALL {
            let _ = (list(kind, &body, "o", None, 9), one(kind, &body, "o"), plain(&body));
        }
    }
}
