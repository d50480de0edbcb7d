use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::origin::Origin;

fn member(name: &str) -> MemberId {
    MemberId::parse(name).unwrap()
}

fn origin() -> OriginId {
    OriginId::new("s", "v", "1")
}

fn stored() -> StoredOrigin {
    let rtmp = Some("10.0.0.9:1935".parse().unwrap());
    let origin = Origin { rtmp, ..Origin::bare("s", origin(), [10, 0, 0, 9].into()) };
    StoredOrigin::new(&origin, SystemTime::UNIX_EPOCH)
}

fn load() -> MemberLoad {
    MemberLoad { member: member("a"), sessions: [(origin(), 7)].into() }
}

#[track_caller]
fn arrives(told: &Told, notice: Notice) {
    let json = told.to_json(&member("a")).unwrap();
    assert_eq!(
        Notice::read(&json, &member("b")).unwrap(),
        Some(notice),
        "{}",
        String::from_utf8_lossy(&json)
    );
    assert_eq!(Notice::read(&json, &member("a")).unwrap(), None, "one's own");
    for cut in 0..json.len() {
        assert!(Notice::read(&json[..cut], &member("b")).is_err(), "{cut}");
    }
}

#[test]
fn every_notice_arrives_and_ones_own_are_ignored() {
    let stream = "__defaultVhost__/live/s1";
    arrives(
        &Told::Picked { stream: stream.into(), origin: origin() },
        Notice::Picked { stream: stream.parse().unwrap(), origin: origin() },
    );
    arrives(&Told::Origin { origin: stored().into() }, Notice::Origin(stored().into()));
    arrives(&Told::Draining { origin: origin(), on: true }, Notice::Draining { origin: origin(), on: true });
    arrives(&Told::Load { load: load() }, Notice::Load(load()));
    arrives(
        &Told::SessionEnded { ufrags: "abcd:efgh".into() },
        Notice::SessionEnded("abcd:efgh".parse().unwrap()),
    );
}

#[test]
fn a_notice_looks_like_this() {
    let told = Told::Picked { stream: "v/a/s".into(), origin: origin() };
    let json = String::from_utf8(told.to_json(&member("a")).unwrap()).unwrap();
    assert_eq!(json, r#"{"from":"a","kind":"picked","stream":"v/a/s","origin":"s-v-1"}"#);
}

#[test]
fn kinds_and_members_of_later_versions_are_ignored() {
    let later = br#"{"from":"a","kind":"moon_phase","phase":3}"#;
    assert_eq!(Notice::read(later, &member("b")).unwrap(), None);
    let more = br#"{"from":"a","kind":"draining","origin":"s-v-1","on":false,"by":"me"}"#;
    assert_eq!(
        Notice::read(more, &member("b")).unwrap(),
        Some(Notice::Draining { origin: origin(), on: false })
    );
}

#[test]
fn nonsense_is_refused() {
    for text in [
        "",
        "[]",
        r#"{"kind":"draining"}"#,
        r#"{"from":"a","kind":"draining","origin":"","on":true}"#,
        r#"{"from":"a","kind":"picked","stream":"","origin":"s-v-1"}"#,
        r#"{"from":"a","kind":"session_ended","ufrags":"abcd"}"#,
        r#"{"from":"a","kind":"origin","origin":{"ip":"10.0.0.9"}}"#,
        r#"{"from":"a","kind":"load","load":{"member":"a b","sessions":{}}}"#,
    ] {
        assert!(Notice::read(text.as_bytes(), &member("b")).is_err(), "{text}");
    }
    assert!(matches!(Notice::read(&vec![b' '; MAX_NOTICE + 1], &member("b")), Err(ValueError::TooLong(_))));
}

#[test]
fn members_have_short_printable_names_that_differ() {
    assert_ne!(MemberId::random(), MemberId::random());
    assert_eq!(MemberId::parse(MemberId::random().as_str()).map(|member| member.as_str().len()), Some(16));
    for name in ["", "a b", "ä", "a\n", &"a".repeat(129)] {
        assert_eq!(MemberId::parse(name), None, "{name:?}");
    }
}

#[test]
fn a_load_comes_back_and_nonsense_does_not() {
    assert_eq!(MemberLoad::parse(&load().to_json().unwrap()).unwrap(), load());
    assert!(MemberLoad::parse(br#"{"member":"a","sessions":{"":1}}"#).is_err());
    assert!(MemberLoad::parse(br#"{"member":"a","sessions":{"s-v-1":-1}}"#).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Notice::read(&bytes, &member("b"));
        let _ = MemberLoad::parse(&bytes);
    }
}
