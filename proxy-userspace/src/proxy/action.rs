//! What the control plane wants done.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use proxy_protocol::{ice::UfragPair, srt::SocketId};

use crate::{
    datapath::{Escalation, FlowId, Protocol},
    session::{
        EndReason, SessionId, Tuple,
        tcp::{ConnectionId, TcpRefusal},
    },
};

/// What the executor is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the source socket (or say [`super::Event::SourceUnusable`]) and make the session known to the relay: by
    /// USERNAME, or as a call that is waiting for its origin.
    Admit {
        /// The session.
        session: SessionId,
        /// Our address towards the origin.
        source: SocketAddr,
        /// Source addresses to try next, in order of preference.
        sources: Arc<[IpAddr]>,
    },
    /// Open the source socket of an adopted session (or say [`super::Event::SourceUnusable`]) and make it known to the
    /// relay and to signalling; then relay its tuples, and send the origin's packets to the active one if it is among
    /// them.
    Readmit {
        /// The session.
        session: SessionId,
        /// Its tuples that no other session holds.
        tuples: Vec<Tuple>,
    },
    /// Write the session's record anew: what it holds has changed.
    Record {
        /// The session.
        session: SessionId,
    },
    /// Tell signalling that the session cannot be.
    Refuse {
        /// The session.
        session: SessionId,
        /// Why.
        reason: Refusal,
    },
    /// Relay a tuple for a session.
    Bind {
        /// The session.
        session: SessionId,
        /// The tuple.
        tuple: Tuple,
    },
    /// Forget a tuple.
    Unbind {
        /// The tuple.
        tuple: Tuple,
        /// The session that held it.
        session: SessionId,
    },
    /// Send the origin's packets there.
    Activate {
        /// The session.
        session: SessionId,
        /// The tuple, already bound.
        tuple: Tuple,
    },
    /// Forward a check through userspace.
    Forward(ForwardCheck),
    /// Install the session's flow in the kernel and say [`super::Event::Installed`].
    Install {
        /// The session.
        session: SessionId,
        /// The flow.
        flow: FlowRequest,
        /// Which STUN packets come up from the start.
        escalation: Escalation,
    },
    /// Remove a flow from the kernel.
    Remove {
        /// The session.
        session: SessionId,
        /// The flow.
        flow: FlowId,
    },
    /// Choose which STUN packets of a flow come up.
    Escalate {
        /// The flow.
        flow: FlowId,
        /// Which.
        what: Escalation,
    },
    /// Carry a TCP connection to the origin's endpoint until the session ends, and say what becomes of it
    /// ([`super::Event::Carried`]).
    Carry {
        /// The session.
        session: SessionId,
        /// The connection.
        connection: ConnectionId,
        /// Where the origin takes media over TCP.
        origin: SocketAddr,
    },
    /// A TCP connection is not for its session.
    RefuseConnection {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        reason: TcpRefusal,
    },
    /// Close a TCP connection.
    Disconnect {
        /// The connection.
        connection: ConnectionId,
    },
    /// Tell a caller of SRT that its connection is over, so that it calls again.
    HangUp {
        /// Where it is.
        tuple: Tuple,
        /// Its socket.
        caller: SocketId,
    },
    /// A source port has rested towards an origin: forget it.
    Release {
        /// The source port.
        source: SocketAddr,
        /// The origin's media endpoint.
        origin: SocketAddr,
    },
    /// Forget the session everywhere; its port rests already.
    Retire {
        /// The session.
        session: SessionId,
        /// Its USERNAME, if it has one.
        ufrags: Option<UfragPair>,
        /// Why it ended.
        reason: EndReason,
    },
}

/// A check to be forwarded to the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardCheck {
    /// The session.
    pub session: SessionId,
    /// Where the answer goes.
    pub tuple: Tuple,
    /// The datagram.
    pub datagram: Bytes,
    /// Its traffic class.
    pub traffic_class: u8,
}

/// A flow the kernel should forward, before its next hops are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRequest {
    /// What it carries.
    pub protocol: Protocol,
    /// The client's tuple as the socket sees it.
    pub tuple: Tuple,
    /// The device the client's packets come in by.
    pub ifindex: u32,
    /// Our address towards the origin.
    pub source: SocketAddr,
    /// The origin's media endpoint.
    pub origin: SocketAddr,
}

/// Why a session cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The session limit is reached.
    #[error("session limit reached")]
    Full,
    /// Every source port towards this origin is in use or resting.
    #[error("source ports towards the origin are exhausted")]
    PortsExhausted,
    /// A live session has the same USERNAME.
    #[error("another session has the same ufrag pair")]
    DuplicateUfrag,
    /// The proxy is about to end.
    #[error("the proxy is stopping")]
    Stopping,
}
