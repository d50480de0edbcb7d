mod origin;

use proptest::prelude::*;

use super::*;

/// What curl sends for a stream.
const CURL: &str = "GET /live/cam-1.flv?token=a%2Fb+c HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\n\
                    Accept: */*\r\n\r\n";

/// What flv.js sends for a stream over WebSocket, shortened.
const WEBSOCKET: &str = "GET /live/cam.flv HTTP/1.1\r\nHost: edge.example\r\nConnection: keep-alive, Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// How SRS 7.0.18 answers for a stream.
const SRS_FLV: &str = "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Type: video/x-flv\r\n\
                       Server: SRS/7.0.18(Hang)\r\nTransfer-Encoding: chunked\r\n\r\n";

/// How it answers for a playlist.
const SRS_HLS: &str = "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 106\r\n\
                       Content-Type: application/vnd.apple.mpegurl\r\nServer: SRS/7.0.18(Hang)\r\n\r\n";

/// How it answers for a range of a file.
const SRS_RANGE: &str = "HTTP/1.1 206 Partial Content\r\nConnection: Close\r\nContent-Length: 4\r\n\
                         Content-Type: video/mp4\r\nContent-Range: bytes 0-3/596\r\nServer: SRS/7.0.18(Hang)\r\n\r\n";

/// How NGINX 1.22 answers for a playlist of its RTMP module, shortened.
const NGINX_HLS: &str = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Type: application/vnd.apple.mpegurl\r\n\
                         Content-Length: 185\r\nLast-Modified: Wed, 25 Nov 2026 19:45:20 GMT\r\n\
                         ETag: \"6b073ad0-b9\"\r\nCache-Control: no-cache\r\nAccept-Ranges: bytes\r\n\r\n";

/// How node-media-server 2 answers for a stream, shortened.
const NMS_FLV: &str = "HTTP/1.1 200 OK\r\nX-Powered-By: HTTP/2 Express (http2-express)\r\n\
                       Access-Control-Allow-Origin: *\r\nDate: Wed, 25 Nov 2026 19:41:47 GMT\r\nConnection: close\r\n\
                       Transfer-Encoding: chunked\r\n\r\n";

/// How it answers for a stream over WebSocket.
const NMS_WEBSOCKET: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, headers: 100 };

#[test]
fn reads_what_a_player_asks_for() {
    let head = request(CURL);
    assert_eq!(
        (head.method(), head.version(), head.body()),
        (Method::Get, Version::Http11, BodyLength::Empty)
    );
    assert_eq!(head.target().as_str(), "/live/cam-1.flv?token=a%2Fb+c");
    assert_eq!((head.target().path(), head.target().query()), ("/live/cam-1.flv", Some("token=a%2Fb+c")));
    assert_eq!(head.host(), Some("127.0.0.1:8080"));
    assert_eq!((head.headers().text("user-agent"), head.length()), (Some("curl/7.88.1"), CURL.len()));
    assert!(head.is_keep_alive() && !head.is_websocket());
}

#[test]
fn what_follows_the_head_is_not_looked_at() {
    let buffer = [CURL.as_bytes(), b"\x00\xFF\n"].concat();
    assert_eq!(RequestHead::parse(&buffer, &LIMITS).unwrap().unwrap().length(), CURL.len());
}

#[test]
fn every_truncation_of_a_head_needs_more() {
    for text in [CURL, WEBSOCKET] {
        for end in 0..text.len() {
            assert_eq!(RequestHead::parse(&text.as_bytes()[..end], &LIMITS), Ok(None), "{end}");
        }
    }
    for text in [SRS_FLV, SRS_HLS, NMS_WEBSOCKET] {
        for end in 0..text.len() {
            assert_eq!(ResponseHead::parse(&text.as_bytes()[..end], Method::Get, &LIMITS), Ok(None), "{end}");
        }
    }
}

