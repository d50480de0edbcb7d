//! Taking over what an earlier process pinned: programs first, then what the tables hold.
//!
//! Until [`KernelDatapath::begin`] nothing is written, so that a process which does not get that far changes nothing. From
//! then on flows are this process's own. Their rows, and those of tuples and source ports, are claimed as the control plane
//! finds the sessions they belong to; [`KernelDatapath::disclaim`] takes away what nobody claimed.

use std::{collections::HashMap, net::SocketAddr};

use super::{
    Installed, KernelDatapath, LoadError, SessionRecords,
    attach::{Attached, Links},
};
use crate::datapath::{Datapath as _, FlowId, NextHopId};

/// A client and what it sends to, or a source port and the origin.
type Ends = (SocketAddr, SocketAddr);

/// What was found and is not claimed yet, with the flow that it is part of.
#[derive(Debug, Default)]
pub(super) struct Heritage {
    tuples: HashMap<Ends, Option<FlowId>>,
    ports: HashMap<Ends, Option<FlowId>>,
    /// What clients of inherited flows send to.
    services: HashMap<SocketAddr, SocketAddr>,
    /// Next hops that inherited flows still use, and in how many directions.
    next_hops: HashMap<NextHopId, usize>,
}

impl Heritage {
    pub(super) fn service(&self, client: SocketAddr) -> Option<SocketAddr> {
        self.services.get(&client).copied()
    }
}

/// What a process finds in the tables.
#[derive(Debug, Default)]
pub struct Findings {
    /// Flows that are forwarded.
    pub flows: Vec<(FlowId, crate::datapath::FlowSpec)>,
    /// Source ports that are leased or rest, and towards which origin.
    pub ports: Vec<(SocketAddr, SocketAddr)>,
}

impl KernelDatapath {
    /// Where records of sessions are kept for as long as flows are; `None` if that is no longer than this process lives.
    pub fn session_records(&mut self) -> Option<SessionRecords> {
        if self.pins.as_ref().is_some_and(super::Pins::keeps) { self.records.take() } else { None }
    }

    /// Becomes the owner of the tables, has every pinned link run the programs of this process, and tells what there is.
    pub fn begin(&mut self) -> Result<Findings, LoadError> {
        if let Some(pins) = &mut self.pins {
            pins.own()?;
        }
        let findings = if self.tables.is_used() { self.read() } else { Findings::default() };
        self.keep_alive();
        self.inherit_links();
        if !self.outlives() {
            self.leave_nothing();
        }
        Ok(findings)
    }

    /// Lets everything go with the process.
    pub(super) fn leave_nothing(&mut self) {
        self.attached.values_mut().for_each(Attached::unpin);
        if let Some(pins) = &mut self.pins {
            pins.release();
        }
    }

    /// The row of a tuple belongs to the session that bound it.
    pub(super) fn claim_tuple(&mut self, client: SocketAddr, service: SocketAddr) {
        if let Some(Some(flow)) = self.heritage.tuples.remove(&(client, service))
            && let Some(flow) = self.flows.get_mut(&flow)
        {
            flow.rows.leave_to_origin();
        }
    }

    /// The row of a source port belongs to the session that leased it.
    pub(super) fn claim_port(&mut self, source: SocketAddr, origin: SocketAddr) {
        if let Some(Some(flow)) = self.heritage.ports.remove(&(source, origin))
            && let Some(flow) = self.flows.get_mut(&flow)
        {
            flow.rows.leave_to_client();
        }
    }

    /// A flow uses a next hop no more. An inherited one goes with its last use: nothing else knows of it.
    pub(super) fn leave_hop(&mut self, hop: NextHopId) {
        let Some(uses) = self.heritage.next_hops.get_mut(&hop) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.heritage.next_hops.remove(&hop);
            self.remove_next_hop(hop);
        }
    }

    /// Takes away what no session has claimed. What is part of a flow stays until the flow goes.
    pub(super) fn disclaim(&mut self) {
        let Heritage { tuples, ports, next_hops, .. } = std::mem::take(&mut self.heritage);
        self.heritage.next_hops = next_hops;
        for ((client, service), flow) in tuples {
            if flow.is_none() {
                self.unbind(client, service);
            }
        }
        for ((source, origin), flow) in ports {
            if flow.is_none() {
                self.retire(source, origin);
            }
        }
        self.guests.forget_others(&mut self.tables);
    }

    fn read(&mut self) -> Findings {
        let mut findings = Findings::default();
        for found in [self.tables.v4.read(), self.tables.v6.read()] {
            self.heritage.tuples.extend(found.tuples.iter().map(|tuple| (*tuple, None)));
            self.heritage.ports.extend(found.ports.iter().map(|port| (*port, None)));
            findings.ports.extend(found.ports);
            for (spec, rows, escalation) in found.flows {
                let id = FlowId(self.next_flow);
                self.next_flow = self.next_flow.wrapping_add(1);
                self.heritage.tuples.insert((spec.client, spec.service), Some(id));
                self.heritage.ports.insert((spec.source, spec.origin), Some(id));
                self.heritage.services.insert(spec.client, spec.service);
                for hop in [spec.to_origin, spec.to_client] {
                    *self.heritage.next_hops.entry(hop).or_default() += 1;
                }
                self.flows.insert(id, Installed { spec, rows, escalation, is_published: true });
                findings.flows.push((id, spec));
            }
        }
        self.next_hops.inherit(&self.heritage.next_hops.keys().map(|hop| hop.0.into()).collect());
        findings
    }

    fn inherit_links(&mut self) {
        let Some(pins) = &self.pins else { return };
        let mut found: HashMap<u32, Links> = HashMap::new();
        for (ifindex, kind, pin) in pins.links() {
            let links = found.entry(ifindex).or_default();
            if let Err(error) = links.inherit(&mut self.ebpf, (ifindex, kind), &pin) {
                tracing::debug!(pin = %pin.display(), "a link of an earlier process is gone: {error:#}");
                // It detaches by that if it was still attached.
                let _absent = std::fs::remove_file(pin);
            }
        }
        let attached =
            found.into_iter().map(|(ifindex, links)| (ifindex, Attached::inherited(ifindex, links)));
        self.attached.extend(attached.filter(|(_, attached)| !attached.is_empty()));
    }
}
