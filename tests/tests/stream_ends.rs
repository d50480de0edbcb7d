//! How joined connections end, and how many of them there may be: half closes, resets, a thousand that are idle.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    io::{ErrorKind, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use integration_tests::{
    live::{Between, Ends, descriptors, memory, read_once, until, wait_for_connections},
    netns::Direct,
    rtmp::media,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;

const SOON: Duration = Duration::from_secs(10);
const MEANS: [&str; 3] = ["auto", "copy", "splice"];

/// Runs a rule over each way of carrying bytes.
#[track_caller]
fn by_every_means(rule: impl Fn(&Between<'_>)) {
    let network = Direct::new().unwrap();
    for means in MEANS {
        let stage = Between::start(&network, &[("PROXY_TCP_JOIN", means)]).unwrap();
        let before = descriptors(stage.proxy.id()).unwrap();
        rule(&stage);
        wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
        until("no descriptor is left", SOON, || Ok(descriptors(stage.proxy.id())? <= before)).unwrap();
        stage.proxy.stop().unwrap();
    }
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Everything up to the end, which is a reset if there is an error.
fn rest(stream: &mut TcpStream) -> (usize, Option<ErrorKind>) {
    let (mut got, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        match read_once(stream, &mut buffer) {
            Ok(0) => return (got, None),
            Ok(bytes) => got += bytes,
            Err(error) => return (got, Some(error.kind())),
        }
    }
}

/// Sends until nothing more is taken: buffers and the pipe between them are full then.
fn fill(stream: &TcpStream) -> usize {
    const FULL: Duration = Duration::from_millis(300);
    stream.set_write_timeout(Some(FULL)).unwrap();
    let (block, mut sent) = (vec![7; 64 << 10], 0);
    while let Ok(bytes) = (&*stream).write(&block) {
        sent += bytes;
    }
    sent
}

#[test]
fn the_end_of_either_direction_leaves_the_other_open() {
    by_every_means(|stage| {
        for closes_first in [true, false] {
            let Ends { client, origin } = stage.websocket("s.flv").unwrap();
            let (mut first, mut second) = if closes_first { (client, origin) } else { (origin, client) };
            first.write_all(b"last words").unwrap();
            first.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&mut second), (10, None));
            second.write_all(&[1; 1 << 20]).unwrap();
            second.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&mut first), (1 << 20, None));
        }
    });
}

#[test]
fn a_publisher_that_closes_its_half_still_hears_the_origin() {
    by_every_means(|stage| {
        let Ends { mut client, mut origin } = stage.published("half").unwrap();
        client.send(&media(6, 0, vec![1; 5000])).unwrap();
        client.stream().shutdown(Shutdown::Write).unwrap();
        assert_eq!(origin.next_media().unwrap().payload.len(), 5000);
        assert!(origin.message().unwrap().is_none());
        origin.send(&media(6, 0, vec![2; 3000])).unwrap();
        assert_eq!(client.next_media().unwrap().payload, [2; 3000]);
    });
}

#[test]
fn a_reset_of_the_client_is_one_at_the_origin_and_the_other_way_round() {
    by_every_means(|stage| {
        let Ends { client, mut origin } = stage.websocket("s.flv").unwrap();
        reset(client);
        assert_eq!(rest(&mut origin), (0, Some(ErrorKind::ConnectionReset)));
        let Ends { mut client, origin } = stage.websocket("s.flv").unwrap();
        reset(origin);
        assert_eq!(rest(&mut client), (0, Some(ErrorKind::ConnectionReset)));
    });
}

#[test]
fn a_reset_with_bytes_on_their_way_is_a_reset_and_no_end() {
    by_every_means(|stage| {
        let Ends { mut client, origin } = stage.fetched("s.flv").unwrap();
        let sent = fill(&origin);
        reset(origin);
        let (got, end) = rest(&mut client);
        assert_eq!(end, Some(ErrorKind::ConnectionReset), "after {got} of {sent} bytes");
        let Ends { client, mut origin } = stage.websocket("s.flv").unwrap();
        let sent = fill(&client);
        reset(client);
        let (got, end) = rest(&mut origin);
        assert_eq!(end, Some(ErrorKind::ConnectionReset), "after {got} of {sent} bytes");
    });
}

#[test]
fn a_client_that_resets_while_its_origin_sends_has_the_origin_stop() {
    by_every_means(|stage| {
        let Ends { client, mut origin } = stage.fetched("s.flv").unwrap();
        fill(&origin);
        reset(client);
        let (_, end) = rest(&mut origin);
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
    });
}

/// Its kernel answers, so that the proxy's would wait for ever.
#[test]
#[ignore = "long: two minutes of waiting"]
fn defect_29_a_client_that_never_reads_is_disconnected_and_its_origin_with_it() {
    const LIMIT: Duration = Duration::from_secs(120);
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[]).unwrap();
    let before = descriptors(stage.proxy.id()).unwrap();
    let Ends { client: _stuck, mut origin } = stage.fetched("s.flv").unwrap();
    let mut other = stage.connect_http().unwrap();
    other.write_all(b"GET /live/s-1.m4s HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (mut segment, _) = stage.origin.request().unwrap();
    segment.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    let begin = Instant::now();
    for origin in [&origin, &segment] {
        assert!(fill(origin) > 100_000);
    }
    until("both are disconnected", 2 * LIMIT, || Ok(descriptors(stage.proxy.id())? <= before)).unwrap();
    assert!(begin.elapsed() > LIMIT / 2, "after {:?}", begin.elapsed());
    for origin in [&mut origin, &mut segment] {
        rest(origin);
    }
    wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
}

#[test]
fn a_thousand_idle_streams_cost_two_descriptors_each_little_memory_and_all_end() {
    const EACH: usize = 500;
    /// Of memory of the process, for each; buffers and pipes would be 64 KiB and more.
    const MEMORY: u64 = 48 << 10;
    // Both ends of every stream are here.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[]).unwrap();
    let id = stage.proxy.id();
    let (before, used) = (descriptors(id).unwrap(), memory(id).unwrap());
    let rtmp: Vec<_> = (0..EACH).map(|at| stage.played(&format!("idle{at}")).unwrap()).collect();
    let http: Vec<_> = (0..EACH).map(|_| stage.websocket("idle.flv").unwrap()).collect();
    wait_for_connections(&stage.proxy, SOON, |listed| listed.len() == 2 * EACH).unwrap();
    let open = descriptors(id).unwrap() - before;
    assert!(open.abs_diff(4 * EACH) < 32, "{open} descriptors for {} streams", 2 * EACH);
    let grown = memory(id).unwrap().saturating_sub(used);
    assert!(grown < 2 * EACH as u64 * MEMORY, "{grown} bytes for {} streams", 2 * EACH);
    for Ends { mut client, mut origin } in rtmp {
        origin.send(&media(6, 0, vec![3; 200])).unwrap();
        assert_eq!(client.next_media().unwrap().payload, [3; 200]);
    }
    for Ends { mut client, mut origin } in http {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut origin), (0, None));
        origin.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut client), (0, None));
    }
    wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
    until("no descriptor is left", SOON, || Ok(descriptors(id)? <= before)).unwrap();
    stage.proxy.stop().unwrap();
}
