//! What becomes of one frame. [`decide`] looks and says; [`crate::rewrite`] acts.

use zerocopy::network_endian::U16;

use crate::{
    demux::{Class, classify, srt_class},
    family::{Address as _, Family, IpHeader as _, prefix_hash},
    flow::{
        Direction, EgressKind, Endpoints, FlowFlags, FlowState, Hashing, Head, Idle, MissCount, NextHop,
        NextHopFlags, Ownership, Policing, RouteRecord as _, ServiceFlags, ServiceKey, Stamp,
    },
    maps::{MISS_ROWS, PROBES},
    packet::Packet,
    verdict::{Engine, Reason, Verdict},
    wire::{Eth, Headers, Link, Udp},
};

/// What an engine knows of a frame beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Who asks.
    pub engine: Engine,
    /// When.
    pub now: Stamp,
    /// Length from the Ethernet header on.
    pub length: u32,
    /// Payload length of each datagram in a segmentation-offload frame; 0 if the frame is one datagram.
    pub segment: u32,
    /// Datagrams in the frame.
    pub datagrams: u32,
    /// A VLAN tag was taken out of the bytes.
    pub vlan: bool,
    /// All bytes are in one buffer.
    pub linear: bool,
}

/// The tables that both families share.
pub trait Tables {
    /// How records towards the origin are found.
    fn hashing(&self) -> Option<Hashing>;
    /// Whose the tables are, and which ports are ours.
    fn ownership(&self) -> Option<Ownership>;
    /// How many packets without a flow may come up.
    fn policing(&self) -> Option<Policing>;
    /// A row of the next-hop table.
    fn next_hop(&self, index: u16) -> Option<NextHop>;
    /// The flags of a service.
    fn service(&self, key: &ServiceKey) -> Option<u32>;
    /// Takes a packet from a budget; `None` if nobody has such a budget.
    fn spend(&self, budget: Budget, window: u32, limit: u32) -> Option<bool>;
}

/// Who pays for a packet without a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// A source prefix that a session is awaited from.
    Expected(u64),
    /// A row that source prefixes share by hash.
    Source(u32),
    /// Everyone, on this CPU, for this engine.
    All(Engine),
}

/// The tables of one family.
pub trait Records<F: Family>: Tables {
    /// The record for datagrams with this key, or one that was for them until it was given up.
    fn find(&self, direction: Direction, key: &Endpoints<F::Addr>) -> Option<Place>;
    /// What it says.
    fn route(&self, record: Record) -> F::Route;
    /// How long it has been idle, and may be.
    fn idle(&self, record: Record) -> Idle;
}

/// Where a record is, in the terms of its tables: a row, or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u64);

/// A record of a direction.
pub type Record = (Direction, Place);

/// How to forward a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward<F: Family> {
    /// New endpoints.
    pub rewrite: Endpoints<F::Addr>,
    /// How the frame leaves.
    pub egress: Egress,
    /// Which record counts it.
    pub record: Record,
    /// What it adds to that record.
    pub count: Count,
}

/// How a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// By a device, with these addresses.
    Redirect {
        /// The device.
        ifindex: u32,
        /// The neighbour's and ours.
        link: Link,
    },
    /// By a device, to a neighbour that the kernel resolves.
    Neighbour {
        /// The device.
        ifindex: u32,
    },
    /// Up the stack of this host.
    Stack,
}

impl Egress {
    /// Whether the frame leaves this host, which costs it a hop.
    #[inline(always)]
    pub fn is_hop(&self) -> bool {
        !matches!(self, Self::Stack)
    }
}

/// What a frame adds to the counters of its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Datagrams.
    pub packets: u32,
    /// Their length from the IP header on.
    pub bytes: u32,
    /// A STUN request to the origin or response to the client.
    pub check: bool,
    /// A DTLS alert, or an SRT shutdown.
    pub alert: bool,
}

/// The families of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`crate::family::V4`].
    V4,
    /// [`crate::family::V6`].
    V6,
}

/// The family of a frame.
#[inline(always)]
pub fn kind<P: Packet + ?Sized>(frame: &mut P, facts: &Facts) -> Result<Kind, Reason> {
    let eth = *frame.get_mut::<Eth>(0).ok_or(Reason::Truncated)?;
    if facts.vlan || eth.is_vlan() {
        return Err(Reason::Vlan);
    }
    match (eth.is_ipv4(), eth.is_ipv6()) {
        (true, _) => Ok(Kind::V4),
        (_, true) => Ok(Kind::V6),
        (false, false) => Err(Reason::NotIp),
    }
}

