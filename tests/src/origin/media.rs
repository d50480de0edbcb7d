//! The one thread that owns the UDP socket and all sessions.
//!
//! A turn takes commands, a batch of datagrams and due timers; each touches only the sessions it concerns, and
//! the sessions that got something to send are flushed at the end of the turn.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxy_protocol::sdp::Transport;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use str0m::IceCreds;

use super::routes::Routes;
use super::session::{
    Asked, Emitted, Local, MediaPacket, Offer, Outlets, Received, Role, Session, SessionId,
};
use super::stats::OriginStats;
use super::streams::Streams;
use super::tcp::{Link, Links, Remote};
use super::{OriginConfig, answer, random_id};
use crate::deadlines::Deadlines;
use crate::mailbox::Mailbox;

/// How many datagrams one turn takes before timers and commands get their chance.
const BATCH: usize = 256;

/// How often silent sessions are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// What other threads ask of the media thread.
#[derive(Debug)]
pub(super) enum Command {
    Offer {
        offer: Offer,
        reply: mpsc::Sender<Result<Answer>>,
    },
    Delete {
        username: String,
        token: String,
    },
    /// Ends the session with this client id, and tells whether there was one.
    Kick {
        client_id: String,
        reply: mpsc::Sender<bool>,
    },
    /// A TCP connection whose first frame is a request.
    Linked {
        peer: SocketAddr,
        link: Link,
    },
    /// A frame of such a connection.
    Frame {
        peer: SocketAddr,
        packet: Vec<u8>,
    },
    Unlinked {
        peer: SocketAddr,
    },
    Stats {
        reply: mpsc::Sender<OriginStats>,
    },
    Stop,
}

/// A new session as the API tells it to the client.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) sdp: String,
    pub(super) username: String,
    pub(super) token: String,
}

#[derive(Debug)]
pub(super) struct Media {
    config: Arc<OriginConfig>,
    socket: UdpSocket,
    port: u16,
    /// Where frames come in, if anywhere.
    tcp: Option<SocketAddr>,
    links: Links,
    mailbox: Mailbox<Command>,
    sessions: HashMap<SessionId, Session>,
    routes: Routes,
    streams: Streams,
    deadlines: Deadlines<SessionId>,
    unflushed: BTreeSet<SessionId>,
    emitted: Vec<Emitted>,
    newest: SessionId,
    next_expiry: Instant,
    totals: OriginStats,
}

impl Media {
    pub(super) fn new(
        config: Arc<OriginConfig>,
        socket: UdpSocket,
        tcp: Option<SocketAddr>,
        mailbox: Mailbox<Command>,
    ) -> io::Result<Self> {
        Ok(Self {
            port: socket.local_addr()?.port(),
            routes: Routes::new(config.address_first),
            config,
            socket,
            tcp,
            links: Links::default(),
            mailbox,
            sessions: HashMap::new(),
            streams: Streams::default(),
            deadlines: Deadlines::default(),
            unflushed: BTreeSet::new(),
            emitted: Vec::new(),
            newest: SessionId(0),
            next_expiry: Instant::now() + EXPIRY_INTERVAL,
            totals: OriginStats::default(),
        })
    }

    /// Runs until [`Command::Stop`].
    pub(super) fn run(mut self) {
        loop {
            self.wait();
            self.mailbox.acknowledge();
            while let Some(command) = self.mailbox.take() {
                match command {
                    Command::Offer { offer, reply } => drop(reply.send(self.accept(offer))),
                    Command::Delete { username, token } => self.delete(&username, &token),
                    Command::Kick { client_id, reply } => drop(reply.send(self.kick(&client_id))),
                    Command::Linked { peer, link } => self.links.add(peer, link),
                    Command::Frame { peer, packet } => self.receive(&packet, Remote::Tcp(peer)),
                    Command::Unlinked { peer } => self.links.remove(peer),
                    Command::Stats { reply } => drop(reply.send(self.stats())),
                    Command::Stop => return,
                }
            }
            self.receive_batch();
            self.wake_due_sessions();
            self.flush();
            self.expire();
        }
    }

