//! Which origin a TCP stream comes to and what that one hears: redirections, origins that are gone or new, clients that come at
//! once; and what becomes of streams when the proxy ends. Numbers in names are those of docs/defects.md.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use integration_tests::{
    live::{BareOrigin, Between, Connection, Ends, connections, read_once, until, wait_for_connections},
    netns::{Direct, Family},
    proxy::{Engine, Proxy},
    rtmp::{Peer, connect, create_stream, media, play, publish, redirection},
};
use proxy_protocol::rtmp::{
    Message,
    amf0::{Properties, Value},
    client_session::STREAM,
    command::{Command, status::Status},
    control::{Control, Event},
    message::kind,
    request::Request,
};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(10);

/// A proxy, the origin that has a stream, and another one.
struct Two<'a> {
    stage: Between<'a>,
    other: BareOrigin,
}

impl<'a> Two<'a> {
    fn start(network: &'a Direct) -> Self {
        let stage = Between::start(network, &[]).unwrap();
        // The stream is the first origin's before there is a second one.
        drop(stage.published("moved").unwrap());
        wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
        let other = BareOrigin::start(&network.origin, Direct::ORIGIN, &network.proxy, "vid-other").unwrap();
        stage.proxy.wait_for_origins(2).unwrap();
        Self { stage, other }
    }

    fn client(&self, asks: &Message) -> Peer {
        let mut client = self.stage.client().unwrap();
        client.send(asks).unwrap();
        client
    }

    fn url_of_the_other(&self) -> String {
        url(self.other.address())
    }
}

fn url(address: SocketAddr) -> String {
    format!("rtmp://{address}/live")
}

/// Every status until media comes or the connection ends.
fn statuses(client: &mut Peer) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(message) = client.message().unwrap() {
        if message.kind == kind::VIDEO {
            break;
        }
        let command = Command::parse(&message).ok();
        let code = command
            .as_ref()
            .and_then(Status::of)
            .and_then(|status| Some(status.code()?.to_url_text().into_owned()));
        heard.extend(code);
    }
    heard
}

#[test]
fn defect_28_a_player_follows_a_redirection_after_the_start_and_hears_of_one_start() {
    let network = Direct::new().unwrap();
    let two = Two::start(&network);
    let mut client = two.client(&play("moved?token=1"));
    let mut first = Peer::serve(two.stage.origin.accept().unwrap()).unwrap();
    first.send(&redirection(&two.url_of_the_other()).to_message()).unwrap();
    let mut second = Peer::accept(two.other.accept().unwrap()).unwrap();
    let wish = second.wish().unwrap();
    assert_eq!(wish.asked.request.name().to_url_text(), "moved?token=1");
    let tc_url = wish.connect.object.property("tcUrl").and_then(|url| url.as_text()).unwrap().to_url_text();
    assert!(tc_url.contains(&Direct::PROXY.to_string()), "{tc_url}");
    second.start(wish).unwrap();
    second.send(&media(6, 0, vec![1; 500])).unwrap();
    let heard = statuses(&mut client);
    assert_eq!(heard.iter().filter(|code| *code == "NetStream.Play.Start").count(), 1, "{heard:?}");
    assert!(!heard.iter().any(|code| code.contains("Rejected")), "{heard:?}");
    let listed = connections(&two.stage.proxy).unwrap();
    assert_eq!(listed.first().and_then(|one| one.origin.as_deref()), Some("vid-other-first-1"), "{listed:?}");
    // And from there on both are one.
    for number in 1..20_u8 {
        second.send(&media(6, u32::from(number) * 40, vec![number; 3000])).unwrap();
        assert_eq!(client.next_media().unwrap().payload, [number; 3000]);
    }
    // Nothing binds the first one any more.
    while first.message().unwrap().is_some() {}
}

#[test]
fn defect_28_a_publisher_follows_a_redirection_of_its_connection() {
    let network = Direct::new().unwrap();
    let two = Two::start(&network);
    let mut client = two.client(&publish("moved"));
    let mut first = Peer::accept(two.stage.origin.accept().unwrap()).unwrap();
    first.command("connect").unwrap();
    let rejected = redirection(&two.url_of_the_other());
    first.send(&Command { name: "_error".into(), transaction: 1.0, ..rejected }.to_message()).unwrap();
    let mut second = Peer::serve(two.other.accept().unwrap()).unwrap();
    client.status("NetStream.Publish.Start").unwrap();
    client.send(&media(6, 0, vec![1; 500])).unwrap();
    assert_eq!(second.next_media().unwrap().payload, [1; 500]);
}

