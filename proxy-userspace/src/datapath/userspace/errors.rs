//! ICMP errors about datagrams that we sent, by whichever path: whoever sent the datagram to us is told, in words that are
//! right on its leg, as a router between the two would have told it.
//!
//! A datagram that does not fit the next leg is relayed in fragments; if its sender forbade that, it is told what fits.
//!
//! Nobody is told less than [`FITS`]: whoever is told believes it of our address, thus of every session, and anybody can
//! send such an error about a session of its own.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_protocol::icmp::{self, Cause, IcmpError, Quote, Version};
use rustix::event::Timespec;

mod outcome;
mod source;

use outcome::{Outcome, Outcomes};
use source::{Source, Watch, open_each};

use super::{
    Shared,
    calls::News,
    long::{self, LongDatagram},
    peer::Peer,
    reactor::Reactor,
};
use crate::{
    net::{
        icmp::{FITS, errors, long_datagrams, path_mtu},
        udp::{Meta, RecvBatch, Transmit},
    },
    rate_limit::{Rate, RateLimit},
    session::Tuple,
};

/// How long what the kernel says of a path is believed; whoever sends too much is told this often.
const BELIEVED: Duration = Duration::from_secs(1);
/// Paths remembered at once.
const PATHS: usize = 4096;
/// Each error is an answer to something that anybody may send: so many to one receiver, and to all.
const EACH: Rate = Rate { per_second: 20.0, burst: 20.0 };
const IN_ALL: Rate = Rate { per_second: 1000.0, burst: 1000.0 };
/// Long datagrams are watched for as long after the last one that did not fit: it costs each datagram of the host
/// 300 ns.
const WATCHED: Duration = Duration::from_secs(30);
/// Sockets are named by their place: those of errors first, and behind this those that watch.
const WATCH: u64 = 1 << 32;
const NOTICED: u64 = u64::MAX - 1;

/// The sockets, and what their thread waits for.
pub(super) struct Errors {
    shared: Arc<Shared>,
    reactor: Reactor,
    sources: Vec<Source>,
    outcomes: Outcomes,
}

/// What one thread remembers.
struct Memory {
    limit: RateLimit<IpAddr>,
    paths: HashMap<(SocketAddr, SocketAddr), Path>,
    noticed: Vec<LongDatagram>,
    watch: Option<Watch>,
}

impl Memory {
    fn new() -> Self {
        let (limit, noticed) = (RateLimit::new(EACH, IN_ALL), long::room());
        Self { limit, paths: HashMap::new(), noticed, watch: None }
    }
}

/// What fits of the datagrams of one conversation.
#[derive(Clone, Copy)]
struct Path {
    fits: u32,
    asked: Instant,
    is_told: bool,
}

impl Errors {
    /// Opens the sockets.
    pub(super) fn open(shared: Arc<Shared>) -> io::Result<Self> {
        let reactor = Reactor::new()?;
        reactor.watch(shared.long.bell(), NOTICED)?;
        let sources = open_each(&reactor, 0, errors)?;
        Ok(Self { shared, reactor, sources, outcomes: Outcomes::default() })
    }

    /// What became of errors.
    pub(super) fn outcomes(&self) -> Vec<(&'static str, u64)> {
        self.outcomes.totals()
    }

    /// Lets [`Errors::run`] be called again after [`Errors::stop`].
    pub(super) fn rearm(&self) {
        self.reactor.rearm();
    }

    /// Makes [`Errors::run`] return.
    pub(super) fn stop(&self) {
        self.reactor.stop();
    }

    pub(super) fn run(&self) {
        let (mut batch, mut memory) = (RecvBatch::one(), Memory::new());
        let mut ready = Vec::with_capacity(READY);
        while self.reactor.wait(&mut ready, memory.watch.as_ref().map(|_| &SECOND)) {
            ready.iter().for_each(|event| self.serve(event.data.u64(), &mut batch, &mut memory));
            memory.watch.take_if(|watch| watch.until < Instant::now());
        }
    }