    fn wait(&self) {
        let next = self.deadlines.next().map_or(self.next_expiry, |next| next.min(self.next_expiry));
        let until = next.saturating_duration_since(Instant::now());
        // Rounded up to whole milliseconds, so that one wake-up serves all deadlines within it.
        let timeout =
            Duration::from_millis(u64::try_from(until.as_micros().div_ceil(1000)).unwrap_or(u64::MAX));
        let timeout = Timespec::try_from(timeout).ok();
        let mut fds =
            [self.socket.as_fd(), self.mailbox.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let _ = poll(&mut fds, timeout.as_ref());
    }

    fn receive_batch(&mut self) {
        let mut buffer = [0; 2048];
        for _ in 0..BATCH {
            let Ok((length, source)) = self.socket.recv_from(&mut buffer) else { return };
            self.receive(&buffer[..length], Remote::Udp(source));
        }
    }

    fn receive(&mut self, datagram: &[u8], source: Remote) {
        let id = match source {
            Remote::Udp(address) => self.routes.find(datagram, address),
            Remote::Tcp(peer) => self.routes.named(datagram).or_else(|| self.links.session(peer)),
        };
        let Some((id, session)) = id.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) else {
            self.totals.unclaimed += 1;
            self.refuse(source);
            return;
        };
        let now = Instant::now();
        match (session.receive(datagram, source, now), source) {
            (Received::Accepted, Remote::Udp(address)) => self.routes.bind(address, id),
            (Received::Accepted, Remote::Tcp(peer)) => self.links.bind(peer, id),
            (Received::Refused, _) => self.totals.refused += 1,
        }
        self.drain(id, now);
    }

    /// A connection of nobody is closed; a datagram of nobody is silently lost.
    fn refuse(&mut self, source: Remote) {
        if let Remote::Tcp(peer) = source {
            self.links.remove(peer);
        }
    }

    fn wake_due_sessions(&mut self) {
        let now = Instant::now();
        while let Some(id) = self.deadlines.pop_due(now) {
            self.unflushed.insert(id);
        }
    }

    fn flush(&mut self) {
        while let Some(id) = self.unflushed.pop_first() {
            let now = Instant::now();
            if let Some(session) = self.sessions.get_mut(&id) {
                session.tick(now);
                self.drain(id, now);
            }
        }
    }

    fn drain(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let mut emitted = std::mem::take(&mut self.emitted);
        let deadline = session.drain(&Outlets { udp: &self.socket, tcp: &self.links }, &mut emitted, now);
        self.deadlines.set(id, deadline);
        let (alive, stream) = (session.is_alive(), session.stream().to_owned());
        for item in emitted.drain(..) {
            match item {
                Emitted::Packet(packet) => self.forward(&stream, &packet),
                Emitted::KeyframeWanted => self.request_keyframe(&stream),
            }
        }
        self.emitted = emitted;
        if !alive {
            self.end(id);
        }
    }

    fn forward(&mut self, stream: &str, packet: &MediaPacket) {
        self.totals.packets_in += 1;
        for player in self.streams.players(stream).iter() {
            let Some(session) = self.sessions.get_mut(player) else { continue };
            if session.forward(packet) {
                self.totals.packets_out += 1;
                self.unflushed.insert(*player);
            }
        }
    }

    fn request_keyframe(&mut self, stream: &str) {
        let Some(publisher) = self.streams.publisher(stream) else { return };
        if let Some(session) = self.sessions.get_mut(&publisher) {
            session.request_keyframe();
            self.unflushed.insert(publisher);
        }
    }

