use proptest::prelude::*;

use super::*;

type Call = fn(&StreamRules) -> Result<StreamKey, StreamUrlError>;

/// Every way to ask for stream `s1` of app `live` on the default vhost.
const DEFAULT_VHOST_CALLS: &[(&str, Call)] = &[
    ("RTMP by domain", |r| r.rtmp("rtmp://unlisted.example.com/live", "s1")),
    ("RTMP by IP and port", |r| r.rtmp("rtmp://1.2.3.4:11935/live", "s1")),
    ("RTMP by IPv6", |r| r.rtmp("rtmp://[2001:db8::1]:1935/live", "s1")),
    ("RTMP with a token", |r| r.rtmp("rtmp://1.2.3.4/live", "s1?token=x/y")),
    ("RTMP with a trailing slash", |r| r.rtmp("rtmp://1.2.3.4/live/", "s1")),
    ("RTMP with repeated slashes", |r| r.rtmp("rtmp://1.2.3.4//live", "/s1")),
    ("RTMP with a query before the stream", |r| r.rtmp("rtmp://1.2.3.4/live?token=x", "s1")),
    ("RTMP with an unlisted vhost", |r| {
        r.rtmp("rtmp://cdn.example.com/live?vhost=unlisted.example.com", "s1")
    }),
    ("RTMP with the default vhost", |r| r.rtmp("rtmp://1.2.3.4/live?vhost=__defaultVhost__", "s1")),
    ("RTMP with _definst_", |r| r.rtmp("rtmp://1.2.3.4/live/_definst_", "s1")),
    ("RTMP with credentials", |r| r.rtmp("rtmp://user:p@1.2.3.4/live", "s1")),
    ("RTMP with all in the connect URL", |r| r.rtmp("rtmp://1.2.3.4/live/s1", "")),
    ("RTMP with all in the connect URL, the stream after the query", |r| {
        r.rtmp("rtmp://1.2.3.4/live?token=x/s1", "")
    }),
    ("RTMP with all in the connect URL and a slash", |r| r.rtmp("rtmp://1.2.3.4/live/s1/", "")),
    ("RTMP with blanks", |r| r.rtmp("rtmp://1.2.3.4/live ", " s1\r\n")),
    ("RTMP without an app", |r| r.rtmp("rtmp://1.2.3.4", "s1")),
    ("FLV by domain", |r| r.http(Some("unlisted.example.com:18080"), "/live/s1.flv", None)),
    ("FLV by domain on port 80", |r| r.http(Some("unlisted.example.com"), "/live/s1.flv", None)),
    ("FLV by IP", |r| r.http(Some("1.2.3.4:18080"), "/live/s1.flv", Some("token=x"))),
    ("FLV by IPv6", |r| r.http(Some("[2001:db8::1]:18080"), "/live/s1.flv", None)),
    ("FLV without Host", |r| r.http(None, "/live/s1.flv", None)),
    ("FLV with escapes", |r| r.http(None, "/live/%731.flv", None)),
    ("TS", |r| r.http(Some("1.2.3.4"), "/live/s1.ts", None)),
    ("HLS", |r| r.http(Some("1.2.3.4"), "/live/s1.m3u8", Some("hls_ctx=1"))),
    ("WHIP by domain", |r| r.http(Some("unlisted.example.com"), "/rtc/v1/whip/", Some("app=live&stream=s1"))),
    ("WHIP by IP", |r| {
        r.http(Some("1.2.3.4:11985"), "/rtc/v1/whip/", Some("stream=s1&app=live&eip=1.2.3.4"))
    }),
    ("WHIP without an app", |r| r.http(Some("1.2.3.4:11985"), "/rtc/v1/whip/", Some("stream=s1"))),
    ("WHEP with an escaped slash", |r| {
        r.http(None, "/rtc/v1/whep/", Some("app=%2Flive&stream=s1%3Ftoken=x"))
    }),
    ("legacy by domain", |r| r.rtc_url("webrtc://unlisted.example.com/live/s1")),
    ("legacy by IP and port", |r| r.rtc_url("webrtc://1.2.3.4:1985/live/s1?token=x")),
    ("legacy with a query before the stream", |r| r.rtc_url("webrtc://1.2.3.4/live?token=x/s1")),
    ("SRT by resource", |r| r.srt("#!::r=live/s1,m=publish")),
    ("SRT by unlisted host", |r| r.srt("#!::h=unlisted.example.com,r=live/s1,m=request")),
    ("SRT old style", |r| r.srt("#!::h=live/s1,m=PUBLISH")),
    ("SRT with ampersands", |r| r.srt("#!::m=request&&r=live/s1?token=x;user=bob")),
    ("SRT with a resource behind an old host", |r| r.srt("#!::h=live/other,r=live/s1")),
    ("SRT with a resource before an old host", |r| r.srt("#!::r=live/s1,h=live/other")),
    ("SRT with keys that end as others begin", |r| {
        r.srt("#!::auth=x.y,user=bob,r=live/s1,m=publish,fresh=no,her=live/other")
    }),
    ("SRT bare path with a query", |r| r.srt("live/s1?secret=x")),
    ("SRT bare path", |r| r.srt("live/s1")),
    ("SRT bare stream", |r| r.srt("s1")),
];

