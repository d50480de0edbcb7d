//! One WebRTC session: the media stack's instance and what SRS keeps beside it.
//!
//! The stack would answer a peer that moved only once it nominates the new pair; SRS sends media to where the
//! newest binding request came from. So the address of everything but STUN is chosen here.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use str0m::change::SdpOffer;
use str0m::format::PayloadParams;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::RtpPacket;
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};

use super::player::Lanes;
use super::routes;
use super::stats::SessionStats;
use super::tcp::{Links, Remote};

/// Counts up from 1 within one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SessionId(pub(super) u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Publisher,
    Player,
}

/// The parts of ICE credentials that a caller asks for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) ufrag: Option<String>,
    pub(super) pwd: Option<String>,
}

/// What the API read from a request.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) role: Role,
    pub(super) stream: String,
    pub(super) sdp: String,
    /// Candidate addresses that the request names.
    pub(super) candidates: Vec<super::Candidate>,
    /// The credentials that the caller asks for.
    pub(super) asked: Asked,
    pub(super) client_ip: IpAddr,
    pub(super) host: String,
}

impl Offer {
    /// The peer's user name fragment.
    pub(super) fn ufrag(&self) -> &str {
        self.sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap_or_default().trim()
    }
}

/// What the rest of the origin has to act on.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are packets; a box each would cost more")]
pub(super) enum Emitted {
    /// A media packet from a publisher.
    Packet(MediaPacket),
    /// A player that starts or has lost too much.
    KeyframeWanted,
}

/// A media packet together with what it is.
#[derive(Debug)]
pub(super) struct MediaPacket {
    pub(super) from: SessionId,
    pub(super) kind: MediaKind,
    pub(super) params: PayloadParams,
    pub(super) rtp: RtpPacket,
}

/// One m-line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Track {
    pub(super) mid: Mid,
    pub(super) kind: MediaKind,
    pub(super) direction: Direction,
}

/// What became of a received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Taken; the session's address may have changed to its source.
    Accepted,
    /// Refused by the media stack.
    Refused,
}

#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    /// What SRS's HTTP API calls it.
    client_id: String,
    rtc: Rtc,
    offer: Offer,
    username: String,
    token: String,
    local: Local,
    tracks: Vec<Track>,
    lanes: Lanes,
    started: Instant,
    last_seen: Instant,
    connected_after: Option<Duration>,
    remote: Option<Remote>,
    counters: Counters,
}

/// The addresses that a session is reached at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local {
    pub(super) udp: SocketAddr,
    pub(super) tcp: Option<SocketAddr>,
}

/// The ways out to peers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlets<'a> {
    pub(super) udp: &'a UdpSocket,
    pub(super) tcp: &'a Links,
}

