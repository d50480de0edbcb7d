//! One client session: the media stack's instance, its socket, and what it sends and counts.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::{Context as _, Result};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};

use super::path::{self, Framed, Path};
use super::sequence::Sequence;
use super::stats::{ClientStats, Role, Track};
use super::synthetic::{Packet, Source};

/// What a session sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) role: Role,
    pub(super) bitrate: u32,
    pub(super) audio: bool,
}

#[derive(Debug)]
pub(super) struct Peer {
    rtc: Rtc,
    path: Path,
    local: SocketAddr,
    /// Sockets of earlier addresses, kept open so that late packets get no ICMP error, like those to a phone
    /// that has left a network.
    retired: Vec<UdpSocket>,
    plan: Plan,
    lines: Vec<(Mid, MediaKind)>,
    retransmission_types: Vec<u8>,
    outgoing: Vec<Outgoing>,
    stats: ClientStats,
}

#[derive(Debug)]
struct Outgoing {
    source: Source,
    mid: Mid,
    pt: Pt,
}

impl Peer {
    /// Makes the offer for a socket that is bound to a definite address; without one, the path is made later.
    pub(super) fn offer(socket: Option<UdpSocket>, plan: Plan) -> Result<(Self, SdpPendingOffer, String)> {
        let (path, local) = match socket {
            Some(socket) => {
                socket.set_nonblocking(true)?;
                let local = socket.local_addr()?;
                (Path::Udp(socket), Some(local))
            }
            None => (Path::None, None),
        };
        let now = Instant::now();
        let mut rtc = Rtc::builder()
            .clear_codecs()
            .enable_h264(true)
            .enable_vp8(plan.role == Role::Player)
            .enable_opus(true, false)
            .set_rtp_mode(true)
            .set_stats_interval(None)
            .build(now);
        if let Some(local) = local {
            rtc.add_local_candidate(Candidate::host(local, "udp")?);
        }
        let local = local.unwrap_or(SocketAddr::from(([0; 4], 0)));
        let direction = if plan.role == Role::Publisher { Direction::SendOnly } else { Direction::RecvOnly };
        let kinds =
            [MediaKind::Audio, MediaKind::Video].into_iter().filter(|kind| plan.audio || kind.is_video());
        let mut api = rtc.sdp_api();
        let lines = kinds.map(|kind| (api.add_media(kind, direction, None, None, None), kind)).collect();
        let (offer, pending) = api.apply().context("the offer is empty")?;
        let stats = ClientStats::new(plan.role, local, now);
        let retransmission_types = Vec::new();
        let outgoing = Vec::new();
        let peer = Self {
            rtc,
            path,
            local,
            retired: Vec::new(),
            plan,
            lines,
            retransmission_types,
            outgoing,
            stats,
        };
        Ok((peer, pending, offer.to_sdp_string()))
    }

    /// Takes the answer; connectivity checks start at the next [`Peer::drain`].
    pub(super) fn accept(&mut self, pending: SdpPendingOffer, answer: &str, posted: Instant) -> Result<()> {
        let answer = SdpAnswer::from_sdp_string(answer).context("failed to parse the answer")?;
        self.rtc.sdp_api().accept_answer(pending, answer).context("failed to accept the answer")?;
        let params = self.rtc.codec_config().params();
        self.retransmission_types =
            params.iter().filter_map(|params| params.resend().map(|pt| *pt)).collect();
        self.stats.posted = posted;
        Ok(())
    }

    /// Connects to a TCP candidate of `answer`, or to another address, and goes over this connection and nothing else;
    /// returns the answer to be taken then.
    pub(super) fn connect(
        &mut self,
        answer: &str,
        at: Option<SocketAddr>,
        from: Option<IpAddr>,
    ) -> Result<String> {
        let (answer, to) = path::tcp_alone(answer, at)?;
        let framed = Framed::connect(to, from)?;
        let local = framed.local_addr()?;
        self.rtc.add_local_candidate(Candidate::host(local, "tcp")?);
        (self.path, self.local, self.stats.local) = (Path::Tcp(framed), local, local);
        Ok(answer)
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.path.descriptor()
    }

    pub(super) fn stats(&self) -> ClientStats {
        self.stats.clone()
    }

    /// Leaves the old address for that of another socket: the old path is dead from here on.
    pub(super) fn migrate(&mut self, socket: UdpSocket) -> Result<()> {
        socket.set_nonblocking(true)?;
        let (old, new) = (self.local, socket.local_addr()?);
        if let Path::Udp(old) = std::mem::replace(&mut self.path, Path::Udp(socket)) {
            self.retired.push(old);
        }
        self.local = new;
        self.stats.migrated_to(new);
        self.rtc.direct_api().invalidate_candidate(&Candidate::host(old, "udp")?);
        self.rtc.add_local_candidate(Candidate::host(new, "udp")?);
        Ok(())
    }

    /// Says good-bye by a DTLS alert.
    pub(super) fn close(&mut self) {
        let _ = self.rtc.close();
        self.drain(Instant::now());
    }

