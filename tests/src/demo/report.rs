//! What one run showed.

use std::time::Duration;

use super::cast::{Cast, LOAD, Seen, stream_names};
use super::protocols::{self, ProtocolRow, TcpRow, TcpView};
use super::sample::{Cpu, Traffic, Window, offloaded};
use super::srt_cast::SrtRows;
use super::tcp_cast::TcpCast;
use super::timeline::Timeline;
use super::watch::Tick;
use super::{Plan, promises};
use crate::live::Connection;
use crate::proxy::{Engine, Interface};

/// The outcome of one run.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) engine: Engine,
    pub(super) interfaces: Vec<Interface>,
    /// One per stream of WebRTC, and one for all load.
    pub(super) rows: Vec<Row>,
    /// One for each way of publishing and playing over TCP.
    pub(super) tcp: Vec<TcpRow>,
    /// Publishers and players of WebRTC.
    pub(super) webrtc: [ProtocolRow; 2],
    /// Publishers and players of SRT.
    pub(super) srt: SrtRows,
    /// Publishers over TCP that went on to the end.
    pub(super) publishing: usize,
    /// With the kernel path held off, and how long; not under `userspace`.
    pub(super) before: Option<(Duration, Cpu)>,
    /// While everything was counted.
    pub(super) after: (Duration, Cpu),
    pub(super) ends: Ends,
    /// Frames that XDP and TC programs forwarded.
    pub(super) forwarded: [u64; 2],
    /// Sessions that the clients have, and those that the kernel forwards.
    pub(super) sessions: [usize; 2],
    /// From the start to the moment at which everyone had media.
    pub(super) everyone_after: Duration,
    /// One per second.
    pub(super) ticks: Vec<Tick>,
    /// What was promised and did not hold.
    pub(super) broken: Vec<String>,
}

/// What was counted at the ends of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Ends {
    pub(super) sent: u64,
    pub(super) arrived: u64,
    pub(super) lost: [i64; 2],
    pub(super) no_room: u64,
    pub(super) relayed: u64,
    pub(super) offloaded: Option<f64>,
    pub(super) seconds: f64,
}

/// One stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) stream: String,
    pub(super) traffic: Traffic,
    pub(super) seen: Seen,
    /// Pictures that each decoder finished while everything was counted.
    pub(super) pictures: Vec<u64>,
}

/// What is needed besides counters.
#[derive(Debug, Clone)]
pub(super) struct Circumstances {
    pub(super) engine: Engine,
    pub(super) before: Option<(Duration, Cpu)>,
    pub(super) everyone_after: Duration,
    pub(super) ticks: Vec<Tick>,
    /// Per stream, what was seen when counting began.
    pub(super) seen_first: Vec<Seen>,
    /// Per protocol over TCP, what each player had got then.
    pub(super) timelines_first: Vec<Vec<Timeline>>,
    /// What the proxy carried over TCP when counting ended.
    pub(super) connections: Vec<Connection>,
    /// Publishers and players of SRT.
    pub(super) srt: SrtRows,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        (cast, tcp): (&Cast, &mut TcpCast),
        window: Window<'_>,
        given: Circumstances,
    ) -> Self {
        let status = &window.last.status;
        let streams = streams(plan).into_iter().zip(&given.seen_first);
        let rows: Vec<_> = streams.map(|(stream, first)| Row::new(stream, cast, window, first)).collect();
        let view = TcpView { window, first: &given.timelines_first, connections: &given.connections };
        let mut report = Self {
            engine: given.engine,
            interfaces: status.interfaces.clone(),
            webrtc: webrtc(&rows, window),
            rows,
            tcp: protocols::tcp_rows(tcp, view),
            srt: given.srt,
            publishing: tcp.publishing(),
            before: given.before,
            after: (window.duration(), window.cpu()),
            ends: Ends::new(window),
            forwarded: ["xdp", "tc"].map(|engine| window.forwarded(engine)),
            sessions: [cast.sessions(), status.offloaded("webrtc")],
            everyone_after: given.everyone_after,
            ticks: given.ticks,
            broken: Vec::new(),
        };
        report.broken = promises::broken(&report);
        report
    }

    /// The rows of the table.
    pub(super) fn protocols(&self) -> Vec<ProtocolRow> {
        let tcp = self.tcp.iter().map(ProtocolRow::from);
        self.webrtc.iter().chain(&self.srt.rows).cloned().chain(tcp).collect()
    }

    /// Numbers lost at counting viewers, over the whole run.
    pub(super) fn missing(&self) -> u64 {
        missing(&self.rows)
    }

    /// Packets lost by SRT, over the whole run.
    pub(super) fn missing_by_srt(&self) -> u64 {
        self.srt.rows.iter().map(|row| row.missing).sum()
    }

    /// Pictures lost over TCP, over the whole run.
    pub(super) fn missing_over_tcp(&self) -> u64 {
        self.tcp.iter().map(|row| row.missing + row.repeated).sum()
    }

    pub(super) fn first_frames(&self) -> Vec<f64> {
        first_frames(&self.rows)
    }
}

impl Ends {
    fn new(window: Window<'_>) -> Self {
        Self {
            sent: window.sent(),
            arrived: window.arrived(),
            lost: window.lost(),
            no_room: window.no_room(),
            relayed: window.packets("userspace"),
            offloaded: window.offloaded(),
            seconds: window.duration().as_secs_f64(),
        }
    }
}

impl Row {
    fn new(stream: String, cast: &Cast, window: Window<'_>, first: &Seen) -> Self {
        let traffic = window.traffic(|name, _| name == stream);
        let seen = cast.seen(|name| name == stream);
        let pairs = seen.decoders.iter().zip(&first.decoders);
        let pictures = pairs.map(|(last, first)| last.pictures.saturating_sub(first.pictures)).collect();
        Self { stream, traffic, seen, pictures }
    }

    pub(super) fn offloaded(&self) -> Option<f64> {
        offloaded(self.traffic.userspace, self.traffic.at_origins)
    }

    pub(super) fn first_frames(&self) -> Vec<f64> {
        self.seen.decoders.iter().filter_map(|told| told.first_frame_ms).collect()
    }
}

/// Publishers: what left clients and did not come to the origins, beyond what may be on its way. Players: what no viewer got
/// of the publishers' sequence numbers.
fn webrtc(rows: &[Row], window: Window<'_>) -> [ProtocolRow; 2] {
    let ends = Ends::new(window);
    let lost = ends.lost[0];
    let lost = if lost > promises::in_flight(&ends) { lost.unsigned_abs() } else { 0 };
    let [publish, play] = [(true, lost, Vec::new()), (false, missing(rows), first_frames(rows))];
    [publish, play].map(|(publishes, missing, first)| protocols::webrtc(window, publishes, missing, first))
}

fn missing(rows: &[Row]) -> u64 {
    rows.iter().map(|row| row.seen.missing).sum()
}

fn first_frames(rows: &[Row]) -> Vec<f64> {
    rows.iter().flat_map(Row::first_frames).collect()
}

/// Streams with a row of their own.
pub(super) fn streams(plan: &Plan) -> Vec<String> {
    stream_names(plan).chain((plan.load > 0).then(|| LOAD.to_owned())).collect()
}
