//! What the control plane is told.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use proxy_protocol::{ice::UfragPair, stream_url::StreamKey};

use crate::{
    datapath::{FlowCounters, FlowId},
    origin::OriginId,
    session::{
        EndReason, RelayReason, SessionId, SessionOffer, Tuple,
        offload::RelayCounters,
        record::Record,
        source_port::Rest,
        tcp::{ConnectionId, TcpPath},
    },
};

/// What the control plane is told.
#[derive(Debug)]
pub enum Event {
    /// Signalling has an answer for a client, or somebody calls by SRT; `sources` are the addresses we may use towards the origin.
    Offered {
        /// Chosen by the caller, never used before.
        session: SessionId,
        /// What signalling learnt.
        offer: Box<SessionOffer>,
        /// The origin's media endpoint.
        media: SocketAddr,
        /// Source addresses, in order of preference.
        sources: Arc<[IpAddr]>,
    },
    /// The source address of a session could not be bound.
    SourceUnusable {
        /// The session.
        session: SessionId,
        /// Source addresses, in order of preference.
        sources: Arc<[IpAddr]>,
    },
    /// The client ended its session by DELETE.
    Deleted(UfragPair),
    /// A STUN request whose MESSAGE-INTEGRITY verified, on a tuple that is not the session's or not its active one.
    Checked(Check),
    /// DTLS or RTP from a spare tuple after an authenticated request on it.
    Media {
        /// The session.
        session: SessionId,
        /// Where it came from.
        tuple: Tuple,
        /// The device it came in by.
        ifindex: u32,
    },
    /// The first frame of a TCP connection was a STUN request whose MESSAGE-INTEGRITY verified.
    Connected {
        /// The session its USERNAME names.
        session: SessionId,
        /// The connection.
        path: TcpPath,
    },
    /// A look at TCP connections.
    Carried(Vec<(SessionId, ConnectionId, Carried)>),
    /// The origin sent its first packet.
    Answered(SessionId),
    /// The origin took an SRT call, and the caller was told by this answer.
    Established {
        /// The session.
        session: SessionId,
        /// What the caller was told, and is told again if it asks.
        answer: Bytes,
    },
    /// An SRT call came to nothing.
    HungUp {
        /// The session.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// What came of [`super::Action::Install`].
    Installed {
        /// The session.
        session: SessionId,
        /// The flow, or why there is none.
        result: Result<FlowId, RelayReason>,
    },
    /// A look at the counters of sessions.
    Activity(Vec<(SessionId, Activity)>),
    /// What an earlier process left: told once, before anything else.
    Adopted(Box<Inheritance>),
    /// A look at the counters of flows without a session.
    Orphans(Vec<(FlowId, FlowCounters)>),
    /// A next hop that flows use became unusable.
    NextHopLost(Vec<SessionId>),
    /// Links or routes changed: flows that had none may have one now.
    NetworkChanged,
    /// An origin went down.
    OriginDown(OriginId),
    /// The proxy is about to end: no session begins any more.
    Drain,
    /// The publisher of a stream is on this origin.
    StreamMoved {
        /// The stream.
        stream: StreamKey,
        /// Its origin.
        to: OriginId,
    },
    /// The operator switches offloading on or off.
    SwitchOffload(bool),
    /// The proxy stops: every session ends.
    Shutdown,
    /// Time went by.
    Tick,
}

/// An authenticated STUN request.
#[derive(Clone, Debug)]
pub struct Check {
    /// The session its USERNAME names.
    pub session: SessionId,
    /// Where it came from.
    pub tuple: Tuple,
    /// The device it came in by.
    pub ifindex: u32,
    /// It carries USE-CANDIDATE.
    pub nominates: bool,
    /// The datagram, to be forwarded once the tuple is known.
    pub datagram: Bytes,
    /// Its traffic class.
    pub traffic_class: u8,
}

/// What the counters of one session show.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// Relayed by userspace since the session's start.
    pub relay: RelayCounters,
    /// Forwarded by the kernel since the installation.
    pub kernel: Option<FlowCounters>,
    /// Time since the client's last packet on either path.
    pub client_idle: Duration,
    /// A DTLS alert or an SRT shutdown went through userspace.
    pub closing: bool,
    /// Spare tuples that have been silent for too long.
    pub idle_tuples: Vec<Tuple>,
}

/// What became of a TCP connection since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Its client sent something.
    Bytes,
    /// It is closed.
    Ended,
}

/// What an earlier process left.
#[derive(Clone, Debug)]
pub struct Inheritance {
    /// Its sessions.
    pub sessions: Vec<(SessionId, Record)>,
    /// The flows that the kernel forwards.
    pub flows: Vec<InheritedFlow>,
    /// Source ports that are not to be used yet.
    pub rests: Vec<Rest>,
    /// It would have named its next session by this number.
    pub next_session: u64,
    /// The time of day, which the age of sessions is reckoned by.
    pub today: SystemTime,
}

impl Inheritance {
    /// Whether anything was left.
    pub fn is_anything(&self) -> bool {
        let Self { sessions, flows, rests, next_session, .. } = self;
        !sessions.is_empty() || !flows.is_empty() || !rests.is_empty() || *next_session > 1
    }
}

/// A flow that an earlier process installed and the kernel forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InheritedFlow {
    /// The flow.
    pub id: FlowId,
    /// The client, as on the wire.
    pub client: SocketAddr,
    /// Our leased address towards the origin.
    pub source: SocketAddr,
    /// The origin's media endpoint.
    pub origin: SocketAddr,
}
