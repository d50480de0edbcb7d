//! One process after another: what they leave to each other, and what nobody loses by it.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use integration_tests::{
    case::Case,
    http::{Request, Url},
    load::Client,
    netns::{Direct, Family, Namespace, Routed},
    proxy::{Engine, Proxy, Runtime},
    raw::{Endpoint, RawSession},
    site::Site,
    wire::Wire,
};

const PATIENCE: Duration = Duration::from_secs(15);
const QUIET: Duration = Duration::from_millis(300);

fn start<'a>(network: &'a Direct, engine: Engine, settings: &[(&str, &str)]) -> Wire<'a> {
    Wire::start(network, Case { engine, family: Family::V4 }, settings).unwrap()
}

/// A datagram each way: the session lives, and the origin sees it where it was.
#[track_caller]
fn pass(wire: &Wire<'_>, session: &RawSession, source: SocketAddr) {
    wire.client.send(&[0x80, 96, 1], session.proxy, 0).unwrap();
    let (meta, payload) = wire.origin.media.receive().unwrap();
    assert_eq!((meta.peer, payload), (source, vec![0x80, 96, 1]));
    wire.origin.media.send(&[0x80, 96, 2], source, 0).unwrap();
    let (meta, payload) = wire.client.receive().unwrap();
    assert_eq!((meta.peer, payload), (session.proxy, vec![0x80, 96, 2]));
}

fn next<'a>(network: &'a Direct, before: Proxy<'a>, end: impl FnOnce(Proxy<'a>)) -> Proxy<'a> {
    let runtime = before.runtime();
    end(before);
    let command = Proxy::command(Engine::Userspace).unwrap();
    Proxy::spawn_in(&network.proxy, Direct::PROXY, command, runtime).unwrap()
}

#[track_caller]
fn goes_on_after(settings: &[(&str, &str)], end: impl FnOnce(Proxy<'_>)) {
    let network = Direct::new().unwrap();
    let mut wire = start(&network, Engine::Userspace, settings);
    let (session, source) = wire.connected().unwrap();
    pass(&wire, &session, source);
    wire.proxy = next(&network, wire.proxy, end);
    pass(&wire, &session, source);
    let status = wire.proxy.status().unwrap();
    assert_eq!((status.totals.adopted, status.totals.sessions), (1, 1), "{status:#?}");
    // Its client moves.
    let other = wire.other_client().unwrap();
    assert_eq!(wire.check(&other, &session, true).unwrap(), source);
    wire.origin.media.send(&[0x80, 96, 3], source, 0).unwrap();
    assert_eq!(other.receive().unwrap().1, [0x80, 96, 3]);
    // No heartbeat has come since: a new viewer is served, by a port of its own, and the old one can leave.
    let (second, other_source) = wire.connected_as("late").unwrap();
    assert_ne!(other_source, source);
    pass(&wire, &second, other_source);
    let api = wire.proxy.api();
    assert_eq!(network.client.enter(|| session.delete(&api)).unwrap(), 200);
    let status = wire.proxy.wait(PATIENCE, |status| status.totals.sessions == 1).unwrap();
    assert_eq!(status.totals.ended.get("deleted"), Some(&1), "{status:#?}");
}

#[test]
fn sessions_go_on_after_the_process_was_killed() {
    goes_on_after(&[], |proxy| proxy.kill().unwrap());
}

#[test]
fn sessions_go_on_after_a_stop_that_keeps_them() {
    goes_on_after(&[("PROXY_ON_STOP", "keep")], |proxy| proxy.stop().unwrap());
}

#[test]
fn a_stop_leaves_no_session_unless_it_is_told_to_keep_them() {
    let network = Direct::new().unwrap();
    let mut wire = start(&network, Engine::Userspace, &[]);
    wire.connected().unwrap();
    wire.proxy = next(&network, wire.proxy, |proxy| proxy.stop().unwrap());
    let status = wire.proxy.status().unwrap();
    assert_eq!((status.totals.adopted, status.totals.sessions), (0, 0), "{status:#?}");
}

#[test]
fn a_session_that_fell_silent_while_nobody_ran_ends() {
    let network = Direct::new().unwrap();
    let wire = start(&network, Engine::Userspace, &[]);
    wire.connected().unwrap();
    let runtime = wire.proxy.runtime();
    wire.proxy.kill().unwrap();
    let mut command = Proxy::command(Engine::Userspace).unwrap();
    command.env("PROXY_WEBRTC_IDLE_TIMEOUT", "2s");
    let proxy = Proxy::spawn_in(&network.proxy, Direct::PROXY, command, runtime).unwrap();
    let status = proxy.wait(PATIENCE, |status| status.totals.sessions == 0).unwrap();
    assert_eq!((status.totals.adopted, status.totals.ended.get("idle")), (1, Some(&1)), "{status:#?}");
    assert_eq!(status.totals.ports_resting, 1);
}

fn take_over<'a>(
    namespace: &'a Namespace,
    ip: Ipv4Addr,
    engine: Engine,
    before: Proxy<'a>,
) -> (Proxy<'a>, Duration) {
    let mut command = Proxy::command(engine).unwrap();
    command.env("PROXY_TAKE_OVER", "on");
    let start = Instant::now();
    let proxy = Proxy::spawn_in(namespace, ip, command, before.runtime()).unwrap();
    before.wait_for_end().unwrap();
    proxy.wait(PATIENCE, |status| status.totals.adopted > 0).unwrap();
    (proxy, start.elapsed())
}

