//! What the kernel keeps while no process runs, and what the next one makes of it.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::{SocketAddr, UdpSocket},
    process::{Command, Output, Stdio},
    sync::Arc,
    thread::sleep,
    time::Duration,
};

use rustix::process::Signal;

use integration_tests::{
    case::Case,
    lacking::Lacking,
    netns::Direct,
    pins::Pins,
    proxy::{Proxy, Runtime, Status},
    pulse::{self, Rhythm, Tally},
    raw::{Endpoint, RawOrigin, RawSession, check},
    residue,
    wire::Wire,
};

const PATIENCE: Duration = Duration::from_secs(15);
const CALM: Duration = Duration::from_millis(500);
const CRASHES: u32 = 20;
/// A neighbour is asked every two seconds and has three to answer.
const FOLLOWED: Duration = Duration::from_secs(6);
/// Origins are asked nothing: only the kernel path tells that something is wrong.
const SETTINGS: [(&str, &str); 2] = [("PROXY_ON_STOP", "keep"), ("PROXY_ORIGIN_PROBE_INTERVAL", "0")];

/// A session in the kernel, and the proxy that is about to end.
struct Scene<'a> {
    network: &'a Direct,
    case: Case,
    pins: Pins,
    runtime: Arc<Runtime>,
    origin: RawOrigin,
    client: Endpoint,
    session: RawSession,
    source: SocketAddr,
}

impl<'a> Scene<'a> {
    fn start(network: &'a Direct, case: Case, settings: &[(&str, &str)]) -> (Self, Proxy<'a>) {
        let pins = Pins::of(&network.proxy).unwrap();
        let wire = Wire::start(network, case, &[&SETTINGS, settings].concat()).unwrap();
        let (session, source) = wire.connected().unwrap();
        wire.settled().unwrap();
        let Wire { proxy, origin, client, .. } = wire;
        let runtime = proxy.runtime();
        (Self { network, case, pins, runtime, origin, client, session, source }, proxy)
    }

    fn command(&self, settings: &[(&str, &str)]) -> Command {
        let mut command = Proxy::command(self.case.engine).unwrap();
        command.envs(SETTINGS).envs(settings.iter().copied());
        command
    }

    fn next(&self, settings: &[(&str, &str)]) -> Proxy<'a> {
        self.spawn(self.command(settings))
    }

    /// The next process cannot do what the kernel engine needs, and may do without.
    fn next_without(&self, lacking: Lacking) -> Proxy<'a> {
        let mut command = self.command(&[("PROXY_REQUIRE_KERNEL", "off")]);
        lacking.apply(&mut command);
        self.spawn(command)
    }

    fn spawn(&self, command: Command) -> Proxy<'a> {
        let ip = self.case.family.of(Direct::PROXY);
        Proxy::spawn_in(&self.network.proxy, ip, command, Arc::clone(&self.runtime)).unwrap()
    }

    /// Runs `work` while datagrams go both ways.
    fn beat<R>(&self, work: impl FnOnce() -> R) -> (R, Tally) {
        let ends = pulse::Ends {
            client: &self.client,
            origin: &self.origin.media,
            session: &self.session,
            source: self.source,
        };
        pulse::beat(ends, Rhythm::default(), work)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(&[]);
        self.runtime.apply(&mut command);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.network.proxy.enter(move || command.output()).unwrap()
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(residue::attached(&self.network.proxy).unwrap(), [""; 0]);
        assert!(self.pins.is_empty(), "{} is left", self.pins.path().display());
    }
}

#[track_caller]
fn nothing_was_lost(tally: &Tally) {
    for (direction, arrivals) in tally.directions() {
        let figures = (arrivals.missing(), arrivals.duplicates());
        assert!(arrivals.sent() > 100, "{direction}: {} sent", arrivals.sent());
        assert_eq!(figures, (0, 0), "{direction}, longest outage {:?}", arrivals.outage());
    }
}

fn has_adopted(status: &Status) -> bool {
    (status.totals.adopted, status.totals.offloaded) == (1, 1)
}

