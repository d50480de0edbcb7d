//! The control plane as people and metrics see it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    datapath::{Attachment, FlowCounters, installer::Installer, userspace::RelayTotals},
    executor::{Executor, KernelTotals},
    proxy::{Activity, Proxy},
    session::{Role, Session, SessionId, State, source_port::Usage},
};

/// How often something was, by its word.
pub type Words = BTreeMap<&'static str, u64>;

/// What is counted outside of the loop.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    /// Sessions that were refused, by reason.
    pub refused: Arc<Mutex<Words>>,
    /// Sessions taken over from another proxy, by how they were found.
    pub resumed: Arc<Mutex<Words>>,
    /// SRT calls, by what became of them.
    pub calls: Arc<Mutex<Words>>,
}

/// Counts one more of `word`.
pub fn count(words: &Mutex<Words>, word: &'static str) {
    *words.lock().entry(word).or_default() += 1;
}

/// Everything at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Totals.
    pub totals: Totals,
    /// What forwards where.
    pub interfaces: Vec<InterfaceView>,
    /// Every session.
    pub sessions: Vec<SessionView>,
}

/// Totals since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Sessions now.
    pub sessions: usize,
    /// Of these, SRT.
    pub srt_sessions: usize,
    /// Of all, forwarded in the kernel.
    pub offloaded: usize,
    /// Sessions whose client got an answer.
    pub admitted: u64,
    /// Sessions taken over from an earlier process.
    pub adopted: u64,
    /// Sessions taken over from another proxy, by how they were found.
    pub resumed: Words,
    /// Flows in the kernel whose session is not known.
    pub orphans: usize,
    /// Records of sessions that could not be written.
    pub records_refused: u64,
    /// Sessions that were refused, by reason.
    pub refused: Words,
    /// SRT calls, by what became of them.
    pub srt_calls: Words,
    /// Flows installed.
    pub offloads: u64,
    /// Return paths moved.
    pub migrations: u64,
    /// Ends by reason.
    pub ended: Words,
    /// Flows not installed or removed, by reason.
    pub relayed: Words,
    /// Packets by datapath and direction.
    pub packets: Vec<PathTotals>,
    /// Datagrams and frames by datapath and what became of them.
    pub reasons: Vec<ReasonTotals>,
    /// Source ports leased.
    pub ports_leased: usize,
    /// Source ports resting.
    pub ports_resting: usize,
    /// Leased and resting ports of the fullest origin and source address.
    pub ports_fullest: usize,
    /// Ports of each origin and source address.
    pub ports_capacity: usize,
    /// Source sockets open.
    pub source_sockets: usize,
    /// Next hops that TC sends to because what XDP redirects does not arrive there.
    pub undelivered_next_hops: usize,
    /// Kernel memory of the tables in bytes.
    pub table_bytes: u64,
    /// Programs that somebody else detached.
    pub detachments: u64,
}

/// What one datapath did in one direction.
#[derive(Clone, Debug, Serialize)]
pub struct PathTotals {
    /// `kernel` or `userspace`.
    pub datapath: &'static str,
    /// `to_origin` or `to_client`.
    pub direction: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes: from the IP header on in the kernel, payload in userspace.
    pub bytes: u64,
}

/// What became of packets in one datapath.
#[derive(Clone, Debug, Serialize)]
pub struct ReasonTotals {
    /// `xdp`, `tc` or `userspace`; `icmp` for errors that came back.
    pub datapath: &'static str,
    /// The word of the reason.
    pub reason: &'static str,
    /// How many.
    pub packets: u64,
}

/// An interface with programs on it.
#[derive(Clone, Debug, Serialize)]
pub struct InterfaceView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// `xdp` or `tc`.
    pub engine: &'static str,
    /// `native`, `tcx` or `clsact`.
    pub mode: &'static str,
    /// Why not the faster engine.
    pub note: Option<String>,
}

/// A session.
#[derive(Clone, Debug, Serialize)]
pub struct SessionView {
    /// Its number, which it keeps when another process takes it over.
    pub id: u64,
    /// Its stream, if it is known.
    pub stream: Option<String>,
    /// `webrtc` or `srt`.
    pub protocol: &'static str,
    /// `publisher` or `player`, if it is known.
    pub role: Option<&'static str>,
    /// Its origin.
    pub origin: String,
    /// The origin's media endpoint.
    pub media: String,
    /// Our address towards the origin.
    pub source: String,
    /// `waiting`, `tcp`, `userspace` or `kernel`.
    pub state: &'static str,
    /// Why it is not forwarded in the kernel.
    pub reason: Option<&'static str>,
    /// Where the client is.
    pub client: Option<String>,
    /// Where its TCP connections come from.
    pub tcp: Vec<String>,
    /// Seconds since it was offered.
    pub age: f64,
    /// Seconds since the client's last packet.
    pub idle: f64,
    /// Packets relayed by userspace.
    pub userspace: Directions,
    /// Packets forwarded by the kernel since the last installation.
    pub kernel: Option<Directions>,
}

/// Packets by direction.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Directions {
    /// Client to origin.
    pub to_origin: u64,
    /// Origin to client.
    pub to_client: u64,
}

impl Snapshot {
    /// Takes one.
    pub fn take(proxy: &Proxy, executor: &Executor, tallies: &Tallies) -> Self {
        let now = Instant::now();
        let looks: std::collections::HashMap<_, _> =
            (0..executor.relay().parts()).flat_map(|part| executor.look(part, proxy)).collect();
        let nothing = Activity::default();
        let view = |(id, session)| {
            let activity = looks.get(&id).unwrap_or(&nothing);
            SessionView::new(id, session, activity, is_forwarded(session, executor), now)
        };
        let mut sessions: Vec<_> = proxy.sessions().map(view).collect();
        sessions.sort_by_key(|session| session.id);
        let attachments = executor.kernel().map(|kernel| kernel.attachments()).unwrap_or_default();
        Self {
            totals: Totals::take(proxy, executor, tallies),
            interfaces: attachments.into_iter().map(InterfaceView::from).collect(),
            sessions,
        }
    }
}

