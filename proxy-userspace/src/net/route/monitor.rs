//! Follows links, neighbours and routes by the kernel's notifications.
//!
//! Changes are gathered for a moment and handed over as one [`Update`], in which a later change of one thing replaces the
//! earlier: its size is bounded by what exists. When the kernel says that notifications were lost, and every 30 s in any
//! case, everything is read anew.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::Duration,
};

use bytes::BytesMut;
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkMessage,
    packet_core::NetlinkPayload,
    packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkMessage, neighbour::NeighbourMessage},
    sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use rustix::io::Errno;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, sleep_until},
};

use super::{Hop, Link, Neighbour, Routes, Table, message};

/// A link that comes up makes a dozen notifications within a millisecond.
const GATHER: Duration = Duration::from_millis(3);
/// Everything is read anew this often, should a notification be missing.
const RESYNC: Duration = Duration::from_secs(30);
/// Wait after the kernel refused something.
const RETRY: Duration = Duration::from_secs(1);
/// What the kernel may queue for us before it drops notifications.
const QUEUE_BYTES: u32 = 2 << 20;
const DATAGRAM: usize = 64 << 10;

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// What changed since the last update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Everything, if it was read anew; the changes below came later.
    pub table: Option<Table>,
    /// Devices that changed, or are gone.
    pub links: HashMap<u32, Option<Link>>,
    /// Neighbours that changed, or are gone.
    pub neighbours: HashMap<Hop, Option<Neighbour>>,
    /// Default routes that were added.
    pub defaults: HashSet<Hop>,
    /// Routes, rules or addresses changed.
    pub routes: bool,
}

/// Listens in the network namespace it was opened in.
pub struct Monitor {
    socket: TokioSocket,
    routes: Routes,
    buffer: BytesMut,
    pending: Pending,
}

#[derive(Debug, Default)]
struct Pending {
    update: Update,
    /// Notifications were lost, or may have been.
    is_incomplete: bool,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Starts to listen: what is read from now on misses nothing.
    pub fn open(routes: Routes) -> io::Result<Self> {
        Self::with_queue(routes, QUEUE_BYTES)
    }

    /// As [`Monitor::open`], with another size of the kernel's queue.
    pub fn with_queue(routes: Routes, bytes: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        inner.set_rx_buf_sz(bytes)?;
        let is_numbered = |group: &&MulticastGroup| !group.need_via_add_membership();
        let mask = GROUPS.iter().filter(is_numbered).fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
        inner.bind(&SocketAddr::new(0, mask))?;
        for group in GROUPS.iter().filter(|group| group.need_via_add_membership()) {
            // Next-hop objects came with 5.3.
            let _absent = inner.add_membership(*group as u32);
        }
        Ok(Self { socket, routes, buffer: BytesMut::new(), pending: Pending::default() })
    }

    /// Hands updates over until nobody takes them.
    pub async fn run(mut self, updates: mpsc::Sender<Update>) {
        let mut resync = tokio::time::interval_at(Instant::now() + RESYNC, RESYNC);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = None;
        loop {
            tokio::select! {
                received = receive(&self.socket, &mut self.buffer) => self.pending.note(received, &self.buffer),
                _ = resync.tick() => self.pending.is_incomplete = true,
                permit = permit_at(due, &updates), if due.is_some() => {
                    let Some(permit) = permit else { return };
                    due = None;
                    match self.pending.complete(&self.routes).await {
                        Ok(update) => permit.send(update),
                        Err(error) => {
                            tracing::warn!(%error, "failed to read links and neighbours");
                            due = Some(Instant::now() + RETRY);
                        }
                    }
                }
            }
            if due.is_none() && !self.pending.is_empty() {
                due = Some(Instant::now() + GATHER);
            }
        }
    }
}

async fn permit_at(due: Option<Instant>, updates: &mpsc::Sender<Update>) -> Option<mpsc::Permit<'_, Update>> {
    sleep_until(due?).await;
    updates.reserve().await.ok()
}

async fn receive(socket: &TokioSocket, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.clear();
    buffer.reserve(DATAGRAM);
    socket.recv_from(buffer).await.map(drop)
}

impl Pending {
    fn is_empty(&self) -> bool {
        !self.is_incomplete && self.update == Update::default()
    }

    fn note(&mut self, received: io::Result<()>, datagram: &[u8]) {
        match received {
            Ok(()) => messages(datagram).for_each(|message| self.update.note(message)),
            Err(error) => {
                let overrun = Errno::from_io_error(&error) == Some(Errno::NOBUFS);
                tracing::info!(%error, overrun, "notifications of links and neighbours were lost");
                self.is_incomplete = true;
            }
        }
    }

    /// What to hand over: what was gathered, or everything if some was lost.
    async fn complete(&mut self, routes: &Routes) -> Result<Update, rtnetlink::Error> {
        if self.is_incomplete {
            // Older than the table, and contained in it.
            self.update.links.clear();
            self.update.neighbours.clear();
            self.update.table = Some(routes.table().await?);
            self.update.defaults.extend(routes.default_hops().await?);
            self.update.routes = true;
            self.is_incomplete = false;
        }
        Ok(std::mem::take(&mut self.update))
    }
}

