use proptest::prelude::*;

use super::*;

const GO_RTC: &str = r#"{"stream_url":"__defaultVhost__/live/s1","ufrag":"5r3x0k72:aB+/"}"#;
const GO_HLS: &str = r#"{"spbhid":"067270c","stream_url":"__defaultVhost__/live/s1","full_url":"http://127.0.0.1/live/s1.m3u8"}"#;
const PWD: &str = "7u1m0b8l1d6m9y43x8zz1g9c3v2n8k5a";

fn session() -> SharedSession {
    SharedSession {
        stream: "__defaultVhost__/live/s1".parse().unwrap(),
        ufrags: "5r3x0k72:aB+/".parse().unwrap(),
        origin: OriginId::new("s", "v", "1"),
        media: "10.0.0.9:8000".parse().unwrap(),
        pwd: PWD.parse().unwrap(),
        role: Role::Player,
    }
}

#[test]
fn the_vectors_are_those_that_were_captured() {
    let captured = include_str!("../go_proxy.tsv");
    for value in [GO_RTC, GO_HLS] {
        assert_eq!(captured.matches(&format!("\t{value}\n")).count(), 2, "{value}");
    }
}

#[test]
fn reads_what_the_go_proxy_wrote_and_writes_the_same() {
    let SharedSession { stream, ufrags, .. } = session();
    let found = FoundSession::parse(&ufrags, GO_RTC.as_bytes()).unwrap();
    assert_eq!(found, FoundSession::OfGo { stream: stream.clone(), ufrags });
    assert_eq!(session().to_go_json().unwrap(), GO_RTC.as_bytes());
    let hls = HlsId { spbhid: "067270c".into(), stream, full_url: "http://127.0.0.1/live/s1.m3u8".into() };
    assert_eq!(HlsId::parse(GO_HLS.as_bytes()).unwrap(), hls);
    assert_eq!(hls.to_json().unwrap(), GO_HLS.as_bytes());
}

#[test]
fn a_session_begins_as_the_go_proxy_reads_it_and_goes_on_as_we_do() {
    let json = String::from_utf8(session().to_json().unwrap()).unwrap();
    assert_eq!(
        json,
        format!(
            "{},\"origin\":\"s-v-1\",\"media\":\"10.0.0.9:8000\",\"pwd\":\"{PWD}\",\"role\":\"player\"}}",
            GO_RTC.trim_end_matches('}')
        )
    );
    let found = FoundSession::parse(&session().ufrags, json.as_bytes()).unwrap();
    assert_eq!(found, FoundSession::Shared(session()));
}

#[test]
fn the_password_is_nowhere_but_under_the_ufrags() {
    assert!(!String::from_utf8(session().to_go_json().unwrap()).unwrap().contains(PWD));
    assert!(!format!("{:?}", FoundSession::Shared(session())).contains(PWD));
}

#[test]
fn what_is_no_session_of_its_key_is_refused() {
    let (ufrags, json) = (session().ufrags, session().to_json().unwrap());
    for cut in 0..json.len() {
        assert!(FoundSession::parse(&ufrags, &json[..cut]).is_err(), "{cut}");
    }
    for cut in 0..GO_HLS.len() {
        assert!(HlsId::parse(&GO_HLS.as_bytes()[..cut]).is_err(), "{cut}");
    }
    let other = FoundSession::parse(&"abcd:efgh".parse().unwrap(), &json);
    assert!(matches!(other, Err(ValueError::OtherSession)));
    assert!(FoundSession::parse(&ufrags, &vec![b' '; MAX_SESSION + 1]).is_err());
    assert!(HlsId::parse(&vec![b' '; MAX_HLS + 1]).is_err());
    let short = String::from_utf8(json).unwrap().replace(PWD, "short");
    assert!(matches!(FoundSession::parse(&ufrags, short.as_bytes()), Err(ValueError::Ice(_))));
}

proptest! {
    #[test]
    fn every_session_comes_back(
        local in "[a-zA-Z0-9+/]{4,32}", remote in "[a-zA-Z0-9+/]{4,32}", pwd in "[a-zA-Z0-9+/]{22,64}",
        media: SocketAddr, player: bool,
    ) {
        let media = SocketAddr::new(media.ip(), media.port());
        let session = SharedSession {
            ufrags: format!("{local}:{remote}").parse().unwrap(),
            pwd: pwd.parse().unwrap(),
            role: if player { Role::Player } else { Role::Publisher },
            media,
            ..session()
        };
        let found = FoundSession::parse(&session.ufrags, &session.to_json().unwrap()).unwrap();
        prop_assert_eq!(found, FoundSession::Shared(session));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = FoundSession::parse(&session().ufrags, &bytes);
        let _ = HlsId::parse(&bytes);
    }
}
