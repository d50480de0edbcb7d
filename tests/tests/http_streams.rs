//! Streams by HTTP through the proxy: FFmpeg and nginx as origins, FFprobe and curl as clients. Numbers in names are those of
//! the defects of the proxy that this one replaces.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    fs::File,
    io::{Read as _, Write as _, copy, sink},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use integration_tests::{
    live::{
        Clip, Connection, HTTP_PORT, Held, Nginx, PATIENCE, Stage, descriptors, finish, frames_in, memory,
        publish, register, sockets, start, until, wait_for_connections,
    },
    netns::{Direct, Namespace},
};
use proxy_userspace::net::tcp::RECEIVED;
use socket2::{Domain, Socket, Type};

const SOON: Duration = Duration::from_secs(10);
const LENGTH: u64 = 64 << 20;

/// FFmpeg serves one client, and does so from the client's coming on.
#[track_caller]
fn is_played_from_ffmpeg(file: &str, format: &[&str]) {
    const PORT: u16 = 8090;
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let stage = Stage::start(&network, &[]).unwrap();
    register(&network.proxy, Direct::ORIGIN, Nginx::RTMP_PORT, PORT).unwrap();
    let url = format!("http://{}:{PORT}/live/{file}", Direct::ORIGIN);
    let output = [format, &["-listen", "1", &url]].concat();
    let _origin = start(&network.origin, publish(&clip, &output)).unwrap();
    until("ffmpeg listens", PATIENCE, || Ok(sockets(&network.origin, &["-ltn"], PORT)? == 1)).unwrap();
    let frames = frames_in(&network.client, stage.http(file)).unwrap();
    assert!((60..=100).contains(&frames), "{frames} frames");
    wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
}

#[test]
fn http_flv_of_ffmpeg_is_played() {
    is_played_from_ffmpeg("s.flv", &["-f", "flv"]);
}

#[test]
fn http_ts_of_ffmpeg_is_played() {
    is_played_from_ffmpeg("s.ts", &["-bsf:v", "h264_mp4toannexb", "-f", "mpegts"]);
}

/// Puts 64 MB that do not repeat where the stream `s` is, and returns their checksum.
fn fill(nginx: &Nginx) -> String {
    let path = nginx.file("live/s.flv");
    let mut random = File::open("/dev/urandom").unwrap().take(LENGTH);
    copy(&mut random, &mut File::create(&path).unwrap()).unwrap();
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    checksum(&String::from_utf8(output.stdout).unwrap())
}

fn checksum(line: &str) -> String {
    line.split_whitespace().next().unwrap().to_owned()
}

/// The checksum of what curl gets.
fn fetched(namespace: &Namespace, url: &str) -> String {
    let mut command = Command::new("bash");
    let script = "set -o pipefail; curl --silent --show-error --fail \"$1\" | sha256sum";
    command.args(["-c", script, "fetch", url]);
    checksum(&finish(namespace, command).unwrap().success().unwrap())
}

#[track_caller]
fn arrives_unchanged_when_joined_by(means: &str) {
    let network = Direct::new().unwrap();
    let stage = Stage::start(&network, &[("PROXY_TCP_JOIN", means)]).unwrap();
    let before = descriptors(stage.proxy.id()).unwrap();
    let expected = fill(&stage.nginx);
    assert_eq!(fetched(&network.client, &stage.http("s.flv")), expected);
    wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
    until("no descriptor is left", SOON, || Ok(descriptors(stage.proxy.id())? <= before)).unwrap();
}

#[test]
fn what_nginx_serves_arrives_unchanged_when_the_proxy_chooses_how_to_join() {
    arrives_unchanged_when_joined_by("auto");
}

#[test]
fn what_nginx_serves_arrives_unchanged_when_joined_by_copying() {
    arrives_unchanged_when_joined_by("copy");
}

#[test]
fn what_nginx_serves_arrives_unchanged_when_joined_by_splicing() {
    arrives_unchanged_when_joined_by("splice");
}

