//! What becomes of one frame. [`decide`] looks and says; [`crate::rewrite`] acts.

use crate::{
    demux::{Class, classify},
    flow::{EgressKind, FlowFlags, FlowKey, FlowState, NextHop, NextHopFlags, Rewrite, Route},
    packet::Packet,
    verdict::{Engine, Reason, Verdict},
    wire::{Eth, Headers, Ipv4, Link, Udp},
};

/// What an engine knows of a frame beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Who asks.
    pub engine: Engine,
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

/// The tables a decision reads.
pub trait Tables {
    /// The record index and route of a flow direction.
    fn route(&self, key: &FlowKey) -> Option<(u32, Route)>;
    /// A row of the next-hop table.
    fn next_hop(&self, index: u16) -> Option<NextHop>;
}

/// How to forward a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// New addresses.
    pub rewrite: Rewrite,
    /// How the frame leaves.
    pub egress: Egress,
    /// Which record counts it.
    pub record: u32,
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
    /// A DTLS alert.
    pub alert: bool,
}

/// Decides one frame without touching it. Whatever it is not sure about goes up.
#[inline(always)]
pub fn decide<P: Packet + ?Sized>(frame: &mut P, facts: &Facts, tables: &impl Tables) -> Verdict {
    match examine(frame, facts, tables) {
        Ok(forward) => Verdict::Forward(forward),
        Err(reason @ Reason::Quarantined) => Verdict::Drop(reason),
        Err(reason) => Verdict::Pass(reason),
    }
}

#[inline(always)]
fn examine<P: Packet + ?Sized>(
    frame: &mut P,
    facts: &Facts,
    tables: &impl Tables,
) -> Result<Forward, Reason> {
    let headers = *frame.get_mut::<Headers>(0).ok_or(Reason::Truncated)?;
    check_link(&headers.eth, facts)?;
    check_network(&headers.ip)?;
    check_lengths(&headers, facts)?;
    let start = payload_start(frame, &headers.udp);
    let (record, route) = tables.route(&FlowKey::of(&headers)).ok_or_else(|| miss(start))?;
    check_route(&route, start)?;
    let hop = tables.next_hop(route.next_hop).ok_or(Reason::NextHopUnusable)?;
    let egress = choose_egress(&hop, facts)?;
    check_mtu(&hop, &headers.ip, facts)?;
    Ok(Forward { rewrite: route.rewrite, egress, record, count: count(&headers.udp, &route, start, facts) })
}

#[inline(always)]
fn check_link(eth: &Eth, facts: &Facts) -> Result<(), Reason> {
    if facts.vlan || eth.is_vlan() {
        return Err(Reason::Vlan);
    }
    if eth.is_ipv4() { Ok(()) } else { Err(Reason::NotIpv4) }
}

#[inline(always)]
fn check_network(ip: &Ipv4) -> Result<(), Reason> {
    if !ip.has_plain_header() {
        return Err(Reason::IpOptions);
    }
    if !ip.is_udp() {
        return Err(Reason::NotUdp);
    }
    if ip.is_fragment() {
        return Err(Reason::Fragment);
    }
    if ip.ttl <= 1 { Err(Reason::TtlExpired) } else { Ok(()) }
}

#[inline(always)]
fn check_lengths(headers: &Headers, facts: &Facts) -> Result<(), Reason> {
    let ip_len = usize::from(headers.ip.total_len.get());
    let udp_len = usize::from(headers.udp.len.get());
    let fits =
        udp_len >= Udp::LEN && ip_len == Ipv4::LEN + udp_len && Eth::LEN + ip_len <= facts.length as usize;
    if fits { Ok(()) } else { Err(Reason::LengthMismatch) }
}

/// The bytes that tell the payload's class. They are classified where the answer is needed: a class computed up front
/// makes the verifier walk everything behind it once per class.
#[inline(always)]
fn payload_start<P: Packet + ?Sized>(frame: &mut P, udp: &Udp) -> [u8; 2] {
    // A short frame is padded to 60 bytes: what follows its payload is not part of it.
    if usize::from(udp.len.get()) < Udp::LEN + 2 {
        return UNCLASSED;
    }
    frame.get_mut(Headers::LEN).copied().unwrap_or(UNCLASSED)
}

/// Bytes of no class.
const UNCLASSED: [u8; 2] = [0xff; 2];

#[inline(always)]
fn miss(start: [u8; 2]) -> Reason {
    if classify(start) == Class::StunRequest { Reason::StunWithoutFlow } else { Reason::NoFlow }
}

#[inline(always)]
fn check_route(route: &Route, start: [u8; 2]) -> Result<(), Reason> {
    match route.state() {
        FlowState::Free => Err(Reason::StaleFlow),
        FlowState::User => Err(Reason::UserState),
        FlowState::Drop => Err(Reason::Quarantined),
        FlowState::Forward if route.has(FlowFlags::ESCALATE_CHECK) && route.is_check(start) => {
            Err(Reason::EscalatedCheck)
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
fn check_mtu(hop: &NextHop, ip: &Ipv4, facts: &Facts) -> Result<(), Reason> {
    let longest = match facts.segment {
        0 => u32::from(ip.total_len.get()),
        payload => Headers::L3_LEN as u32 + payload,
    };
    if longest <= u32::from(hop.mtu) { Ok(()) } else { Err(Reason::Oversize) }
}

#[inline(always)]
fn count(udp: &Udp, route: &Route, start: [u8; 2], facts: &Facts) -> Count {
    let payload = u32::from(udp.len.get()) - Udp::LEN as u32;
    Count {
        packets: facts.datagrams,
        bytes: payload.wrapping_add(facts.datagrams.wrapping_mul(Headers::L3_LEN as u32)),
        check: route.is_check(start),
        alert: classify(start) == Class::DtlsAlert,
    }
}