#[test]
fn defect_28_a_redirection_to_a_server_that_is_none_of_ours_is_refused() {
    let network = Direct::new().unwrap();
    let two = Two::start(&network);
    let mut client = two.client(&play("moved"));
    let mut first = Peer::accept(two.stage.origin.accept().unwrap()).unwrap();
    let wish = first.wish().unwrap();
    drop(wish);
    first.send(&redirection("rtmp://10.72.1.2:1935/live").to_message()).unwrap();
    let heard = statuses(&mut client);
    assert_eq!(heard.last().map(String::as_str), Some("NetStream.Play.Failed"), "{heard:?}");
}

#[test]
fn defect_28_origins_that_redirect_to_each_other_are_left_alone() {
    /// The first time and three redirections.
    const ASKED: usize = 4;
    let network = Direct::new().unwrap();
    let two = Two::start(&network);
    let mut client = two.client(&play("moved"));
    let (first, second) = (&two.stage.origin, &two.other);
    for (origin, other) in [(first, second), (second, first)].into_iter().cycle().take(ASKED) {
        let mut peer = Peer::accept(origin.accept().unwrap()).unwrap();
        peer.command("connect").unwrap();
        let rejected = redirection(&url(other.address()));
        let rejected = Command { name: "_error".into(), transaction: 1.0, ..rejected };
        peer.send(&rejected.to_message()).unwrap();
    }
    let heard = statuses(&mut client);
    assert_eq!(heard.last().map(String::as_str), Some("NetStream.Play.Failed"), "{heard:?}");
}

#[test]
fn defect_28_an_origin_hears_everything_that_the_client_said_of_itself_and_of_its_stream() {
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[]).unwrap();
    let said = Command {
        object: Properties::from([
            ("app", "live".into()),
            ("tcUrl", format!("rtmp://{}/live?vhost=v.example", stage.rtmp()).as_str().into()),
            ("flashVer", "FMLE/3.0 (compatible; test)".into()),
            ("pageUrl", "http://page.example/".into()),
            ("swfUrl", "http://page.example/p.swf".into()),
            ("objectEncoding", 0.0.into()),
        ])
        .into(),
        args: vec!["secret".into(), Properties::from([("key", "value".into())]).into()],
        ..Command::new("connect", 1.0, Vec::new())
    };
    let append = Command::new("publish", 3.0, vec!["s?token=a".into(), "append".into()]);
    let mut client = network.client.enter(|| Peer::connect(stage.rtmp())).unwrap();
    for message in [said.to_message(), create_stream(), append.to_message_on(STREAM, 8)] {
        client.send(&message).unwrap();
    }
    let mut origin = Peer::accept(stage.origin.accept().unwrap()).unwrap();
    let wish = origin.wish().unwrap();
    assert_eq!(wish.connect, said);
    let Request::Publish(published) = &wish.asked.request else { panic!("{:?}", wish.asked) };
    let kind = published.publish_type.as_ref().unwrap().to_url_text();
    assert_eq!((published.name.to_url_text().as_ref(), kind.as_ref()), ("s?token=a", "append"));
}

#[test]
fn an_origin_hears_who_the_client_is_before_the_handshake_if_it_is_to() {
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[("PROXY_RTMP_REAL_IP", "on")]).unwrap();
    let mut client = network.client.enter(|| Peer::connect(stage.rtmp())).unwrap();
    for message in [connect(stage.rtmp()), create_stream(), publish("s")] {
        client.send(&message).unwrap();
    }
    let mut origin = stage.origin.accept().unwrap();
    let mut told = [0; 7];
    origin.read_exact(&mut told).unwrap();
    let [a, b, c, d] = Direct::CLIENT.octets();
    assert_eq!(told, [0xF3, 0, 4, a, b, c, d]);
    Peer::accept(origin).unwrap().wish().unwrap();
}

