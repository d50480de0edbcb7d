//! What the demo promises, judged by what was counted at the ends.

use super::numbers::percent;
use super::protocols::{Part, TcpRow};
use super::report::{Ends, Report, Row};
use super::tcp_player::Protocol;
use crate::proxy::{Engine, Interface};

/// The least share that the kernel must carry.
const LEAST_OFFLOADED: f64 = 0.99;
/// The interfaces that media crosses.
const INTERFACES: [&str; 2] = ["eth0", "eth1"];

/// Every promise that did not hold.
pub(super) fn broken(report: &Report) -> Vec<String> {
    let mut broken = sessions(report);
    broken.extend(report.rows.iter().flat_map(media));
    broken.extend(report.tcp.iter().flat_map(tcp));
    broken.extend(connections(&report.tcp));
    broken.extend(publishers(&report.tcp, report.publishing));
    broken.extend(report.srt.broken(report.engine.is_kernel().then_some(LEAST_OFFLOADED)));
    broken.extend(engine(report.engine, &report.interfaces, report.forwarded));
    if report.engine.is_kernel() {
        broken.extend(losses(&report.ends));
        broken.extend(share("all sessions together", report.ends.offloaded));
        broken.extend(report.rows.iter().flat_map(|row| share(&row.stream, row.offloaded())));
    }
    broken.into_iter().map(|broken| format!("{}: {broken}", report.engine.as_str())).collect()
}

fn sessions(report: &Report) -> Vec<String> {
    let [asked, offloaded] = report.sessions;
    let known: usize = report.rows.iter().map(|row| row.traffic.sessions).sum();
    let mut broken = Vec::new();
    if known != asked {
        broken.push(format!("{asked} sessions were started, {known} live at the end"));
    }
    if report.engine.is_kernel() && offloaded != asked {
        broken.push(format!("{offloaded} of {asked} sessions are forwarded in the kernel"));
    }
    broken
}

fn media(row: &Row) -> Vec<String> {
    let stream = &row.stream;
    let blind = row.seen.decoders.iter().filter(|told| told.first_frame_ms.is_none()).count();
    let mute = row.seen.decoders.iter().filter(|told| told.sounds == 0).count();
    let stuck = row.pictures.iter().filter(|pictures| **pictures == 0).count();
    let faults = [
        (blind, "viewers never decoded a picture"),
        (mute, "viewers never decoded sound"),
        (stuck - blind.min(stuck), "viewers stopped decoding"),
        (row.seen.silent, "counting viewers got nothing"),
    ];
    let faults = faults.into_iter().filter(|(count, _)| *count > 0);
    let mut broken: Vec<_> = faults.map(|(count, fault)| format!("{stream}: {count} {fault}")).collect();
    if row.seen.missing > 0 {
        broken.push(format!("{stream}: {} RTP packets never came", row.seen.missing));
    }
    if row.seen.duplicates > 0 {
        broken.push(format!("{stream}: {} RTP packets came twice", row.seen.duplicates));
    }
    broken
}

/// Every client over TCP gets its stream without a gap.
fn tcp(row: &TcpRow) -> Vec<String> {
    let name = row.part.name();
    let silent = row.clients.saturating_sub(row.first_frames.len());
    let silent = if row.part == Part::Publishes { 0 } else { silent };
    let going_on = row.pictures.iter().filter(|pictures| **pictures * 2 >= row.expected).count();
    let faults = [
        (silent, "clients never got a picture"),
        (row.clients.saturating_sub(going_on + silent), "clients got less than half of their pictures"),
    ];
    let faults = faults.into_iter().filter(|(count, _)| *count > 0);
    let mut broken: Vec<_> = faults.map(|(count, fault)| format!("{name}: {count} {fault}")).collect();
    if row.missing > 0 {
        broken.push(format!("{name}: {} pictures never came", row.missing));
    }
    if row.repeated > 0 {
        broken.push(format!("{name}: {} pictures came again or out of order", row.repeated));
    }
    if row.origins.is_empty() {
        broken.push(format!("{name}: no origin has it"));
    }
    broken
}

