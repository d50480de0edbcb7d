//! The kernel engine: loads the eBPF object, attaches it and fills its tables.
//!
//! This module tree is the only one that names aya. Links and maps belong to the process, and go when it ends, however it
//! ends; unless they are pinned (`pins.rs`), and then the next process takes them over (`heritage.rs`).

mod attach;
mod blocks;
mod choice;
mod clsact;
mod dry_run;
pub mod features;
mod filter;
mod flows;
pub mod grace;
mod guests;
mod heritage;
mod link;
mod options;
pub mod pins;
mod record;
mod rows;
mod session_records;
mod table;
mod to_client;
mod to_origin;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
};

use aya::{Ebpf, EbpfError, EbpfLoader, maps::MapError, programs::ProgramError};
use proxy_common::{
    family::{V4, V6},
    flow::{
        ArrivalKey, BlockMasks, EgressKind, FlowState, Hashing, NextHop, NextHopFlags, Ownership, Policing,
        Settings, Stamp,
    },
    maps,
    verdict::Reason,
};

pub use self::{
    attach::XdpVetoes,
    dry_run::{DryRun, ProgramSize},
    heritage::Findings,
    options::{EngineChoice, KernelOptions, MissLimits, TcHook},
    pins::{PinError, Pinning},
    session_records::SessionRecords,
};
use self::{
    attach::{Attached, Terms},
    flows::FlowRows,
    guests::Guests,
    heritage::Heritage,
    pins::Pins,
    record::{Records as _, mapped, unmapped},
    rows::Resting,
    table::{Capacity, RowPool, Tables},
};
use super::{
    Arrival, AttachError, Attachment, Datapath, Direction, Egress, Engine, Escalation, FlowCounters, FlowId,
    FlowSpec, InstallError, NextHopId, NextHopSpec, Protocol,
};

/// The eBPF object this build carries; empty if it was built with `AYA_BUILD_SKIP`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xproxy-bpf"));

/// What the kernel said when it refused an XDP program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct XdpRefusal(String);

