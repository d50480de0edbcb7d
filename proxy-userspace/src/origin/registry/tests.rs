//! Scripts of heartbeats, picks and probes under a clock of their own.

use std::{io, net::IpAddr, sync::mpsc, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::origin::probe::ProbeFailure;

const TTL: u64 = 300;
const PICK_TTL: u64 = 120;

const SETTINGS: config::Origins = config::Origins {
    ttl: Duration::from_secs(TTL),
    probe_interval: Duration::from_secs(2),
    probe_timeout: Duration::from_secs(1),
    probe_failures: 2,
    pick_ttl: Duration::from_secs(PICK_TTL),
};

mod picks;

/// The machine under test and the seconds that have gone by.
struct Script {
    origins: Origins,
    start: Instant,
    second: u64,
    random: StdRng,
}

impl Script {
    fn new(settings: config::Origins) -> Self {
        let random = StdRng::seed_from_u64(7);
        Self {
            origins: Origins::new(settings, Balancing::default()),
            start: Instant::now(),
            second: 0,
            random,
        }
    }

    /// With these servers up.
    fn with_up(servers: &[&str]) -> Self {
        let mut script = Self::new(SETTINGS);
        for server in servers {
            script.heartbeat(origin(server, "1"));
            script.succeed(server, "1");
        }
        script
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.second)
    }

    fn at(&mut self, second: u64) -> &mut Self {
        self.second = second;
        self
    }

    fn heartbeat(&mut self, origin: Origin) -> Vec<OriginEvent> {
        self.origins.heartbeat(origin, Terms::default(), Lease::Heartbeat, self.now()).unwrap()
    }

    fn pick(&mut self, stream: &str) -> Result<String, Refusal> {
        let now = self.now();
        self.origins.pick(&key(stream), now, &mut self.random).map(|origin| origin.server.clone())
    }

    fn picked(&self, stream: &str) -> Option<String> {
        self.origins.picked(&key(stream), self.now()).map(|origin| origin.server.clone())
    }

    fn succeed(&mut self, server: &str, run: &str) -> Option<OriginEvent> {
        self.origins.probed(&id(server, run), Ok(()), self.now())
    }

    fn fail(&mut self, server: &str, run: &str) -> Option<OriginEvent> {
        self.origins.probed(&id(server, run), Err(refused()), self.now())
    }

    fn report(&mut self, server: &str) {
        self.origins.report_failure(&id(server, "1"), self.now());
    }

    fn due(&mut self) -> Vec<String> {
        let now = self.now();
        self.origins.due_probes(now).iter().map(|origin| origin.server.clone()).collect()
    }

    fn sweep(&mut self) -> Vec<OriginEvent> {
        self.origins.sweep(self.now())
    }

    fn status(&self, server: &str) -> Option<(&'static str, Option<String>, usize)> {
        let list = self.origins.list(self.now());
        let found = list.into_iter().find(|status| status.device_id == server)?;
        Some((found.state, found.reason, found.streams))
    }
}

fn key(stream: &str) -> StreamKey {
    format!("__defaultVhost__/live/{stream}").parse().unwrap()
}

fn id(server: &str, run: &str) -> OriginId {
    OriginId::new(server, "service", run)
}

fn origin(server: &str, run: &str) -> Origin {
    let ip = IpAddr::from([10, 0, 0, 1]);
    Origin { rtmp: Some((ip, 1935).into()), ..Origin::bare(server, id(server, run), ip) }
}

fn refused() -> ProbeError {
    let cause = ProbeFailure::Io(io::ErrorKind::ConnectionRefused);
    ProbeError { endpoint: "rtmp", address: ([10, 0, 0, 1], 1935).into(), cause }
}

#[test]
fn an_origin_takes_streams_only_after_its_first_successful_probe() {
    let mut script = Script::new(SETTINGS);
    assert_eq!(script.pick("a"), Err(Refusal::NoOrigin));
    assert_eq!(script.heartbeat(origin("one", "1")), []);
    assert_eq!(script.pick("a"), Err(Refusal::Undecided));
    assert_eq!(script.due(), ["one"]);
    assert_eq!(script.succeed("one", "1"), Some(OriginEvent::Up(Arc::new(origin("one", "1")))));
    assert_eq!(script.pick("a"), Ok("one".into()));
}

#[test]
fn an_origin_that_fails_its_first_probe_is_down_and_nobody_lost_anything() {
    let mut script = Script::new(SETTINGS);
    script.heartbeat(origin("one", "1"));
    assert_eq!(script.fail("one", "1"), None);
    assert_eq!(script.pick("a"), Err(Refusal::NoOrigin));
    let reason = Some("rtmp 10.0.0.1:1935: connection refused".into());
    assert_eq!(script.status("one"), Some(("down", reason, 0)));
}

