//! One session, of WebRTC or SRT: from the answer its client got to the last packet.
//!
//! ```text
//!            offered                     first authenticated check
//!   (none) ───────────► Admitting ─────► Waiting ─────► Live ─────► (ended)
//!                       source socket    connect        idle, DELETE, DTLS close,
//!                       being opened     time-out       origin down
//!
//!   A session whose client came by TCP alone stays Waiting and lives by its connections.
//!
//!   An SRT session has one tuple from the start. It is Waiting while its origin is being called, and Live when the
//!   origin has answered; its ends are a shutdown, silence, or an origin that refuses or does not answer.
//!
//!   Live:   Relayed ◄──────────► Installed
//!           nominated, answered, settled: install
//!           migration, shared tuple, proof failed, end: remove
//! ```

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::datapath::{Escalation, FlowId, Protocol};

mod offer;
pub mod offload;
pub mod record;
pub mod source_port;
pub mod tcp;

pub use offer::{Kind, SessionOffer, Srt, WebRtc};
pub use offload::{Offload, Proof, RelayReason};
use tcp::TcpPaths;

/// Names a session among all that this process and those it took over from have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Which way a session's media goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Client to origin.
    Publisher,
    /// Origin to client.
    Player,
}

impl Role {
    /// The word in logs and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Player => "player",
        }
    }
}

/// One client address a session is reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The client.
    pub client: SocketAddr,
    /// Our address and port the client sends to, as the socket sees it.
    pub local: SocketAddr,
}

impl Tuple {
    /// That of a datagram from `client` by a socket on `listener`, which may be on any address.
    pub fn of(client: SocketAddr, to: Option<IpAddr>, listener: SocketAddr) -> Self {
        Self { client, local: SocketAddr::new(to.unwrap_or(listener.ip()), listener.port()) }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client sent DELETE.
    Deleted,
    /// A DTLS alert or an SRT shutdown went by and nothing followed.
    Closed,
    /// The client went silent.
    Idle,
    /// No authenticated check ever came.
    NeverConnected,
    /// The client called anew from the same address and port (SRT).
    Replaced,
    /// The origin refused the call (SRT).
    Rejected,
    /// The origin did not answer the call (SRT).
    Unanswered,
    /// The origin went down.
    OriginDown,
    /// The stream's publisher is at another origin.
    StreamMoved,
    /// No source port could be bound.
    NoSourcePort,
    /// The proxy stops.
    Shutdown,
}

impl EndReason {
    /// Whether neither end of the session knows of its end.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::OriginDown | Self::StreamMoved | Self::Shutdown)
    }

    /// Whether the session may be made again for a client that is heard: its packets may have gone to another proxy, or there
    /// was no place for it.
    pub fn may_return(self) -> bool {
        matches!(self, Self::Idle | Self::NeverConnected | Self::NoSourcePort)
    }

    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Deleted,
        Self::Closed,
        Self::Idle,
        Self::NeverConnected,
        Self::Replaced,
        Self::Rejected,
        Self::Unanswered,
        Self::OriginDown,
        Self::StreamMoved,
        Self::NoSourcePort,
        Self::Shutdown,
    ];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::NeverConnected => "never_connected",
            Self::Replaced => "replaced",
            Self::Rejected => "rejected",
            Self::Unanswered => "unanswered",
            Self::OriginDown => "origin_down",
            Self::StreamMoved => "stream_moved",
            Self::NoSourcePort => "no_source_port",
            Self::Shutdown => "shutdown",
        }
    }
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// What signalling told.
    pub offer: SessionOffer,
    /// The origin's media endpoint.
    pub media: SocketAddr,
    /// Our leased address towards the origin.
    pub source: SocketAddr,
    /// When it was offered.
    pub born: Instant,
    /// How far it is.
    pub state: State,
    /// Its TCP connections.
    pub tcp: TcpPaths,
}