/// Why the engine could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The build left the programs out.
    #[error("this build carries no eBPF object (AYA_BUILD_SKIP was set)")]
    NoObject,
    /// The object or its maps were refused.
    #[error("failed to load the eBPF object (needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)")]
    Object(#[from] EbpfError),
    /// A program was refused.
    #[error("failed to load {name} (needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)")]
    Program {
        /// Which one.
        name: &'static str,
        /// What the verifier or the kernel said.
        source: ProgramError,
    },
    /// A map could not be opened.
    #[error("failed to open map {name}")]
    Map {
        /// Which one.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// A map could not be mapped into this process.
    #[error("failed to map {name} into memory")]
    Mmap {
        /// Which one.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing can be kept for the next process.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The object lacks a program or map that this build knows.
    #[error("the eBPF object has no {0}")]
    Missing(&'static str),
}

/// The kernel engine.
#[derive(Debug)]
pub struct KernelDatapath {
    options: KernelOptions,
    // Dropped first: frames stop coming before the tables go.
    attached: HashMap<u32, Attached>,
    tables: Tables,
    heritage: Heritage,
    records: Option<SessionRecords>,
    flows: HashMap<FlowId, Installed>,
    next_flow: u32,
    /// Flows that wait for a grace period to begin, and those that wait for its end.
    staged: (Vec<FlowId>, Vec<FlowId>),
    next_hops: RowPool,
    resting_hops: Resting,
    guests: Guests,
    vetoes: XdpVetoes,
    refusal: Option<XdpRefusal>,
    ebpf: Ebpf,
    pins: Option<Pins>,
}

#[derive(Debug)]
struct Installed {
    spec: FlowSpec,
    rows: FlowRows,
    escalation: Escalation,
    is_published: bool,
}

/// Does the same with the tables of the family that `$address` is of.
macro_rules! by_family {
    ($tables:expr, $address:expr, |$flows:ident, $family:ident| $body:expr) => {
        if $address.is_ipv4() {
            type $family = V4;
            let $flows = &mut $tables.v4;
            $body
        } else {
            type $family = V6;
            let $flows = &mut $tables.v6;
            $body
        }
    };
}

impl KernelDatapath {
    /// Loads programs and tables; nothing is attached yet.
    pub fn load(options: &KernelOptions) -> Result<Self, LoadError> {
        Self::load_object(OBJECT, options)
    }

    /// The same with an object that is not this build's own.
    pub fn load_object(object: &[u8], options: &KernelOptions) -> Result<Self, LoadError> {
        if object.is_empty() {
            return Err(LoadError::NoObject);
        }
        let capacity = Capacity { v4: options.max_flows.max(1), v6: options.max_flows_v6.max(1) };
        let pins = Pins::open(&options.pinning, options.takes_over)?;
        let mut ebpf = loader(capacity, options.max_sessions, pins.as_ref()).load(object)?;
        let refusal = attach::load_programs(&mut ebpf)?;
        let mut datapath = Self {
            options: options.clone(),
            attached: HashMap::new(),
            tables: Tables::open(&mut ebpf, capacity, rand::random())?,
            heritage: Heritage::default(),
            records: Some(SessionRecords::take(&mut ebpf)?),
            flows: HashMap::new(),
            next_flow: 0,
            staged: (Vec::new(), Vec::new()),
            next_hops: RowPool::new(maps::NEXT_HOP_ROWS),
            resting_hops: Resting::default(),
            guests: Guests::new(options.misses.drop_unsolicited),
            vetoes: XdpVetoes::default(),
            refusal,
            ebpf,
            pins,
        };
        if datapath.pins.is_none() {
            // Nobody else has seen the tables.
            datapath.keep_alive();
        }
        Ok(datapath)
    }

    /// What keeps native XDP from interfaces.
    pub fn vetoes(&self) -> XdpVetoes {
        self.vetoes.clone()
    }

    /// Waits for a grace period: what was installed is seen, and what was withdrawn may be used again.
    pub fn settle(&mut self) {
        if self.begin_grace() {
            grace::wait();
            self.end_grace();
        }
    }

    /// Sets the state of both directions: `User` to relay a flow in userspace without its packets being strangers, `Drop`
    /// to discard what still arrives for a session that is gone.
    pub fn set_state(&mut self, id: FlowId, state: FlowState) {
        let Some(&Installed { ref spec, rows, .. }) = self.flows.get(&id) else { return };
        by_family!(self.tables, spec.client, |flows, _Family| flows.set_state(rows, state));
    }

    fn settings(&self) -> Settings {
        let KernelOptions { source_ports, orphan_timeout, misses, .. } = &self.options;
        Settings {
            hashing: Hashing {
                seed: self.tables.seed(),
                mask_v4: self.tables.v4.mask(),
                mask_v6: self.tables.v6.mask(),
            },
            ownership: Ownership {
                seen: table::now().0,
                limit: Stamp::units(*orphan_timeout),
                first_port: *source_ports.start(),
                last_port: *source_ports.end(),
                reserved: 0,
            },
            policing: Policing {
                per_source: misses.per_source,
                per_expected: misses.per_expected,
                in_all: misses.in_all,
                reserved: 0,
            },
            abi_version: u64::from(maps::ABI_VERSION),
            blocks: BlockMasks { v4: self.tables.v4.block_mask(), v6: self.tables.v6.block_mask() },
        }
    }
}

fn loader<'a>(capacity: Capacity, sessions: u32, pins: Option<&Pins>) -> EbpfLoader<'a> {
    let blocks = |flows| maps::block_rows(maps::to_client_rows(flows));
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(maps::TO_ORIGIN_V4, maps::to_origin_rows(capacity.v4))
        .map_max_entries(maps::TO_ORIGIN_V6, maps::to_origin_rows(capacity.v6))
        .map_max_entries(maps::TO_CLIENT_V4, maps::to_client_rows(capacity.v4))
        .map_max_entries(maps::TO_CLIENT_V6, maps::to_client_rows(capacity.v6))
        .map_max_entries(maps::BLOCKS_V4, blocks(capacity.v4))
        .map_max_entries(maps::BLOCKS_V6, blocks(capacity.v6))
        .map_max_entries(maps::SESSIONS, sessions.max(1));
    for (pins, name) in pins.into_iter().flat_map(|pins| maps::ALL.map(|name| (pins, name))) {
        // What is pinned is used as it is, and keeps its size.
        loader.map_pin_path(name, pins.map(name));
    }
    loader
}

impl Datapath for KernelDatapath {
    fn attach(&mut self, ifindex: u32) -> Result<Attachment, AttachError> {
        let attached = self.attached.entry(ifindex).or_insert_with(|| Attached::nothing(ifindex));
        if !attached.is_whole() {
            let KernelOptions { choice, hook, .. } = self.options;
            let (vetoes, refusal, pins) = (&self.vetoes, self.refusal.as_ref(), self.pins.as_ref());
            let terms = Terms { choice, hook, vetoes, refusal, pins };
            if let Err(error) = attached.complete(&mut self.ebpf, terms) {
                self.attached.retain(|_, attached| !attached.is_empty());
                return Err(error);
            }
        }
        Ok(attached.attachment.clone())
    }

    fn detach(&mut self, ifindex: u32) {
        if let Some(mut attached) = self.attached.remove(&ifindex) {
            attached.unpin();
        }
    }

    fn lost(&mut self) -> Vec<(u32, Option<Engine>)> {
        let mut lost = Vec::new();
        for (ifindex, attached) in &mut self.attached {
            if attached.has_lost() {
                lost.push((*ifindex, (!attached.is_empty()).then_some(attached.attachment.engine)));
            }
        }
        self.attached.retain(|_, attached| !attached.is_empty());
        lost
    }

    fn attachments(&self) -> Vec<Attachment> {
        let mut attachments: Vec<_> =
            self.attached.values().map(|attached| attached.attachment.clone()).collect();
        attachments.sort_by_key(|attachment| attachment.ifindex);
        attachments
    }

    fn add_next_hop(&mut self, hop: &NextHopSpec) -> Result<NextHopId, InstallError> {
        let row = self.next_hops.take().ok_or(InstallError::Full)?;
        let id = NextHopId(u16::try_from(row).map_err(|_| InstallError::Full)?);
        self.update_next_hop(id, hop);
        Ok(id)
    }

    fn update_next_hop(&mut self, id: NextHopId, hop: &NextHopSpec) {
        self.tables.set_next_hop(id.0, hop_row(hop));
    }

    fn remove_next_hop(&mut self, id: NextHopId) {
        self.tables.set_next_hop(id.0, UNUSABLE);
        self.resting_hops.rest(u32::from(id.0));
    }

    fn send_by_xdp(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        dry_run::send_by_xdp(&mut self.ebpf, ifindex, frame)
    }

    fn set_flow_hop(&mut self, id: FlowId, direction: Direction, hop: NextHopId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let current = match direction {
            Direction::ToOrigin => &mut flow.spec.to_origin,
            Direction::ToClient => &mut flow.spec.to_client,
        };
        let before = std::mem::replace(current, hop);
        let rows = flow.rows;
        if flow.is_published {
            by_family!(self.tables, flow.spec.client, |flows, _Family| flows.set_hop(rows, direction, hop));
        }
        self.leave_hop(before);
    }

    fn install(&mut self, flow: &FlowSpec) -> Result<FlowId, InstallError> {
        let idle_limit = Stamp::units(self.options.idle_limit);
        let rows = by_family!(self.tables, flow.client, |flows, _Family| flows.stage(flow, idle_limit))?;
        let id = FlowId(self.next_flow);
        self.next_flow = self.next_flow.wrapping_add(1);
        self.flows.insert(
            id,
            Installed { spec: *flow, rows, escalation: Escalation::default(), is_published: false },
        );
        self.staged.0.push(id);
        Ok(id)
    }

    fn is_published(&self, id: FlowId) -> bool {
        self.flows.get(&id).is_some_and(|flow| flow.is_published)
    }

    fn begin_grace(&mut self) -> bool {
        let (waiting, in_grace) = &mut self.staged;
        in_grace.append(waiting);
        let records = [self.tables.v4.begin_grace(), self.tables.v6.begin_grace()];
        let hops = self.resting_hops.begin_grace();
        hops || records.contains(&true) || !self.staged.1.is_empty()
    }

    fn end_grace(&mut self) {
        self.tables.v4.end_grace();
        self.tables.v6.end_grace();
        self.next_hops.give_back(self.resting_hops.end_grace());
        for id in std::mem::take(&mut self.staged.1) {
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            flow.is_published = true;
            by_family!(self.tables, flow.spec.client, |flows, _Family| {
                flows.publish(flow.rows, &flow.spec, flow.escalation);
            });
        }
    }

    fn lease(&mut self, source: SocketAddr, origin: SocketAddr) -> Result<(), InstallError> {
        self.guests.source(source.ip(), &mut self.tables);
        self.claim_port(source, origin);
        by_family!(self.tables, source, |flows, Family| {
            flows.lease(Family::endpoints(origin, source).ok_or(InstallError::MixedFamilies)?)
        })
    }

    fn retire(&mut self, source: SocketAddr, origin: SocketAddr) {
        by_family!(self.tables, source, |flows, Family| {
            if let Some(key) = Family::endpoints(origin, source) {
                flows.retire(&key);
            }
        });
    }

    fn release(&mut self, source: SocketAddr, origin: SocketAddr) {
        by_family!(self.tables, source, |flows, Family| {
            if let Some(key) = Family::endpoints(origin, source) {
                flows.release(&key);
            }
        });
    }

    fn bind(&mut self, client: SocketAddr, service: SocketAddr, protocol: Protocol) {
        let bound = by_family!(self.tables, client, |flows, Family| {
            Family::endpoints(client, service)
                .ok_or(InstallError::MixedFamilies)
                .and_then(|key| flows.bind(key))
        });
        self.claim_tuple(client, service);
        self.guests.bound((client, service), protocol, bound.is_ok(), &mut self.tables);
    }

    fn unbind(&mut self, client: SocketAddr, service: SocketAddr) {
        by_family!(self.tables, client, |flows, Family| {
            if let Some(key) = Family::endpoints(client, service) {
                flows.unbind(&key);
            }
        });
        self.guests.unbound((client, service), &mut self.tables);
    }

    fn expect(&mut self, client: IpAddr) {
        self.guests.expect(client, &mut self.tables);
    }

    fn unexpect(&mut self, client: IpAddr) {
        self.guests.unexpect(client, &mut self.tables);
    }

    fn keep_alive(&mut self) {
        self.tables.set_settings(self.settings());
    }

    fn remove(&mut self, id: FlowId) -> FlowCounters {
        let Some(Installed { spec, rows, .. }) = self.flows.remove(&id) else {
            return FlowCounters::default();
        };
        let counters = by_family!(self.tables, spec.client, |flows, _Family| {
            flows.withdraw(rows);
            flows.counters(rows)
        });
        [spec.to_origin, spec.to_client].into_iter().for_each(|hop| self.leave_hop(hop));
        counters
    }

    fn escalate(&mut self, id: FlowId, what: Escalation) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.escalation = what;
        if flow.is_published {
            by_family!(self.tables, flow.spec.client, |flows, _Family| flows.escalate(flow.rows, what));
        }
    }

    fn counters(&self, id: FlowId) -> FlowCounters {
        let Some(Installed { spec, rows, .. }) = self.flows.get(&id) else { return FlowCounters::default() };
        if spec.client.is_ipv4() { self.tables.v4.counters(*rows) } else { self.tables.v6.counters(*rows) }
    }

    fn reasons(&self) -> Vec<(Engine, Reason, u64)> {
        let pairs = Engine::ALL.into_iter().flat_map(|engine| Reason::ALL.map(|reason| (engine, reason)));
        pairs.map(|(engine, reason)| (engine, reason, self.tables.frames(engine, reason))).collect()
    }

    fn arrival(&self, client: SocketAddr) -> Option<Arrival> {
        let key = ArrivalKey { addr: mapped(client.ip()), port: client.port().into(), reserved: [0; 2] };
        let arrival = self.tables.arrival(&key)?;
        let service = SocketAddr::new(unmapped(arrival.addr), arrival.port.get());
        Some(Arrival { service, ifindex: arrival.ifindex })
    }

    fn table_bytes(&self) -> u64 {
        self.tables.bytes()
    }

    fn spec(&self, id: FlowId) -> Option<FlowSpec> {
        Some(self.flows.get(&id)?.spec)
    }

    fn inherited_service(&self, client: SocketAddr) -> Option<SocketAddr> {
        self.heritage.service(client)
    }

    fn forget_unclaimed(&mut self) {
        self.disclaim();
    }

    fn outlives(&self) -> bool {
        self.pins.as_ref().is_some_and(Pins::keeps)
    }

    fn unpin(&mut self) {
        self.leave_nothing();
    }
}

const UNUSABLE: NextHop = NextHop {
    dst_mac: [0; 6],
    mtu: 0,
    src_mac: [0; 6],
    egress: EgressKind::Unusable as u8,
    flags: 0,
    ifindex: 0,
    reserved: [0; 3],
};

fn hop_row(hop: &NextHopSpec) -> NextHop {
    let row = NextHop { mtu: hop.mtu, ifindex: hop.ifindex, ..UNUSABLE };
    match hop.egress {
        Egress::Unusable => row,
        Egress::Redirect { dst_mac, src_mac, xdp } => NextHop {
            dst_mac,
            src_mac,
            egress: EgressKind::Redirect as u8,
            flags: if xdp { NextHopFlags::XDP } else { 0 },
            ..row
        },
        Egress::Neighbour => NextHop { egress: EgressKind::Neighbour as u8, ..row },
        Egress::Stack => NextHop { egress: EgressKind::Stack as u8, ..row },
    }
}
