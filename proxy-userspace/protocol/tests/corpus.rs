//! Replays the fuzz corpora, and inputs too large to keep as files, on the toolchain at hand.

#[path = "../../../tests/fuzz/src/lib.rs"]
pub mod fuzz;

use std::{fs, path::Path};

#[test]
fn stun_corpus_holds() {
    replay("stun", fuzz::stun);
}

#[test]
fn rtmp_corpora_hold() {
    replay("rtmp_amf0", fuzz::rtmp::amf0);
    replay("rtmp_command", fuzz::rtmp::command);
}

#[test]
fn amf0_of_a_megabyte_holds() {
    fuzz::rtmp::amf0(&[5; 1 << 20]);
    fuzz::rtmp::amf0(&[3, 0, 1, b'k'].repeat(1 << 18));
    fuzz::rtmp::amf0(&[10, 0xFF, 0xFF, 0xFF, 0xFF].repeat(1 << 18));
    fuzz::rtmp::amf0(&[&[12, 0, 0x10, 0, 0][..], &[b'x'; 1 << 20]].concat());
}

#[test]
fn srt_handshake_corpus_holds() {
    replay("srt_handshake", fuzz::srt_handshake);
}

#[test]
fn icmp_corpus_holds() {
    replay("icmp", fuzz::icmp);
}

#[test]
fn sdp_answer_corpus_holds() {
    replay("sdp_answer", fuzz::sdp_answer);
}

#[test]
fn stream_url_corpus_holds() {
    replay("stream_url", fuzz::stream_url);
}

#[test]
fn http_head_corpus_holds() {
    replay("http_head", fuzz::http_head);
}

#[test]
fn hls_playlist_corpus_holds() {
    replay("hls_playlist", fuzz::hls_playlist);
}

#[test]
fn dash_mpd_corpus_holds() {
    replay("dash_mpd", fuzz::dash_mpd);
}

#[test]
fn srs_api_corpus_holds() {
    replay("srs_api", fuzz::srs_api);
}

#[test]
fn rfc4571_corpus_holds() {
    replay("rfc4571", fuzz::rfc4571);
}

#[test]
fn routed_ufrag_corpus_holds() {
    replay("routed_ufrag", fuzz::routed_ufrag);
}

#[test]
fn demux_corpus_holds() {
    replay("demux", fuzz::demux);
    replay("stun", fuzz::demux);
}

#[test]
fn neighbour_corpus_holds() {
    replay("neighbour", fuzz::neighbour);
}

#[test]
fn rtmp_handshake_corpus_holds() {
    replay("rtmp_handshake", fuzz::rtmp_handshake);
}

#[test]
fn rtmp_chunk_corpus_holds() {
    replay("rtmp_chunk", fuzz::rtmp_chunk);
}

#[test]
fn a_message_of_the_largest_size_holds() {
    let header = [0x00, 0x01, 0xFF, 0xFC, 0x21, 0x12, 0xA4, 0x42];
    let empty_attributes = [0; 12 + 0xFFFC];
    fuzz::stun(&[&header[..], &empty_attributes].concat());
}

#[test]
fn a_line_of_a_megabyte_holds() {
    let long = "x".repeat(1 << 20);
    fuzz::sdp_answer(long.as_bytes());
    fuzz::sdp_answer(format!("v=0\r\nm={long}").as_bytes());
    fuzz::sdp_answer(format!("v=0\r\nm=audio\r\na=ice-ufrag:{long}\r\na=ice-pwd:{long}").as_bytes());
    fuzz::sdp_answer(format!("v=0\r\nm=audio\r\n{}", "a=candidate:\n".repeat(1 << 16)).as_bytes());
    fuzz::routed_ufrag(format!("1{long}").as_bytes());
    fuzz::stream_url(format!("rtmp://h/{long}\n{long}").as_bytes());
    fuzz::stream_url("/%2F".repeat(1 << 18).as_bytes());
    fuzz::http_head(format!("GET /{long}").as_bytes());
    fuzz::http_head(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a:b\r\n".repeat(1 << 16)).as_bytes());
    fuzz::hls_playlist(format!("#EXTM3U\n{long}\n#EXT-X-KEY:URI=\"{long}\"").as_bytes());
    fuzz::hls_playlist(format!("#EXTM3U\n#EXT-X-KEY:{}", "URI=\"a\",".repeat(1 << 16)).as_bytes());
    fuzz::dash_mpd(
        format!("<MPD>{}{}</MPD>", "<Period>".repeat(1 << 16), "</Period>".repeat(1 << 16)).as_bytes(),
    );
    fuzz::srs_api(
        format!("/api/v1/clients/{long}\n{{\"code\":0,\"clients\":[{{\"id\":\"{long}\"}}]}}").as_bytes(),
    );
    fuzz::srs_api(format!("\n{{\"code\":0,\"vhosts\":[{}{{}}]}}", "{},".repeat(1 << 16)).as_bytes());
    fuzz::srs_api(format!("\n{{\"code\":0,\"vhosts\":[{{\"a\":{}}}]}}", "[".repeat(1 << 20)).as_bytes());
    fuzz::dash_mpd(format!("<MPD><BaseURL>{long}</BaseURL><SegmentURL media=\"{long}\"/></MPD>").as_bytes());
}

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target);
    let mut files = fs::read_dir(&corpus).expect("the corpus is in the repository").peekable();
    assert!(files.peek().is_some(), "no input in {}", corpus.display());
    for file in files {
        run(&fs::read(file.expect("the corpus is readable").path()).expect("an input is a file"));
    }
}