/// How far a session is.
#[derive(Debug)]
pub enum State {
    /// Its source socket is being opened; so many ports were tried.
    Admitting(u32),
    /// The client has its answer but has not been heard; of SRT, its origin is being called.
    Waiting,
    /// The client has been heard.
    Live(Box<Live>),
}

/// A session whose client has been heard.
#[derive(Debug)]
pub struct Live {
    /// Where the origin's packets go.
    pub active: Tuple,
    /// The device the active tuple's packets come in by.
    pub ifindex: u32,
    /// The client said USE-CANDIDATE on the active tuple, or sent media from it.
    pub nominated: bool,
    /// The origin has answered.
    pub answered: bool,
    /// Other authenticated tuples.
    pub backups: Vec<Tuple>,
    /// Whether the kernel forwards it.
    pub offload: Offload,
    /// A DTLS alert or an SRT shutdown went by at this time.
    pub closing: Option<Instant>,
}

/// A session keeps this many spare tuples; more are refused until one expires.
pub(crate) const MAX_BACKUPS: usize = 8;

impl Session {
    /// Whether its client may come from anywhere, by UDP.
    pub fn is_awaited(&self) -> bool {
        self.offer.protocol() == Protocol::WebRtc && self.live().is_none() && self.tcp.open().is_empty()
    }

    /// Time since the client was heard over either transport, if it was silent on UDP for `udp`.
    pub fn idle(&self, udp: Duration, now: Instant) -> Duration {
        self.tcp.idle(now).map_or(udp, |tcp| tcp.min(udp))
    }

    /// The flow the kernel forwards, if it does.
    pub fn flow(&self) -> Option<FlowId> {
        self.live().and_then(|live| live.offload.flow())
    }

    /// The live part, once the client has been heard.
    pub fn live(&self) -> Option<&Live> {
        match &self.state {
            State::Live(live) => Some(live),
            State::Admitting(_) | State::Waiting => None,
        }
    }

    /// The live part, mutable.
    pub fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.state {
            State::Live(live) => Some(live),
            State::Admitting(_) | State::Waiting => None,
        }
    }

    /// Every tuple it holds.
    pub fn tuples(&self) -> impl Iterator<Item = Tuple> {
        let called = self.offer.srt().filter(|_| self.live().is_none()).map(|srt| srt.tuple);
        let live = self.live().into_iter();
        live.flat_map(|live| std::iter::once(live.active).chain(live.backups.iter().copied())).chain(called)
    }
}

impl Live {
    /// A session just heard on `tuple`.
    pub fn new(tuple: Tuple, ifindex: u32, nominated: bool, now: Instant) -> Self {
        Self {
            active: tuple,
            ifindex,
            nominated,
            answered: false,
            backups: Vec::new(),
            offload: Offload::relayed(RelayReason::Settling, now + offload::SETTLE),
            closing: None,
        }
    }

    /// Remembers a spare tuple; false if there are too many.
    pub fn add_backup(&mut self, tuple: Tuple) -> bool {
        if self.active == tuple || self.backups.contains(&tuple) {
            return true;
        }
        let room = self.backups.len() < MAX_BACKUPS;
        if room {
            self.backups.push(tuple);
        }
        room
    }

    /// Makes `tuple` the return path; the old one stays as a spare.
    pub fn move_to(&mut self, tuple: Tuple, ifindex: u32, now: Instant) {
        let old = std::mem::replace(&mut self.active, tuple);
        self.backups.retain(|t| *t != tuple);
        self.add_backup(old);
        self.ifindex = ifindex;
        self.nominated = true;
        self.offload = Offload::relayed(RelayReason::Settling, now + offload::SETTLE);
    }

    /// Which STUN packets userspace needs while the kernel forwards this session.
    pub fn escalation(&self, pending_from_this_client: bool) -> Escalation {
        Escalation { requests: pending_from_this_client, responses: !self.backups.is_empty() }
    }

    /// Whether a DTLS alert or an SRT shutdown was followed by `quiet` of silence.
    pub fn is_closed(&self, idle: Duration, quiet: Duration) -> bool {
        self.closing.is_some() && idle >= quiet
    }
}
