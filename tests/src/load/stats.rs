//! What a session has done and seen so far.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::sequence::Sequence;

/// Which way media goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sends synthetic media.
    Publisher,
    /// Receives and counts.
    Player,
}

/// A received RTP stream.
#[derive(Debug, Clone)]
pub struct Track {
    /// Its SSRC.
    pub ssrc: u32,
    /// The payload type of its first packet.
    pub payload_type: u8,
    /// Its counters.
    pub sequence: Sequence,
}

/// One change of the client's address.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// When the socket was replaced.
    pub at: Instant,
    /// The new address.
    pub to: SocketAddr,
    /// When the first STUN request left from the new address.
    pub first_request: Option<Instant>,
    /// When the first RTP or RTCP packet came to the new address.
    pub media_back: Option<Instant>,
}

impl Migration {
    /// From the first STUN request to the first media back.
    #[must_use]
    pub fn recovery(&self) -> Option<Duration> {
        Some(self.media_back?.duration_since(self.first_request?))
    }
}

/// A snapshot of one session.
#[derive(Debug, Clone)]
pub struct ClientStats {
    /// Publisher or player.
    pub role: Role,
    /// The current local address.
    pub local: SocketAddr,
    /// When the offer was posted.
    pub posted: Instant,
    /// From the post to the finished DTLS handshake.
    pub connected_after: Option<Duration>,
    /// From the post to the first decrypted media packet.
    pub first_media_after: Option<Duration>,
    /// Media packets that were authenticated and decrypted.
    pub decrypted: u64,
    /// Media packets sent.
    pub sent: u64,
    /// RTCP packets received: they tell a publisher that somebody takes its media.
    pub feedback: u64,
    /// Retransmissions received, which are in no track.
    pub retransmitted: u64,
    /// Errors of the socket, such as a refused port.
    pub socket_errors: u64,
    /// The TCP connection that media went over is closed.
    pub disconnected: bool,
    /// The other side ended the session.
    pub closed_by_peer: bool,
    /// When the client noticed that nobody answers its checks any more.
    pub lost: Option<Instant>,
    /// Received RTP streams, counted on the wire.
    pub tracks: Vec<Track>,
    /// Changes of address.
    pub migrations: Vec<Migration>,
}

impl ClientStats {
    pub(super) fn new(role: Role, local: SocketAddr, posted: Instant) -> Self {
        Self {
            role,
            local,
            posted,
            connected_after: None,
            first_media_after: None,
            decrypted: 0,
            sent: 0,
            feedback: 0,
            retransmitted: 0,
            socket_errors: 0,
            disconnected: false,
            closed_by_peer: false,
            lost: None,
            tracks: Vec::new(),
            migrations: Vec::new(),
        }
    }

    /// Packets received in all tracks.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.tracks.iter().map(|track| track.sequence.packets()).sum()
    }

    /// Sequence numbers missing in all tracks.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.tracks.iter().map(|track| track.sequence.missing()).sum()
    }

    /// Sequence numbers noticed as missing within a window.
    #[must_use]
    pub fn missing_between(&self, from: Instant, to: Instant) -> u64 {
        self.tracks.iter().map(|track| track.sequence.missing_between(from, to)).sum()
    }

    /// Packets received twice in all tracks.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.tracks.iter().map(|track| track.sequence.duplicates()).sum()
    }

    /// Packets received out of order in all tracks.
    #[must_use]
    pub fn reordered(&self) -> u64 {
        self.tracks.iter().map(|track| track.sequence.reordered()).sum()
    }

    /// The longest time without a packet in any one track.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        self.tracks.iter().map(|track| track.sequence.longest_silence().0).max().unwrap_or_default()
    }

    pub(super) fn migrated_to(&mut self, to: SocketAddr) {
        self.local = to;
        self.migrations.push(Migration { at: Instant::now(), to, first_request: None, media_back: None });
    }

    pub(super) fn requested(&mut self, now: Instant) {
        if let Some(migration) = self.migrations.last_mut() {
            migration.first_request.get_or_insert(now);
        }
    }

    pub(super) fn media_is_back(&mut self, now: Instant) {
        if let Some(migration) = self.migrations.last_mut() {
            migration.media_back.get_or_insert(now);
        }
    }
}
