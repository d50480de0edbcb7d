use std::net::IpAddr;

use super::*;

const CLIENT: &str = "X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n\
                      X-Forwarded-Host: edge.example\r\n\r\n";

#[test]
fn headers_of_the_client_go_on_in_their_order() {
    let text = "GET /live/s1.flv?token=a+b HTTP/1.1\r\nUser-Agent: x\r\nhost: edge.example\r\nRange: bytes=0-\r\n\
                X-A: 1\r\nx-a: 2\r\nAuthorization: Bearer t\r\n\r\n";
    let expected = "GET /live/s1.flv?token=a+b HTTP/1.1\r\nUser-Agent: x\r\nHost: edge.example\r\nRange: bytes=0-\r\n\
                    X-A: 1\r\nx-a: 2\r\nAuthorization: Bearer t\r\nConnection: close\r\n";
    check(text, "192.0.2.1", &[expected, CLIENT].concat());
}

#[test]
fn headers_of_the_connection_stay_behind() {
    let text = "GET / HTTP/1.1\r\nHost: edge.example\r\nConnection: keep-alive, X-Private, Host, x-forwarded-for\r\n\
                Keep-Alive: timeout=5\r\nX-Private: 1\r\nTE: trailers\r\nTrailer: X\r\nUpgrade: h2c\r\n\
                HTTP2-Settings: AAMAAABk\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n\r\n";
    let expected = "GET / HTTP/1.1\r\nHost: edge.example\r\nConnection: close\r\n";
    check(text, "192.0.2.1", &[expected, CLIENT].concat());
}

#[test]
fn a_body_goes_on_as_it_came() {
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let text = format!(
            "POST / HTTP/1.1\r\nHost: edge.example\r\n{framing}\r\nConnection: content-length, transfer-encoding\r\n\r\n"
        );
        let expected =
            format!("POST / HTTP/1.1\r\nHost: edge.example\r\n{framing}\r\nConnection: close\r\n{CLIENT}");
        check(&text, "192.0.2.1", &expected);
    }
}

#[test]
fn what_an_unknown_peer_says_of_the_client_is_replaced() {
    let text = "GET / HTTP/1.1\r\nHost: edge.example\r\nX-Forwarded-For: 203.0.113.9\r\nx-real-ip: 203.0.113.9\r\n\
                X-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\nForwarded: for=203.0.113.9\r\n\r\n";
    let expected = "GET / HTTP/1.1\r\nHost: edge.example\r\nConnection: close\r\n";
    check(text, "192.0.2.1", &[expected, CLIENT].concat());
    check(text, "::ffff:192.0.2.1", &[expected, CLIENT].concat());
}

#[test]
fn a_trusted_peer_is_appended() {
    let text = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 10.0.0.2\r\n\
                X-Real-IP: 10.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: edge.example\r\n\r\n";
    let expected = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
                    X-Forwarded-For: 203.0.113.9, 10.0.0.2, 10.0.0.1\r\nX-Real-IP: 203.0.113.9\r\n\
                    X-Forwarded-Proto: https\r\nX-Forwarded-Host: edge.example\r\n\r\n";
    check(text, "10.0.0.1", expected);
}

#[test]
fn the_client_is_the_last_hop_that_is_not_trusted() {
    for (forwarded, ip, path) in [
        ("1.1.1.1, 203.0.113.9", "203.0.113.9", "1.1.1.1, 203.0.113.9, 10.0.0.1"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"),
        ("unknown, 203.0.113.9\t,", "203.0.113.9", "203.0.113.9, 10.0.0.1"),
        ("2001:db8::9", "2001:db8::9", "2001:db8::9, 10.0.0.1"),
        ("", "10.0.0.1", "10.0.0.1"),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {forwarded}\r\n\r\n");
        let client = client(&request(&text), "10.0.0.1");
        assert_eq!((client.ip().to_string().as_str(), client.forwarded_for().as_str()), (ip, path));
    }
}

#[test]
fn a_websocket_stays_one() {
    let sent = to_origin(WEBSOCKET, "192.0.2.1", AnswerUse::Passed);
    let expected = "GET /live/cam.flv HTTP/1.1\r\nHost: edge.example\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(sent, [expected, CLIENT].concat());
    assert!(request(&sent).is_websocket());
}

#[test]
fn a_playlist_is_asked_for_whole_and_plain() {
    let text = "GET / HTTP/1.1\r\nHost: edge.example\r\nAccept-Encoding: gzip\r\nRange: bytes=0-\r\nIf-None-Match: \"a\"\r\n\
                Accept: */*\r\n\r\n";
    let expected = "GET / HTTP/1.1\r\nHost: edge.example\r\nAccept: */*\r\nConnection: close\r\n";
    assert_eq!(to_origin(text, "192.0.2.1", AnswerUse::Read), [expected, CLIENT].concat());
}

#[test]
fn the_host_of_an_absolute_target_replaces_the_header() {
    let text = "GET http://edge.example/x HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let expected = "GET /x HTTP/1.1\r\nHost: edge.example\r\nConnection: close\r\n";
    check(text, "192.0.2.1", &[expected, CLIENT].concat());
}

proptest! {
    #[test]
    fn what_is_sent_reads_as_what_came(
        target in "/[a-z0-9%+._~/-]{0,20}(\\?[a-z0-9%+&=/:]{0,20})?",
        headers in prop::collection::vec(("X-[A-Za-z0-9-]{1,12}", "[ -~]{0,20}"), 0..10),
    ) {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("GET {target} HTTP/1.1\r\nHost: edge.example:80\r\n{lines}\r\n");
        let came = request(&text);
        let sent = to_origin(&text, "192.0.2.1", AnswerUse::Passed);
        let sent = request(&sent);
        prop_assert_eq!((sent.target(), sent.host(), sent.body()), (came.target(), came.host(), came.body()));
        let of_origin = ["connection", "x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-host"];
        let of_client = |head: &RequestHead<'_>| {
            let lines = head.headers().iter().filter(|header| !of_origin.iter().any(|name| header.is(name)));
            lines.map(|header| (header.name.to_owned(), header.value.to_vec())).collect::<Vec<_>>()
        };
        prop_assert_eq!(of_client(&sent), of_client(&came));
    }
}

#[track_caller]
fn check(text: &str, peer: &str, expected: &str) {
    assert_eq!(to_origin(text, peer, AnswerUse::Passed), expected);
}

fn to_origin(text: &str, peer: &str, answer: AnswerUse) -> String {
    let head = request(text);
    let client = client(&head, peer);
    let hop = Hop { client: &client, is_https: false };
    String::from_utf8(head.to_origin(head.target().as_str(), hop, answer)).unwrap()
}

fn client(head: &RequestHead<'_>, peer: &str) -> ClientAddress {
    let is_trusted = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 10);
    ClientAddress::new(peer.parse().unwrap(), head.headers(), is_trusted)
}
