use proptest::prelude::*;

use super::*;
use crate::stream_url::DEFAULT_VHOST;

#[test]
fn every_way_to_a_stream_has_one_key_in_every_protocol() {
    for (name, host, vhost, expected) in [
        ("listed domain", "cdn.example.com:18080", "", "cdn.example.com"),
        ("listed domain, port 80", "cdn.example.com", "", "cdn.example.com"),
        ("listed domain in capitals", "CDN.Example.com", "", "cdn.example.com"),
        ("unlisted domain", "edge.example.com:18080", "", DEFAULT_VHOST),
        ("unlisted domain, port 80", "edge.example.com", "", DEFAULT_VHOST),
        ("address", "192.0.2.7:18080", "", DEFAULT_VHOST),
        ("address, port 80", "192.0.2.7", "", DEFAULT_VHOST),
        ("IPv6", "[2001:db8::1]:18080", "", DEFAULT_VHOST),
        ("IPv6, port 80", "[2001:db8::1]", "", DEFAULT_VHOST),
        ("name without a dot", "localhost:18080", "", DEFAULT_VHOST),
        ("vhost by address", "192.0.2.7", "cdn.example.com", "cdn.example.com"),
        ("vhost by another domain", "edge.example.com:18080", "cdn.example.com", "cdn.example.com"),
        ("unlisted vhost", "192.0.2.7:18080", "other.example.com", DEFAULT_VHOST),
        ("default vhost", "192.0.2.7:18080", DEFAULT_VHOST, DEFAULT_VHOST),
    ] {
        let expected = format!("{expected}/live/s1");
        for (protocol, key) in keys_in_every_protocol(host, vhost) {
            assert_eq!(key.as_ref().map(StreamKey::as_str), Ok(expected.as_str()), "{protocol} by {name}");
        }
    }
}

fn keys_in_every_protocol(host: &str, vhost: &str) -> Vec<(&'static str, Result<StreamKey, StreamUrlError>)> {
    let rules = rules();
    let (first, further) = match vhost {
        "" => (String::new(), String::new()),
        vhost => (format!("?vhost={vhost}"), format!("&vhost={vhost}")),
    };
    let media = |path: &str| {
        let query = format!("token=x{further}");
        let request = rules.media(Some(host), path, Some(&query)).map(|request| request.expect("media"));
        request.map(|request| request.streams().last().map(|stream| (*stream).clone()).expect("a stream"))
    };
    let first_of = |path: &str, query: &str| {
        let request = rules.media(Some(host), path, Some(&format!("{query}{further}")));
        request.map(|request| request.expect("media").streams()[0].clone())
    };
    let signalled = |path: &str| {
        let query = format!("app=live&stream=s1{further}");
        rules.http(Some(host), path, Some(&query))
    };
    let srt_host = if vhost.is_empty() { host.split(':').next().unwrap_or_default() } else { vhost };
    vec![
        ("RTMP", rules.rtmp(&format!("rtmp://{host}/live{first}"), "s1")),
        ("RTMP, vhost at the stream", rules.rtmp(&format!("rtmp://{host}/live"), &format!("s1{first}"))),
        ("FLV", media("/live/s1.flv")),
        ("TS", media("/live/s1.ts")),
        ("AAC", media("/live/s1.aac")),
        ("MP3", media("/live/s1.mp3")),
        ("HLS", media("/live/s1.m3u8")),
        ("HLS segment", first_of("/live/s1-12.ts", "hls_ctx=336vqi2o")),
        ("HLS segment with an id", first_of("/live/s1-12.ts", "spbhid=0600f4571080a82b7a18b264")),
        ("HLS segment without an id", media("/live/s1-12.ts")),
        ("HLS key", first_of("/live/s1-8.key", "")),
        ("DASH", media("/live/s1.mpd")),
        ("DASH segment", first_of("/live/s1/video-3.m4s", "")),
        ("DASH start", first_of("/live/s1/audio-init.mp4", "")),
        ("WHIP", signalled("/rtc/v1/whip/")),
        ("WHEP", signalled("/rtc/v1/whep/")),
        ("legacy", rules.rtc_url(&format!("webrtc://{host}/live/s1{first}"))),
        ("SRT", rules.srt(&format!("#!::h={srt_host},r=live/s1,m=request"))),
        ("SRT, old style", rules.srt(&format!("#!::h={srt_host}/live/s1,m=publish"))),
    ]
}

#[test]
fn a_path_tells_what_is_asked_for() {
    use MediaRequest as M;
    check("/live/s1.flv", "", &M::Live(key("live/s1")));
    check("/live/s1-2.flv", "", &M::Live(key("live/s1-2")));
    check("/live/s1.hd.ts", "", &M::Live(key("live/s1.hd")));
    check("/live/s1-2.ts", "", &M::LiveOrSegment { live: key("live/s1-2"), segment_of: key("live/s1") });
    check("/live/s1-2.ts", "hls_ctx=1", &M::Segment(vec![key("live/s1"), key("live/s1-2")]));
    check("/live/s1.ts", "spbhid=1", &M::Segment(vec![key("live/s1")]));
    check("/live/s1-x.ts", "a&spbhid", &M::Segment(vec![key("live/s1-x")]));
    check("/live/s1.aac", "spbhid=1", &M::Segment(vec![key("live/s1")]));
    check("/live/s1.m3u8", "hls_ctx=1&spbhid=1", &M::Playlist(key("live/s1")));
    check("/live/s1.mpd", "", &M::Manifest(key("live/s1")));
    check("/rtc/s1.flv", "", &M::Live(key("rtc/s1")));
    check("/s1.flv", "", &M::Live(key("live/s1")));
}