    fn serve(&self, ready: u64, batch: &mut RecvBatch, memory: &mut Memory) {
        if ready == NOTICED {
            return self.watch_if_needed(memory);
        }
        let (at, watch) = (usize::try_from(ready % WATCH).ok(), memory.watch.as_ref());
        let is_watch = ready >= WATCH;
        let sources = if is_watch { watch.map(|watch| &watch.sources) } else { Some(&self.sources) };
        let Some(source) = sources.zip(at).and_then(|(sources, at)| sources.get(at)) else { return };
        let version = source.version;
        if source.socket.receive(batch).is_err() {
            return;
        }
        for (meta, bytes) in batch.iter() {
            let outcome = if is_watch {
                self.long_datagram(version, meta, bytes, memory)
            } else {
                Some(self.error(version, bytes, memory))
            };
            outcome.into_iter().for_each(|outcome| self.outcomes.count(outcome));
        }
    }

    /// Sees the next long datagrams as they come, if one of those that workers noticed did not fit.
    fn watch_if_needed(&self, memory: &mut Memory) {
        let mut noticed = std::mem::take(&mut memory.noticed);
        self.shared.long.take(&mut noticed);
        let does_not_fit = |datagram: &LongDatagram, memory: &mut Memory| {
            let path = self.path(datagram.from, datagram.to, memory);
            path.is_some_and(|path| datagram.length() > path.fits as usize)
        };
        if noticed.iter().any(|datagram| does_not_fit(datagram, memory)) {
            self.watch(memory);
        }
        memory.noticed = noticed;
    }

    fn watch(&self, memory: &mut Memory) {
        let until = Instant::now() + WATCHED;
        match &mut memory.watch {
            Some(watch) => watch.until = until,
            None => match open_each(&self.reactor, WATCH, long_datagrams) {
                Ok(sources) => memory.watch = Some(Watch { sources, until }),
                Err(error) => tracing::debug!(%error, "long datagrams cannot be seen as they come"),
            },
        }
    }

    fn error(&self, version: Version, bytes: &[u8], memory: &mut Memory) -> Outcome {
        let parsed = match version {
            Version::V4 => IcmpError::parse_v4(bytes),
            Version::V6 => IcmpError::parse_v6(bytes),
        };
        let Ok(mut error) = parsed else { return Outcome::Malformed };
        if let Cause::TooBig { mtu } = &mut error.cause {
            *mtu = (*mtu).max(FITS);
        }
        if matches!(error.cause, Cause::Unreachable { .. })
            && self.ends_a_call(error.quote.from(), error.quote.to())
        {
            return Outcome::Unreachable;
        }
        let Some((from, to)) = self.as_it_came(error.quote.from(), error.quote.to()) else {
            return Outcome::NoSession;
        };
        match error.translate(from, to) {
            Some(message) => self.tell((to.ip(), from.ip()), &message, Outcome::Translated, memory),
            None => Outcome::OtherFamily,
        }
    }

    /// Whether a datagram was a handshake of ours with an origin that has not answered: nobody sent it to us.
    fn ends_a_call(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let Some(peer) = self.by_source(from, to) else { return false };
        let Some(caller) = peer.caller().filter(|caller| caller.answer().is_none()) else { return false };
        caller.tell(peer.session, News::Unreachable);
        true
    }

    /// The ends of a datagram that we sent `from` there `to` here, on the leg that it came by.
    fn as_it_came(&self, from: SocketAddr, to: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
        if let Some(peer) = self.by_source(from, to) {
            return peer.active().map(|tuple| (tuple.client, tuple.local));
        }
        let bound = self.shared.table.by_tuple(&Tuple { client: to, local: from })?;
        Some((bound.peer.origin, bound.peer.source.socket.local_addr()))
    }