    fn accept(&mut self, offer: Offer) -> Result<Answer> {
        let (role, stream) = (offer.role, offer.stream.clone());
        let is_busy = role == Role::Publisher && self.streams.publisher(&stream).is_some();
        ensure!(!is_busy, "stream {stream} is busy");
        let credentials = self.credentials(&offer);
        let candidates = self.candidates(&offer)?;
        let of = |wanted| candidates.iter().find(|(transport, _)| *transport == wanted).map(|(_, at)| *at);
        let local = Local { udp: of(Transport::Udp).context("no candidate")?, tcp: of(Transport::Tcp) };
        let id = SessionId(self.newest.0 + 1);
        let (session, sdp) = Session::accept(id, offer, credentials, local, Instant::now())?;
        self.newest = id;
        let sdp = answer::in_srs_shape(&sdp, &candidates, role, &stream);
        let (username, token) = (session.username().to_owned(), session.token().to_owned());
        self.routes.add_username(&username, id);
        self.streams.add(&stream, role, id);
        self.sessions.insert(id, session);
        self.unflushed.insert(id);
        Ok(Answer { sdp, username, token })
    }

    /// What the caller asked for. Where another session has the user name already, SRS draws another ufrag, and the password
    /// stays.
    fn credentials(&self, offer: &Offer) -> IceCreds {
        let Asked { ufrag, pwd } = &offer.asked;
        let is_free = |asked: &&String| !self.routes.has_username(&format!("{asked}:{}", offer.ufrag()));
        IceCreds {
            ufrag: ufrag.as_ref().filter(is_free).cloned().unwrap_or_else(|| random_id(8)),
            pass: pwd.clone().unwrap_or_else(|| random_id(32)),
        }
    }

    fn candidates(&self, offer: &Offer) -> Result<Vec<(Transport, SocketAddr)>> {
        let all = || offer.candidates.iter().chain(&self.config.candidates);
        let with = |port: u16| {
            let at = move |candidate: &super::Candidate| {
                SocketAddr::new(candidate.ip, candidate.port.unwrap_or(port))
            };
            answer::in_srs_order(all().map(at))
        };
        let mut tcp = self.tcp.map(|tcp| with(tcp.port())).unwrap_or_default().into_iter();
        let both = |udp| [(Transport::Udp, Some(udp)), (Transport::Tcp, tcp.next())];
        let candidates = with(self.port).into_iter().flat_map(both);
        let candidates: Vec<_> = candidates.filter_map(|(transport, at)| Some((transport, at?))).collect();
        ensure!(!candidates.is_empty(), "the origin has no candidate address");
        Ok(candidates)
    }

    fn delete(&mut self, username: &str, token: &str) {
        self.end_the_one(|session| session.username() == username && session.token() == token);
    }

    fn kick(&mut self, client_id: &str) -> bool {
        self.end_the_one(|session| session.client_id() == client_id)
    }

    fn end_the_one(&mut self, is_meant: impl Fn(&Session) -> bool) -> bool {
        let found = self.sessions.iter().find(|(_, session)| is_meant(session)).map(|(id, _)| *id);
        found.inspect(|id| self.end(*id)).is_some()
    }

    fn expire(&mut self) {
        let now = Instant::now();
        if now < self.next_expiry {
            return;
        }
        self.next_expiry = now + EXPIRY_INTERVAL;
        let limit = self.config.session_timeout;
        let idle = self.sessions.iter().filter(|(_, session)| session.is_idle(now, limit));
        for id in idle.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end(id);
        }
    }

    fn end(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.totals.ended += 1;
        self.routes.remove(id);
        self.links.end(id);
        self.deadlines.remove(id);
        self.streams.remove(session.stream(), id);
    }

    fn stats(&self) -> OriginStats {
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_by_key(|(id, _)| **id);
        let sessions = sessions.into_iter().map(|(_, session)| session.stats()).collect();
        OriginStats { sessions, connections: self.links.count(), ..self.totals.clone() }
    }
}
