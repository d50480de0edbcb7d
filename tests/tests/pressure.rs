//! More than a proxy asked for: floods of strangers, more sessions than flows, everybody moving at once.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]
#![expect(clippy::print_stdout, reason = "what a test measures is shown when it passes")]

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use integration_tests::{
    case::Case,
    fault::outlive,
    in_cases,
    netns::{Direct, Family, Routed},
    proxy::Status,
    pulse::Rhythm,
    raw::{self, Endpoint, RawSession},
    residue,
    site::Site,
    wire::Wire,
};

const PATIENCE: Duration = Duration::from_secs(30);

in_cases!(xdp, tc, xdp_v6, tc_v6: {
    a8_a_flood_of_strangers_costs_a_session_nothing,
    a15_sessions_beyond_the_flow_table_are_relayed_and_lose_nothing,
    a_thousand_sessions_that_move_at_once_lose_nothing,
});

/// Strangers of the flood come from a network of their own.
const STRANGERS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 0);
const FLOOD: usize = 300_000;
const SOURCES: usize = 1_000;

fn a8_a_flood_of_strangers_costs_a_session_nothing(case: Case) {
    let network = Direct::new().unwrap();
    let strangers = case.family.network(STRANGERS, 16);
    network.client.ip(&["route", "add", "local", &strangers, "dev", "lo"]).unwrap();
    network.client.sysctl("net.ipv6.ip_nonlocal_bind", "1").unwrap();
    network.proxy.route(&format!("{STRANGERS}/16"), Direct::CLIENT).unwrap();
    let outcome = outlive(&network, case, Rhythm::default(), |wire| {
        let service = SocketAddr::new(case.family.of(Direct::PROXY), 18_000);
        let sent = network.client.enter(|| flood(case.family, service));
        sleep(Duration::from_millis(500));
        (sent, wire.proxy.status().unwrap())
    });
    let outcome = outcome.unwrap();
    let (sent, status) = outcome.result;
    let engine = case.engine.as_str();
    let seen = status.totals.reasons.iter().filter(|row| row.datapath == engine && row.reason != "forwarded");
    let seen: u64 = seen.map(|row| row.packets).sum();
    println!("{sent} sent, {seen} seen at the hook, {:?}", outcome.tally.directions().map(|(_, a)| a.sent()));
    assert!(seen > FLOOD as u64 / 2, "{sent} sent, {seen} seen");
    assert_eq!(outcome.tally.missing(), 0, "outage {:?}", outcome.tally.outage());
    assert_eq!((status.totals.sessions, status.totals.migrations), (1, 0));
}

/// Datagrams of every class that may begin something, from as many addresses and ports; says how many left.
fn flood(family: Family, to: SocketAddr) -> usize {
    /// What a link of moderate speed carries, so that it is not the link that loses.
    const AT_ONCE: usize = 200;
    let payloads =
        [raw::check("nobody:knows", true), [0x80; 200].to_vec(), [22; 120].to_vec(), [0xff; 60].to_vec()];
    let sockets: Vec<_> = (0..SOURCES).map(|_| UdpSocket::bind((stranger(family), 0)).unwrap()).collect();
    let mut sent = 0;
    for number in 0..FLOOD {
        let (socket, payload) = (&sockets[number % SOURCES], &payloads[number / SOURCES % payloads.len()]);
        sent += usize::from(socket.send_to(payload, to).is_ok());
        if number % AT_ONCE == 0 {
            sleep(Duration::from_millis(1));
        }
    }
    sent
}

fn stranger(family: Family) -> IpAddr {
    let [a, b, ..] = STRANGERS.octets();
    let [c, d] = rand::random::<[u8; 2]>();
    family.of(Ipv4Addr::new(a, b, c, d.clamp(1, 254)))
}

fn a15_sessions_beyond_the_flow_table_are_relayed_and_lose_nothing(case: Case) {
    let network = Routed::new().unwrap();
    let settings = [("PROXY_MAX_FLOWS", "2"), ("PROXY_MAX_FLOWS_V6", "2")];
    let site = Site::start_between(&network, case.engine, [case.family; 2], &settings).unwrap();
    let publisher = site.publish("a").unwrap();
    let viewers: Vec<_> = (0..4).map(|_| site.play("a").unwrap()).collect();
    for viewer in &viewers {
        viewer.wait(PATIENCE, |stats| stats.received() > 50).unwrap();
    }
    let status = site.proxy.wait(PATIENCE, |status| {
        let full = status.sessions.iter().filter(|session| session.reason.as_deref() == Some("table_full"));
        (status.totals.offloaded, full.count()) == (2, 3)
    });
    assert!(status.unwrap().relayed("table_full") >= 3);
    sleep(Duration::from_secs(1));
    for viewer in &viewers {
        let stats = viewer.stats();
        assert_eq!((stats.missing(), stats.duplicates()), (0, 0), "{stats:?}");
    }
    drop(publisher);
    site.proxy.stop().unwrap();
}

const CROWD: usize = 1_000;
/// A check that was lost is repeated after this long.
const REPEAT: Duration = Duration::from_millis(300);