/// Decides one frame of a family without touching it. Whatever it is not sure about goes up.
#[inline(always)]
pub fn decide<F: Family, P: Packet + ?Sized>(
    frame: &mut P,
    facts: &Facts,
    tables: &impl Records<F>,
) -> Verdict<F> {
    match examine(frame, facts, tables) {
        Ok(forward) => Verdict::Forward(forward),
        Err(reason @ (Reason::Quarantined | Reason::Unsolicited | Reason::Policed)) => Verdict::Drop(reason),
        Err(reason) => Verdict::Pass(reason),
    }
}

#[inline(always)]
fn examine<F: Family, P: Packet + ?Sized>(
    frame: &mut P,
    facts: &Facts,
    tables: &impl Records<F>,
) -> Result<Forward<F>, Reason> {
    let headers = *frame.get_mut::<Headers<F::Ip>>(0).ok_or(Reason::Truncated)?;
    headers.ip.check()?;
    check_udp::<F>(&headers, facts)?;
    let start = payload_start::<F, P>(frame, &headers.udp);
    let key = key::<F>(&headers);
    let ownership =
        tables.ownership().filter(|owner| !owner.is_orphaned(facts.now)).ok_or(Reason::Orphaned)?;
    let is_from_origin = ownership.is_source_port(key.dst_port);
    let found = find(&key, is_from_origin, facts, tables)?;
    let Some((record, route)) = found else { return Err(miss(&key, is_from_origin, start, facts, tables)) };
    let head = route.head();
    check_state(&head, start)?;
    let hop = tables.next_hop(head.next_hop).ok_or(Reason::NextHopUnusable)?;
    let egress = choose_egress(&hop, facts)?;
    check_mtu::<F>(&hop, &headers.ip, facts)?;
    let count = count::<F>(&headers.udp, &head, start, facts);
    Ok(Forward { rewrite: *route.rewrite(), egress, record, count })
}

/// The key of the flow that a datagram belongs to.
#[inline(always)]
pub fn key<F: Family>(headers: &Headers<F::Ip>) -> Endpoints<F::Addr> {
    let (src, dst) = headers.ip.addresses();
    Endpoints { src, dst, src_port: headers.udp.src, dst_port: headers.udp.dst }
}

#[inline(always)]
fn check_udp<F: Family>(headers: &Headers<F::Ip>, facts: &Facts) -> Result<(), Reason> {
    let (ip_len, udp_len) = (headers.ip.datagram_len(), usize::from(headers.udp.len.get()));
    let fits = udp_len >= Udp::LEN
        && ip_len == size_of::<F::Ip>() + udp_len
        && Eth::LEN + ip_len <= facts.length as usize;
    if !fits {
        return Err(Reason::LengthMismatch);
    }
    if !F::CHECKSUM_MAY_BE_MISSING && headers.udp.checksum == U16::ZERO {
        return Err(Reason::ChecksumMissing);
    }
    Ok(())
}

/// The bytes that tell the payload's class. They are classified where the answer is needed: a class computed up front
/// makes the verifier walk everything behind it once per class.
#[inline(always)]
fn payload_start<F: Family, P: Packet + ?Sized>(frame: &mut P, udp: &Udp) -> [u8; 2] {
    // A short frame is padded to 60 bytes: what follows its payload is not part of it.
    if usize::from(udp.len.get()) < Udp::LEN + 2 {
        return UNCLASSED;
    }
    frame.get_mut(Headers::<F::Ip>::LEN).copied().unwrap_or(UNCLASSED)
}

/// Bytes of no class.
const UNCLASSED: [u8; 2] = [0xff; 2];

type Found<F> = Option<(Record, <F as Family>::Route)>;

/// The record of a datagram. Our source ports and the ports of services never meet, so the port tells the direction.
#[inline(always)]
fn find<F: Family>(
    key: &Endpoints<F::Addr>,
    is_from_origin: bool,
    facts: &Facts,
    tables: &impl Records<F>,
) -> Result<Found<F>, Reason> {
    let direction = if is_from_origin { Direction::ToClient } else { Direction::ToOrigin };
    let Some(place) = tables.find(direction, key) else { return Ok(None) };
    let record = (direction, place);
    let route = tables.route(record);
    // A row may have changed hands since it was found.
    if *route.key() != *key {
        return Ok(None);
    }
    let head = route.head();
    if head.state() == FlowState::Forward && tables.idle(record).is_expired(facts.now) {
        return Err(Reason::Expired);
    }
    Ok((head.state() != FlowState::Free).then_some((record, route)))
}

/// The row that `is_wanted` among those that the map of `home` names.
///
/// The map is taken once. A row that it names may be withdrawn meanwhile, but is not written for another key before a grace
/// period is over, so what is found is the record or what is left of it, which its state tells.
#[inline(always)]
pub fn probe(home: u32, mask: u32, mut homed: u32, is_wanted: impl Fn(u32) -> bool) -> Option<u32> {
    for step in 0..PROBES {
        if homed == 0 {
            return None;
        }
        let row = home.wrapping_add(step) & mask;
        if homed & 1 != 0 && is_wanted(row) {
            return Some(row);
        }
        homed >>= 1;
    }
    None
}

