use proptest::prelude::*;

use super::*;
use crate::backend_id::tagged;

/// SRS 7.0.18 with `hls_ctx on`, asked for `/live/cam-1.m3u8?token=a%2Fb+c`.
const SRS_MASTER: &str = include_str!("../../tests/data/srs_hls_master.m3u8");

/// What it answers to the URI in that.
const SRS_MEDIA: &str = include_str!("../../tests/data/srs_hls_media.m3u8");

/// SRS 7.0.18 with `hls_ctx off` and `hls_keys on`, the keys on a host of their own.
const SRS_KEYS: &str = include_str!("../../tests/data/srs_hls_keys.m3u8");

/// NGINX 1.22 with its RTMP module and `hls_variant`.
const NGINX_MASTER: &str = include_str!("../../tests/data/nginx_rtmp_master.m3u8");

/// FFmpeg 5.1, fMP4 with sound apart.
const FFMPEG_MASTER: &str = include_str!("../../tests/data/ffmpeg_master.m3u8");

/// FFmpeg 5.1, fMP4 in a single file.
const FFMPEG_BYTERANGE: &str = include_str!("../../tests/data/ffmpeg_byterange.m3u8");

const HOSTS: [&str; 1] = ["edge.example:8080"];

#[test]
fn playlists_of_srs_get_an_id_on_every_uri() {
    let expected = SRS_MASTER.replace("m3u8?hls_ctx", "m3u8?spbhid=ID&hls_ctx");
    check(SRS_MASTER, PlaylistKind::Master, &expected);
    check(SRS_MEDIA, PlaylistKind::Media, &SRS_MEDIA.replace(".ts?", ".ts?spbhid=ID&"));
    check(SRS_KEYS, PlaylistKind::Media, &SRS_KEYS.replace(".ts\n", ".ts?spbhid=ID\n"));
    assert_eq!(Playlist::parse(SRS_MEDIA.as_bytes()).unwrap().uris().count(), 6);
}

#[test]
fn playlists_of_others_do_too() {
    check(NGINX_MASTER, PlaylistKind::Master, &NGINX_MASTER.replace(".m3u8", ".m3u8?spbhid=ID"));
    check(FFMPEG_MASTER, PlaylistKind::Master, &FFMPEG_MASTER.replace(".m3u8", ".m3u8?spbhid=ID"));
    check(FFMPEG_BYTERANGE, PlaylistKind::Media, &FFMPEG_BYTERANGE.replace(".m4s", ".m4s?spbhid=ID"));
}

#[test]
fn keys_beside_the_segments_get_an_id() {
    let beside = SRS_KEYS.replace("http://keys.example.com/noctx/live/", "");
    let expected = beside.replace(".ts\n", ".ts?spbhid=ID\n").replace(".key\"", ".key?spbhid=ID\"");
    check(&beside, PlaylistKind::Media, &expected);
}

#[test]
fn every_tag_that_holds_a_uri_is_known() {
    for line in [
        r#"#EXT-X-KEY:METHOD=AES-128,URI="<k?a=1,2>",IV=0x1"#,
        r#"#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES,URI="<k>",KEYFORMAT="identity""#,
        r#"#EXT-X-MAP:URI="<init.mp4>",BYTERANGE="808@0""#,
        r#"#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a,b=c",NAME="URI=x",URI="<a.m3u8>""#,
        r#"#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="<i.m3u8>""#,
        r#"#EXT-X-PART:DURATION=0.2,URI="<p.1.mp4>",INDEPENDENT=YES"#,
        r#"#EXT-X-PRELOAD-HINT:TYPE=PART,URI="<p.2.mp4>",BYTERANGE-START=0"#,
        r#"#EXT-X-RENDITION-REPORT:URI="<../1M/live.m3u8>",LAST-MSN=1,LAST-PART=3"#,
        r#"#EXT-X-SESSION-DATA:DATA-ID="com.example",URI="<d.json>""#,
        r#"#EXT-X-CONTENT-STEERING:SERVER-URI="</steer?v=1>",PATHWAY-ID="A""#,
        r#"#EXT-X-DATERANGE:ID="1",X-ASSET-URI="<ad.m3u8>",X-ASSET-LIST="<list.json>""#,
        "#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"a,b\"\n<v.m3u8>",
        "#EXTINF:4,title.ts\n<s.ts>\n",
        "#EXT-X-BYTERANGE:8610@808\n \t<s.ts> \r\n",
        "#EXTINF:4,\n<http://edge.example:8080/s.ts>",
        "#EXTINF:4,\n<//EDGE.example:8080/s.ts>",
        "<first.ts>\n<second.ts>",
    ] {
        let (marked, line) = (format!("#EXTM3U\n{line}"), line.replace(['<', '>'], ""));
        let text = format!("#EXTM3U\n{line}");
        let rewritten = Playlist::parse(text.as_bytes()).unwrap().rewrite(&HOSTS, |uri| format!("<{uri}>"));
        assert_eq!(rewritten, marked);
    }
}