fn b6_what_is_installed_loses_nothing_while_nobody_runs(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    let (proxy, tally) = scene.beat(|| {
        sleep(CALM);
        proxy.kill().unwrap();
        sleep(2 * CALM);
        let proxy = scene.next(&[]);
        let status = proxy.wait(PATIENCE, has_adopted).unwrap();
        assert_eq!(status.relayed("next_hop_lost"), 0, "{status:#?}");
        sleep(2 * CALM);
        proxy
    });
    nothing_was_lost(&tally);
    let status = proxy.status().unwrap();
    assert_eq!(status.relayed("next_hop_lost"), 0, "nor later: {status:#?}");
    assert!(status.packets("kernel") > 100, "{status:#?}");
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

fn b6_an_upgrade_loses_nothing(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    let (proxy, tally) = scene.beat(|| {
        sleep(CALM);
        let next = scene.next(&[("PROXY_TAKE_OVER", "on")]);
        proxy.wait_for_end().unwrap();
        next.wait(PATIENCE, has_adopted).unwrap();
        sleep(CALM);
        next
    });
    nothing_was_lost(&tally);
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

fn b7_an_adopted_session_is_listed_moves_and_ends(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    proxy.kill().unwrap();
    let proxy = scene.next(&[]);
    let status = proxy.wait(PATIENCE, has_adopted).unwrap();
    let session = &status.sessions[0];
    assert!(session.stream.ends_with("/s") && session.state == "kernel", "{status:#?}");
    // Its client moves: the request comes up, and the session follows.
    let other = network.client.enter(|| Endpoint::bind(case.family.of(Direct::CLIENT))).unwrap();
    other.send(&check(&scene.session.username, true), scene.session.proxy, 0).unwrap();
    assert_eq!(scene.origin.media.answer_check().unwrap(), scene.source);
    other.receive().unwrap();
    scene.origin.media.send(&[0x80, 96, 3], scene.source, 0).unwrap();
    assert_eq!(other.receive().unwrap().1, [0x80, 96, 3]);
    let status = proxy.wait(PATIENCE, |status| status.totals.offloaded == 1).unwrap();
    assert_eq!(status.totals.migrations, 1, "{status:#?}");
    // And it ends.
    let api = proxy.api();
    assert_eq!(network.client.enter(|| scene.session.delete(&api)).unwrap(), 200);
    let status = proxy.wait(PATIENCE, |status| status.totals.sessions == 0).unwrap();
    assert_eq!(status.totals.ports_resting, 1, "{status:#?}");
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

fn a9_a_neighbour_that_changed_while_nobody_ran_is_followed(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    proxy.kill().unwrap();
    network.origin.ip(&["link", "set", "eth0", "address", "02:99:00:00:00:01"]).unwrap();
    let proxy = scene.next(&[]);
    proxy.wait(PATIENCE, |status| status.totals.adopted == 1).unwrap();
    // The new address is asked for, and whatever is lost until then is over.
    let media = [0x80, 96, 4];
    scene.client.send_until_it_arrives(&media, scene.session.proxy, &scene.origin.media, FOLLOWED).unwrap();
    proxy.wait(PATIENCE, |status| status.totals.offloaded == 1).unwrap();
    let ((), tally) = scene.beat(|| sleep(2 * CALM));
    nothing_was_lost(&tally);
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

fn a9_without_an_owner_for_too_long_everything_comes_up(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[("PROXY_ORPHAN_TIMEOUT", "1s")]);
    let (_, tally) = scene.beat(|| {
        sleep(2 * CALM);
        proxy.kill().unwrap();
        sleep(6 * CALM);
    });
    let silence = tally.to_client.outage();
    assert!(silence > Duration::from_secs(1), "nobody relays what comes up: {silence:?}");
    // The next process goes on where it ended.
    let proxy = scene.next(&[]);
    proxy.wait(PATIENCE, has_adopted).unwrap();
    let ((), tally) = scene.beat(|| sleep(2 * CALM));
    nothing_was_lost(&tally);
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

fn a9_a_flow_without_a_record_goes_on_and_expires(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    let (proxy, tally) = scene.beat(|| {
        proxy.kill().unwrap();
        let records = std::fs::read_dir(scene.pins.path()).unwrap().next().unwrap().unwrap().path();
        std::fs::remove_file(records.join("SESSIONS")).unwrap();
        let proxy = scene.next(&[("PROXY_WEBRTC_IDLE_TIMEOUT", "2s")]);
        sleep(6 * CALM);
        let status = proxy.status().unwrap();
        assert_eq!((status.totals.sessions, status.totals.adopted), (0, 0), "{status:#?}");
        proxy
    });
    nothing_was_lost(&tally);
    let status = proxy.wait(PATIENCE, |status| status.totals.ports_leased == 0).unwrap();
    assert_eq!(status.totals.ports_resting, 1, "{status:#?}");
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

/// Dies before it can have done much, or has.
fn b6_a_crash_loop_never_leaves_an_interface_half_attached(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    let whole = residue::attached(&network.proxy).unwrap();
    let (proxy, tally) = scene.beat(|| {
        proxy.kill().unwrap();
        for round in 0..CRASHES {
            let mut command = scene.command(&[]);
            scene.runtime.apply(&mut command);
            let mut process = network.proxy.spawn(command).unwrap();
            // Every moment of the first half second has its turn.
            sleep(CALM * round / CRASHES);
            process.signal(Signal::KILL).unwrap();
            process.wait(PATIENCE).unwrap();
            assert_eq!(residue::attached(&network.proxy).unwrap(), whole, "after {round} crashes");
        }
        let proxy = scene.next(&[]);
        proxy.wait(PATIENCE, |status| !status.interfaces.is_empty()).unwrap();
        sleep(2 * CALM);
        proxy
    });
    nothing_was_lost(&tally);
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

fn b6_a_process_that_drains_takes_over_what_one_that_keeps_has_left(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    let (proxy, tally) = scene.beat(|| {
        proxy.stop().unwrap();
        let proxy = scene.next(&[("PROXY_ON_STOP", "drain")]);
        proxy.wait(PATIENCE, has_adopted).unwrap();
        assert!(scene.pins.is_empty(), "what goes with the process is not pinned");
        sleep(CALM);
        proxy
    });
    nothing_was_lost(&tally);
    proxy.kill().unwrap();
    scene.nothing_is_left();
    // Its records are files again.
    let proxy = scene.next(&[]);
    proxy.wait(PATIENCE, |status| status.totals.adopted == 1).unwrap();
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

fn b6_what_another_layout_left_is_taken_away(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    proxy.kill().unwrap();
    let version = std::fs::read_dir(scene.pins.path()).unwrap().next().unwrap().unwrap().path();
    let other = scene.pins.path().join("v0-0123456789abcdef");
    std::fs::rename(&version, &other).unwrap();
    let proxy = scene.next(&[]);
    assert!(version.exists() && !other.exists());
    let status = proxy.status().unwrap();
    assert_eq!(status.totals.adopted, 0, "its records are of another layout: {status:#?}");
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

/// No program can be loaded, or the network cannot be followed once programs are this process's own.
fn b6_a_process_whose_engine_cannot_run_takes_everything_away_and_relays(case: Case) {
    for lacking in [Lacking::PROGRAMS, Lacking::NETLINK] {
        let network = Direct::new().unwrap();
        let (scene, proxy) = Scene::start(&network, case, &[]);
        proxy.kill().unwrap();
        let proxy = scene.next_without(lacking);
        scene.nothing_is_left();
        let status = proxy.status().unwrap();
        assert_eq!((status.totals.adopted, status.totals.offloaded), (1, 0), "{lacking:?}: {status:#?}");
        let ((), tally) = scene.beat(|| sleep(2 * CALM));
        nothing_was_lost(&tally);
        // What it knows of the session outlives it none the less.
        proxy.kill().unwrap();
        let proxy = scene.next(&[]);
        proxy.wait(PATIENCE, |status| status.totals.adopted == 1).unwrap();
        proxy.interrupt().unwrap();
        scene.nothing_is_left();
    }
}

fn b6_the_flow_of_a_session_whose_port_somebody_took_loses_nothing(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    let (proxy, tally) = scene.beat(|| {
        sleep(CALM);
        proxy.kill().unwrap();
        let _stranger = network.proxy.enter(|| UdpSocket::bind(scene.source)).unwrap();
        let proxy = scene.next(&[]);
        let status = proxy.status().unwrap();
        assert_eq!((status.totals.sessions, status.totals.orphans), (0, 1), "{status:#?}");
        sleep(2 * CALM);
        proxy
    });
    nothing_was_lost(&tally);
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

fn a11_ctrl_c_leaves_nothing_attached_or_pinned(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    assert!(!scene.pins.is_empty() && !residue::attached(&network.proxy).unwrap().is_empty());
    proxy.interrupt().unwrap();
    scene.nothing_is_left();
}

fn a9_detach_takes_everything_away_when_nobody_runs(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    proxy.kill().unwrap();
    assert!(!residue::attached(&network.proxy).unwrap().is_empty());
    let output = scene.run(&["detach"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("/links/"), "{output:?}");
    scene.nothing_is_left();
    assert_eq!(scene.run(&["detach"]).stdout, b"there was nothing to remove\n");
}

fn a9_detach_beside_a_process_leaves_it_relaying(case: Case) {
    let network = Direct::new().unwrap();
    let (scene, proxy) = Scene::start(&network, case, &[]);
    let (output, tally) = scene.beat(|| {
        sleep(CALM);
        let output = scene.run(&["detach"]);
        scene.nothing_is_left();
        sleep(CALM);
        output
    });
    assert!(output.status.success(), "{output:?}");
    nothing_was_lost(&tally);
    assert_eq!(proxy.status().unwrap().totals.sessions, 1);
    proxy.switch_offload(true).unwrap();
    proxy.wait(PATIENCE, |status| status.totals.offloaded == 1).unwrap();
    assert!(scene.pins.is_empty(), "what was taken away once is not kept any more");
    proxy.stop().unwrap();
    scene.nothing_is_left();
}

integration_tests::in_cases!(xdp, tc, xdp_v6, tc_v6: {
    b6_what_is_installed_loses_nothing_while_nobody_runs,
    b6_an_upgrade_loses_nothing,
    b7_an_adopted_session_is_listed_moves_and_ends,
    a9_a_neighbour_that_changed_while_nobody_ran_is_followed,
    a9_without_an_owner_for_too_long_everything_comes_up,
    a9_a_flow_without_a_record_goes_on_and_expires,
    b6_a_crash_loop_never_leaves_an_interface_half_attached,
    b6_a_process_that_drains_takes_over_what_one_that_keeps_has_left,
    b6_what_another_layout_left_is_taken_away,
    b6_a_process_whose_engine_cannot_run_takes_everything_away_and_relays,
    b6_the_flow_of_a_session_whose_port_somebody_took_loses_nothing,
    a11_ctrl_c_leaves_nothing_attached_or_pinned,
    a9_detach_takes_everything_away_when_nobody_runs,
    a9_detach_beside_a_process_leaves_it_relaying
});