/// A whole cell of phones changes networks, while the origin goes on sending to all of them.
fn a_thousand_sessions_that_move_at_once_lose_nothing(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &[]).unwrap();
    let began = Instant::now();
    let stop = AtomicBool::new(false);
    let mut crowd: Vec<_> = (0..CROWD).map(|number| Member::of(&wire, number)).collect();
    let sent = thread::scope(|scope| {
        scope.spawn(|| answer_checks(&wire.origin.media, &stop));
        let stopper = Stopper(&stop);
        until(
            &mut crowd,
            |crowd| crowd.iter_mut().for_each(|member| member.check_from(Place::Before)),
            || wire.proxy.status().unwrap().totals.offloaded == CROWD,
        );
        learn_sources(&mut crowd, &wire.proxy.status().unwrap());
        println!("{CROWD} sessions in the kernel after {:?}", began.elapsed());
        let sent = move_everybody(&wire, &mut crowd);
        drop(stopper);
        sent
    });
    let lost: usize = crowd.iter().map(|member| sent as usize - member.received.len()).sum();
    let status = wire.proxy.wait(PATIENCE, |status| status.totals.offloaded == CROWD).unwrap();
    assert_eq!((lost, status.reason("control_busy")), (0, 0), "of {sent} to each");
    wire.proxy.stop().unwrap();
    assert_eq!(residue::attached(&network.proxy).unwrap(), [""; 0]);
}

/// A veth holds 256 frames for a receiver that has better things to do, and drops the next one; a real link paces them.
const BURST: usize = 100;
const PAUSE: Duration = Duration::from_micros(500);

/// Moves everybody at once, and says how many datagrams the origin sent to each meanwhile.
fn move_everybody(wire: &Wire<'_>, crowd: &mut [Member]) -> u32 {
    let began = Instant::now();
    let mut sent = 0;
    let mut checked = None;
    let mut after_the_last = 0;
    while after_the_last < 5 {
        if checked.is_none_or(|checked: Instant| checked.elapsed() > REPEAT) {
            checked = Some(Instant::now());
            crowd.iter_mut().for_each(|member| member.check_from(Place::After));
        }
        for some in crowd.chunks(BURST) {
            for member in some {
                wire.origin.media.send(&numbered(sent), member.source.unwrap(), 0).unwrap();
            }
            sleep(PAUSE);
        }
        sent += 1;
        sleep(Duration::from_millis(20));
        crowd.iter_mut().for_each(Member::take);
        after_the_last += u32::from(wire.proxy.status().unwrap().totals.migrations == CROWD as u64);
        assert!(began.elapsed() < PATIENCE, "{:#?}", wire.proxy.status().unwrap().totals);
    }
    println!("everybody moved within {:?}, {sent} datagrams to each", began.elapsed());
    sleep(Duration::from_millis(300));
    crowd.iter_mut().for_each(Member::take);
    sent
}

/// Repeats `work` until `done`.
fn until(crowd: &mut [Member], work: impl Fn(&mut [Member]), done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}");
        work(crowd);
        sleep(REPEAT);
        crowd.iter_mut().for_each(Member::take);
    }
}

fn learn_sources(crowd: &mut [Member], status: &Status) {
    let sources: HashMap<_, _> =
        status.sessions.iter().map(|s| (s.client.clone().unwrap(), s.source.parse().unwrap())).collect();
    for member in crowd {
        member.source = Some(sources[&member.before.address().to_string()]);
    }
}

fn answer_checks(media: &Endpoint, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        if let Some((meta, payload)) = media.receive_within(Duration::from_millis(1)).unwrap() {
            media.answer(meta.peer, &payload).unwrap();
        }
    }
}

/// Ends the origin also when the test fails.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Before,
    After,
}

/// One of many sessions, which has a socket in each of two places.
struct Member {
    session: RawSession,
    before: Endpoint,
    after: Endpoint,
    /// Where its last check was answered.
    answered: Option<Place>,
    source: Option<SocketAddr>,
    received: BTreeSet<u32>,
}

impl Member {
    fn of(wire: &Wire<'_>, number: usize) -> Self {
        let session = wire.offered_as(&format!("m{number:04}")).unwrap();
        let (before, after) = (wire.other_client().unwrap(), wire.other_client().unwrap());
        Self { session, before, after, answered: None, source: None, received: BTreeSet::new() }
    }

    /// Asks until it is answered, as ICE does.
    fn check_from(&mut self, place: Place) {
        let socket = if place == Place::Before { &self.before } else { &self.after };
        if self.answered != Some(place) {
            socket.send(&raw::check(&self.session.username, true), self.session.proxy, 0).unwrap();
        }
    }

    /// Takes what arrived in either place.
    fn take(&mut self) {
        for (place, socket) in [(Place::Before, &self.before), (Place::After, &self.after)] {
            while let Some((_, payload)) = socket.receive_within(Duration::ZERO).unwrap() {
                match payload.strip_prefix(&HEAD) {
                    Some(number) => {
                        let number = u32::from_be_bytes(number.try_into().unwrap());
                        assert!(self.received.insert(number), "{number} came twice");
                    }
                    None => self.answered = Some(place),
                }
            }
        }
    }
}

/// What the payload of media starts with.
const HEAD: [u8; 2] = [0x80, 96];

fn numbered(number: u32) -> Vec<u8> {
    [&HEAD[..], &number.to_be_bytes()].concat()
}