#[test]
fn whatever_has_two_readings_is_refused() {
    use HeadError as E;
    let post = |headers: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n");
    for (name, text, error) in [
        ("both lengths", post("Content-Length: 5\r\nTransfer-Encoding: chunked"), E::AmbiguousLength),
        ("two equal lengths", post("Content-Length: 5\r\nContent-Length: 5"), E::ContentLength),
        ("two lengths", post("Content-Length: 5\r\ncontent-length: 6"), E::ContentLength),
        ("list of lengths", post("Content-Length: 5, 5"), E::ContentLength),
        ("signed length", post("Content-Length: +5"), E::ContentLength),
        ("negative length", post("Content-Length: -1"), E::ContentLength),
        ("hexadecimal length", post("Content-Length: 0x5"), E::ContentLength),
        ("empty length", post("Content-Length:"), E::ContentLength),
        ("length beyond 64 bits", post("Content-Length: 18446744073709551616"), E::ContentLength),
        ("length with a space in it", post("Content-Length: 1 2"), E::ContentLength),
        ("other coding", post("Transfer-Encoding: gzip"), E::TransferEncoding),
        ("coding before chunked", post("Transfer-Encoding: gzip, chunked"), E::TransferEncoding),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked"), E::TransferEncoding),
        (
            "two codings",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
            E::TransferEncoding,
        ),
        ("obscured coding", post("Transfer-Encoding: \u{b}chunked"), E::ControlCharacter),
        ("quoted coding", post("Transfer-Encoding: \"chunked\""), E::TransferEncoding),
        ("chunked 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), E::AmbiguousLength),
        ("space before the colon", post("Content-Length : 5"), E::Header),
        ("tab before the colon", post("Transfer-Encoding\t: chunked"), E::Header),
        ("folded line", post("X: a\r\n b"), E::Header),
        ("folded first line", "GET / HTTP/1.1\r\n Host: h\r\n\r\n".into(), E::Header),
        ("no colon", post("X"), E::Header),
        ("empty name", post(": x"), E::Header),
        ("name that is no token", post("X(Y): x"), E::Header),
        ("name outside ASCII", post("X\u{e9}: x"), E::Header),
        ("bare line feed", "GET / HTTP/1.1\nHost: h\r\n\r\n".into(), E::LineEnd),
        ("bare line feed at the end", "GET / HTTP/1.1\r\nHost: h\r\n\n".into(), E::LineEnd),
        ("bare carriage return", post("X: a\rContent-Length: 5"), E::ControlCharacter),
        ("doubled carriage return", "GET / HTTP/1.1\r\r\nHost: h\r\n\r\n".into(), E::ControlCharacter),
        ("NUL", post("X: a\0b"), E::ControlCharacter),
        ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::ControlCharacter),
        ("two hosts", post("Host: h"), E::Host),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into(), E::Host),
        ("host with a path", "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n".into(), E::Host),
        ("host with a user", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n".into(), E::Host),
        ("list of hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), E::Host),
        ("host with a name for a port", "GET / HTTP/1.1\r\nHost: h:x\r\n\r\n".into(), E::Host),
        ("host with an open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n".into(), E::Host),
        ("malformed host beside a URL", "GET http://h/ HTTP/1.1\r\nHost: a b\r\n\r\n".into(), E::Host),
    ] {
        assert_eq!(RequestHead::parse(text.as_bytes(), &LIMITS), Err(error), "{name}");
    }
}

#[test]
fn an_error_is_answered_by_its_status() {
    for (text, status) in [
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\n", 505),
        ("GET /\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        ("get / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        ("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET live/s1.flv HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /live/s1.flv#x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET http://u:p@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ] {
        let answered = RequestHead::parse(text.as_bytes(), &LIMITS).map_err(HeadError::status);
        assert_eq!(answered.err(), Some(status), "{text:?}");
    }
}

#[test]
fn what_is_no_http_is_refused_by_its_first_bytes() {
    let tls = [0x16, 0x03, 0x01];
    let rtmp = [0x03];
    for bytes in [&tls[..], &rtmp] {
        assert_eq!(RequestHead::parse(bytes, &LIMITS), Err(HeadError::ControlCharacter));
    }
}

#[test]
fn limits_hold_whether_the_head_is_complete_or_not() {
    let limits = HeadLimits { bytes: 64, headers: 2 };
    let length = |text: &str| {
        let head = RequestHead::parse(text.as_bytes(), &limits);
        head.map(|head| head.map(|head| head.length())).map_err(HeadError::status)
    };
    assert_eq!(length(&format!("GET /{}", "x".repeat(58))), Ok(None));
    assert_eq!(length(&format!("GET /{}", "x".repeat(59))), Err(414));
    let of_length = |length: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(length - frame))
    };
    assert_eq!(length(&of_length(64)), Ok(Some(64)));
    assert_eq!(length(&of_length(65)), Err(431));
    assert_eq!(length("GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\n\r\n"), Ok(Some(33)));
    assert_eq!(length("GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\n\r\n"), Err(431));
}

#[test]
fn an_absolute_target_names_the_host() {
    for (target, path) in [("http://a.example:81/x?y", "/x?y"), ("HTTPS://a.example:81?y", "/?y")] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: b.example\r\n\r\n");
        let head = request(&text);
        assert_eq!((head.target().as_str(), head.host()), (path, Some("a.example:81")));
    }
}

