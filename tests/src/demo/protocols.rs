//! The rows of the table: one for each protocol and direction.

use std::collections::BTreeSet;

use super::{
    numbers::percent,
    sample::{Sample, Window, origin_name_of},
    tcp_cast::{STREAMS, TcpCast},
    tcp_player::Protocol,
    timeline::{Timeline, pictures_between, pictures_in},
};
use crate::{live::Connection, origin::LiveStats};

/// What publishes or plays over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Publishes,
    Plays(Protocol),
}

impl Part {
    pub(super) const ALL: [Self; 5] = [
        Self::Publishes,
        Self::Plays(Protocol::Rtmp),
        Self::Plays(Protocol::HttpFlv),
        Self::Plays(Protocol::HttpTs),
        Self::Plays(Protocol::Hls),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Publishes => "RTMP publish",
            Self::Plays(Protocol::Rtmp) => "RTMP play",
            Self::Plays(protocol) => protocol.name(),
        }
    }
}

/// One part over TCP.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TcpRow {
    pub(super) part: Part,
    pub(super) clients: usize,
    pub(super) origins: BTreeSet<char>,
    /// Pictures that came while everything was counted, of each client.
    pub(super) pictures: Vec<u64>,
    /// Pictures that each should have got in that time.
    pub(super) expected: u64,
    /// Pictures that never came, over the whole run.
    pub(super) missing: u64,
    /// Pictures that came again or out of order, over the whole run.
    pub(super) repeated: u64,
    /// From a player's start to its first picture.
    pub(super) first_frames: Vec<f64>,
    /// How the proxy carries each of the connections; those of HTTP-FLV and HTTP-TS are listed as one kind. Requests of HLS
    /// are no such connections.
    pub(super) joined: Vec<Option<String>>,
    /// How many connections there should be.
    pub(super) connections: usize,
}

/// What the proxy and the origins said at both ends of the time in which everything was counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct TcpView<'a> {
    pub(super) window: Window<'a>,
    /// What players had got at its beginning.
    pub(super) first: &'a [Vec<Timeline>],
    pub(super) connections: &'a [Connection],
}

/// What all players of each protocol have got so far.
pub(super) fn timelines(cast: &TcpCast) -> Vec<Vec<Timeline>> {
    Protocol::ALL.iter().map(|protocol| cast.timelines(*protocol)).collect()
}

/// All rows over TCP.
pub(super) fn tcp_rows(cast: &TcpCast, view: TcpView<'_>) -> Vec<TcpRow> {
    let row = |part| match part {
        Part::Publishes => publishes(cast, view),
        Part::Plays(protocol) => {
            let first = view.first.get(protocol as usize).map_or(&[][..], Vec::as_slice);
            plays(protocol, first, &cast.timelines(protocol), view)
        }
    };
    Part::ALL.map(row).into()
}

fn publishes(cast: &TcpCast, view: TcpView<'_>) -> TcpRow {
    let joined = joined(view.connections, Part::Publishes);
    let then = |name: &str| streams_of(view.window.first).find(|(_, then)| then.stream == name);
    let streams: Vec<_> = streams_of(view.window.last).filter(|(_, stats)| stats.is_published).collect();
    let came = |now: &LiveStats| {
        let before = then(&now.stream).map_or(0, |(_, then)| then.video_frames);
        now.video_frames.saturating_sub(before)
    };
    let missing = |now: &LiveStats| {
        let sent = now.first_ms.map_or(0, |first| pictures_between(first, now.last_ms));
        sent.saturating_sub(now.video_frames)
    };
    TcpRow {
        part: Part::Publishes,
        clients: cast.publishers(),
        origins: streams.iter().map(|(origin, _)| *origin).collect(),
        pictures: streams.iter().map(|(_, now)| came(now)).collect(),
        expected: pictures_in(view.window.duration()),
        missing: streams.iter().map(|(_, now)| missing(now)).sum(),
        repeated: 0,
        first_frames: Vec::new(),
        joined,
        connections: cast.publishers(),
    }
}

fn plays(protocol: Protocol, first: &[Timeline], last: &[Timeline], view: TcpView<'_>) -> TcpRow {
    let part = Part::Plays(protocol);
    let pairs = last.iter().zip(first);
    let pictures = pairs.map(|(last, first)| last.pictures.saturating_sub(first.pictures)).collect();
    let connections = match protocol {
        Protocol::Rtmp => last.len(),
        Protocol::HttpFlv | Protocol::HttpTs => 2 * last.len(),
        Protocol::Hls => 0,
    };
    let first_frames = last.iter().filter_map(|timeline| timeline.first);
    TcpRow {
        part,
        clients: last.len(),
        origins: origins(protocol, view),
        pictures,
        expected: pictures_in(view.window.duration()),
        missing: last.iter().map(|timeline| timeline.missing).sum(),
        repeated: last.iter().map(|timeline| timeline.repeated).sum(),
        first_frames: first_frames.map(|first| first.as_secs_f64() * 1000.0).collect(),
        joined: joined(view.connections, part),
        connections,
    }
}