#[test]
fn probes_come_at_the_interval_and_at_once_after_a_heartbeat_of_a_down_origin() {
    let mut script = Script::with_up(&["one"]);
    assert_eq!(script.due(), ["one"]);
    assert_eq!(script.at(1).due(), [""; 0]);
    script.heartbeat(origin("one", "1"));
    assert_eq!(script.due(), [""; 0], "it is up");
    assert_eq!(script.at(2).due(), ["one"]);
    script.fail("one", "1");
    script.fail("one", "1");
    assert_eq!(script.at(3).due(), [""; 0]);
    script.heartbeat(origin("one", "1"));
    assert_eq!(script.due(), ["one"]);
}

#[test]
fn only_failures_in_a_row_make_an_origin_down() {
    let mut script = Script::with_up(&["one"]);
    assert_eq!(script.fail("one", "1"), None);
    assert_eq!(script.succeed("one", "1"), None);
    assert_eq!(script.fail("one", "1"), None);
    assert_eq!(script.pick("a"), Ok("one".into()));
    assert_eq!(script.fail("one", "1"), Some(OriginEvent::Down(id("one", "1"))));
    assert_eq!(script.fail("one", "1"), None, "told once");
    assert_eq!(script.pick("a"), Err(Refusal::NoOrigin));
    assert!(matches!(script.succeed("one", "1"), Some(OriginEvent::Up(_))));
}

#[test]
fn an_origin_whose_heartbeats_stop_goes_down_and_is_forgotten() {
    let mut script = Script::with_up(&["one"]);
    assert_eq!(script.at(TTL - 1).sweep(), []);
    assert_eq!(script.at(TTL).sweep(), [OriginEvent::Down(id("one", "1"))]);
    assert_eq!(script.sweep(), []);
    assert_eq!(script.status("one"), Some(("down", Some("no heartbeat for 300 s".into()), 0)));
    assert_eq!(script.due(), [""; 0]);
    assert_eq!(script.succeed("one", "1"), None, "a late probe does not revive it");
    assert_eq!(script.at(2 * TTL).sweep(), []);
    assert_eq!(script.status("one"), None);
}

#[test]
fn a_heartbeat_and_a_probe_bring_a_silent_origin_back() {
    let mut script = Script::with_up(&["one"]);
    script.at(TTL).sweep();
    assert_eq!(script.heartbeat(origin("one", "1")), []);
    assert_eq!(script.due(), ["one"]);
    assert!(matches!(script.succeed("one", "1"), Some(OriginEvent::Up(_))));
}

#[test]
fn silence_does_not_count_while_nobody_can_be_heard_but_probes_do() {
    let mut script = Script::with_up(&["one", "two"]);
    script.at(TTL - 1);
    script.origins.excuse_silence(script.now());
    assert_eq!(script.at(2 * TTL - 2).sweep(), []);
    script.fail("two", "1");
    assert_eq!(script.fail("two", "1"), Some(OriginEvent::Down(id("two", "1"))));
    let age = script.origins.list(script.now())[0].heartbeat_age;
    assert_eq!(age, (2 * TTL - 2) as f64, "what is shown is the truth");
    assert_eq!(script.at(2 * TTL - 1).sweep(), [OriginEvent::Down(id("one", "1"))]);
    script.origins.excuse_silence(script.now());
    assert_eq!(script.at(3 * TTL - 1).sweep(), []);
    assert_eq!(script.status("one"), None, "who was given up is not taken back");
}

#[test]
fn a_static_origin_never_expires() {
    let mut script = Script::new(SETTINGS);
    script.origins.heartbeat(origin("one", "1"), Terms::default(), Lease::Static, script.now()).unwrap();
    script.succeed("one", "1");
    assert_eq!(script.at(9 * TTL).sweep(), []);
    assert_eq!(script.pick("a"), Ok("one".into()));
}

#[test]
fn a_reported_failure_is_avoided_until_a_probe_succeeds_and_ends_no_session() {
    let mut script = Script::with_up(&["one"]);
    script.due();
    script.report("one");
    assert_eq!(script.pick("a"), Err(Refusal::Undecided));
    assert_eq!(script.due(), ["one"], "probed at once");
    assert_eq!(script.succeed("one", "1"), None);
    assert_eq!(script.pick("a"), Ok("one".into()));
}