/// Every way to ask for stream `s1` of app `live` on the listed vhost `cdn.example.com`.
const LISTED_VHOST_CALLS: &[(&str, Call)] = &[
    ("RTMP by domain", |r| r.rtmp("rtmp://cdn.example.com/live", "s1")),
    ("RTMP by domain in capitals", |r| r.rtmp("rtmp://CDN.example.com:1935/live", "s1")),
    ("RTMP by vhost", |r| r.rtmp("rtmp://1.2.3.4/live?vhost=cdn.example.com", "s1?token=x")),
    ("RTMP by domain parameter", |r| r.rtmp("rtmp://1.2.3.4/live?domain=cdn.example.com", "s1")),
    ("RTMP by vhost after the stream", |r| r.rtmp("rtmp://1.2.3.4/live", "s1?token=x&vhost=cdn.example.com")),
    ("RTMP by ...vhost...", |r| r.rtmp("rtmp://1.2.3.4/live...vhost...cdn.example.com", "s1")),
    ("RTMP by vhost over domain", |r| r.rtmp("rtmp://unlisted.example.com/live?vhost=cdn.example.com", "s1")),
    ("RTMP by vhost of an app with a slash", |r| r.rtmp("rtmp://1.2.3.4/live?vhost=cdn.example.com/", "s1")),
    ("RTMP by vhost, the stream after it", |r| r.rtmp("rtmp://1.2.3.4/live?vhost=cdn.example.com/s1", "")),
    ("RTMP by _definst_ and vhost", |r| r.rtmp("rtmp://1.2.3.4/live/_definst_?vhost=cdn.example.com", "s1")),
    ("FLV by domain", |r| r.http(Some("cdn.example.com:18080"), "/live/s1.flv", None)),
    ("FLV by domain on port 80", |r| r.http(Some("cdn.example.com"), "/live/s1.flv", None)),
    ("FLV by vhost", |r| r.http(Some("1.2.3.4:18080"), "/live/s1.flv", Some("vhost=cdn.example.com"))),
    ("HLS by vhost", |r| r.http(Some("[::1]:18080"), "/live/s1.m3u8", Some("vhost=cdn%2Eexample.com"))),
    ("WHIP by domain", |r| r.http(Some("cdn.example.com"), "/rtc/v1/whip/", Some("app=live&stream=s1"))),
    ("WHIP by vhost", |r| r.http(None, "/rtc/v1/whip/", Some("app=live&stream=s1&vhost=cdn.example.com"))),
    ("legacy by domain", |r| r.rtc_url("webrtc://cdn.example.com/live/s1")),
    ("legacy by vhost", |r| r.rtc_url("webrtc://1.2.3.4/live/s1?vhost=cdn.example.com")),
    ("SRT by host", |r| r.srt("#!::h=cdn.example.com,r=live/s1,m=publish")),
    ("SRT by vhost", |r| r.srt("#!::r=live/s1,m=publish,vhost=cdn.example.com")),
    ("SRT old style", |r| r.srt("#!::h=cdn.example.com/live/s1,m=publish")),
];

#[test]
fn defect_13_one_stream_has_one_key_in_every_protocol() {
    for (name, call) in DEFAULT_VHOST_CALLS {
        assert_eq!(call(&rules()).as_ref().map(StreamKey::as_str), Ok("__defaultVhost__/live/s1"), "{name}");
    }
    for (name, call) in LISTED_VHOST_CALLS {
        assert_eq!(call(&rules()).as_ref().map(StreamKey::as_str), Ok("cdn.example.com/live/s1"), "{name}");
    }
}

#[test]
fn app_takes_every_name_but_the_last() {
    for key in [
        rules().rtmp("rtmp://h/a/b", "c/s1"),
        rules().http(None, "/a/b/c/s1.flv", None),
        rules().http(None, "/rtc/v1/whip/", Some("app=a/b/c&stream=s1")),
        rules().rtc_url("webrtc://h/a/b/c/s1"),
        rules().srt("#!::r=a/b/c/s1"),
    ] {
        let key = key.unwrap();
        assert_eq!((key.vhost(), key.app(), key.stream()), (DEFAULT_VHOST, "a/b/c", "s1"));
    }
}