/// Message types whose content says no more than that they came.
const ADDRESS_AND_ROUTE_CHANGES: [u16; 8] = [20, 21, 24, 25, 32, 33, 104, 105];
const RTM_NEWROUTE: u16 = 24;
const HEADER: usize = 16;

/// The messages of a datagram; nothing after the first that is cut short.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?);
        let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
        let message = datagram.get(..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

impl Update {
    fn note(&mut self, message: &[u8]) {
        let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_ne_bytes);
        if ADDRESS_AND_ROUTE_CHANGES.contains(&kind) {
            self.routes = true;
            // A host may get a million routes in a second: only default ones are worth reading.
            let is_default = message.get(HEADER + 1) == Some(&0);
            if kind != RTM_NEWROUTE || !is_default {
                return;
            }
        }
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else { return };
        if let NetlinkPayload::InnerMessage(message) = message.payload {
            self.note_change(&message);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the groups carry no other message that we use")]
    fn note_change(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(link) if is_device(link) => {
                self.links.insert(link.header.index, Some(message::link(link)));
            }
            RouteNetlinkMessage::DelLink(link) if is_device(link) => {
                self.links.insert(link.header.index, None);
            }
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.note_neighbour(neighbour, true),
            RouteNetlinkMessage::DelNeighbour(neighbour) => self.note_neighbour(neighbour, false),
            RouteNetlinkMessage::NewRoute(route) => self.defaults.extend(message::default_hops(route)),
            _ => {}
        }
    }

    fn note_neighbour(&mut self, message: &NeighbourMessage, is_there: bool) {
        if let Some(neighbour) = message::neighbour(message) {
            self.neighbours.insert(neighbour.hop, Some(neighbour).filter(|_| is_there));
        }
    }
}

/// Bridges tell about their ports in messages of the same type.
fn is_device(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rtnetlink::packet_route::{
        link::LinkAttribute,
        neighbour::{NeighbourAttribute, NeighbourState},
        route::RouteMessage,
    };

    use super::*;

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn link(index: u32, name: &str, family: AddressFamily) -> LinkMessage {
        let mut link = LinkMessage::default();
        (link.header.index, link.header.interface_family) = (index, family);
        link.attributes.push(LinkAttribute::IfName(name.into()));
        link
    }

    fn neighbour(state: NeighbourState, mac: u8) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        (message.header.ifindex, message.header.state) = (2, state);
        message.header.family = AddressFamily::Inet;
        message.attributes = vec![
            NeighbourAttribute::Destination(Ipv4Addr::new(10, 0, 0, 1).into()),
            NeighbourAttribute::LinkLocalAddress(vec![mac; 6]),
        ];
        message
    }

    fn noted(messages: Vec<RouteNetlinkMessage>) -> Update {
        let datagram: Vec<u8> = messages.into_iter().flat_map(bytes).collect();
        let mut pending = Pending::default();
        pending.note(Ok(()), &datagram);
        assert!(!pending.is_incomplete);
        pending.update
    }

    #[test]
    fn a_later_change_of_one_thing_replaces_the_earlier() {
        let update = noted(vec![
            RouteNetlinkMessage::NewNeighbour(neighbour(NeighbourState::Reachable, 1)),
            RouteNetlinkMessage::NewNeighbour(neighbour(NeighbourState::Reachable, 2)),
            RouteNetlinkMessage::NewLink(link(2, "eth0", AddressFamily::Unspec)),
            RouteNetlinkMessage::DelLink(link(2, "eth0", AddressFamily::Unspec)),
        ]);
        let hop = Hop { ifindex: 2, neighbour: Ipv4Addr::new(10, 0, 0, 1).into() };
        assert_eq!(update.neighbours[&hop].unwrap().mac, Some([2; 6]));
        assert_eq!(update.links[&2], None);
        assert!(!update.routes);
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_no_device_that_is_gone() {
        let port = link(2, "port0", AddressFamily::Other(7));
        assert_eq!(noted(vec![RouteNetlinkMessage::DelLink(port)]), Update::default());
    }

    #[test]
    fn a_route_is_noted_without_its_content_unless_it_is_a_default_route() {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.destination_prefix_length = 8;
        let update = noted(vec![RouteNetlinkMessage::NewRoute(route)]);
        assert_eq!(update, Update { routes: true, ..Update::default() });
    }

    #[tokio::test]
    async fn an_overrun_of_netlink_leads_to_a_full_dump() {
        let mut pending = Pending::default();
        pending.update.links.insert(9999, None);
        pending.note(Err(Errno::NOBUFS.into()), &[]);
        assert!(!pending.is_empty());
        let update = pending.complete(&Routes::connect().unwrap()).await.unwrap();
        let table = update.table.unwrap();
        assert!(table.links.iter().any(|link| link.is_loopback));
        assert!(update.links.is_empty() && update.routes);
        assert!(pending.is_empty());
    }

    #[test]
    fn every_truncation_of_a_datagram_is_read_or_refused() {
        let datagram = bytes(RouteNetlinkMessage::NewNeighbour(neighbour(NeighbourState::Stale, 3)));
        for length in 0..datagram.len() {
            let mut pending = Pending::default();
            pending.note(Ok(()), &datagram[..length]);
            assert!(pending.is_empty(), "{length} bytes");
        }
    }
}