#[test]
fn a_reported_failure_and_a_failed_probe_make_an_origin_down() {
    let mut script = Script::with_up(&["one"]);
    script.report("one");
    assert_eq!(script.fail("one", "1"), Some(OriginEvent::Down(id("one", "1"))));
}

#[test]
fn a_new_run_replaces_the_old_one_at_once() {
    let mut script = Script::with_up(&["one"]);
    script.pick("a").unwrap();
    assert_eq!(script.heartbeat(origin("one", "2")), [OriginEvent::Down(id("one", "1"))]);
    assert_eq!(script.pick("a"), Err(Refusal::Undecided));
    script.succeed("one", "2");
    assert_eq!(script.pick("a"), Ok("one".into()));
    assert_eq!(script.origins.list(script.now()).len(), 1);
}

#[test]
fn changed_endpoints_are_a_new_run() {
    let mut script = Script::with_up(&["one"]);
    let moved = Origin { rtc: Some("10.0.0.1:8001".parse().unwrap()), ..origin("one", "1") };
    assert_eq!(script.heartbeat(moved), [OriginEvent::Down(id("one", "1"))]);
    assert_eq!(script.status("one"), Some(("probing", None, 0)));
}

#[test]
fn two_origins_with_one_server_id_settle_side_by_side() {
    let mut script = Script::with_up(&["one"]);
    script.heartbeat(origin("one", "2"));
    for _ in 0..3 {
        script.heartbeat(origin("one", "1"));
        script.heartbeat(origin("one", "2"));
    }
    assert_eq!(script.origins.list(script.now()).len(), 2);
}

#[test]
fn without_probing_heartbeats_alone_decide() {
    let mut script = Script::new(config::Origins { probe_interval: Duration::ZERO, ..SETTINGS });
    assert!(matches!(script.heartbeat(origin("one", "1"))[..], [OriginEvent::Up(_)]));
    assert_eq!(script.due(), [""; 0]);
    script.report("one");
    assert_eq!(script.pick("a"), Err(Refusal::NoOrigin));
    assert_eq!(script.heartbeat(origin("one", "1")), []);
    assert_eq!(script.pick("a"), Ok("one".into()));
}

#[test]
fn the_number_of_origins_is_bounded() {
    let mut script = Script::new(SETTINGS);
    for n in 0..MAX_ORIGINS {
        script.heartbeat(origin(&n.to_string(), "1"));
    }
    let refused =
        script.origins.heartbeat(origin("more", "1"), Terms::default(), Lease::Heartbeat, script.now());
    assert_eq!(refused, Err(Refusal::Full));
    script.heartbeat(origin("0", "2"));
    script.heartbeat(origin("1", "1"));
}

#[test]
fn the_memory_of_replaced_runs_is_bounded_and_fades() {
    let mut script = Script::new(SETTINGS);
    for run in 0..MAX_ORIGINS + 9 {
        script.heartbeat(origin("one", &run.to_string()));
    }
    assert_eq!(script.origins.replaced.len(), MAX_ORIGINS);
    script.at(TTL).sweep();
    assert!(script.origins.replaced.is_empty());
}

/// A place for log lines.
#[derive(Clone)]
struct Lines(mpsc::Sender<String>);

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_first_heartbeat_alone_is_logged_in_the_words_that_scripts_wait_for() {
    let (sender, lines) = mpsc::channel();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(sender.clone())).finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut script = Script::new(SETTINGS);
        script.heartbeat(origin("origin1", "1"));
        script.heartbeat(origin("origin1", "1"));
    });
    let lines: Vec<String> = lines.iter().collect();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("Register SRS media server") && line.contains("device=origin1"), "{line}");
}

#[test]
fn what_another_process_knew_is_up_at_once_and_streams_stay_where_they_are() {
    let mut before = Script::with_up(&["a", "b"]);
    let picks: Vec<_> = ["s1", "s2", "s3"].map(|stream| before.pick(stream).unwrap()).into();
    let known = before.origins.known(before.now());
    let mut after = Script::new(SETTINGS);
    let now = after.now();
    assert_eq!(after.origins.adopt(known, now).len(), 2, "both are up");
    assert_eq!(["s1", "s2", "s3"].map(|stream| after.pick(stream).unwrap()).to_vec(), picks);
    assert_eq!(after.due(), ["a", "b"], "and probed");
    assert_eq!(after.heartbeat(origin("a", "1")), [], "a heartbeat changes nothing");
    after.fail("a", "1");
    assert_eq!(after.fail("a", "1"), Some(OriginEvent::Down(id("a", "1"))));
}
