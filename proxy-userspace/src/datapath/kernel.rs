//! The kernel engine: loads the eBPF object, attaches it and fills its tables.
//!
//! This module tree is the only one that names aya. Links and maps belong to the process: when it ends, however it ends,
//! nothing stays attached.

mod attach;
mod dry_run;
pub mod features;
mod table;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use aya::{Ebpf, EbpfError, EbpfLoader, maps::MapError, programs::ProgramError};
use proxy_common::{
    flow::{
        ArrivalKey, Counters, EgressKind, FlowFlags, FlowKey, FlowState, NextHop, NextHopFlags, Rewrite,
        Route, Stamp,
    },
    maps::{self, RECORDS_PER_FLOW},
    verdict::Reason,
};

pub use self::dry_run::{DryRun, ProgramSize};
use self::{
    attach::Attached,
    table::{RowPool, Tables},
};
use super::{
    Arrival, AttachError, Attachment, Datapath, DirectionCounters, Egress, Engine, Escalation, FlowCounters,
    FlowId, FlowSpec, InstallError, NextHopId, NextHopSpec,
};

/// The eBPF object this build carries; empty if it was built with `AYA_BUILD_SKIP`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xproxy-bpf"));

/// How to set up the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelOptions {
    /// Capacity of the tables; the kernel allocates and charges it at once.
    pub max_flows: u32,
    /// Which program to prefer.
    pub choice: EngineChoice,
}

/// Which program to prefer on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// Native XDP where nothing can be lost by it.
    Auto,
    /// Native XDP wherever the driver has it.
    Xdp,
    /// TC everywhere.
    Tc,
}

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
    flows: RowPool,
    next_hops: RowPool,
    ebpf: Ebpf,
}

impl KernelDatapath {
    /// Loads programs and tables; nothing is attached yet.
    pub fn load(options: &KernelOptions) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NoObject);
        }
        let records = options.max_flows.max(1).saturating_mul(RECORDS_PER_FLOW);
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(maps::FLOW_INDEX, records)
            .map_max_entries(maps::FLOWS, records)
            .load(OBJECT)?;
        attach::load_programs(&mut ebpf)?;
        let tables = Tables::open(&mut ebpf)?;
        Ok(Self {
            options: *options,
            attached: HashMap::new(),
            tables,
            flows: RowPool::new(records / RECORDS_PER_FLOW),
            next_hops: RowPool::new(maps::NEXT_HOP_ROWS),
            ebpf,
        })
    }

    /// Sets the state of both directions: `User` to relay a flow in userspace without its packets being strangers, `Drop`
    /// to discard what still arrives for a session that is gone.
    pub fn set_state(&mut self, id: FlowId, state: FlowState) {
        let (forward, reverse) = records(id);
        self.tables.set_state(forward, state);
        self.tables.set_state(reverse, state);
    }

    fn direction(&self, record: u32) -> (DirectionCounters, bool) {
        let counters: Counters = self.tables.counters(record);
        let direction = DirectionCounters {
            packets: counters.packets,
            bytes: counters.bytes,
            checks: counters.checks,
            idle: table::now().since(Stamp(counters.last_seen)),
        };
        (direction, counters.alerts > 0)
    }
}

impl Datapath for KernelDatapath {
    fn attach(&mut self, ifindex: u32) -> Result<Attachment, AttachError> {
        if let Some(attached) = self.attached.get(&ifindex) {
            return Ok(attached.attachment.clone());
        }
        let attached = attach::attach(&mut self.ebpf, ifindex, self.options.choice)?;
        let attachment = attached.attachment.clone();
        self.attached.insert(ifindex, attached);
        Ok(attachment)
    }

    fn detach(&mut self, ifindex: u32) {
        self.attached.remove(&ifindex);
    }

    fn attachments(&self) -> Vec<Attachment> {
        let mut attachments: Vec<_> =
            self.attached.values().map(|attached| attached.attachment.clone()).collect();
        attachments.sort_by_key(|attachment| attachment.ifindex);
        attachments
    }

    fn add_next_hop(&mut self, hop: &NextHopSpec) -> Result<NextHopId, InstallError> {
        let row = self.next_hops.take(table::now()).ok_or(InstallError::Full)?;
        let id = NextHopId(u16::try_from(row).map_err(|_| InstallError::Full)?);
        self.update_next_hop(id, hop);
        Ok(id)
    }

    fn update_next_hop(&mut self, id: NextHopId, hop: &NextHopSpec) {
        self.tables.set_next_hop(id.0, hop_row(hop));
    }

    fn remove_next_hop(&mut self, id: NextHopId) {
        self.tables.set_next_hop(id.0, UNUSABLE);
        self.next_hops.give_back(u32::from(id.0), table::now());
    }

