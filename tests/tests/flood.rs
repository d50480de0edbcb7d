//! A flood at the rate that one CPU can make: nothing of it may cost a session, or the process, anything to speak of.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]
#![expect(clippy::print_stdout, reason = "what a test measures is shown when it passes")]

use std::{net::SocketAddrV4, thread::sleep, time::Duration};

use integration_tests::{
    case::Case,
    cpu,
    fault::outlive,
    in_cases,
    layouts::flood::{Flood, flood},
    netns::{Direct, Namespace},
    proxy::Proxy,
    pulse::Rhythm,
    raw,
};
use parking_lot::Mutex;
use serde_json::Value;

in_cases!(xdp, tc: {
    a8_a_million_random_tuples_a_second_cost_a_session_nothing,
});

const FLOOD: Duration = Duration::from_secs(3);
/// A CPU makes more than a million a second, and the proxy drops as many; others may need it too.
const RATE: f64 = 500_000.0;
/// Share of a CPU.
const LIMIT: f64 = 0.2;

/// One at a time: each takes a CPU to itself.
static TURN: Mutex<()> = Mutex::new(());

fn a8_a_million_random_tuples_a_second_cost_a_session_nothing(case: Case) {
    let _turn = TURN.lock();
    let network = Direct::new().unwrap();
    network.proxy.route("10.77.0.0/16", Direct::CLIENT).unwrap();
    let service = SocketAddrV4::new(Direct::PROXY, 18_000);
    let classes = [("checks", raw::check("nobody:knows", true)), ("media", vec![0x80, 96, 0, 1])];
    let outcome = outlive(&network, case, Rhythm::default(), |wire| {
        classes.map(|(name, payload)| {
            let endured = endure(&wire.proxy, &network, service, &payload);
            println!(
                "{name}: {:.0} a second, process {:.1} % of a CPU",
                endured.flood.rate(),
                endured.used * 100.0
            );
            endured
        })
    });
    let outcome = outcome.unwrap();
    let (missing, on_the_wire) =
        (outcome.tally.to_origin.missing() as u64, lost_on_the_wire(&network.client));
    println!("{missing} missing, {on_the_wire} of them and of the checks lost before the proxy");
    assert_eq!(outcome.tally.to_client.missing(), 0, "outage {:?}", outcome.tally.outage());
    assert!(missing <= on_the_wire, "outage {:?}", outcome.tally.outage());
    for Endured { flood, used, dropped } in outcome.result {
        assert!(flood.rate() > RATE, "{flood:?}");
        assert!(used < LIMIT, "{used}");
        // The link itself loses a part of what it is flooded with: the more, the faster that comes.
        assert!(dropped as f64 > RATE * flood.time.as_secs_f64(), "{dropped} of {flood:?}");
    }
}

/// What a flood came to.
struct Endured {
    flood: Flood,
    /// The share of a CPU that the proxy used.
    used: f64,
    /// Frames that its programs dropped.
    dropped: u64,
}

/// Floods the proxy, and again if others needed the CPUs so much that it was no flood.
fn endure(proxy: &Proxy<'_>, network: &Direct, service: SocketAddrV4, payload: &[u8]) -> Endured {
    const ATTEMPTS: u32 = 4;
    let mut endured = endure_once(proxy, network, service, payload);
    for _ in 1..ATTEMPTS {
        if endured.flood.rate() > RATE {
            break;
        }
        endured = endure_once(proxy, network, service, payload);
    }
    endured
}

fn endure_once(proxy: &Proxy<'_>, network: &Direct, service: SocketAddrV4, payload: &[u8]) -> Endured {
    let dropped = || {
        let status = proxy.status().unwrap();
        status.reason("unsolicited") + status.reason("policed")
    };
    let before = dropped();
    let (flood, used) = flood(network, service, payload, || used_while(proxy.id(), FLOOD)).unwrap();
    Endured { flood, used, dropped: dropped() - before }
}

/// What the client's device could not send because the flood had filled the queue of its peer; frames of the flood itself
/// are counted there too.
fn lost_on_the_wire(client: &Namespace) -> u64 {
    let links: Value =
        serde_json::from_str(&client.ip(&["-json", "-statistics", "link", "show", "dev", "eth0"]).unwrap())
            .unwrap();
    let dropped = links[0]["stats64"]["tx"]["dropped"].as_u64().unwrap();
    let statistics = client.run("ethtool", &["--statistics", "eth0"]).unwrap();
    let errors = statistics.lines().filter_map(|line| line.trim().split_once("_xdp_xmit_errors: "));
    dropped - errors.map(|(_, count)| count.parse::<u64>().unwrap()).sum::<u64>()
}

/// The share of a CPU that a process uses.
fn used_while(process: u32, time: Duration) -> f64 {
    let before = cpu::used_by(process).unwrap();
    sleep(time);
    (cpu::used_by(process).unwrap() - before).as_secs_f64() / time.as_secs_f64()
}
