use proptest::prelude::*;

use super::*;
use crate::backend_id::tagged;

/// SRS 7.0.18, of `/live/cam-1`.
const SRS: &str = include_str!("../../tests/data/srs.mpd");

/// NGINX 1.22 with its RTMP module.
const NGINX: &str = include_str!("../../tests/data/nginx_rtmp.mpd");

/// FFmpeg 5.1, every segment listed.
const FFMPEG_LIST: &str = include_str!("../../tests/data/ffmpeg_list.mpd");

/// FFmpeg 5.1, ranges of a single file.
const FFMPEG_SINGLE_FILE: &str = include_str!("../../tests/data/ffmpeg_single_file.mpd");

const HOSTS: [&str; 1] = ["edge.example:8080"];

#[test]
fn manifests_get_an_id_on_every_uri_but_a_directory() {
    check(SRS, &SRS.replace(".m4s\"", ".m4s?spbhid=ID\"").replace(".mp4\" media", ".mp4?spbhid=ID\" media"));
    check(NGINX, &NGINX.replace(".m4v\"", ".m4v?spbhid=ID\"").replace(".m4a\"", ".m4a?spbhid=ID\""));
    check(FFMPEG_LIST, &FFMPEG_LIST.replace(".m4s\"", ".m4s?spbhid=ID\""));
    check(FFMPEG_SINGLE_FILE, &FFMPEG_SINGLE_FILE.replace(".mp4<", ".mp4?spbhid=ID<"));
}

