//! A browser that takes `localhost` for `::1`, on a host whose resolver knows it as 127.0.0.1 alone.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use integration_tests::{
    case::Case,
    http::{Request, Url},
    in_cases,
    netns::{Family, Namespace},
    proxy::Proxy,
    raw::{self, Endpoint, RawOrigin},
};
use proxy_protocol::sdp::Answer;

in_cases!(xdp, tc, userspace: {
    a14_media_reaches_an_origin_through_the_loopback_that_localhost_was_for_the_client,
});

fn a14_media_reaches_an_origin_through_the_loopback_that_localhost_was_for_the_client(case: Case) {
    let host = Namespace::new("host").unwrap();
    let (v4, v6) = (Ipv4Addr::LOCALHOST, IpAddr::V6(Ipv6Addr::LOCALHOST));
    let proxy = Proxy::start(&host, Family::V6.of(v4), case.engine, &[]).unwrap();
    let origin = host.enter(|| {
        let origin = RawOrigin::start(v4, "raw1").unwrap();
        origin.register(&Proxy::register_url(v4)).unwrap();
        origin
    });
    proxy.wait_for_origins(1).unwrap();
    let url = Url::parse("http://localhost:11985/rtc/v1/whep/?app=live&stream=s").unwrap();
    let url = url.at(SocketAddr::from((v6, 11985)));
    let request = Request::new("POST", url).body("application/sdp", raw::offer("clnt"));
    let answer = host.enter(|| request.send()).unwrap();
    let answer = Answer::parse(&answer.body).unwrap();
    let by_v6 = answer.candidates().iter().find(|candidate| candidate.host == "::1");
    let port = by_v6.expect("a candidate for the loopback that the request came by").port;
    let client = host.enter(|| Endpoint::bind(v6)).unwrap();
    let username = format!("{}:clnt", answer.ufrag().as_str());
    client.send(&raw::check(&username, true), SocketAddr::from((v6, port)), 0).unwrap();
    origin.media.answer_check().unwrap();
    assert_eq!(client.receive().unwrap().0.peer, SocketAddr::from((v6, port)));
    proxy.stop().unwrap();
}