#[test]
fn a_segment_is_of_the_stream_in_its_name() {
    for (path, expected) in [
        ("/live/s1-2.m4s", &["live/s1", "live/s1-2"][..]),
        ("/live/cam-1-7.m4s", &["live/cam-1", "live/cam-1-7"]),
        ("/live/s1-init.mp4", &["live/s1", "live/s1-init"]),
        ("/live/s1/init.mp4", &["live/s1", "live/s1/init"]),
        ("/live/s1/video-init.mp4", &["live/s1", "live/s1/video", "live/s1/video-init"]),
        ("/a/b/s1/audio-3.m4s", &["a/b/s1", "a/b/s1/audio", "a/b/s1/audio-3"]),
        ("/live/audio-3.m4s", &["live/audio", "live/audio-3"]),
        ("/live/init.mp4", &["live/init"]),
        ("/live/cam_low-6023.m4v", &["live/cam_low", "live/cam_low-6023"]),
        ("/live/s1-8.key", &["live/s1", "live/s1-8"]),
        ("/live/s1.mp4", &["live/s1"]),
        ("/live/-2.m4s", &["live/-2"]),
        ("/live/s1-.m4s", &["live/s1-"]),
        ("/live/s1-2x.m4s", &["live/s1-2x"]),
    ] {
        check(path, "", &MediaRequest::Segment(expected.iter().map(|text| key(text)).collect()));
    }
}

#[test]
fn a_segment_chooses_no_origin() {
    let pick = |path, query| {
        let request = rules().media(None, path, Some(query)).unwrap().unwrap();
        request.stream_to_pick().map(ToString::to_string)
    };
    assert_eq!(pick("/live/s1-2.ts", ""), None);
    assert_eq!(pick("/live/s1.ts", "hls_ctx=1"), None);
    assert_eq!(pick("/live/s1/video-3.m4s", ""), None);
    for path in ["/live/s1.ts", "/live/s1.flv", "/live/s1.m3u8", "/live/s1.mpd"] {
        assert_eq!(pick(path, "").as_deref(), Some("__defaultVhost__/live/s1"));
    }
}

#[test]
fn what_is_no_media_is_told_apart() {
    for path in ["/", "/live/s1", "/live/s1.FLV", "/index.html", "/api/v1/versions", "/live/s1.flv/", "*", ""]
    {
        assert_eq!(rules().media(None, path, None), Ok(None), "{path}");
    }
    for path in ["/live/.flv", "/.m3u8", "/live/%2f.m4s"] {
        assert_eq!(rules().media(None, path, None), Err(StreamUrlError::EmptyStream), "{path}");
    }
}

#[test]
fn go_compatible_streams_are_those_of_the_go_proxy_and_segments_find_them() {
    let rules = StreamRules { go_compatible: true, ..StreamRules::default() };
    for (host, path, expected) in [
        ("cdn.example.com:18080", "/live/s1.flv", "cdn.example.com/live/s1"),
        ("cdn.example.com", "/live/s1.m3u8", "__defaultVhost__/live/s1"),
        ("cdn.example.com:18080", "/live/s1-0.m4s", "cdn.example.com/live/s1"),
        ("1.2.3.4:18080", "/live/s1/video-3.m4s", "__defaultVhost__/live/s1"),
    ] {
        let request = rules.media(Some(host), path, None).unwrap().unwrap();
        assert_eq!(request.streams()[0].as_str(), expected);
    }
}

proptest! {
    #[test]
    fn any_path_is_media_of_a_stream_or_not(
        path in "(/[a-z0-9.%-]{0,9}){0,4}(-[0-9]{0,3})?(\\.(ts|flv|m3u8|mpd|m4s|mp4|key))?|.*",
        query in "(spbhid|hls_ctx|vhost)?=?[a-z.&]{0,9}|.*",
        go_compatible in any::<bool>(),
    ) {
        let rules = StreamRules { go_compatible, ..rules() };
        if let Ok(Some(request)) = rules.media(Some("h"), &path, Some(&query)) {
            prop_assert!(!request.streams().is_empty());
            prop_assert!(request.stream_to_pick().is_none_or(|stream| request.streams() == [stream]));
        }
    }

    #[test]
    fn a_segment_finds_the_stream_of_its_playlist(
        stream in "[a-z0-9._+-]{1,12}",
        app in "[a-z]{1,9}(/[a-z]{1,9})?",
        sequence in any::<u32>(),
    ) {
        let playlist = rules().media(None, &format!("/{app}/{stream}.m3u8"), None).unwrap().unwrap();
        let expected = playlist.stream_to_pick();
        for file in ["-{n}.ts", "-{n}.m4s", "-{n}.key", "-init.mp4", "/init.mp4", "/video-{n}.m4s", "/audio-init.mp4"] {
            let path = format!("/{app}/{stream}{}", file.replace("{n}", &sequence.to_string()));
            let segment = rules().media(None, &path, Some("hls_ctx=1")).unwrap().unwrap();
            prop_assert!(segment.streams().contains(&expected.unwrap()), "{path}");
        }
    }
}

#[track_caller]
fn check(path: &str, query: &str, expected: &MediaRequest) {
    assert_eq!(rules().media(Some("192.0.2.7"), path, Some(query)).as_ref(), Ok(&Some(expected.clone())));
}

fn key(app_and_stream: &str) -> StreamKey {
    format!("{DEFAULT_VHOST}/{app_and_stream}").parse().unwrap()
}

fn rules() -> StreamRules {
    StreamRules { vhosts: vec!["cdn.example.com".to_owned()], go_compatible: false }
}