impl Outlets<'_> {
    fn send(self, to: Remote, packet: &[u8]) -> bool {
        match to {
            Remote::Udp(address) => self.udp.send_to(packet, address).is_ok(),
            Remote::Tcp(peer) => self.tcp.send(peer, packet),
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    moves: u32,
    datagrams_in: u64,
    datagrams_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    packets_in: u64,
    packets_out: u64,
}

impl Session {
    /// Accepts an offer; returns the session and the stack's own answer.
    pub(super) fn accept(
        id: SessionId,
        offer: Offer,
        credentials: IceCreds,
        local: Local,
        now: Instant,
    ) -> Result<(Self, String)> {
        let username = format!("{}:{}", credentials.ufrag, offer.ufrag());
        let mut rtc = Rtc::builder()
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .set_local_ice_credentials(credentials)
            .set_stats_interval(None)
            .build(now);
        rtc.add_local_candidate(
            Candidate::host(local.udp, "udp").context("failed to use the media address")?,
        );
        if let Some(tcp) = local.tcp {
            rtc.add_local_candidate(Candidate::host(tcp, "tcp").context("failed to use the TCP address")?);
        }
        let sdp = SdpOffer::from_sdp_string(&offer.sdp).context("failed to parse the offer")?;
        let answer = rtc.sdp_api().accept_offer(sdp).context("failed to accept the offer")?.to_sdp_string();
        let session = Self {
            id,
            client_id: super::random_id(8),
            rtc,
            offer,
            username,
            token: super::random_id(9),
            local,
            tracks: Vec::new(),
            lanes: Lanes::default(),
            started: now,
            last_seen: now,
            connected_after: None,
            remote: None,
            counters: Counters::default(),
        };
        Ok((session, answer))
    }

    pub(super) fn username(&self) -> &str {
        &self.username
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn stream(&self) -> &str {
        &self.offer.stream
    }

    pub(super) fn is_alive(&self) -> bool {
        self.rtc.is_alive()
    }

    pub(super) fn is_idle(&self, now: Instant, limit: Duration) -> bool {
        now.duration_since(self.last_seen) > limit
    }

    /// Takes one datagram; follow it by [`Session::drain`].
    pub(super) fn receive(&mut self, datagram: &[u8], source: Remote, now: Instant) -> Received {
        let (proto, destination) = match source {
            Remote::Udp(_) => (Protocol::Udp, self.local.udp),
            Remote::Tcp(_) => (Protocol::Tcp, self.local.tcp.unwrap_or(self.local.udp)),
        };
        let Ok(received) = Receive::new(proto, source.address(), destination, datagram) else {
            return Received::Refused;
        };
        let input = Input::Receive(now, received);
        let username = routes::username(datagram);
        let is_ours = |username: &[u8]| username == self.username.as_bytes() && self.rtc.accepts(&input);
        if username.is_some_and(|username| !is_ours(username)) {
            return Received::Refused;
        }
        self.last_seen = now;
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += datagram.len() as u64;
        if username.is_some() {
            self.move_to(source);
        }
        self.input(input)
    }

    /// Lets time pass; follow it by [`Session::drain`].
    pub(super) fn tick(&mut self, now: Instant) {
        self.input(Input::Timeout(now));
    }

    fn input(&mut self, input: Input<'_>) -> Received {
        if self.rtc.handle_input(input).is_ok() {
            return Received::Accepted;
        }
        self.rtc.disconnect();
        Received::Refused
    }

    fn move_to(&mut self, source: Remote) {
        let before = self.remote.replace(source);
        self.counters.moves += u32::from(before.is_some_and(|before| before != source));
    }

    /// Sends what the stack wants sent, collects what others must act on, and returns the next deadline.
    pub(super) fn drain(
        &mut self,
        outlets: &Outlets<'_>,
        emitted: &mut Vec<Emitted>,
        now: Instant,
    ) -> Instant {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(deadline)) => return deadline,
                Ok(Output::Transmit(transmit)) => self.transmit(*outlets, &transmit),
                Ok(Output::Event(event)) => emitted.extend(self.act_on(event, now)),
                Err(_) => self.rtc.disconnect(),
            }
        }
    }

    fn transmit(&mut self, outlets: Outlets<'_>, transmit: &Transmit) {
        let is_stun = transmit.contents.first().is_some_and(|first| *first < 2);
        let asked = match transmit.proto {
            Protocol::Tcp => Remote::Tcp(transmit.destination),
            Protocol::Udp | Protocol::SslTcp | Protocol::Tls => Remote::Udp(transmit.destination),
        };
        let target = if is_stun { Some(asked) } else { self.remote };
        let Some(target) = target else { return };
        if outlets.send(target, &transmit.contents) {
            self.counters.datagrams_out += 1;
            self.counters.bytes_out += transmit.contents.len() as u64;
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the stack's events are non-exhaustive")]
    fn act_on(&mut self, event: Event, now: Instant) -> Option<Emitted> {
        match event {
            Event::MediaAdded(added) => {
                let (mid, kind, direction) = (added.mid, added.kind, added.direction);
                self.tracks.push(Track { mid, kind, direction });
                None
            }
            Event::Connected => {
                self.connected_after = Some(now.duration_since(self.started));
                (self.offer.role == Role::Player).then_some(Emitted::KeyframeWanted)
            }
            Event::KeyframeRequest(_) => Some(Emitted::KeyframeWanted),
            Event::RtpPacket(rtp) => {
                self.counters.packets_in += 1;
                self.describe(rtp).map(Emitted::Packet)
            }
            // Loss of connectivity checks does not end a session in SRS, silence does.
            _ => None,
        }
    }

    fn describe(&mut self, rtp: RtpPacket) -> Option<MediaPacket> {
        let of_ssrc = |rtc: &mut Rtc| Some(rtc.direct_api().stream_rx(&rtp.header.ssrc)?.mid());
        let mid = rtp.header.ext_vals.mid.or_else(|| of_ssrc(&mut self.rtc))?;
        let kind = self.rtc.media(mid)?.kind();
        let codecs = self.rtc.codec_config();
        let params = *codecs.find(|params| params.pt() == rtp.header.payload_type)?;
        Some(MediaPacket { from: self.id, kind, params, rtp })
    }

    /// Queues a publisher's packet for this player; follow it by [`Session::tick`].
    pub(super) fn forward(&mut self, packet: &MediaPacket) -> bool {
        let sent =
            self.connected_after.is_some() && self.lanes.write(&mut self.rtc, &self.tracks, packet).is_some();
        self.counters.packets_out += u64::from(sent);
        sent
    }

    /// Asks this publisher for a key frame.
    pub(super) fn request_keyframe(&mut self) {
        for track in self.tracks.iter().filter(|track| track.kind == MediaKind::Video) {
            if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(track.mid, None) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
    }

    pub(super) fn stats(&self) -> SessionStats {
        SessionStats {
            client_id: self.client_id.clone(),
            alive_ms: self.started.elapsed().as_millis(),
            username: self.username.clone(),
            stream: self.offer.stream.clone(),
            publish: self.offer.role == Role::Publisher,
            connected_after_ms: self.connected_after.map(|after| after.as_millis()),
            remote: self.remote.map(Remote::address),
            over_tcp: self.remote.is_some_and(Remote::is_tcp),
            moves: self.counters.moves,
            datagrams_in: self.counters.datagrams_in,
            datagrams_out: self.counters.datagrams_out,
            bytes_in: self.counters.bytes_in,
            bytes_out: self.counters.bytes_out,
            packets_in: self.counters.packets_in,
            packets_out: self.counters.packets_out,
            client_ip: self.offer.client_ip,
            host: self.offer.host.clone(),
        }
    }
}
