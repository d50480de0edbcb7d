//! The outcome as a picture: what counts in large figures, then the course of the run, then each protocol.

use super::numbers::{cpu, grouped, joined, percent, span};
use super::protocols::ProtocolRow;
use super::report::Report;
use super::svg::{Anchor, Svg};
use super::tcp_player::Protocol;
use super::watch::Tick;

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 40.0;
const INNER: f64 = WIDTH - 2.0 * MARGIN;
const GAP: f64 = 28.0;
const TILE: f64 = 86.0;
const PLOT: f64 = 170.0;
const ROW: f64 = 34.0;
/// A plot with what is around it.
const FIELD: f64 = PLOT + 56.0 + GAP;

const STYLE: &str = "
text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2933; }
.page { fill: #ffffff; } .tile { fill: #f3f5f8; }
.title { font-size: 22px; font-weight: 700; } .head { font-size: 14px; font-weight: 600; }
.note { font-size: 12px; fill: #616e7c; } .label { font-size: 13px; } .figure { font-size: 23px; font-weight: 700; }
.good { fill: #0b7a4b; } .bad { fill: #b42318; }
.kernel { fill: #12805c; } .userspace { fill: #f0a202; }
.rtmp { fill: #2f6fde; } .http-flv { fill: #6ea8fe; } .http-ts { fill: #8d6fd1; } .hls { fill: #c9a9ef; }
.grid { stroke: #e1e5ea; stroke-width: 1; } .mark { stroke: #52606d; stroke-width: 1; stroke-dasharray: 4 3; }
.machine, .process, .softirq { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.machine { stroke: #9aa5b1; } .process { stroke: #f0a202; } .softirq { stroke: #2f6fde; }
.key-machine { fill: #9aa5b1; } .key-softirq { fill: #2f6fde; }
";

/// All runs, one below the other.
pub(super) fn chart(reports: &[&Report]) -> String {
    let mut svg = Svg::default();
    let height = MARGIN + reports.iter().map(|report| height_of(report)).sum::<f64>();
    svg.rect((0.0, 0.0), (WIDTH, height), "page");
    let mut top = MARGIN;
    for report in reports {
        draw(&mut svg, report, top);
        top += height_of(report);
    }
    svg.finish((WIDTH, height), STYLE)
}

fn height_of(report: &Report) -> f64 {
    50.0 + TILE + GAP + 3.0 * FIELD + 28.0 + ROW * report.protocols().len() as f64 + MARGIN
}

fn draw(svg: &mut Svg, report: &Report, top: f64) {
    svg.text(
        (MARGIN, top + 10.0),
        Anchor::Start,
        "title",
        &format!("srs-xproxy: {}", report.engine.as_str()),
    );
    svg.text((MARGIN, top + 32.0), Anchor::Start, "note", &circumstances(report));
    tiles(svg, report, top + 50.0);
    let plots = top + 50.0 + TILE + GAP;
    packets(svg, &report.ticks, plots);
    pictures(svg, &report.ticks, plots + FIELD);
    processors(svg, &report.ticks, plots + 2.0 * FIELD);
    protocols(svg, report, plots + 3.0 * FIELD);
}

fn circumstances(report: &Report) -> String {
    let interfaces =
        report.interfaces.iter().map(|found| format!("{} {} ({})", found.name, found.engine, found.mode));
    let over_tcp: usize = report.tcp.iter().map(|row| row.clients).sum();
    let sessions = format!("{} sessions of WebRTC, {over_tcp} clients over TCP", report.sessions[0]);
    let counted = format!("{:.0} s counted at both ends", report.after.0.as_secs_f64());
    [sessions].into_iter().chain(interfaces).chain([counted]).collect::<Vec<_>>().join("  ·  ")
}

/// A figure, what it means, and whether it is as it should be.
type Tile = (String, &'static str, &'static str);

fn tiles(svg: &mut Svg, report: &Report, top: f64) {
    let tiles = [offloaded_tile(report), lost_tile(report), process_tile(report), first_frame_tile(report)];
    let width = (INNER - 3.0 * 16.0) / 4.0;
    for (at, (figure, meaning, class)) in tiles.into_iter().enumerate() {
        let left = MARGIN + at as f64 * (width + 16.0);
        svg.rect((left, top), (width, TILE), "tile");
        svg.text((left + 16.0, top + 42.0), Anchor::Start, &format!("figure {class}"), &figure);
        svg.text((left + 16.0, top + 66.0), Anchor::Start, "note", meaning);
    }
}

fn offloaded_tile(report: &Report) -> Tile {
    match report.ends.offloaded.filter(|_| report.engine.is_kernel()) {
        Some(share) if share >= 0.99 => (percent(share), "of WebRTC by the kernel", "good"),
        Some(share) => (percent(share), "of WebRTC by the kernel", "bad"),
        None => (grouped(report.ends.relayed), "packets, all by userspace", ""),
    }
}

fn lost_tile(report: &Report) -> Tile {
    let missing = report.missing() + report.missing_over_tcp();
    (grouped(missing), "packets and pictures lost", if missing == 0 { "good" } else { "bad" })
}

fn process_tile(report: &Report) -> Tile {
    let after = cpu(report.after.1.process);
    match report.before {
        Some((_, before)) => {
            (format!("{} → {after}", cpu(before.process)), "processor time of the proxy", "")
        }
        None => (after, "processor time of the proxy", ""),
    }
}

fn first_frame_tile(report: &Report) -> Tile {
    let mut times = report.first_frames();
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).map_or_else(|| "-".to_owned(), |time| format!("{time:.0} ms"));
    (median, "offer to first picture, WebRTC", "")
}

/// A field with an axis for time and one for a quantity.
struct Plot {
    top: f64,
    seconds: f64,
    most: f64,
}

impl Plot {
    const LEFT: f64 = MARGIN + 52.0;
    const WIDTH: f64 = INNER - 52.0;

    fn point(&self, at: f64, value: f64) -> (f64, f64) {
        let y = self.top + PLOT - PLOT * (value / self.most).clamp(0.0, 1.0);
        (Self::LEFT + Self::WIDTH * at / self.seconds, y)
    }

    fn frame(&self, svg: &mut Svg, label: impl Fn(f64) -> String) {
        for part in 0..=4 {
            let value = self.most * f64::from(part) / 4.0;
            let (_, y) = self.point(0.0, value);
            svg.line((Self::LEFT, y), (Self::LEFT + Self::WIDTH, y), "grid");
            svg.text((Self::LEFT - 8.0, y + 4.0), Anchor::End, "note", &label(value));
        }
        let step = (self.seconds / 8.0).ceil().max(1.0);
        let marks = (0..=(self.seconds / step) as u32).map(|mark| f64::from(mark) * step);
        for at in marks {
            let (x, _) = self.point(at, 0.0);
            svg.text((x, self.top + PLOT + 18.0), Anchor::Middle, "note", &format!("{at:.0} s"));
        }
    }

    /// Vertical lines where a phase begins. The first is named to its left: the next one may be near.
    fn phases(&self, svg: &mut Svg, ticks: &[Tick]) {
        let pairs = ticks.windows(2).filter_map(|pair| <&[Tick; 2]>::try_from(pair).ok());
        let changes = pairs.filter(|[earlier, later]| earlier.phase != later.phase);
        for (at, [earlier, later]) in changes.enumerate() {
            let (x, _) = self.point(earlier.at, 0.0);
            svg.line((x, self.top), (x, self.top + PLOT), "mark");
            let (anchor, aside) = if at == 0 { (Anchor::End, -3.0) } else { (Anchor::Start, 3.0) };
            svg.text((x + aside, self.top - 6.0), anchor, "note", later.phase.name());
        }
    }
}

fn plot(ticks: &[Tick], top: f64, most: f64) -> Plot {
    Plot { top: top + 42.0, seconds: ticks.last().map_or(1.0, |tick| tick.at.max(1.0)), most }
}

/// Below the kernel's packets, above them those of userspace.
fn packets(svg: &mut Svg, ticks: &[Tick], top: f64) {
    svg.text((MARGIN, top + 12.0), Anchor::Start, "head", "WebRTC packets per second");
    legend(svg, top, &[("kernel", "kernel"), ("userspace", "userspace")]);
    let most = ticks.iter().map(|tick| tick.kernel + tick.userspace).fold(1.0, f64::max);
    let plot = plot(ticks, top, round_up(most * 1.12));
    plot.frame(svg, |value| grouped(value as u64));
    let kernel: Vec<_> = ticks.iter().map(|tick| plot.point(tick.at, tick.kernel)).collect();
    let both: Vec<_> = ticks.iter().map(|tick| plot.point(tick.at, tick.kernel + tick.userspace)).collect();
    let floor: Vec<_> = ticks.iter().map(|tick| plot.point(tick.at, 0.0)).collect();
    svg.polygon(&between(&kernel, &floor), "kernel");
    svg.polygon(&between(&both, &kernel), "userspace");
    plot.phases(svg, ticks);
}

fn between(upper: &[(f64, f64)], lower: &[(f64, f64)]) -> Vec<(f64, f64)> {
    upper.iter().chain(lower.iter().rev()).copied().collect()
}

fn processors(svg: &mut Svg, ticks: &[Tick], top: f64) {
    svg.text((MARGIN, top + 12.0), Anchor::Start, "head", "Processor time");
    let keys = [
        ("key-machine", "whole machine, clients and origins included"),
        ("userspace", "proxy process, of one processor"),
        ("key-softirq", "software interrupts"),
    ];
    legend(svg, top, &keys);
    let plot = plot(ticks, top, 1.0);
    plot.frame(svg, |value| format!("{:.0} %", value * 100.0));
    let curve = |share: fn(&Tick) -> f64| -> Vec<_> {
        ticks.iter().map(|tick| plot.point(tick.at, share(tick))).collect()
    };
    svg.polyline(&curve(|tick| tick.cpu.machine), "machine");
    svg.polyline(&curve(|tick| tick.cpu.process), "process");
    svg.polyline(&curve(|tick| tick.cpu.softirq), "softirq");
    plot.phases(svg, ticks);
}

fn legend(svg: &mut Svg, top: f64, keys: &[(&str, &str)]) {
    let mut right = WIDTH - MARGIN;
    for (class, name) in keys.iter().rev() {
        right -= name.chars().count() as f64 * 6.5 + 18.0;
        svg.rect((right, top + 2.0), (12.0, 12.0), class);
        svg.text((right + 18.0, top + 12.0), Anchor::Start, "note", name);
        right -= 16.0;
    }
}

/// A stacked field for each protocol over TCP.
fn pictures(svg: &mut Svg, ticks: &[Tick], top: f64) {
    svg.text((MARGIN, top + 12.0), Anchor::Start, "head", "Pictures per second at players over TCP");
    legend(svg, top, &Protocol::ALL.map(|protocol| (class(protocol), protocol.name())));
    let sum = |tick: &Tick| -> f64 { tick.pictures.iter().sum() };
    let plot = plot(ticks, top, round_up(ticks.iter().map(sum).fold(1.0, f64::max) * 1.12));
    plot.frame(svg, |value| grouped(value as u64));
    let upto = |layers: usize| -> Vec<_> {
        let height = |tick: &Tick| tick.pictures.iter().take(layers).sum();
        ticks.iter().map(|tick| plot.point(tick.at, height(tick))).collect()
    };
    for (at, protocol) in Protocol::ALL.into_iter().enumerate() {
        svg.polygon(&between(&upto(at + 1), &upto(at)), class(protocol));
    }
    plot.phases(svg, ticks);
}

fn class(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Rtmp => "rtmp",
        Protocol::HttpFlv => "http-flv",
        Protocol::HttpTs => "http-ts",
        Protocol::Hls => "hls",
    }
}

/// Where the columns of the rows begin, or end if they hold numbers.
const COLUMNS: [(f64, Anchor, &str); 7] = [
    (0.0, Anchor::Start, "Protocol"),
    (190.0, Anchor::End, "clients"),
    (215.0, Anchor::Start, "origins"),
    (400.0, Anchor::End, "received"),
    (560.0, Anchor::End, "missing"),
    (590.0, Anchor::Start, "carried by"),
    (INNER, Anchor::End, "first picture"),
];

fn protocols(svg: &mut Svg, report: &Report, top: f64) {
    for (left, anchor, title) in COLUMNS {
        svg.text((MARGIN + left, top + 12.0), anchor, if left == 0.0 { "head" } else { "note" }, title);
    }
    for (at, row) in report.protocols().iter().enumerate() {
        protocol(svg, row, top + 28.0 + ROW * at as f64);
    }
}

fn protocol(svg: &mut Svg, row: &ProtocolRow, top: f64) {
    svg.line((MARGIN, top), (MARGIN + INNER, top), "grid");
    let cells = [
        row.name.to_owned(),
        row.clients.to_string(),
        joined(&row.origins),
        format!("{} {}", grouped(row.received), row.unit),
        grouped(row.missing),
        row.carried.clone(),
        span(&row.first_frames),
    ];
    let verdict = if row.missing == 0 { "label good" } else { "label bad" };
    for ((left, anchor, title), cell) in COLUMNS.into_iter().zip(cells) {
        let class = if title == "missing" { verdict } else { "label" };
        svg.text((MARGIN + left, top + 22.0), anchor, class, &cell);
    }
}

/// The next of 1, 2, 4, 5, 8 or 10 times a power of ten: quarters of it are good labels.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::protocols::{Part, tests::row};
    use super::super::report::{Ends, Row};
    use super::super::sample::Cpu;
    use super::super::watch::Phase;
    use super::*;
    use crate::proxy::Engine;

    fn report() -> Report {
        let tick = |at, phase| Tick {
            phase,
            at,
            sessions: 2,
            offloaded: 2,
            kernel: 900.0,
            userspace: 100.0,
            bits: 1e6,
            cpu: Cpu { process: 0.1, machine: 0.5, softirq: 0.01 },
            pictures: [50.0, 50.0, 49.0, 20.0],
        };
        Report {
            engine: Engine::Xdp,
            interfaces: Vec::new(),
            rows: vec![Row { stream: "a<b".to_owned(), ..Row::default() }],
            tcp: Part::ALL.map(row).into(),
            webrtc: [
                ProtocolRow { carried: "a<b".to_owned(), ..ProtocolRow::default() },
                ProtocolRow::default(),
            ],
            srt: crate::demo::srt_cast::SrtRows::default(),
            publishing: 2,
            before: Some((Duration::from_secs(1), Cpu::default())),
            after: (Duration::from_secs(2), Cpu::default()),
            ends: Ends { offloaded: Some(0.999), ..Ends::default() },
            forwarded: [9, 0],
            sessions: [2, 2],
            everyone_after: Duration::from_secs(4),
            ticks: vec![tick(1.0, Phase::Starting), tick(2.0, Phase::Before), tick(3.0, Phase::Kernel)],
            broken: Vec::new(),
        }
    }

    /// Every opened element is closed, and no number is missing.
    #[test]
    fn is_well_formed() {
        let report = report();
        let text = chart(&[&report, &report]);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        let mut open = Vec::new();
        for tag in text.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap()),
            }
        }
        assert_eq!(open, Vec::<&str>::new());
    }

    #[test]
    fn an_empty_run_can_be_drawn() {
        let empty = Report { ticks: Vec::new(), rows: Vec::new(), tcp: Vec::new(), ..report() };
        assert!(!chart(&[&empty]).contains("NaN"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(
            [0.5, 1.0, 1.5, 320.0, 1240.0, 8100.0].map(round_up),
            [1.0, 1.0, 2.0, 400.0, 2000.0, 10_000.0]
        );
    }
}