/// Where the streams come from: as the proxy lists its connections, or for HLS, of which it lists none, as they are cut.
fn origins(protocol: Protocol, view: TcpView<'_>) -> BTreeSet<char> {
    if protocol == Protocol::Hls {
        let cut = streams_of(view.window.last).filter(|(_, stats)| stats.segments > 0);
        return cut.map(|(origin, _)| origin).collect();
    }
    let connections = view.connections.iter().filter(|one| is_of(one, Part::Plays(protocol)));
    connections.filter_map(|connection| origin_name_of(connection.origin.as_deref()?)).collect()
}

/// The demo's streams over TCP at the origins.
fn streams_of(sample: &Sample) -> impl Iterator<Item = (char, &LiveStats)> {
    let origins = ['A', 'B'].into_iter().zip(&sample.origin_stats);
    let streams = origins.flat_map(|(origin, stats)| stats.live.iter().map(move |live| (origin, live)));
    streams.filter(|(_, live)| STREAMS.iter().any(|name| live.stream.ends_with(&format!("/{name}"))))
}

fn joined(connections: &[Connection], part: Part) -> Vec<Option<String>> {
    connections.iter().filter(|one| is_of(one, part)).map(|one| one.joined.clone()).collect()
}

fn is_of(connection: &Connection, part: Part) -> bool {
    let publishes = connection.to_origin > connection.to_client;
    match (connection.protocol.as_str(), part) {
        ("rtmp", Part::Publishes) => publishes,
        ("rtmp", Part::Plays(Protocol::Rtmp)) => !publishes,
        ("http", Part::Plays(Protocol::HttpFlv | Protocol::HttpTs)) => true,
        _ => false,
    }
}

impl TcpRow {
    /// Who moves the bytes.
    pub(super) fn carried(&self) -> String {
        if self.part == Part::Plays(Protocol::Hls) {
            return "HTTP server".to_owned();
        }
        let means: BTreeSet<_> =
            self.joined.iter().map(|means| means.as_deref().unwrap_or("not joined")).collect();
        if means.is_empty() { "-".to_owned() } else { means.into_iter().collect::<Vec<_>>().join(", ") }
    }
}

/// A row as it is shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ProtocolRow {
    pub(super) name: &'static str,
    pub(super) clients: usize,
    pub(super) origins: BTreeSet<char>,
    /// While everything was counted, of all clients.
    pub(super) received: u64,
    pub(super) unit: &'static str,
    /// Over the whole run.
    pub(super) missing: u64,
    pub(super) carried: String,
    /// Milliseconds.
    pub(super) first_frames: Vec<f64>,
}

impl From<&TcpRow> for ProtocolRow {
    fn from(row: &TcpRow) -> Self {
        Self {
            name: row.part.name(),
            clients: row.clients,
            origins: row.origins.clone(),
            received: row.pictures.iter().sum(),
            unit: "pictures",
            missing: row.missing + row.repeated,
            carried: row.carried(),
            first_frames: row.first_frames.clone(),
        }
    }
}

/// Publishers or players by WebRTC.
pub(super) fn webrtc(
    window: Window<'_>,
    publishes: bool,
    missing: u64,
    first_frames: Vec<f64>,
) -> ProtocolRow {
    let traffic = window.traffic(|_, role| role == publishes);
    let carried = match super::sample::offloaded(traffic.userspace, traffic.at_origins) {
        Some(share) if traffic.kernel > 0 => format!("kernel, {}", percent(share)),
        _ => "userspace".to_owned(),
    };
    ProtocolRow {
        name: if publishes { "WebRTC publish" } else { "WebRTC play" },
        clients: traffic.sessions,
        origins: traffic.origins.clone(),
        received: window.received(publishes),
        unit: "datagrams",
        missing,
        carried,
        first_frames,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn row(part: Part) -> TcpRow {
        TcpRow {
            part,
            clients: 2,
            origins: ['A', 'B'].into(),
            pictures: vec![250, 249],
            expected: 250,
            missing: 0,
            repeated: 0,
            first_frames: vec![180.0, 220.0],
            joined: vec![Some("copy".into()); 2],
            connections: 2,
        }
    }

    fn connection(protocol: &str, [to_origin, to_client]: [u64; 2]) -> Connection {
        let (protocol, joined) = (protocol.to_owned(), Some("copy".to_owned()));
        Connection { protocol, stream: None, origin: None, to_origin, to_client, joined }
    }

    #[test]
    fn publishers_are_told_from_players_by_where_their_bytes_go() {
        let listed =
            [connection("rtmp", [900, 10]), connection("rtmp", [10, 900]), connection("http", [1, 900])];
        let counts = Part::ALL.map(|part| joined(&listed, part).len());
        assert_eq!(counts, [1, 1, 1, 1, 0]);
    }

    #[test]
    fn who_carries_is_told_of_all_connections() {
        let rtmp = row(Part::Plays(Protocol::Rtmp));
        assert_eq!(rtmp.carried(), "copy");
        let mixed = TcpRow { joined: vec![Some("splice".into()), None, Some("copy".into())], ..rtmp.clone() };
        assert_eq!(mixed.carried(), "copy, not joined, splice");
        assert_eq!(TcpRow { joined: Vec::new(), ..rtmp }.carried(), "-");
        assert_eq!(row(Part::Plays(Protocol::Hls)).carried(), "HTTP server");
    }
}