/// The proxy carries every connection, and reads none of it. Those of HTTP-FLV and HTTP-TS are listed as one kind.
fn connections(rows: &[TcpRow]) -> Vec<String> {
    let mut broken = Vec::new();
    for (row, name) in rows.iter().filter_map(|row| Some((row, kind(row.part)?))) {
        let lacking = row.connections.saturating_sub(row.joined.len());
        let read = row.joined.iter().filter(|means| means.is_none()).count();
        let faults = [(lacking, "are not there at the end"), (read, "were not joined")];
        let faults = faults.into_iter().filter(|(count, _)| *count > 0);
        broken.extend(faults.map(|(count, fault)| format!("{name}: {count} connections {fault}")));
    }
    broken
}

/// What the connections of a part are called, once for each kind.
fn kind(part: Part) -> Option<&'static str> {
    match part {
        Part::Publishes | Part::Plays(Protocol::Rtmp) => Some(part.name()),
        Part::Plays(Protocol::HttpFlv) => Some("HTTP-FLV and HTTP-TS"),
        Part::Plays(Protocol::HttpTs | Protocol::Hls) => None,
    }
}

fn publishers(rows: &[TcpRow], publishing: usize) -> Option<String> {
    let started: usize = rows.iter().filter(|row| row.part == Part::Publishes).map(|row| row.clients).sum();
    (publishing != started).then(|| format!("{publishing} of {started} RTMP publishers went on to the end"))
}

fn losses(ends: &Ends) -> Vec<String> {
    let directions = ["origins", "clients"].into_iter().zip(ends.lost);
    let lost = directions.filter(|(_, lost)| *lost > in_flight(ends));
    lost.map(|(to, lost)| format!("{lost} datagrams were sent to {to} and never came")).collect()
}

/// The two ends cannot be read at once: what is sent within two milliseconds may be on its way.
pub(super) fn in_flight(ends: &Ends) -> i64 {
    3 + (ends.sent as f64 / ends.seconds.max(1.0) * 0.002) as i64
}

fn engine(asked: Engine, interfaces: &[Interface], [xdp, tc]: [u64; 2]) -> Vec<String> {
    let on = |name: &str, engine: Option<&str>| {
        let wanted = |found: &&Interface| found.name == name && engine.is_none_or(|e| found.engine == e);
        interfaces.iter().any(|found| wanted(&found))
    };
    let missing = |engine: Option<&'static str>| {
        let missing = INTERFACES.into_iter().filter(move |name| !on(name, engine));
        missing.map(move |name| format!("{name} has no {} program", engine.unwrap_or("XDP or TC"))).collect()
    };
    let others = |other: u64, name: &str| {
        (other * 100 > xdp + tc).then(|| format!("{name} forwarded {other} of {} frames", xdp + tc))
    };
    match asked {
        Engine::Auto => missing(None),
        Engine::Xdp => missing(Some("xdp")).into_iter().chain(others(tc, "tc")).collect(),
        Engine::Tc => missing(Some("tc")).into_iter().chain(others(xdp, "xdp")).collect(),
        Engine::Userspace | Engine::Unprivileged if interfaces.is_empty() => Vec::new(),
        Engine::Userspace | Engine::Unprivileged => {
            vec!["there are kernel programs on interfaces".to_owned()]
        }
    }
}