impl Totals {
    /// Takes them.
    pub fn take(proxy: &Proxy, executor: &Executor, tallies: &Tallies) -> Self {
        let stats = proxy.stats();
        let Usage { leased, resting, fullest, capacity } = proxy.port_usage();
        let relay = executor.relay().totals();
        Self {
            sessions: proxy.sessions().count(),
            srt_sessions: proxy.sessions().filter(|(_, session)| session.offer.srt().is_some()).count(),
            srt_calls: tallies.calls.lock().clone(),
            offloaded: proxy.sessions().filter(|(_, session)| is_forwarded(session, executor)).count(),
            admitted: stats.admitted,
            refused: tallies.refused.lock().clone(),
            adopted: stats.adopted,
            resumed: tallies.resumed.lock().clone(),
            orphans: proxy.orphans().count(),
            records_refused: executor.records_refused(),
            offloads: stats.offloads,
            migrations: stats.migrations,
            ended: stats.ends().map(|(reason, count)| (reason.as_str(), count)).collect(),
            relayed: stats.relayed().map(|(reason, count)| (reason.as_str(), count)).collect(),
            packets: path_totals(&relay, executor.kernel_totals(proxy)),
            reasons: reason_totals(relay, executor),
            ports_leased: leased,
            ports_resting: resting,
            ports_fullest: fullest,
            ports_capacity: capacity,
            source_sockets: executor.relay().source_sockets(),
            undelivered_next_hops: executor.kernel().map_or(0, |kernel| kernel.undelivered_next_hops()),
            table_bytes: executor.kernel().map_or(0, |kernel| kernel.datapath().table_bytes()),
            detachments: executor.kernel().map_or(0, Installer::detachments),
        }
    }
}

/// Whether the kernel forwards a session by now.
fn is_forwarded(session: &Session, executor: &Executor) -> bool {
    let published = |flow| executor.kernel().is_some_and(|kernel| kernel.datapath().is_published(flow));
    session.flow().is_some_and(published)
}

fn path_totals(relay: &RelayTotals, kernel: KernelTotals) -> Vec<PathTotals> {
    let KernelTotals { to_origin, to_client } = kernel;
    [
        ("kernel", "to_origin", to_origin),
        ("kernel", "to_client", to_client),
        ("userspace", "to_origin", relay.to_origin),
        ("userspace", "to_client", relay.to_client),
    ]
    .map(|(datapath, direction, (packets, bytes))| PathTotals { datapath, direction, packets, bytes })
    .into()
}

fn reason_totals(relay: RelayTotals, executor: &Executor) -> Vec<ReasonTotals> {
    let kernel = executor.kernel().map(|kernel| kernel.datapath().reasons()).unwrap_or_default();
    let kernel =
        kernel.into_iter().map(|(engine, reason, packets)| (engine.as_str(), reason.as_str(), packets));
    let errors = relay.errors.into_iter().map(|(word, packets)| ("icmp", word, packets));
    let relay = relay.reasons.into_iter().map(|(reason, packets)| ("userspace", reason.as_str(), packets));
    let rows = kernel.chain(relay).chain(errors).filter(|(_, _, packets)| *packets > 0);
    rows.map(|(datapath, reason, packets)| ReasonTotals { datapath, reason, packets }).collect()
}

impl From<Attachment> for InterfaceView {
    fn from(attachment: Attachment) -> Self {
        Self {
            name: attachment.name,
            ifindex: attachment.ifindex,
            engine: attachment.engine.as_str(),
            mode: attachment.mode,
            note: attachment.note,
        }
    }
}

impl SessionView {
    fn new(id: SessionId, session: &Session, activity: &Activity, is_forwarded: bool, now: Instant) -> Self {
        let live = session.live();
        let relay = activity.relay;
        let tcp = session.tcp.open();
        Self {
            id: id.0,
            stream: session.offer.stream.as_ref().map(ToString::to_string),
            protocol: session.offer.protocol().as_str(),
            role: session.offer.role.map(Role::as_str),
            origin: session.offer.origin.id.0.to_string(),
            media: session.media.to_string(),
            source: session.source.to_string(),
            state: match &session.state {
                State::Admitting(_) | State::Waiting if tcp.is_empty() => "waiting",
                State::Admitting(_) | State::Waiting => "tcp",
                State::Live(_) if is_forwarded => "kernel",
                State::Live(_) => "userspace",
            },
            reason: live.and_then(|live| live.offload.reason()).map(|reason| reason.as_str()),
            client: live
                .map(|live| live.active.client)
                .or(tcp.first().map(|path| path.client))
                .map(|client| client.to_string()),
            tcp: tcp.iter().map(|path| path.client.to_string()).collect(),
            age: now.saturating_duration_since(session.born).as_secs_f64(),
            idle: session.idle(activity.client_idle, now).as_secs_f64(),
            userspace: Directions { to_origin: relay.to_origin, to_client: relay.to_client },
            kernel: activity.kernel.map(Directions::from),
        }
    }
}

impl From<FlowCounters> for Directions {
    fn from(counters: FlowCounters) -> Self {
        Self { to_origin: counters.to_origin.packets, to_client: counters.to_client.packets }
    }
}