/// A client that has read much of the stream `s` as fast as it came, and now reads nothing.
fn stalled(namespace: &Namespace) -> TcpStream {
    const READ: u64 = 24 << 20;
    /// What its own kernel holds is not the proxy's, and would take what is left of the file.
    const BUFFER: usize = 256 << 10;
    namespace.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(BUFFER).unwrap();
        socket.connect(&SocketAddr::from((Direct::PROXY, HTTP_PORT)).into()).unwrap();
        let mut client = TcpStream::from(socket);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"GET /live/s.flv HTTP/1.1\r\nHost: proxy\r\n\r\n").unwrap();
        assert_eq!(copy(&mut (&client).take(READ), &mut sink()).unwrap(), READ);
        client
    })
}

/// What the kernel holds for the proxy's connection with the origin, and for the one with the client, once nothing moves.
fn held(network: &Direct) -> [Held; 2] {
    let look = || {
        let filters = [format!("dport = :{}", Nginx::HTTP_PORT), format!("sport = :{HTTP_PORT}")];
        filters.map(|filter| Held::by(&network.proxy, &filter).unwrap())
    };
    let mut last = look();
    until("nothing moves", SOON, || {
        std::thread::sleep(Duration::from_millis(500));
        Ok(std::mem::replace(&mut last, look()) == last)
    })
    .unwrap();
    last
}

#[track_caller]
fn slow_client_costs_little_and_takes_the_connection_of_the_origin_with_it(means: &str) {
    /// Of the kernel and of the process. A pipe or a buffer between them is in none of both sockets.
    const MOST: u64 = 6 << 20;
    const BETWEEN: u64 = 256 << 10;
    let network = Direct::new().unwrap();
    // As on hosts with much memory: what the kernel would hold by itself.
    network.proxy.sysctl("net.ipv4.tcp_rmem", "4096 131072 33554432").unwrap();
    let stage = Stage::start(&network, &[("PROXY_TCP_JOIN", means)]).unwrap();
    let expected = fill(&stage.nginx);
    let before = memory(stage.proxy.id()).unwrap();
    let client = stalled(&network.client);
    assert_eq!(fetched(&network.client, &stage.http("s.flv")), expected, "beside a client that stalls");
    let only_one = |listed: &[Connection]| listed.len() == 1;
    wait_for_connections(&stage.proxy, SOON, only_one).unwrap();
    let [from_origin, to_client] = held(&network);
    let grown = memory(stage.proxy.id()).unwrap().saturating_sub(before);
    let most = u64::try_from(RECEIVED).unwrap();
    assert_eq!([from_origin.most_unread, to_client.most_unread], [most; 2]);
    assert!(from_origin.unread > 0 && to_client.unsent > 0, "nothing waits: {from_origin:?} {to_client:?}");
    let all = from_origin.memory + to_client.memory + BETWEEN + grown;
    assert!(all < MOST, "{all} bytes, {grown} of them of the process: {from_origin:?} {to_client:?}");
    drop(client);
    until("the origin is left", Duration::from_secs(2), || {
        Ok(sockets(&network.origin, &["-tn", "state", "established"], Nginx::HTTP_PORT)? == 0)
    })
    .unwrap();
    wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
}

#[test]
fn defect_29_a_slow_client_costs_little_and_its_origin_is_left_with_it_when_copied() {
    slow_client_costs_little_and_takes_the_connection_of_the_origin_with_it("copy");
}

#[test]
fn defect_29_a_slow_client_costs_little_and_its_origin_is_left_with_it_when_spliced() {
    slow_client_costs_little_and_takes_the_connection_of_the_origin_with_it("splice");
}

#[test]
fn a_client_is_told_that_the_origin_of_its_stream_cannot_be_reached() {
    let network = Direct::new().unwrap();
    let mut stage = Stage::start(&network, &[]).unwrap();
    stage.nginx.kill().unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", &stage.http("s.flv")]);
    let status = finish(&network.client, curl).unwrap().success().unwrap();
    assert!(["502", "503"].contains(&status.as_str()), "{status}");
    wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
}

#[test]
fn defect_17_the_answer_of_the_origin_arrives_with_its_status_and_its_fields() {
    let network = Direct::new().unwrap();
    let stage = Stage::start(&network, &[]).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--include", &stage.http("absent.flv")]);
    let answer = finish(&network.client, curl).unwrap().success().unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("Server: nginx"), "{answer}");
}