#[test]
fn odd_but_clear_requests_are_read() {
    assert_eq!(request("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").target().path(), "*");
    assert_eq!(request("GET / HTTP/1.0\r\n\r\n").host(), None);
    assert_eq!(request("GET / HTTP/1.1\r\nHost:\r\n\r\n").host(), None);
    assert_eq!(request("\r\nGET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").host(), Some("[::1]:80"));
    assert_eq!(request("GET /live/测.flv HTTP/1.1\r\nHost: h\r\n\r\n").target().path(), "/live/测.flv");
    assert_eq!(body_of("Content-Length: 0"), BodyLength::Empty);
    assert_eq!(body_of("Content-Length: 007"), BodyLength::Exactly(7));
    assert_eq!(body_of("Transfer-Encoding: Chunked"), BodyLength::Chunked);
    assert!(!request("GET / HTTP/1.0\r\n\r\n").is_keep_alive());
    assert!(!request("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n").is_keep_alive());
}

#[test]
fn a_websocket_is_recognised() {
    assert!(request(WEBSOCKET).is_websocket());
    for text in [
        WEBSOCKET.replace("Upgrade: websocket", "Upgrade: h2c"),
        WEBSOCKET.replace("keep-alive, Upgrade", "keep-alive"),
        WEBSOCKET.replace("GET", "POST"),
        WEBSOCKET.replace("HTTP/1.1", "HTTP/1.0"),
        WEBSOCKET.replace("Sec-WebSocket-Version: 13", "Content-Length: 4"),
    ] {
        assert!(!request(&text).is_websocket(), "{text}");
    }
}