    fn install(&mut self, flow: &FlowSpec) -> Result<FlowId, InstallError> {
        let now = table::now();
        let id = self.flows.take(now).ok_or(InstallError::Full)?;
        let (forward, reverse) = records(FlowId(id));
        self.tables.set_record(forward, to_origin(flow), now);
        self.tables.set_record(reverse, to_client(flow), now);
        let published = self.tables.publish_pair(
            (key(flow.origin, flow.source), reverse),
            (key(flow.client, flow.service), forward),
        );
        if let Err(error) = published {
            self.tables.set_state(forward, FlowState::Free);
            self.tables.set_state(reverse, FlowState::Free);
            self.flows.give_back(id, now);
            return Err(error);
        }
        Ok(FlowId(id))
    }

    fn remove(&mut self, id: FlowId) -> FlowCounters {
        let (forward, reverse) = records(id);
        let (sent, answered) = (self.tables.route(forward), self.tables.route(reverse));
        if sent.state() == FlowState::Free {
            return self.counters(id);
        }
        // What a direction turns datagrams into is the other direction's key, seen from its far end.
        self.tables.withdraw(&far_key(&answered.rewrite));
        self.tables.withdraw(&far_key(&sent.rewrite));
        self.tables.set_state(forward, FlowState::Free);
        self.tables.set_state(reverse, FlowState::Free);
        self.flows.give_back(id.0, table::now());
        self.counters(id)
    }

    fn escalate(&mut self, id: FlowId, what: Escalation) {
        let (forward, reverse) = records(id);
        self.tables.set_flag(forward, FlowFlags::ESCALATE_CHECK, what.requests);
        self.tables.set_flag(reverse, FlowFlags::ESCALATE_CHECK, what.responses);
    }

    fn counters(&self, id: FlowId) -> FlowCounters {
        let (forward, reverse) = records(id);
        let ((to_origin, client_alert), (to_client, origin_alert)) =
            (self.direction(forward), self.direction(reverse));
        FlowCounters { to_origin, to_client, closing: client_alert || origin_alert }
    }

    fn reasons(&self) -> Vec<(Engine, Reason, u64)> {
        let pairs = Engine::ALL.into_iter().flat_map(|engine| Reason::ALL.map(|reason| (engine, reason)));
        pairs.map(|(engine, reason)| (engine, reason, self.tables.frames(engine, reason))).collect()
    }

    fn arrival(&self, client: SocketAddrV4) -> Option<Arrival> {
        let key = ArrivalKey { addr: addr(client).into(), port: client.port().into(), reserved: [0; 2] };
        let arrival = self.tables.arrival(&key)?;
        let service = SocketAddrV4::new(Ipv4Addr::from(arrival.addr.get()), arrival.port.get());
        Some(Arrival { service, ifindex: arrival.ifindex })
    }

    fn table_bytes(&self) -> u64 {
        self.tables.bytes()
    }
}

fn records(id: FlowId) -> (u32, u32) {
    let forward = id.0 * RECORDS_PER_FLOW;
    (forward, forward + 1)
}

fn to_origin(flow: &FlowSpec) -> Route {
    Route {
        state: FlowState::Forward as u8,
        flags: 0,
        next_hop: flow.to_origin.0,
        rewrite: rewrite(flow.source, flow.origin),
    }
}

fn to_client(flow: &FlowSpec) -> Route {
    Route {
        state: FlowState::Forward as u8,
        flags: FlowFlags::TO_CLIENT,
        next_hop: flow.to_client.0,
        rewrite: rewrite(flow.service, flow.client),
    }
}

fn rewrite(src: SocketAddrV4, dst: SocketAddrV4) -> Rewrite {
    Rewrite {
        src: addr(src).into(),
        dst: addr(dst).into(),
        src_port: src.port().into(),
        dst_port: dst.port().into(),
    }
}

fn key(src: SocketAddrV4, dst: SocketAddrV4) -> FlowKey {
    let Rewrite { src, dst, src_port, dst_port } = rewrite(src, dst);
    FlowKey { src, dst, src_port, dst_port, protocol: UDP, reserved: [0; 3] }
}

/// The key of what comes back for datagrams rewritten so.
fn far_key(to: &Rewrite) -> FlowKey {
    let (src, dst, src_port, dst_port) = (to.dst, to.src, to.dst_port, to.src_port);
    FlowKey { src, dst, src_port, dst_port, protocol: UDP, reserved: [0; 3] }
}

const UDP: u8 = 17;

fn addr(socket: SocketAddrV4) -> u32 {
    u32::from(*socket.ip())
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