fn share(what: &str, offloaded: Option<f64>) -> Option<String> {
    match offloaded {
        None => Some(format!("{what}: no datagram came")),
        Some(share) if share < LEAST_OFFLOADED => {
            Some(format!("{what}: {} offloaded, promised are {}", percent(share), percent(LEAST_OFFLOADED)))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cast::Seen;
    use crate::demo::performer::Told;
    use crate::demo::protocols::tests::row;

    fn interface(name: &str, engine: &str) -> Interface {
        Interface { name: name.into(), engine: engine.into(), mode: "native".into(), note: None }
    }

    #[test]
    fn the_asked_engine_must_forward_on_both_interfaces() {
        let both = |engine| INTERFACES.map(|name| interface(name, engine));
        let mixed = [interface("eth0", "xdp"), interface("eth1", "tc")];
        type Row<'a> = (&'a str, Engine, &'a [Interface], [u64; 2], usize);
        let rows: [Row<'_>; 8] = [
            ("xdp as asked", Engine::Xdp, &both("xdp"), [500, 0], 0),
            ("tc as asked", Engine::Tc, &both("tc"), [0, 500], 0),
            ("auto may mix", Engine::Auto, &mixed, [250, 250], 0),
            ("xdp on one only", Engine::Xdp, &mixed, [500, 0], 1),
            ("xdp attached and unused", Engine::Xdp, &both("xdp"), [250, 250], 1),
            ("auto with nothing", Engine::Auto, &[], [0, 0], 2),
            ("userspace as asked", Engine::Userspace, &[], [0, 0], 0),
            ("userspace with programs", Engine::Userspace, &mixed, [0, 0], 1),
        ];
        for (name, asked, interfaces, forwarded, count) in rows {
            assert_eq!(engine(asked, interfaces, forwarded).len(), count, "{name}");
        }
    }

    #[test]
    fn a_share_below_the_promise_is_told() {
        assert_eq!(share("s", Some(0.995)), None);
        assert_eq!(share("s", Some(0.5)).unwrap(), "s: 50.00 % offloaded, promised are 99.00 %");
        assert!(share("s", None).is_some());
    }

    #[test]
    fn what_is_in_flight_is_not_lost() {
        let ends = Ends { sent: 10_000, seconds: 10.0, lost: [5, 6], ..Ends::default() };
        assert_eq!(losses(&ends), ["6 datagrams were sent to clients and never came"]);
    }

    #[test]
    fn every_client_over_tcp_must_get_its_stream_without_a_gap() {
        for part in Part::ALL {
            assert_eq!(tcp(&row(part)), [""; 0]);
        }
        let flv = row(Part::Plays(Protocol::HttpFlv));
        let rows: [(&str, TcpRow); 5] = [
            (
                "1 clients never got a picture",
                TcpRow { first_frames: vec![180.0], pictures: vec![250, 0], ..flv.clone() },
            ),
            (
                "1 clients got less than half of their pictures",
                TcpRow { pictures: vec![250, 124], ..flv.clone() },
            ),
            ("3 pictures never came", TcpRow { missing: 3, ..flv.clone() }),
            ("2 pictures came again or out of order", TcpRow { repeated: 2, ..flv.clone() }),
            ("no origin has it", TcpRow { origins: [].into(), ..flv.clone() }),
        ];
        for (expected, row) in rows {
            assert_eq!(tcp(&row), [format!("HTTP-FLV: {expected}")]);
        }
    }

    #[test]
    fn every_connection_must_be_there_and_joined() {
        let rows = Part::ALL.map(row);
        assert_eq!(connections(&rows), [""; 0]);
        let one = TcpRow { joined: vec![Some("copy".into())], ..row(Part::Plays(Protocol::HttpFlv)) };
        assert_eq!(connections(&[one]), ["HTTP-FLV and HTTP-TS: 1 connections are not there at the end"]);
        let read = TcpRow { joined: vec![Some("copy".into()), None], ..row(Part::Publishes) };
        assert_eq!(connections(&[read]), ["RTMP publish: 1 connections were not joined"]);
    }

    #[test]
    fn a_publisher_that_has_ended_is_told() {
        let rows = [row(Part::Publishes), row(Part::ALL[1])];
        assert_eq!(publishers(&rows, 2), None);
        assert_eq!(publishers(&rows, 1).unwrap(), "1 of 2 RTMP publishers went on to the end");
    }

    #[test]
    fn every_viewer_must_see_hear_and_go_on() {
        let fine = Told { first_frame_ms: Some(300.0), sounds: 9, ..Told::default() };
        let blind = Told { sounds: 9, ..Told::default() };
        let seen = |decoders| Seen { decoders, ..Seen::default() };
        let row = |seen, pictures: &[u64]| Row { seen, pictures: pictures.to_vec(), ..Row::default() };
        assert!(media(&row(seen(vec![fine, fine]), &[25, 25])).is_empty());
        assert_eq!(media(&row(seen(vec![fine, fine]), &[25, 0])), [": 1 viewers stopped decoding"]);
        assert_eq!(media(&row(seen(vec![fine, blind]), &[25, 0])), [": 1 viewers never decoded a picture"]);
        let lossy = Seen { missing: 2, duplicates: 1, ..seen(vec![fine]) };
        assert_eq!(media(&row(lossy, &[25])).len(), 2);
    }
}