#[test]
fn only_the_last_extension_of_a_path_is_cut() {
    check(&rules().http(None, "/live/s1.hd.flv", None), "__defaultVhost__/live/s1.hd");
    check(&rules().rtmp("rtmp://h/live", "s1.hd"), "__defaultVhost__/live/s1.hd");
}

#[test]
fn unnamed_streams_are_those_srs_assumes() {
    check(&rules().http(None, "/rtc/v1/whip/", None), "__defaultVhost__/live/livestream");
    check(&rules().srt(""), "__defaultVhost__/live/livestream");
}

#[test]
fn defect_14_every_stream_id_that_srs_accepts_is_a_stream_and_a_mode() {
    use SrtMode::{Publish, Request};
    let rows = [
        ("#!::r=live/s1,m=publish", "live/s1", Publish),
        ("#!::m=Request,r=live/s1", "live/s1", Request),
        ("#!::r=live/s1", "live/s1", Request),
        ("#!::h=live/s1,m=publish", "live/s1", Publish),
        ("#!::h=srs.srt.com.cn/live/s1,m=publish", "live/s1", Publish),
        ("#!::h=live/s1?secret=m=publish,m=request", "live/s1", Request),
        ("#!::auth=h,user=bob,r=live/s1,form=publish", "live/s1", Request),
        ("live/s1", "live/s1", Request),
        ("s1", "live/s1", Request),
        ("", "live/livestream", Publish),
    ];
    for (id, path, mode) in rows {
        let key = format!("{DEFAULT_VHOST}/{path}").parse().unwrap();
        assert_eq!(rules().srt_request(id), Ok((key, mode)), "{id}");
    }
    let go = go_rules().srt_request("#!::r=live/s1,m=publish").unwrap();
    assert_eq!(go.1, Publish);
}

#[test]
fn plus_is_no_space() {
    check(&rules().http(None, "/rtc/v1/whip/", Some("app=live&stream=a+b")), "__defaultVhost__/live/a+b");
}

#[test]
fn names_what_is_wrong_with_an_address() {
    check_error(&rules().rtmp("rtmp://h/live", ""), StreamUrlError::EmptyStream);
    check_error(&rules().rtmp("rtmp://h/live", "?token=x"), StreamUrlError::EmptyStream);
    check_error(&rules().rtmp("h/live", "s1"), StreamUrlError::NotAUrl);
    check_error(&rules().rtc_url("s1"), StreamUrlError::NotAUrl);
    check_error(&rules().http(None, "/live/", None), StreamUrlError::EmptyStream);
    check_error(&rules().http(None, "/live/.flv", None), StreamUrlError::EmptyStream);
    check_error(&rules().http(None, "/live/a%0Ab.flv", None), StreamUrlError::ControlCharacter);
    check_error(&rules().srt("#!::m=publish"), StreamUrlError::EmptyStream);
    check_error(&rules().srt("#!::r=live/s1,m=steal"), StreamUrlError::SrtMode);
    check_error(&rules().rtmp("rtmp://h/live", &"s".repeat(1024)), StreamUrlError::TooLong);
}

#[test]
fn a_stored_key_is_read_back() {
    let key: StreamKey = "__defaultVhost__/live/s1".parse().unwrap();
    assert_eq!(rules().srt("live/s1"), Ok(key));
    check_error(&"__defaultVhost__/live/".parse(), StreamUrlError::EmptyStream);
}