#[test]
fn defect_28_a_player_hears_the_begin_of_its_stream_and_why_there_is_none() {
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[]).unwrap();
    let mut client = stage.client().unwrap();
    client.send(&play("s")).unwrap();
    let _origin = Peer::serve(stage.origin.accept().unwrap()).unwrap();
    let begin = loop {
        let message = client.message().unwrap().unwrap();
        if let Ok(Control::UserControl(event)) = Control::parse(&message) {
            break event;
        }
    };
    assert_eq!(begin, Event::StreamBegin { stream: STREAM });
    let mut client = stage.client().unwrap();
    client.send(&play("none")).unwrap();
    let mut origin = Peer::accept(stage.origin.accept().unwrap()).unwrap();
    origin.wish().unwrap();
    let info = Properties::from([
        ("level", Value::from("error")),
        ("code", "NetStream.Play.StreamNotFound".into()),
        ("description", "no such stream".into()),
    ]);
    let refusal = Command::new("onStatus", 0.0, vec![info.into()]);
    origin.send(&refusal.to_message_on(STREAM, 5)).unwrap();
    let told = client.command("onStatus").unwrap();
    let status = Status::of(&told).unwrap();
    assert_eq!(status.code().unwrap().to_url_text(), "NetStream.Play.StreamNotFound");
    assert_eq!(status.description().unwrap().to_url_text(), "no such stream");
}

/// The proxy is asked at once: no probe had the time to notice.
#[test]
fn defect_08_and_11_a_stream_whose_origin_is_gone_is_served_by_another_one_at_once() {
    let network = Direct::new().unwrap();
    let Two { mut stage, other } = Two::start(&network);
    stage.origin.stop();
    let mut client = stage.client().unwrap();
    client.send(&publish("moved")).unwrap();
    let mut second = Peer::serve(other.accept().unwrap()).unwrap();
    client.status("NetStream.Publish.Start").unwrap();
    client.send(&media(6, 0, vec![1; 500])).unwrap();
    assert_eq!(second.next_media().unwrap().payload, [1; 500]);
}

#[test]
fn defect_08_a_stream_follows_its_origin_that_starts_anew_at_other_ports() {
    let network = Direct::new().unwrap();
    let mut stage = Between::start(&network, &[]).unwrap();
    drop(stage.published("kept").unwrap());
    stage.origin.stop();
    stage.origin = BareOrigin::start(&network.origin, Direct::ORIGIN, &network.proxy, "vid-live").unwrap();
    stage.proxy.wait_for_origins(1).unwrap();
    drop(stage.published("kept").unwrap());
    drop(stage.fetched("kept.flv").unwrap());
}