    /// The ends of a datagram that came `from` there `to` here, on the leg that it leaves by.
    fn as_it_leaves(&self, from: SocketAddr, to: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
        if let Some(bound) = self.shared.table.by_tuple(&Tuple { client: from, local: to }) {
            return Some((bound.peer.source.socket.local_addr(), bound.peer.origin));
        }
        let tuple = self.by_source(to, from)?.active()?;
        Some((tuple.local, tuple.client))
    }

    fn by_source(&self, source: SocketAddr, origin: SocketAddr) -> Option<Arc<Peer>> {
        let source = self.shared.sources.lock().get(&source).cloned()?;
        source.peer(origin)
    }

    /// Nothing, if it fits or is no session's: this is a copy, and the relay counts the datagram itself.
    fn long_datagram(
        &self,
        version: Version,
        meta: Meta,
        bytes: &[u8],
        memory: &mut Memory,
    ) -> Option<Outcome> {
        let whole = with_header(version, meta, bytes)?;
        let quote = Quote::parse(version, &whole).ok()?;
        let (from, to) = (quote.from(), quote.to());
        let path = self.path(from, to, memory)?;
        if path.is_told || quote.length() <= path.fits as usize {
            return None;
        }
        let outcome = self.tell((to.ip(), from.ip()), &quote.too_big(path.fits), Outcome::ToldTooBig, memory);
        memory.paths.insert((from, to), Path { is_told: true, ..path });
        Some(outcome)
    }

    /// What fits of datagrams that come `from` there `to` here.
    fn path(&self, from: SocketAddr, to: SocketAddr, memory: &mut Memory) -> Option<Path> {
        let now = Instant::now();
        let known = memory.paths.get(&(from, to)).copied();
        if let Some(path) = known.filter(|path| now.saturating_duration_since(path.asked) < BELIEVED) {
            return Some(path);
        }
        let (source, destination) = self.as_it_leaves(from, to)?;
        let mtu = path_mtu(source.ip(), destination).ok()?;
        let (before, after) = (Version::of(from.ip()), Version::of(destination.ip()));
        let payload = mtu.saturating_sub(after.header() as u32);
        let fits = payload.saturating_add(before.header() as u32).max(FITS);
        if memory.paths.len() >= PATHS {
            memory.paths.clear();
        }
        let path = Path { fits, asked: now, is_told: false };
        memory.paths.insert((from, to), path);
        Some(path)
    }

    fn tell(
        &self,
        (from, to): (IpAddr, IpAddr),
        message: &[u8],
        done: Outcome,
        memory: &mut Memory,
    ) -> Outcome {
        if memory.limit.take(to, Instant::now()).is_err() {
            return Outcome::Limited;
        }
        let is_meant = |source: &&Source| source.version == Version::of(to);
        let Some(source) = self.sources.iter().find(is_meant) else { return Outcome::Unsent };
        let transmit = Transmit {
            payload: message,
            peer: SocketAddr::new(to, 0),
            local_ip: Some(from),
            traffic_class: INTERNETWORK_CONTROL,
        };
        match source.socket.send(&transmit) {
            Ok(()) => done,
            Err(error) => {
                tracing::debug!(%error, %from, %to, "an ICMP error cannot be sent");
                Outcome::Unsent
            }
        }
    }
}

/// Events taken by one wait.
const READY: usize = 8;
const SECOND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// RFC 1812, section 4.3.2.5: the precedence of ICMP errors.
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// Over IPv6 a raw socket tells a datagram from behind the IP header.
fn with_header(version: Version, meta: Meta, bytes: &[u8]) -> Option<Vec<u8>> {
    match (version, meta.peer.ip(), meta.local_ip) {
        (Version::V4, ..) => Some(bytes.to_vec()),
        (Version::V6, IpAddr::V6(source), Some(IpAddr::V6(destination))) => {
            Some([&icmp::ipv6_header(source, destination, bytes), bytes].concat())
        }
        (Version::V6, ..) => None,
    }
}