#[test]
fn reads_what_origins_answer() {
    for (name, text, status, body) in [
        ("SRS, FLV", SRS_FLV, 200, BodyLength::Chunked),
        ("SRS, HLS", SRS_HLS, 200, BodyLength::Exactly(106)),
        ("SRS, range", SRS_RANGE, 206, BodyLength::Exactly(4)),
        ("NMS, FLV", NMS_FLV, 200, BodyLength::Chunked),
        ("NMS, WebSocket", NMS_WEBSOCKET, 101, BodyLength::UntilClose),
        ("until close", "HTTP/1.0 200 OK\r\n\r\n", 200, BodyLength::UntilClose),
        ("no reason", "HTTP/1.1 404\r\nContent-Length: 9\r\n\r\n", 404, BodyLength::Exactly(9)),
        ("no body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, BodyLength::Empty),
        ("interim", "HTTP/1.1 100 Continue\r\n\r\n", 100, BodyLength::Empty),
    ] {
        let head = answer(text, Method::Get);
        assert_eq!((head.status(), head.body(), head.length()), (status, body, text.len()), "{name}");
        assert_eq!(head.is_interim(), name == "interim");
    }
}

#[test]
fn an_answer_to_head_has_no_body_whatever_it_says() {
    assert_eq!(answer(SRS_FLV, Method::Head).body(), BodyLength::Empty);
}

#[test]
fn an_answer_with_two_readings_is_refused() {
    for (text, error) in [
        (SRS_FLV.replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n"), HeadError::AmbiguousLength),
        (SRS_HLS.replace("106", "106\r\nContent-Length: 106"), HeadError::ContentLength),
        (SRS_FLV.replace("chunked", "gzip, chunked"), HeadError::TransferEncoding),
        (SRS_HLS.replace("Connection", "Connection "), HeadError::Header),
        (SRS_HLS.replace("Close\r", "Close\r\n folded\r"), HeadError::Header),
        (SRS_HLS.replace("Close\r", "Close"), HeadError::LineEnd),
        (SRS_HLS.replace("HTTP/1.1 200", "HTTP/1.1 099"), HeadError::StartLine),
        (SRS_HLS.replace("HTTP/1.1", "HTTP/2.0"), HeadError::Version),
        (SRS_HLS.replace("HTTP/1.1", "ICY"), HeadError::Version),
    ] {
        assert_eq!(ResponseHead::parse(text.as_bytes(), Method::Get, &LIMITS), Err(error), "{text}");
    }
}

#[test]
fn a_rewritten_body_gets_its_own_length() {
    let expected = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Type: application/vnd.apple.mpegurl\r\n\
                    Cache-Control: no-cache\r\nContent-Length: 7\r\n\r\n";
    assert_eq!(text_of(&answer(NGINX_HLS, Method::Get).with_body_length(7)), expected);
    let chunked = answer(SRS_FLV, Method::Get).with_body_length(0);
    assert_eq!(answer(text_of(&chunked), Method::Get).body(), BodyLength::Empty);
}

#[test]
fn a_compressed_body_is_not_plain() {
    assert!(answer(SRS_HLS, Method::Get).is_plain());
    let compressed = SRS_HLS.replace("Server:", "Content-Encoding: gzip\r\nServer:");
    assert!(!answer(&compressed, Method::Get).is_plain());
}

proptest! {
    #[test]
    fn any_bytes_are_a_head_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), tail in ".*") {
        for buffer in [bytes.clone(), [b"GET / HTTP/1.1\r\nHost: h\r\n", &bytes[..], b"\r\n\r\n"].concat(), tail.into_bytes()] {
            let _ = RequestHead::parse(&buffer, &LIMITS);
            let _ = ResponseHead::parse(&buffer, Method::Get, &LIMITS);
        }
    }

    #[test]
    fn what_is_refused_early_is_refused_whole(at in 0..CURL.len(), byte in any::<u8>()) {
        let mut bytes = CURL.as_bytes().to_vec();
        bytes[at] = byte;
        let whole = RequestHead::parse(&bytes, &LIMITS);
        for end in 0..bytes.len() {
            prop_assert!(whole.is_err() || RequestHead::parse(&bytes[..end], &LIMITS) == Ok(None));
        }
    }
}

#[track_caller]
fn request(text: &str) -> RequestHead<'_> {
    RequestHead::parse(text.as_bytes(), &LIMITS).unwrap().unwrap()
}

#[track_caller]
fn answer(text: &str, method: Method) -> ResponseHead<'_> {
    ResponseHead::parse(text.as_bytes(), method, &LIMITS).unwrap().unwrap()
}

#[track_caller]
fn body_of(header: &str) -> BodyLength {
    request(&format!("POST / HTTP/1.1\r\nHost: h\r\n{header}\r\n\r\n")).body()
}

fn text_of(head: &[u8]) -> &str {
    str::from_utf8(head).unwrap()
}