#[test]
fn what_is_no_uri_of_ours_stays() {
    for line in [
        "# a comment about x.ts",
        "#EXTINF:4,x.ts",
        "#EXT-X-UNKNOWN:URI=\"x.ts\"",
        "#EXT-X-MAPS:URI=\"x.ts\"",
        "#EXT-X-KEY:METHOD=NONE",
        "#EXT-X-KEY:METHOD=AES-128,URI=x.key",
        "#EXT-X-KEY:METHOD=AES-128,URI=\"x.key",
        "#EXT-X-KEY:METHOD=AES-128,URI=\"\"",
        "#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"skd://x.key\"",
        "#EXT-X-KEY:METHOD=AES-128,XURI=\"x.key\",uri=\"x.key\"",
        "#EXT-X-KEY",
        "#EXT-X-DEFINE:NAME=\"base\",VALUE=\"x.ts\"",
        "{$base}/x.ts",
        "http://cdn.example/x.ts",
        "//cdn.example/x.ts",
        "",
        "  \t",
    ] {
        for end in ["", "\n", "\r\n"] {
            let text = format!("#EXTM3U{end}\n{line}{end}");
            let playlist = Playlist::parse(text.as_bytes()).unwrap();
            assert_eq!(playlist.rewrite(&HOSTS, |uri| panic!("{uri} of {line}")), text);
        }
    }
}

#[test]
fn names_that_hold_an_extension_are_whole() {
    let text = "#EXTM3U\r\n#EXTINF:4,a.ts?b\r\nx.ts/a.tsx.ts\r\n";
    check(text, PlaylistKind::Media, &text.replace(".ts\r\n", ".ts?spbhid=ID\r\n"));
}

#[test]
fn a_low_latency_playlist_keeps_everything_else() {
    let text = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-VERSION:9\n\
                #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.0,CAN-SKIP-UNTIL=12.0\n\
                #EXT-X-PART-INF:PART-TARGET=0.33334\n#EXT-X-MEDIA-SEQUENCE:266\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n\
                #EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4.00008,\nfileSequence269.mp4\n\
                #EXT-X-PART:DURATION=0.33334,URI=\"filePart270.1.mp4\"\n\
                #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"filePart270.2.mp4\"\n\
                #EXT-X-RENDITION-REPORT:URI=\"../1M/waitForMSN.php\",LAST-MSN=270,LAST-PART=1\n";
    let expected = text
        .replace("init.mp4", "init.mp4?spbhid=ID")
        .replace("269.mp4", "269.mp4?spbhid=ID")
        .replace(".1.mp4", ".1.mp4?spbhid=ID")
        .replace(".2.mp4", ".2.mp4?spbhid=ID")
        .replace(".php", ".php?spbhid=ID");
    check(text, PlaylistKind::Media, &expected);
}

#[test]
fn what_is_no_playlist_is_refused() {
    for body in [
        "",
        "Not Found",
        "<html>",
        "#EXTM3U8\n",
        " #EXTM3U\n",
        "\n#EXTM3U\n",
        "#EXTINF:4,\n#EXTM3U",
        "\u{FEFF}#EXTM3U\n",
    ] {
        assert_eq!(Playlist::parse(body.as_bytes()), Err(PlaylistError::FirstLine), "{body}");
    }
    assert_eq!(Playlist::parse(b"#EXTM3U\n\xFF"), Err(PlaylistError::Encoding));
    for body in ["#EXTM3U", "#EXTM3U \r\n"] {
        assert!(Playlist::parse(body.as_bytes()).is_ok(), "{body}");
    }
}

#[test]
fn every_truncation_is_rewritten_and_keeps_what_it_had() {
    for text in [SRS_MASTER, SRS_KEYS, FFMPEG_MASTER, FFMPEG_BYTERANGE] {
        for end in "#EXTM3U".len()..text.len() {
            let playlist = Playlist::parse(&text.as_bytes()[..end]).unwrap();
            assert_eq!(playlist.rewrite(&HOSTS, str::to_owned), text[..end]);
        }
    }
}

proptest! {
    #[test]
    fn a_rewritten_playlist_has_the_same_lines_and_is_rewritten_once(
        lines in prop::collection::vec(
            "#EXT-X-(MAP|KEY|PART|MEDIA|X):(URI=\"?[a-z.,=]{0,9}\"?,?|[A-Z]=\"[^\"\n]{0,5}\",?){0,3}|#?[ -~]{0,20}|.*",
            0..10,
        ),
    ) {
        let text = format!("#EXTM3U\n{}", lines.join("\n"));
        let playlist = Playlist::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(playlist.rewrite(&HOSTS, str::to_owned), &text[..]);
        let rewritten = playlist.rewrite(&HOSTS, |uri| tagged(uri, "ID"));
        let again = Playlist::parse(rewritten.as_bytes()).unwrap();
        prop_assert_eq!(again.rewrite(&HOSTS, |uri| tagged(uri, "ID")), &rewritten[..]);
        prop_assert_eq!((again.uris().count(), again.kind()), (playlist.uris().count(), playlist.kind()));
        prop_assert_eq!(rewritten.lines().count(), text.lines().count());
    }
}

#[track_caller]
fn check(text: &str, kind: PlaylistKind, expected: &str) {
    let playlist = Playlist::parse(text.as_bytes()).unwrap();
    assert_eq!(playlist.kind(), kind);
    assert_eq!(playlist.rewrite(&HOSTS, |uri| tagged(uri, "ID")), expected);
    assert_ne!(text, expected);
}