/// What becomes of a packet without a flow.
#[inline(always)]
fn miss<F: Family>(
    key: &Endpoints<F::Addr>,
    is_from_origin: bool,
    start: [u8; 2],
    facts: &Facts,
    tables: &impl Records<F>,
) -> Reason {
    let port = if is_from_origin { U16::ZERO } else { key.dst_port };
    // Packets to other services of this host are not ours to police.
    let Some(flags) = tables.service(&ServiceKey::of(key.dst, port)) else { return beginning(start, None) };
    let reason = beginning(start, Some(flags));
    if reason == Reason::NoFlow && flags & ServiceFlags::STRICT != 0 {
        return Reason::Unsolicited;
    }
    if may_come_up::<F>(key, facts, tables) { reason } else { Reason::Policed }
}

/// What a packet without a flow begins at a service, or at one that is not known to be ours yet.
#[inline(always)]
fn beginning(start: [u8; 2], service: Option<u32>) -> Reason {
    let (webrtc, srt) = match service {
        None => (true, true),
        Some(flags) => (flags & ServiceFlags::SRT == 0, flags & ServiceFlags::SRT != 0),
    };
    if webrtc && classify(start) == Class::StunRequest {
        Reason::StunWithoutFlow
    } else if srt && srt_class(start).may_begin() {
        Reason::CallWithoutFlow
    } else {
        Reason::NoFlow
    }
}

#[inline(always)]
fn may_come_up<F: Family>(key: &Endpoints<F::Addr>, facts: &Facts, tables: &impl Records<F>) -> bool {
    let (Some(limits), Some(hashing)) = (tables.policing(), tables.hashing()) else { return true };
    let (window, prefix) = (MissCount::window(facts.now), key.src.prefix());
    let Policing { per_source, per_expected, in_all, .. } = limits;
    if let Some(may) = tables.spend(Budget::Expected(prefix), window, per_expected) {
        return may;
    }
    let row = facts.engine as u32 * MISS_ROWS + (prefix_hash(prefix, hashing.seed) as u32) % MISS_ROWS;
    tables.spend(Budget::Source(row), window, per_source).unwrap_or(true)
        && tables.spend(Budget::All(facts.engine), window, in_all).unwrap_or(true)
}

#[inline(always)]
fn check_state(head: &Head, start: [u8; 2]) -> Result<(), Reason> {
    match head.state() {
        FlowState::Free => Err(Reason::NoFlow),
        FlowState::User => Err(Reason::UserState),
        FlowState::Drop => Err(Reason::Quarantined),
        FlowState::Forward if head.has(FlowFlags::ESCALATE_CHECK) && head.is_check(start) => {
            Err(Reason::EscalatedCheck)
        }
        FlowState::Forward if head.has(FlowFlags::SRT) && srt_class(start).is_for_userspace() => {
            Err(Reason::SrtHandshake)
        }
        FlowState::Forward => Ok(()),
    }
}

#[inline(always)]
fn choose_egress(hop: &NextHop, facts: &Facts) -> Result<Egress, Reason> {
    let (ifindex, link) = (hop.ifindex, Link { dst: hop.dst_mac, src: hop.src_mac });
    let egress = match hop.egress() {
        EgressKind::Unusable => return Err(Reason::NextHopUnusable),
        EgressKind::Redirect => Egress::Redirect { ifindex, link },
        EgressKind::Neighbour => Egress::Neighbour { ifindex },
        EgressKind::Stack => Egress::Stack,
    };
    let can = match facts.engine {
        Engine::Tc => true,
        // Not every device that transmits XDP frames takes them in several buffers.
        Engine::Xdp => {
            facts.linear && hop.flags & NextHopFlags::XDP != 0 && matches!(egress, Egress::Redirect { .. })
        }
    };
    if can { Ok(egress) } else { Err(Reason::EngineCannot) }
}

#[inline(always)]
fn check_mtu<F: Family>(hop: &NextHop, ip: &F::Ip, facts: &Facts) -> Result<(), Reason> {
    let longest = match facts.segment {
        0 => ip.datagram_len() as u32,
        payload => Headers::<F::Ip>::L3_LEN as u32 + payload,
    };
    if longest <= u32::from(hop.mtu) { Ok(()) } else { Err(Reason::Oversize) }
}

#[inline(always)]
fn count<F: Family>(udp: &Udp, head: &Head, start: [u8; 2], facts: &Facts) -> Count {
    let payload = u32::from(udp.len.get()) - Udp::LEN as u32;
    Count {
        packets: facts.datagrams,
        bytes: payload.wrapping_add(facts.datagrams.wrapping_mul(Headers::<F::Ip>::L3_LEN as u32)),
        check: head.is_check(start),
        alert: head.is_closing(start),
    }
}