#[test]
fn templates_stay_whole() {
    let uris: Vec<_> = Manifest::parse(SRS.as_bytes()).unwrap().uris().collect();
    assert_eq!(uris[..3], ["cam-1/", "$RepresentationID$-init.mp4", "$RepresentationID$-$Number$.m4s"]);
    check_mark(r#"<SegmentTemplate media="«$Number%05d$.m4s»"/>"#);
}

#[test]
fn every_place_of_a_uri_is_known() {
    for body in [
        r#"<SegmentTemplate media="«m»" initialization='«i»' index = "«x»" bitstreamSwitching="«b»" duration="1"/>"#,
        r#"<SegmentList><SegmentURL media="«m»" mediaRange="0-1"/><SegmentURL index="«x»"></SegmentURL></SegmentList>"#,
        r#"<Initialization sourceURL="«i»"/><RepresentationIndex sourceURL="«x»"/><BitstreamSwitching sourceURL="«b»"/>"#,
        r#"<Period xlink:href="«p»" xlink:actuate="onLoad"/>"#,
        "<BaseURL>«v.mp4»</BaseURL>",
        "<BaseURL serviceLocation=\"a\"\n>\n «v.mp4» \n</BaseURL >",
        "<Location>«http://edge.example:8080/live/s1.mpd»</Location>",
        "<PatchLocation ttl=\"60\">«p.mpp»</PatchLocation>",
        "<Location><![CDATA[«/s1.mpd?a=1&b=2»]]></Location>",
        "<Location>\n <![CDATA[ «CDATA» ]]> </Location>",
        r#"<dash:SegmentURL media="«m»"/>"#,
    ] {
        check_mark(body);
    }
}

#[test]
fn what_is_no_uri_of_ours_stays() {
    for body in [
        "<BaseURL>cam-1/</BaseURL>",
        "<BaseURL>/live/?token=1</BaseURL>",
        "<BaseURL/><BaseURL></BaseURL><Location> </Location>",
        "<BaseURL>http://cdn.example/v.mp4</BaseURL>",
        "<Location>a<!-- b --></Location>",
        "<Location>&unknown;</Location>",
        r#"<Period xlink:href="urn:mpeg:dash:resolve-to-zero:2013"/>"#,
        r#"<AdaptationSet bitstreamSwitching="true" media="x" initialization="x"/>"#,
        r#"<UTCTiming schemeIdUri="urn:mpeg:dash:utc:http-iso:2014" value="http://edge.example:8080/time"/>"#,
        r#"<SegmentURL xmedia="x" Media="y" mediaRange="media='z'"/>"#,
        r#"<!-- <SegmentURL media="x"/> --><![CDATA[<SegmentURL media="x"/>]]>"#,
        r#"<?x <SegmentURL media="x"/> ?>"#,
    ] {
        let text = format!("<MPD>{body}</MPD>");
        let rewritten = manifest(&text).rewrite(&HOSTS, |uri| panic!("{uri} of {body}"));
        assert_eq!(rewritten, text);
    }
}

#[test]
fn what_is_relative_to_another_host_stays() {
    let segment = r#"<SegmentURL media="m"/>"#;
    let cdn = "<BaseURL>http://cdn.example/</BaseURL>";
    for (name, body, is_ours) in [
        ("base of the manifest", format!("{cdn}<Period>{segment}</Period>"), false),
        ("relative base below it", format!("{cdn}<Period><BaseURL>a/</BaseURL>{segment}</Period>"), false),
        ("base of a sibling", format!("<Period>{cdn}</Period><Period>{segment}</Period>"), true),
        (
            "base of ours below it",
            format!("{cdn}<Period><BaseURL>http://edge.example:8080/</BaseURL>{segment}</Period>"),
            true,
        ),
        ("one of two bases", format!("{cdn}<BaseURL>a/</BaseURL><Period>{segment}</Period>"), true),
        ("the other of two bases", format!("<BaseURL>a/</BaseURL>{cdn}<Period>{segment}</Period>"), true),
    ] {
        let text = format!("<MPD>{body}</MPD>");
        let rewritten = manifest(&text).rewrite(&HOSTS, |uri| format!("[{uri}]"));
        assert_eq!(rewritten, if is_ours { text.replace("\"m\"", "\"[m]\"") } else { text }, "{name}");
    }
}

#[test]
fn entities_are_read_and_written() {
    let text = r#"<MPD><SegmentURL media="m?a=1&amp;b=&#x26;"/><Location>l?a=1&amp;b=2</Location></MPD>"#;
    let expected = r#"<MPD><SegmentURL media="m?spbhid=ID&amp;a=1&amp;b=&amp;"/><Location>l?spbhid=ID&amp;a=1&amp;b=2</Location></MPD>"#;
    check(text, expected);
    assert_eq!(manifest(text).uris().next().unwrap(), "m?a=1&b=&");
    assert_eq!(manifest(text).rewrite(&HOSTS, str::to_owned), text);
}

#[test]
fn what_surrounds_the_root_stays() {
    let text = "\u{FEFF}<?xml version=\"1.0\"?>\n<!-- a --><MPD><BaseURL>v.mp4</BaseURL></MPD>\n<!-- b -->\n";
    check(text, &text.replace("v.mp4", "v.mp4?spbhid=ID"));
}

#[test]
fn what_is_no_manifest_is_refused() {
    for (body, error) in [
        ("", ManifestError::Root),
        ("Not Found", ManifestError::Root),
        ("#EXTM3U\n", ManifestError::Root),
        ("<html></html>", ManifestError::Root),
        ("<MPD/><html/>", ManifestError::Root),
        ("<MPD>", ManifestError::Malformed),
        ("<MPD><Period></MPD>", ManifestError::Malformed),
        ("<MPD></MPD", ManifestError::Malformed),
        ("<MPD><SegmentURL media='<a>'/></MPD>", ManifestError::Malformed),
        ("<MPD><SegmentURL media='a' media='b'/></MPD>", ManifestError::Malformed),
        ("<MPD><SegmentURL media=a/></MPD>", ManifestError::Malformed),
        ("<MPD><BaseURL>a</MPD>", ManifestError::Malformed),
        ("<!DOCTYPE MPD [<!ENTITY a \"b\">]><MPD>&a;</MPD>", ManifestError::Malformed),
    ] {
        assert_eq!(Manifest::parse(body.as_bytes()), Err(error), "{body}");
    }
    assert_eq!(Manifest::parse(b"<MPD>\xFF</MPD>"), Err(ManifestError::Encoding));
}

#[test]
fn every_truncation_is_an_error_or_keeps_its_bytes() {
    for text in [SRS, NGINX, FFMPEG_SINGLE_FILE] {
        for end in 0..text.len() {
            if let Ok(manifest) = Manifest::parse(&text.as_bytes()[..end]) {
                assert_eq!(manifest.rewrite(&HOSTS, str::to_owned), text[..end]);
                assert_eq!(text[end..].trim(), "");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_rewritten_manifest_is_one_and_is_rewritten_once(
        body in "(<(BaseURL|Location|Period)>|</(BaseURL|Location|Period)>|<SegmentURL media=[\"'][a-z&;/?:]{0,6}[\"'] ?/>|<!\\[CDATA\\[|\\]\\]>|[a-z/?&;\\[\\]]{0,9}){0,8}",
    ) {
        let text = format!("<MPD>{body}</MPD>");
        if let Ok(manifest) = Manifest::parse(text.as_bytes()) {
            prop_assert_eq!(manifest.rewrite(&HOSTS, str::to_owned), &text[..]);
            let rewritten = manifest.rewrite(&HOSTS, |uri| tagged(uri, "ID"));
            let again = Manifest::parse(rewritten.as_bytes()).unwrap();
            prop_assert_eq!(again.uris().count(), manifest.uris().count());
            prop_assert_eq!(again.rewrite(&HOSTS, |uri| tagged(uri, "ID")), rewritten);
        }
    }

    #[test]
    fn any_text_is_a_manifest_or_an_error(text in ".*") {
        for text in [format!("<MPD>{text}</MPD>"), text] {
            if let Ok(manifest) = Manifest::parse(text.as_bytes()) {
                prop_assert_eq!(manifest.rewrite(&HOSTS, str::to_owned), text);
            }
        }
    }
}

#[track_caller]
fn manifest(text: &str) -> Manifest<'_> {
    Manifest::parse(text.as_bytes()).unwrap()
}

/// What stands in guillemets is a URI.
#[track_caller]
fn check_mark(body: &str) {
    let marked = format!("<MPD>{body}</MPD>");
    let text = marked.replace(['«', '»'], "");
    assert_eq!(manifest(&text).rewrite(&HOSTS, |uri| format!("«{uri}»")), marked);
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(manifest(text).rewrite(&HOSTS, |uri| tagged(uri, "ID")), expected);
    assert_ne!(text, expected);
}
