//! The outcome of a run, as a table and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::stats::{ClientStats, Role};

/// The outcome of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Seconds from the last started session to the report.
    pub seconds: f64,
    /// Sessions that finished DTLS.
    pub connected: usize,
    /// Media packets sent by publishers.
    pub sent: u64,
    /// Media packets received by players.
    pub received: u64,
    /// Sequence numbers that players missed.
    pub missing: u64,
    /// Packets that players got twice.
    pub duplicates: u64,
    /// Packets that players got out of order.
    pub reordered: u64,
    /// Sessions that could not be started, each with its cause.
    pub failed: Vec<String>,
    /// Every started session.
    pub sessions: Vec<SessionReport>,
}

/// One session's line.
#[derive(Debug, Clone, Serialize)]
pub struct SessionReport {
    /// Its stream.
    pub stream: String,
    /// Publisher or player.
    pub role: Role,
    /// Its local address at the end.
    pub local: String,
    /// From the post to the finished DTLS handshake.
    pub connected_ms: Option<f64>,
    /// From the post to the first decrypted media packet.
    pub first_media_ms: Option<f64>,
    /// Media packets sent.
    pub sent: u64,
    /// Media packets received.
    pub received: u64,
    /// Media packets that passed SRTP.
    pub decrypted: u64,
    /// Retransmissions received.
    pub retransmitted: u64,
    /// Sequence numbers missed.
    pub missing: u64,
    /// Packets received twice.
    pub duplicates: u64,
    /// Packets received out of order.
    pub reordered: u64,
    /// The longest time without a packet in one stream.
    pub longest_silence_ms: f64,
    /// From the first STUN request on a new port to the first media back, per change of address.
    pub recovery_ms: Vec<Option<f64>>,
}

impl Report {
    pub(super) fn new(elapsed: Duration, sessions: Vec<(String, ClientStats)>, failed: Vec<String>) -> Self {
        let total = |count: fn(&ClientStats) -> u64| sessions.iter().map(|(_, stats)| count(stats)).sum();
        Self {
            seconds: elapsed.as_secs_f64(),
            connected: sessions.iter().filter(|(_, stats)| stats.connected_after.is_some()).count(),
            sent: total(|stats| stats.sent),
            received: total(ClientStats::received),
            missing: total(ClientStats::missing),
            duplicates: total(ClientStats::duplicates),
            reordered: total(ClientStats::reordered),
            failed,
            sessions: sessions.iter().map(|(stream, stats)| SessionReport::new(stream, stats)).collect(),
        }
    }
}

impl SessionReport {
    fn new(stream: &str, stats: &ClientStats) -> Self {
        Self {
            stream: stream.to_owned(),
            role: stats.role,
            local: stats.local.to_string(),
            connected_ms: stats.connected_after.map(milliseconds),
            first_media_ms: stats.first_media_after.map(milliseconds),
            sent: stats.sent,
            received: stats.received(),
            decrypted: stats.decrypted,
            retransmitted: stats.retransmitted,
            missing: stats.missing(),
            duplicates: stats.duplicates(),
            reordered: stats.reordered(),
            longest_silence_ms: milliseconds(stats.longest_silence()),
            recovery_ms: stats.migrations.iter().map(|one| one.recovery().map(milliseconds)).collect(),
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<9} {:<12} {:<21} {:>9} {:>9} {:>9} {:>9} {:>7} {:>5} {:>7} {:>9} {:>9}",
            "role",
            "stream",
            "local",
            "dtls ms",
            "media ms",
            "sent",
            "received",
            "missing",
            "dup",
            "reorder",
            "silence",
            "recovery"
        )?;
        for session in &self.sessions {
            writeln!(formatter, "{session}")?;
        }
        for failed in &self.failed {
            writeln!(formatter, "failed: {failed}")?;
        }
        write!(
            formatter,
            "{} of {} sessions connected; {:.1} s; sent {}, received {}, missing {}, duplicates {}, reordered {}",
            self.connected,
            self.sessions.len() + self.failed.len(),
            self.seconds,
            self.sent,
            self.received,
            self.missing,
            self.duplicates,
            self.reordered
        )
    }
}

impl fmt::Display for SessionReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_dash =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        let role = match self.role {
            Role::Publisher => "publisher",
            Role::Player => "player",
        };
        write!(
            formatter,
            "{role:<9} {:<12} {:<21} {:>9} {:>9} {:>9} {:>9} {:>7} {:>5} {:>7} {:>9.1} {:>9}",
            self.stream,
            self.local,
            or_dash(self.connected_ms),
            or_dash(self.first_media_ms),
            self.sent,
            self.received,
            self.missing,
            self.duplicates,
            self.reordered,
            self.longest_silence_ms,
            or_dash(self.recovery_ms.last().copied().flatten()),
        )
    }
}
