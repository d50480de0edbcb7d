//! What the control plane needs of a packet engine.
//!
//! The kernel engine ([`kernel`]) is an accelerator: removing every flow at any moment changes speed, not behaviour.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

pub use proxy_common::{flow::Direction, verdict::Engine};

pub mod installer;
pub mod kernel;
pub mod next_hops;
pub mod userspace;

/// One UDP flow to forward in the kernel: both directions are one object, and of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// What it carries.
    pub protocol: Protocol,
    /// The client, as on the wire.
    pub client: SocketAddr,
    /// What the client sends to, as on the wire at the hook: before any DNAT of this host.
    pub service: SocketAddr,
    /// Our address and leased port towards the origin.
    pub source: SocketAddr,
    /// The origin's media endpoint.
    pub origin: SocketAddr,
    /// How frames leave towards the origin.
    pub to_origin: NextHopId,
    /// How frames leave towards the client.
    pub to_client: NextHopId,
}

/// What a conversation speaks: the same first bytes of a datagram mean other things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// STUN, DTLS, RTP and RTCP.
    WebRtc,
    /// SRT.
    Srt,
}

impl Protocol {
    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebRtc => "webrtc",
            Self::Srt => "srt",
        }
    }
}

/// A row of the next-hop table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHopId(pub u16);

/// How frames reach one neighbour; one store re-points every flow that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHopSpec {
    /// The device frames leave by.
    pub ifindex: u32,
    /// Its MTU: larger datagrams go up.
    pub mtu: u16,
    /// How the frame is sent.
    pub egress: Egress,
}

/// How a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// Nothing usable is known: frames go up.
    Unusable,
    /// Redirected with these addresses.
    Redirect {
        /// The neighbour's link-layer address.
        dst_mac: [u8; 6],
        /// Ours.
        src_mac: [u8; 6],
        /// Whether the device transmits XDP frames (netdev feature NDO_XMIT); if not only TC redirects.
        xdp: bool,
    },
    /// TC resolves the neighbour itself (`bpf_redirect_neigh`); XDP passes to it.
    Neighbour,
    /// Rewritten in place and handed to the stack (`lo`); TC only.
    Stack,
}

/// An installed flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId(pub u32);

/// Which STUN packets of an installed flow userspace wants to see instead of the kernel forwarding them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Escalation {
    /// Requests from the client: another session may be about to use this client address.
    pub requests: bool,
    /// Responses from the origin: another tuple of this session may have asked.
    pub responses: bool,
}

/// Counters of one direction of an installed flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    /// Datagrams forwarded.
    pub packets: u64,
    /// Their length from the IP header on.
    pub bytes: u64,
    /// STUN requests (to the origin) or responses (to the client) among them.
    pub checks: u32,
    /// Time since the last one, or since the installation.
    pub idle: std::time::Duration,
}

/// Counters of an installed flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Client to origin.
    pub to_origin: DirectionCounters,
    /// Origin to client.
    pub to_client: DirectionCounters,
    /// A DTLS alert or an SRT shutdown went by: the session is probably ending.
    pub closing: bool,
}

/// Where a STUN request or SRT handshake without a flow entered this host, as seen by the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its destination on the wire, before any DNAT.
    pub service: SocketAddr,
    /// The device.
    pub ifindex: u32,
}

/// An interface with programs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The device.
    pub ifindex: u32,
    /// Its name when we attached.
    pub name: String,
    /// What forwards there.
    pub engine: Engine,
    /// How it is attached: `native`, `tcx`, `clsact`.
    pub mode: &'static str,
    /// Why not the faster engine, if there is one.
    pub note: Option<String>,
}

/// Why a flow could not be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// The tables are full.
    #[error("flow table is full")]
    Full,
    /// Another flow has one of the two keys.
    #[error("another flow has the same key")]
    Taken,
    /// A program may still be using the records of the flow before; a moment later it cannot.
    #[error("the records rest")]
    Resting,
    /// One side speaks IPv4 and the other IPv6.
    #[error("the two sides are of different address families")]
    MixedFamilies,
}

/// Why an engine could not be attached.
#[derive(Debug, thiserror::Error)]
#[error("failed to attach to {interface}: {reason}")]
pub struct AttachError {
    /// The device.
    pub interface: String,
    /// What the kernel said and what may help.
    pub reason: String,
}