#[test]
fn defect_09_clients_of_a_new_stream_that_come_at_once_meet_at_one_origin() {
    const STREAMS: usize = 20;
    const CLIENTS: usize = 4;
    let network = Direct::new().unwrap();
    let Two { stage, other: _other } = Two::start(&network);
    let ask = |stream: usize| {
        let mut client = stage.connect_http().unwrap();
        let head = format!("GET /live/new{stream}.flv HTTP/1.1\r\nHost: a\r\n\r\n");
        client.write_all(head.as_bytes()).unwrap();
        client
    };
    let _clients: Vec<TcpStream> = thread::scope(|scope| {
        let asking = (0..CLIENTS).map(|_| scope.spawn(|| (0..STREAMS).map(ask).collect::<Vec<_>>()));
        let asking: Vec<_> = asking.collect();
        asking.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    let all_placed = |listed: &[Connection]| {
        (listed.len() == CLIENTS * STREAMS) && listed.iter().all(|one| one.origin.is_some())
    };
    let listed = wait_for_connections(&stage.proxy, SOON, all_placed).unwrap();
    let mut origins = BTreeMap::<_, BTreeSet<_>>::new();
    for Connection { stream, origin, .. } in listed {
        origins.entry(stream.unwrap()).or_default().insert(origin.unwrap());
    }
    assert_eq!(origins.len(), STREAMS);
    assert!(origins.values().all(|origins| origins.len() == 1), "{origins:#?}");
    let used: BTreeSet<_> = origins.values().flatten().collect();
    assert_eq!(used.len(), 2, "streams are shared out: {origins:#?}");
}

#[test]
fn defect_35_clients_and_origins_of_either_ip_version_reach_each_other() {
    let network = Direct::new().unwrap();
    for (client, origin) in [(Family::V6, Family::V6), (Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let proxy = Proxy::start(&network.proxy, client.of(Direct::PROXY), Engine::Userspace, &[]).unwrap();
        let (inside, ip) = (origin.of(Direct::ORIGIN), client.of(Direct::PROXY));
        let origin = BareOrigin::start(&network.origin, inside, &network.proxy, "vid-live").unwrap();
        let stage = Between::of(proxy, origin, &network.client, ip).unwrap();
        let Ends { mut client, mut origin } = stage.published("s").unwrap();
        client.send(&media(6, 0, vec![1; 500])).unwrap();
        assert_eq!(origin.next_media().unwrap().payload, [1; 500]);
        drop(stage.fetched("s.flv").unwrap());
        stage.proxy.stop().unwrap();
    }
}

/// Waits for the end of a connection, in whatever form.
fn until_it_ends(stream: &mut TcpStream) -> Duration {
    let begin = Instant::now();
    while read_once(stream, &mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
    begin.elapsed()
}

#[test]
fn defect_39_ctrl_c_ends_every_stream_at_once() {
    for on_stop in ["drain", "keep"] {
        let network = Direct::new().unwrap();
        let stage = Between::start(&network, &[("PROXY_ON_STOP", on_stop)]).unwrap();
        let Ends { client: mut player, origin: mut sender } = stage.played("s").unwrap();
        let Ends { client: mut fetching, origin: mut sending } = stage.fetched("s.flv").unwrap();
        let begin = Instant::now();
        stage.proxy.interrupt().unwrap();
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        for peer in [&mut player, &mut sender] {
            while peer.message().unwrap().is_some() {}
        }
        for stream in [&mut fetching, &mut sending] {
            assert!(until_it_ends(stream) < SOON);
        }
    }
}

#[test]
fn defect_39_a_stop_lets_streams_go_on_for_as_long_as_it_may_take_and_takes_no_more() {
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[("PROXY_GRACE_QUIT_TIMEOUT", "4s")]).unwrap();
    let Ends { client: mut player, origin: mut sender } = stage.played("s").unwrap();
    stage.proxy.signal(Signal::TERM).unwrap();
    until("it says that it stops", SOON, || Ok(stage.proxy.get("/readyz").is_err())).unwrap();
    let refused = network.client.enter(|| TcpStream::connect(stage.rtmp()));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    sender.send(&media(6, 0, vec![1; 500])).unwrap();
    assert_eq!(player.next_media().unwrap().payload, [1; 500]);
    stage.proxy.wait_for_end().unwrap();
    assert!(player.message().unwrap().is_none());
}

#[test]
fn defect_39_a_stop_is_over_with_the_last_stream() {
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[]).unwrap();
    let ends = stage.played("s").unwrap();
    let begin = Instant::now();
    stage.proxy.signal(Signal::TERM).unwrap();
    drop(ends);
    stage.proxy.wait_for_end().unwrap();
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn defect_39_a_take_over_leaves_streams_with_the_old_process_for_as_long_as_it_may_take() {
    const GRACE: Duration = Duration::from_secs(8);
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[("PROXY_GRACE_QUIT_TIMEOUT", "8s")]).unwrap();
    let Ends { client: mut player, origin: mut sender } = stage.played("s").unwrap();
    let Ends { client: mut fetching, origin: mut sending } = stage.fetched("s.flv").unwrap();
    let Between { proxy: old, origin, .. } = stage;
    let mut command = Proxy::command(Engine::Userspace).unwrap();
    command.env("PROXY_TAKE_OVER", "on");
    let begin = Instant::now();
    let new = Proxy::spawn_in(&network.proxy, Direct::PROXY, command, old.runtime()).unwrap();
    // It is the new one that answers once it lists none of the old one's.
    wait_for_connections(&new, SOON, <[_]>::is_empty).unwrap();
    let stage = Between::of(new, origin, &network.client, Direct::PROXY).unwrap();
    // Who comes now is served by the new one, and who was there by the old one.
    let _published = stage.published("t").unwrap();
    sender.send(&media(6, 0, vec![1; 500])).unwrap();
    assert_eq!(player.next_media().unwrap().payload, [1; 500]);
    sending.write_all(&[2; 500]).unwrap();
    let mut got = [0; 500];
    fetching.read_exact(&mut got).unwrap();
    assert_eq!(got, [2; 500]);
    assert_eq!(connections(&stage.proxy).unwrap().len(), 1);
    old.wait_for_end().unwrap();
    assert!(begin.elapsed() > GRACE / 2, "they had {:?}", begin.elapsed());
    assert!(player.message().unwrap().is_none());
    assert!(until_it_ends(&mut fetching) < SOON);
    assert_eq!(connections(&stage.proxy).unwrap().len(), 1);
}
