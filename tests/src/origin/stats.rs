//! What can be read from a running origin.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

/// Totals and the sessions that live.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OriginStats {
    /// Media packets from publishers.
    pub packets_in: u64,
    /// Media packets to players.
    pub packets_out: u64,
    /// Datagrams that belong to no session.
    pub unclaimed: u64,
    /// Datagrams of a session that the media stack refused, for instance for a wrong message integrity.
    pub refused: u64,
    /// TCP connections that are open.
    pub connections: usize,
    /// Sessions that ended, for whatever reason.
    pub ended: u64,
    /// The living sessions.
    pub sessions: Vec<SessionStats>,
    /// The streams over TCP.
    pub live: Vec<LiveStats>,
}

/// A stream that is or was published by RTMP, or is waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LiveStats {
    /// `app/stream`.
    pub stream: String,
    /// Whether it has a publisher.
    pub is_published: bool,
    /// Pictures from the publisher.
    pub video_frames: u64,
    /// The time of the first of them, in milliseconds.
    pub first_ms: Option<u32>,
    /// The time of the last of them.
    pub last_ms: u32,
    /// Players by RTMP.
    pub rtmp_players: usize,
    /// Players by HTTP-FLV.
    pub http_flv_players: usize,
    /// Players by HTTP-TS.
    pub http_ts_players: usize,
    /// HLS segments so far.
    pub segments: u64,
    /// Players that took too little and were left behind.
    pub left_behind: u64,
}

impl LiveStats {
    /// Forgets the publisher before.
    pub(super) fn begin(&mut self) {
        (self.video_frames, self.first_ms, self.last_ms) = (0, None, 0);
    }

    pub(super) fn count(&mut self, is_picture: bool, timestamp: u32) {
        if is_picture {
            self.video_frames += 1;
            self.first_ms.get_or_insert(timestamp);
            self.last_ms = timestamp;
        }
    }
}

/// One living session.
#[derive(Debug, Clone, Serialize)]
pub struct SessionStats {
    /// What SRS's HTTP API calls it.
    pub client_id: String,
    /// Milliseconds since the answer.
    pub alive_ms: u128,
    /// The STUN user name: `local:remote`.
    pub username: String,
    /// `app/stream`.
    pub stream: String,
    /// A publisher, else a player.
    pub publish: bool,
    /// Milliseconds from the answer to the finished DTLS handshake.
    pub connected_after_ms: Option<u128>,
    /// The address that media is sent to: that of the newest STUN request.
    pub remote: Option<SocketAddr>,
    /// Whether that is a TCP connection.
    pub over_tcp: bool,
    /// How often that address has changed.
    pub moves: u32,
    /// Datagrams of any kind from the peer.
    pub datagrams_in: u64,
    /// Datagrams of any kind to the peer.
    pub datagrams_out: u64,
    /// Bytes in these from the peer.
    pub bytes_in: u64,
    /// Bytes in these to the peer.
    pub bytes_out: u64,
    /// Media packets from the peer.
    pub packets_in: u64,
    /// Media packets to the peer.
    pub packets_out: u64,
    /// The peer's address as the API request tells: `X-Forwarded-For`, else `X-Real-IP`, else the connection's.
    pub client_ip: IpAddr,
    /// The `Host` of the API request.
    pub host: String,
}

impl OriginStats {
    /// The living publishers, or the living players.
    pub fn sessions_of(&self, publish: bool) -> impl Iterator<Item = &SessionStats> {
        self.sessions.iter().filter(move |session| session.publish == publish)
    }
}