/// A packet engine with flow tables. Calls are quick (a few syscalls) and made by one writer.
pub trait Datapath: Send + Sync {
    /// Attaches to an interface, or returns the attachment that is there and whole.
    fn attach(&mut self, ifindex: u32) -> Result<Attachment, AttachError>;
    /// Detaches from an interface; a no-op if it is gone.
    fn detach(&mut self, ifindex: u32);
    /// Notices programs that somebody else detached: each interface that lost one, and what still forwards there, if
    /// anything does. [`Datapath::attach`] completes it again.
    fn lost(&mut self) -> Vec<(u32, Option<Engine>)>;
    /// What is attached.
    fn attachments(&self) -> Vec<Attachment>;
    /// Adds a next hop.
    fn add_next_hop(&mut self, hop: &NextHopSpec) -> Result<NextHopId, InstallError>;
    /// Re-points every flow that uses `id`.
    fn update_next_hop(&mut self, id: NextHopId, hop: &NextHopSpec);
    /// Frees a next hop that no flow uses any more.
    fn remove_next_hop(&mut self, id: NextHopId);
    /// Sends a frame by a device as XDP redirects forwarded ones; kernels before 5.18 cannot.
    fn send_by_xdp(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()>;
    /// Re-points one direction of a flow.
    fn set_flow_hop(&mut self, id: FlowId, direction: Direction, hop: NextHopId);
    /// Writes both directions, or neither; they are seen after the next grace period.
    fn install(&mut self, flow: &FlowSpec) -> Result<FlowId, InstallError>;
    /// Whether a flow is seen yet.
    fn is_published(&self, id: FlowId) -> bool;
    /// A grace period begins: its end publishes what was installed before, and lets records that were withdrawn before be
    /// used again. False if there are neither.
    fn begin_grace(&mut self) -> bool;
    /// The grace period is over.
    fn end_grace(&mut self);
    /// A source port was leased: what comes to it from the origin is relayed, and no stranger's.
    fn lease(&mut self, source: SocketAddr, origin: SocketAddr) -> Result<(), InstallError>;
    /// The session of a source port is gone: what still comes is dropped.
    fn retire(&mut self, source: SocketAddr, origin: SocketAddr);
    /// A source port has rested.
    fn release(&mut self, source: SocketAddr, origin: SocketAddr);
    /// A tuple is relayed: its packets are no stranger's.
    fn bind(&mut self, client: SocketAddr, service: SocketAddr, protocol: Protocol);
    /// A tuple is relayed no more.
    fn unbind(&mut self, client: SocketAddr, service: SocketAddr);
    /// A session is awaited from this address, or has it: its network has a budget of its own for packets without a flow.
    fn expect(&mut self, client: IpAddr);
    /// Takes one [`Datapath::expect`] back.
    fn unexpect(&mut self, client: IpAddr);
    /// Tells the programs that their owner is alive.
    fn keep_alive(&mut self);
    /// Removes both directions and returns the last counters.
    fn remove(&mut self, id: FlowId) -> FlowCounters;
    /// Chooses which STUN packets of a flow come up.
    fn escalate(&mut self, id: FlowId, what: Escalation);
    /// Counters of a flow.
    fn counters(&self, id: FlowId) -> FlowCounters;
    /// Frames by engine and reason: `(engine, reason, frames)`, since the tables were made, which an earlier process may
    /// have done.
    fn reasons(&self) -> Vec<(Engine, proxy_common::verdict::Reason, u64)>;
    /// Where a client's last STUN request or SRT handshake without a flow entered.
    fn arrival(&self, client: SocketAddr) -> Option<Arrival>;
    /// Kernel memory of the tables in bytes.
    fn table_bytes(&self) -> u64;
    /// What a flow is.
    fn spec(&self, id: FlowId) -> Option<FlowSpec>;
    /// What the client of a flow that an earlier process installed sends to.
    fn inherited_service(&self, client: SocketAddr) -> Option<SocketAddr>;
    /// Every session has taken up what an earlier process left of it: takes away what is nobody's.
    fn forget_unclaimed(&mut self);
    /// Whether flows are forwarded when this process is gone.
    fn outlives(&self) -> bool;
    /// Has everything go with this process.
    fn unpin(&mut self);
}
