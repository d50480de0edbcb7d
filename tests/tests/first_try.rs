//! What people try first: everything on one host, SRS in a container, no root, a mistake in the configuration.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::Ipv4Addr,
    process::{Command, Output, Stdio},
    sync::Arc,
    thread::sleep,
    time::Duration,
};

use integration_tests::{
    load::{Client, ClientOptions, Swarm},
    netns::{Bridged, Namespace, Routed},
    proxy::{Engine, Proxy, Runtime},
    site::{self, Site},
};

const PATIENCE: Duration = Duration::from_secs(15);
const WATCH: Duration = Duration::from_secs(1);

/// Publishes and plays one stream from `clients` and returns the player once it receives.
fn play(clients: &Namespace, proxy: &Proxy<'_>) -> (Client, Client) {
    let swarm = Arc::new(Swarm::start().unwrap());
    let connect = |options| clients.enter(|| Client::connect(&swarm, options)).unwrap();
    let publisher = connect(ClientOptions::publish(&proxy.whip("first")).unwrap());
    let viewer = connect(ClientOptions::play(&proxy.whep("first")).unwrap());
    viewer.wait(PATIENCE, |stats| stats.received() > 50).unwrap();
    (publisher, viewer)
}

#[track_caller]
fn forwards_in_the_kernel(proxy: &Proxy<'_>, viewer: &Client) {
    let before = proxy.wait(PATIENCE, |status| status.totals.offloaded == 2).unwrap();
    sleep(WATCH);
    let after = proxy.status().unwrap();
    assert!(after.packets("kernel") - before.packets("kernel") > 200, "{after:#?}");
    let stats = viewer.stats();
    assert_eq!(stats.missing(), 0, "{stats:?}");
}

fn client_proxy_and_origin_on_127_0_0_1(settings: &[(&str, &str)]) {
    let host = Namespace::new("host").unwrap();
    let proxy = Proxy::start(&host, Ipv4Addr::LOCALHOST, Engine::Tc, settings).unwrap();
    let _origin = site::origin(&host, Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST).unwrap();
    proxy.wait_for_origins(1).unwrap();
    let (_publisher, viewer) = play(&host, &proxy);
    forwards_in_the_kernel(&proxy, &viewer);
}

#[test]
fn one_host_on_127_0_0_1_is_forwarded_by_tc_on_lo() {
    client_proxy_and_origin_on_127_0_0_1(&[]);
}

#[test]
fn one_host_on_127_0_0_1_is_forwarded_when_nothing_was_configured() {
    client_proxy_and_origin_on_127_0_0_1(&[("PROXY_DATAPATH", "auto"), ("PROXY_REQUIRE_KERNEL", "off")]);
}

fn origin_in_a_container(engine: Engine) {
    let network = Bridged::new().unwrap();
    let proxy = Proxy::start(&network.host, Bridged::HOST, engine, &[]).unwrap();
    let _origin = site::origin(&network.container, Bridged::CONTAINER, Bridged::BRIDGE).unwrap();
    proxy.wait_for_origins(1).unwrap();
    let (_publisher, viewer) = play(&network.client, &proxy);
    forwards_in_the_kernel(&proxy, &viewer);
}

#[test]
fn an_origin_in_a_container_behind_a_bridge_is_forwarded_by_tc() {
    origin_in_a_container(Engine::Tc);
}

#[test]
fn an_origin_in_a_container_behind_a_bridge_is_forwarded_when_xdp_was_asked_for() {
    origin_in_a_container(Engine::Xdp);
}

fn run_to_end(namespace: &Namespace, mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    namespace.enter(move || command.output()).unwrap()
}

#[test]
fn a_proxy_that_needs_the_kernel_and_may_not_use_it_says_what_it_lacks() {
    let host = Namespace::new("host").unwrap();
    let mut command = Proxy::command(Engine::Unprivileged).unwrap();
    command.env("PROXY_DATAPATH", "tc").env("PROXY_REQUIRE_KERNEL", "on");
    let output = run_to_end(&host, command);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in ["PROXY_REQUIRE_KERNEL", "CAP_BPF", "CAP_NET_ADMIN"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn every_mistake_in_the_configuration_is_named_at_once() {
    let host = Namespace::new("host").unwrap();
    let mut command = Proxy::command(Engine::Tc).unwrap();
    command.env("PROXY_WEBRTC_SERVER", "eighteen").env("PROXY_ORIGIN_SERVER_TTL", "0s");
    let output = run_to_end(&host, command);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{text}");
    for word in ["PROXY_WEBRTC_SERVER", "eighteen", "PROXY_ORIGIN_SERVER_TTL"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn defect_31_a_taken_port_stops_the_start_and_is_named() {
    let host = Namespace::new("host").unwrap();
    let _first = Proxy::start(&host, Ipv4Addr::LOCALHOST, Engine::Userspace, &[]).unwrap();
    let (mut command, runtime) = (Proxy::command(Engine::Userspace).unwrap(), Runtime::new());
    runtime.apply(&mut command);
    let output = run_to_end(&host, command);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("PROXY_HTTP_API") && text.contains("11985"), "{text}");
}

#[test]
fn a_proxy_without_origins_prints_where_it_listens_and_how_to_add_one() {
    let network = Routed::new().unwrap();
    let mut command = Proxy::command(Engine::Userspace).unwrap();
    let runtime = Runtime::new();
    runtime.apply(&mut command);
    command.stdout(Stdio::piped());
    let mut process = network.proxy.spawn(command).unwrap();
    let mut stdout = process.child().stdout.take().unwrap();
    sleep(WATCH);
    assert!(process.stop().unwrap().success());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
    for word in ["heartbeat", "/api/v1/srs/register", "ports", "/rtc/v1/whip/", ":11985", ":12025"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn a_request_without_any_origin_is_told_to_come_back() {
    let network = Routed::new().unwrap();
    let proxy = Proxy::start(&network.proxy, Routed::PROXY, Engine::Userspace, &[]).unwrap();
    let swarm = Arc::new(Swarm::start().unwrap());
    let options = ClientOptions::play(&proxy.whep("none")).unwrap();
    let refused = network.client.enter(|| Client::connect(&swarm, options)).unwrap_err();
    assert!(format!("{refused:#}").contains("503"), "{refused:#}");
}

#[test]
fn both_origins_serve_after_a_start_with_defaults() {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, Engine::Userspace, &[("PROXY_DATAPATH", "auto")]).unwrap();
    let _publisher = site.publish("a").unwrap();
    let viewer = site.play("a").unwrap();
    viewer.wait(PATIENCE, |stats| stats.received() > 50).unwrap();
    let status = site.settled(Engine::Tc, 2).unwrap();
    let eth1 = status.interfaces.iter().find(|interface| interface.name == "eth1").unwrap();
    assert_eq!(eth1.engine, "tc", "the default route's device keeps to TC: {eth1:?}");
    assert!(eth1.note.as_deref().is_some_and(|note| note.contains("xdp")), "{eth1:?}");
}