    /// Takes all that waits in the socket; follow it by [`Peer::drain`].
    pub(super) fn receive(&mut self) {
        let mut buffer = [0; 1 << 16];
        self.receive_stragglers(&mut buffer);
        // A refused datagram surfaces here as the socket's pending error; it concerns what was sent before.
        loop {
            match self.path.receive(&mut buffer) {
                Ok((length, source)) => {
                    let (datagram, now) = (&buffer[..length], Instant::now());
                    if datagram.first().is_some_and(|first| *first >= 128) {
                        self.stats.media_is_back(now);
                    }
                    self.take(datagram, source, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) if self.path.protocol() == Protocol::Tcp => {
                    self.path = Path::None;
                    self.stats.disconnected = true;
                    return;
                }
                Err(_) => self.stats.socket_errors += 1,
            }
        }
    }

    /// What was under way to an address that the client has left is still part of the stream.
    fn receive_stragglers(&mut self, buffer: &mut [u8]) {
        for retired in std::mem::take(&mut self.retired) {
            while let Ok((length, source)) = retired.recv_from(buffer) {
                self.take(&buffer[..length], source, Instant::now());
            }
            self.retired.push(retired);
        }
    }

    fn take(&mut self, datagram: &[u8], source: SocketAddr, now: Instant) {
        self.count(datagram, now);
        let received = Receive::new(self.path.protocol(), source, self.local, datagram);
        if let Ok(received) = received {
            let _ = self.rtc.handle_input(Input::Receive(now, received));
            self.drain(now);
        }
    }

    fn count(&mut self, datagram: &[u8], now: Instant) {
        let Some((payload_type, sequence, ssrc)) = rtp_header(datagram) else {
            self.stats.feedback += u64::from(is_rtcp(datagram));
            return;
        };
        if self.retransmission_types.contains(&payload_type) {
            self.stats.retransmitted += 1;
            return;
        }
        match self.stats.tracks.iter_mut().find(|track| track.ssrc == ssrc) {
            Some(track) => track.sequence.record(sequence, datagram.len(), now),
            None => {
                let sequence = Sequence::start(sequence, datagram.len(), now);
                self.stats.tracks.push(Track { ssrc, payload_type, sequence });
            }
        }
    }

    /// Lets time pass and sends the frames that are due; returns the next deadline.
    pub(super) fn tick(&mut self, now: Instant) -> Instant {
        for index in 0..self.outgoing.len() {
            let packets = self.outgoing[index].source.frame(now);
            packets.iter().for_each(|packet| self.write(index, packet, now));
        }
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.drain(now)
    }

    fn write(&mut self, index: usize, packet: &Packet, now: Instant) {
        let Outgoing { mid, pt, .. } = self.outgoing[index];
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else { return };
        let payload = packet.payload.as_slice();
        let write = RtpWrite::new(pt, packet.sequence.into(), packet.timestamp, now, payload);
        stream.write_rtp(write.marker(packet.marker).nackable(true));
        self.stats.sent += 1;
    }

    /// Sends what the stack wants sent and returns the next deadline.
    pub(super) fn drain(&mut self, now: Instant) -> Instant {
        // What fails here is noticed when the end is read.
        let _ = self.path.flush();
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(deadline)) => {
                    let frames = self.outgoing.iter().map(|outgoing| outgoing.source.due());
                    return frames.fold(deadline, Instant::min);
                }
                Ok(Output::Transmit(transmit)) => self.transmit(&transmit, now),
                Ok(Output::Event(event)) => self.act_on(&event, now),
                Err(_) => self.rtc.disconnect(),
            }
        }
    }

    fn transmit(&mut self, transmit: &Transmit, now: Instant) {
        if transmit.source != self.local {
            return;
        }
        if transmit.contents.first().is_some_and(|first| *first < 2) {
            self.stats.requested(now);
        }
        if self.path.send(&transmit.contents, transmit.destination).is_err() {
            self.stats.socket_errors += 1;
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the stack's events are non-exhaustive")]
    fn act_on(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Connected => {
                self.stats.connected_after = Some(now.duration_since(self.stats.posted));
                if self.plan.role == Role::Publisher {
                    self.outgoing = self.lines.iter().filter_map(|line| self.outgoing(*line, now)).collect();
                }
            }
            Event::RtpPacket(_) => {
                self.stats.decrypted += 1;
                let after = || now.duration_since(self.stats.posted);
                self.stats.first_media_after = Some(self.stats.first_media_after.unwrap_or_else(after));
            }
            Event::Closed => self.stats.closed_by_peer = true,
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                self.stats.lost = Some(now);
            }
            _ => {}
        }
    }

    fn outgoing(&self, (mid, kind): (Mid, MediaKind), now: Instant) -> Option<Outgoing> {
        let pt = *self.rtc.media(mid)?.remote_pts().first()?;
        let source = if kind.is_video() { Source::video(self.plan.bitrate, now) } else { Source::audio(now) };
        Some(Outgoing { source, mid, pt })
    }
}

/// Sockets that clients make for themselves.
pub(super) fn bind(ip: IpAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0)).with_context(|| format!("failed to bind {ip}"))?;
    // Beyond the system's limit only with privilege; a smaller buffer still works.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 1 << 20);
    Ok(socket)
}

/// RFC 7983 and RFC 5761 section 4.
fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..192, 192..=223, ..])
}

/// Payload type, sequence number and SSRC, if the datagram is RTP (RFC 7983 and RFC 5761 section 4).
fn rtp_header(datagram: &[u8]) -> Option<(u8, u16, u32)> {
    let [first, second, s0, s1, _, _, _, _, r0, r1, r2, r3, ..] = *datagram else { return None };
    let is_rtp = (128..192).contains(&first) && !(192..=223).contains(&second);
    is_rtp.then(|| (second & 0x7f, u16::from_be_bytes([s0, s1]), u32::from_be_bytes([r0, r1, r2, r3])))
}