/// Sends numbered datagrams until told to stop; returns how many.
fn send_until(endpoint: &Endpoint, to: SocketAddr, stop: &AtomicBool) -> u32 {
    let mut sent = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        let mut payload = vec![0x80, 96];
        payload.extend(sent.to_be_bytes());
        endpoint.send(&payload, to, 0).unwrap();
        sent += 1;
        sleep(Duration::from_millis(1));
    }
    sent
}

/// The numbers of what arrived, until nothing more comes.
fn numbers(endpoint: &Endpoint) -> Vec<u32> {
    let mut numbers = vec![];
    while let Some((_, payload)) = endpoint.receive_within(QUIET).unwrap() {
        numbers.push(u32::from_be_bytes(payload[2..6].try_into().unwrap()));
    }
    numbers
}

#[test]
fn a_take_over_loses_no_datagram_in_either_direction() {
    let network = Direct::new().unwrap();
    let wire = start(&network, Engine::Userspace, &[]);
    let (session, source) = wire.connected().unwrap();
    let stop = AtomicBool::new(false);
    scope(|threads| {
        let up = threads.spawn(|| send_until(&wire.client, session.proxy, &stop));
        let down = threads.spawn(|| send_until(&wire.origin.media, source, &stop));
        let at_origin = threads.spawn(|| numbers(&wire.origin.media));
        let at_client = threads.spawn(|| numbers(&wire.client));
        let (proxy, took) = take_over(&network.proxy, Direct::PROXY, Engine::Userspace, wire.proxy);
        println!("a take-over took {took:?} from the start of the process to the end of the other");
        sleep(QUIET);
        stop.store(true, Ordering::Relaxed);
        for (sent, received) in [(up, at_origin), (down, at_client)] {
            let (sent, received) = (sent.join().unwrap(), received.join().unwrap());
            assert!(sent > 100, "{sent} sent");
            assert_eq!(received, (0..sent).collect::<Vec<_>>());
        }
        assert_eq!(proxy.status().unwrap().totals.sessions, 1);
    });
}