#[test]
fn go_compatible_keys_are_those_of_the_go_proxy() {
    let rtmp = |tc_url, stream| go_rules().rtmp(tc_url, stream);
    check(&rtmp("rtmp://1.2.3.4:11935/live", "s1?token=x"), "__defaultVhost__/live/s1");
    check(&rtmp("rtmp://cdn.example.com/live", "s1"), "cdn.example.com/live/s1");
    check(&rtmp("rtmp://localhost/live", "s1"), "__defaultVhost__/live/s1");
    check(&rtmp("rtmp://[2001:db8::1]:1935/live", "s1"), "__defaultVhost__/live/s1");
    check(&rtmp("rtmp://[::ffff:1.2.3.4]/live", "s1"), "__defaultVhost__/live/s1");
    check(&rtmp("rtmp://1.2.3.4/live?vhost=x", "s1"), "__defaultVhost__/live");
    check(&rtmp("rtmp://1.2.3.4/live/", "s1"), "__defaultVhost__/live//s1");
    check_error(&rtmp("rtmp://1.2.3.4/live", "100%"), StreamUrlError::Escape);

    let http = |host, path, query| go_rules().http(Some(host), path, query);
    check(&http("cdn.example.com:18080", "/live/s1.flv", None), "cdn.example.com/live/s1");
    check(&http("cdn.example.com", "/live/s1.flv", None), "__defaultVhost__/live/s1");
    check(&http("1.2.3.4:18080", "/live/s1-0.ts", None), "__defaultVhost__/live/s1-0");
    check(&http("1.2.3.4", "/live/a%2520b.flv", None), "__defaultVhost__/live/a b");
    check(&http("h:1985", "/rtc/v1/whip/", Some("app=live&stream=a.flv")), "__defaultVhost__/live/a.flv");
    check(&http("h:1985", "/rtc/v1/whip/", Some("app=live&stream=a+b")), "__defaultVhost__/live/a b");
    check(&http("h:1985", "/rtc/v1/whip/", Some("stream=s1")), "__defaultVhost__/s1");
    check(&http("h:1985", "/rtc/v1/whip/", None), "__defaultVhost__/rtc/v1/whip/");

    let srt = |stream_id| go_rules().srt(stream_id);
    check(&srt("#!::r=live/s1,m=publish"), "__defaultVhost__/live/s1");
    check(&srt("#!::h=cdn.example.com,r=live/s1"), "cdn.example.com/live/s1");
    check(&srt("#!::auth=x.y,h=cdn.example.com,user=bob"), "x.y/bob");
    check_error(&srt("live/s1"), StreamUrlError::SrtResource);
}

proptest! {
    #[test]
    fn a_key_in_an_address_is_found_again(
        app in "[a-z%+.]{1,9}(/[a-z0-9]{1,9}){0,2}",
        stream in "[a-z0-9._+-]{1,20}",
    ) {
        let app_stream = format!("{app}/{stream}");
        let key = rules().srt(&app_stream).unwrap();
        prop_assert_eq!(&key, &rules().rtmp(&format!("rtmp://h/{app}"), &stream).unwrap());
        prop_assert_eq!(&key, &rules().rtc_url(&format!("webrtc://h/{app_stream}")).unwrap());
        prop_assert_eq!(&key, &rules().http(None, &format!("/{app_stream}.flv"), None).unwrap());
        let query = format!("app={app}&stream={stream}");
        prop_assert_eq!(&key, &rules().http(None, "/rtc/v1/whip/", Some(&query)).unwrap());
        prop_assert_eq!(key.to_string().parse(), Ok(key));
    }

    #[test]
    fn every_key_is_in_normal_form(
        text in "([a-z]{0,4}://)?(.|/|\\?|vhost=|_definst_|%[0-9a-f]{2}){0,40}",
        stream in ".*",
    ) {
        for key in all_keys(&rules(), &text, &stream).into_iter().flatten() {
            prop_assert!(!key.app().is_empty() && !key.stream().is_empty());
            prop_assert!(!key.as_str().contains("//") && !key.as_str().contains('?'));
        }
    }

    #[test]
    fn any_text_is_a_key_or_an_error_for_go(text in "([a-z]{0,4}://)?.*", stream in ".*") {
        let _ = all_keys(&go_rules(), &text, &stream);
    }
}

#[test]
fn every_truncation_is_a_key_or_an_error() {
    let url = "rtmp://user:p@[2001:db8::1]:1935/live...vhost...cdn.example.com/_definst_?a=%41#b";
    let srt = "#!::h=cdn.example.com/live/s1,r=live/%73,m=publish&vhost=x";
    for text in [url, srt] {
        for end in 0..text.len() {
            let _ = all_keys(&rules(), &text[..end], &text[end..]);
            let _ = all_keys(&go_rules(), &text[..end], &text[end..]);
        }
    }
}

fn all_keys(rules: &StreamRules, text: &str, stream: &str) -> [Result<StreamKey, StreamUrlError>; 6] {
    [
        rules.rtmp(text, stream),
        rules.rtc_url(text),
        rules.http(Some(stream), text, Some(stream)),
        rules.http(None, "/rtc/v1/whep/", Some(text)),
        rules.srt(text),
        rules.srt(&format!("#!::{text}")),
    ]
}

#[track_caller]
fn check(key: &Result<StreamKey, StreamUrlError>, expected: &str) {
    assert_eq!(key.as_ref().map(StreamKey::as_str), Ok(expected));
}

#[track_caller]
fn check_error(key: &Result<StreamKey, StreamUrlError>, expected: StreamUrlError) {
    assert_eq!(*key, Err(expected));
}

fn rules() -> StreamRules {
    StreamRules { vhosts: vec!["cdn.example.com".to_owned()], go_compatible: false }
}

fn go_rules() -> StreamRules {
    StreamRules { vhosts: Vec::new(), go_compatible: true }
}