#[test]
fn viewers_lose_nothing_while_one_process_takes_over_from_another_time_and_again() {
    let network = Routed::new().unwrap();
    let mut site = Site::start(&network, Engine::Userspace, &[]).unwrap();
    let _publisher = site.publish("a").unwrap();
    let mut viewers: Vec<_> = (0..3).map(|_| site.play("a").unwrap()).collect();
    let receiving = |client: &Client| drop(client.wait(PATIENCE, |stats| stats.received() > 50).unwrap());
    viewers.iter().for_each(receiving);
    for round in 0..2 {
        site.proxy = take_over(&network.proxy, Routed::PROXY, Engine::Userspace, site.proxy).0;
        site.settled(Engine::Userspace, 4 + round).unwrap();
        // The registry came along: a new viewer finds the stream's origin, and nobody waits for a heartbeat.
        let late = site.play("a").unwrap();
        receiving(&late);
        viewers.push(late);
    }
    for viewer in &viewers {
        let stats = viewer.stats();
        assert_eq!((stats.missing(), stats.duplicates()), (0, 0), "{stats:?}");
    }
}

#[test]
fn requests_that_come_during_a_take_over_are_answered() {
    let network = Direct::new().unwrap();
    let wire = start(&network, Engine::Userspace, &[]);
    wire.connected().unwrap();
    let (stop, api) = (AtomicBool::new(false), wire.proxy.api());
    scope(|threads| {
        let asking = threads.spawn(|| {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let url = Url::parse(&format!("{api}/api/v1/versions")).unwrap();
                let response = network.client.enter(|| Request::new("GET", url).send()).unwrap();
                assert_eq!(response.status, 200);
                asked += 1;
            }
            asked
        });
        let (proxy, _) = take_over(&network.proxy, Direct::PROXY, Engine::Userspace, wire.proxy);
        stop.store(true, Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
        drop(proxy);
    });
}

#[test]
fn a_process_that_may_open_nothing_does_not_spin_and_is_taken_over_from_later() {
    let network = Direct::new().unwrap();
    let runtime = Runtime::new();
    fs::create_dir(runtime.path()).unwrap();
    let log = runtime.path().join("log");
    let mut command = Proxy::command(Engine::Userspace).unwrap();
    command.stderr(File::create(&log).unwrap());
    let proxy = Proxy::spawn_in(&network.proxy, Direct::PROXY, command, runtime).unwrap();
    let case = Case { engine: Engine::Userspace, family: Family::V4 };
    let mut wire = Wire::around(&network, case, proxy).unwrap();
    let (session, source) = wire.connected().unwrap();
    let process = Pid::from_raw(wire.proxy.id().cast_signed());
    let none = Rlimit { current: Some(0), ..getrlimit(Resource::Nofile) };
    let before = prlimit(process, Resource::Nofile, none).unwrap();
    let refusals = || fs::read_to_string(&log).unwrap().matches("hand-over socket").count();
    wire.proxy = scope(|threads| {
        let watching = threads.spawn(|| {
            let end = Instant::now() + PATIENCE;
            while refusals() == 0 && Instant::now() < end {
                sleep(QUIET / 10);
            }
            sleep(Duration::from_secs(1));
            let refusals = refusals();
            prlimit(process, Resource::Nofile, before).unwrap();
            refusals
        });
        let (proxy, _) = take_over(&network.proxy, Direct::PROXY, Engine::Userspace, wire.proxy);
        let refusals = watching.join().unwrap();
        assert!((1..30).contains(&refusals), "{refusals} visitors sent away in a second");
        proxy
    });
    pass(&wire, &session, source);
}

fn run(wire: &Wire<'_>, arguments: &[&str]) -> Output {
    let mut command: Command = Proxy::command(Engine::Userspace).unwrap();
    wire.proxy.runtime().apply(&mut command);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    wire.network.proxy.enter(move || command.output()).unwrap()
}

#[test]
fn a_second_process_says_who_runs_and_changes_nothing() {
    let network = Direct::new().unwrap();
    let wire = start(&network, Engine::Userspace, &[]);
    let (session, source) = wire.connected().unwrap();
    let output = run(&wire, &["run"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in [&format!("process {}", wire.proxy.id()), "PROXY_TAKE_OVER", "PROXY_RUNTIME_DIR"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    pass(&wire, &session, source);
}

#[test]
fn a_take_over_that_cannot_listen_leaves_the_running_process_as_it_is() {
    let network = Direct::new().unwrap();
    let mut wire = start(&network, Engine::Userspace, &[]);
    let (session, source) = wire.connected().unwrap();
    let taken = network.proxy.enter(|| std::net::TcpListener::bind("0.0.0.0:4711").unwrap());
    let output = run(&wire, &["run", "--take-over", "--http-api", "4711", "--datapath", "userspace"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("4711"), "{text}");
    drop(taken);
    pass(&wire, &session, source);
    assert_eq!(wire.proxy.wait(PATIENCE, |_| true).unwrap().totals.sessions, 1);
    // And the next one succeeds.
    wire.proxy = take_over(&network.proxy, Direct::PROXY, Engine::Userspace, wire.proxy).0;
    pass(&wire, &session, source);
}

#[test]
fn status_shows_sessions_as_a_table_and_as_json() {
    let network = Direct::new().unwrap();
    let wire = start(&network, Engine::Userspace, &[]);
    wire.connected().unwrap();
    let output = run(&wire, &["status"]);
    let text = String::from_utf8_lossy(&output.stdout);
    for word in ["STREAM", "__defaultVhost__/live/s", "player", "userspace"] {
        assert!(output.status.success() && text.contains(word), "{word} in {text}");
    }
    let output = run(&wire, &["status", "--json"]);
    let status: integration_tests::proxy::Status = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status.totals.sessions, 1);
}

#[test]
fn status_of_nobody_is_an_error_that_says_so() {
    let network = Direct::new().unwrap();
    let proxy = Proxy::start(&network.proxy, Direct::PROXY, Engine::Userspace, &[]).unwrap();
    let runtime = proxy.runtime();
    proxy.stop().unwrap();
    let mut command = Proxy::command(Engine::Userspace).unwrap();
    runtime.apply(&mut command);
    command.arg("status").stderr(Stdio::piped());
    let output = network.proxy.enter(move || command.output()).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no srs-xproxy runs here"), "{text}");
}

#[test]
fn detach_returns_sessions_to_userspace_and_takes_the_programs_off() {
    let network = Direct::new().unwrap();
    let wire = start(&network, Engine::Tc, &[]);
    let (session, source) = wire.connected().unwrap();
    pass(&wire, &session, source);
    wire.proxy.wait(PATIENCE, |status| status.totals.offloaded == 1).unwrap();
    let output = run(&wire, &["detach"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("removed programs on "), "{output:?}");
    let status = wire.proxy.status().unwrap();
    assert_eq!((status.totals.offloaded, status.interfaces.len()), (0, 0), "{status:#?}");
    pass(&wire, &session, source);
    // A new session attaches nothing.
    let (second, second_source) = wire.connected_as("late").unwrap();
    pass(&wire, &second, second_source);
    assert!(wire.proxy.status().unwrap().interfaces.is_empty());
}

#[test]
fn detach_without_a_process_forgets_its_sessions_and_a_second_time_finds_nothing() {
    let network = Direct::new().unwrap();
    let wire = start(&network, Engine::Userspace, &[]);
    wire.connected().unwrap();
    let runtime = wire.proxy.runtime();
    wire.proxy.kill().unwrap();
    let detach = || {
        let mut command = Proxy::command(Engine::Userspace).unwrap();
        runtime.apply(&mut command);
        command.arg("detach").stdout(Stdio::piped());
        let output = network.proxy.enter(move || command.output()).unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(detach().starts_with("removed 1 records of sessions"));
    assert_eq!(detach(), "there was nothing to remove\n");
    let command = Proxy::command(Engine::Userspace).unwrap();
    let proxy = Proxy::spawn_in(&network.proxy, Direct::PROXY, command, runtime.clone()).unwrap();
    assert_eq!(proxy.status().unwrap().totals.sessions, 0);
}
