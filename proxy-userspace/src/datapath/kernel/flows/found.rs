//! What the tables hold that an earlier process wrote.

use std::{collections::HashSet, net::SocketAddr};

use proxy_common::{
    family::Address as _,
    flow::{Direction, Endpoints, FlowFlags, FlowState, Head, RouteRecord as _},
};
use zerocopy::network_endian::U16;

use super::{
    super::{
        super::{Escalation, FlowSpec, NextHopId, Protocol},
        record::{Records, load_head, unmapped},
        rows::Rows,
    },
    FlowRows, Flows,
};

/// What an earlier process left in the tables of a family.
#[derive(Debug, Default)]
pub(in super::super) struct Found {
    /// Flows that are forwarded in both directions; their rows belong to nobody else yet.
    pub(in super::super) flows: Vec<(FlowSpec, FlowRows, Escalation)>,
    /// Tuples that have a row: clients, and what they send to.
    pub(in super::super) tuples: Vec<(SocketAddr, SocketAddr)>,
    /// Source ports that have a row, and towards which origin.
    pub(in super::super) ports: Vec<(SocketAddr, SocketAddr)>,
}

impl<F: Records, R: Rows> Flows<F, R>
where
    F::Addr: std::hash::Hash,
{
    /// Reads the tables. Half a flow, which is what is left where the process died between two stores, is none: userspace
    /// relays what comes by it.
    pub(in super::super) fn read(&mut self) -> Found {
        let (forward, reverse) = (self.to_origin.read(), self.to_client.read());
        let mut found = Found::default();
        let mut paired = HashSet::new();
        for row in reverse {
            let key = *F::load_route(&self.to_client.rows, row).key();
            found.ports.push((destination::<F>(&key), source::<F>(&key)));
            match self.pair(row) {
                Some((spec, rows, escalation)) => {
                    paired.insert(rows.to_origin);
                    found.flows.push((spec, rows, escalation));
                }
                None => self.give_up(Direction::ToClient, row),
            }
        }
        for row in forward {
            let key = *F::load_route(&self.to_origin.rows, row).key();
            found.tuples.push((source::<F>(&key), destination::<F>(&key)));
            if !paired.contains(&row) {
                self.give_up(Direction::ToOrigin, row);
            }
        }
        found
    }

    /// The flow whose record towards the client this is.
    fn pair(&self, to_client: u32) -> Option<(FlowSpec, FlowRows, Escalation)> {
        let reverse = F::load_route(&self.to_client.rows, to_client);
        let (sent, asked) = (reverse.key().reversed(), reverse.rewrite().reversed());
        let to_origin = self.to_origin.find(&asked)?;
        let forward = F::load_route(&self.to_origin.rows, to_origin);
        let (answers, requests) = (forwarding(&reverse.head())?, forwarding(&forward.head())?);
        if *forward.rewrite() != sent {
            return None;
        }
        let is_srt = forward.head().has(FlowFlags::SRT);
        let spec = FlowSpec {
            protocol: if is_srt { Protocol::Srt } else { Protocol::WebRtc },
            client: source::<F>(&asked),
            service: destination::<F>(&asked),
            source: source::<F>(&sent),
            origin: destination::<F>(&sent),
            to_origin: NextHopId(forward.head().next_hop),
            to_client: NextHopId(reverse.head().next_hop),
        };
        Some((
            spec,
            FlowRows { to_origin, to_client, owned: (true, true) },
            Escalation { requests, responses: answers },
        ))
    }

    fn give_up(&mut self, direction: Direction, row: u32) {
        if load_head(self.rows(direction), row).state() == FlowState::Forward {
            self.unforward(direction, row);
        }
    }
}

/// Whether checks come up, of a record that is forwarded by.
fn forwarding(head: &Head) -> Option<bool> {
    (head.state() == FlowState::Forward).then(|| head.has(FlowFlags::ESCALATE_CHECK))
}

fn source<F: Records>(ends: &Endpoints<F::Addr>) -> SocketAddr {
    address::<F>(ends.src, ends.src_port)
}

fn destination<F: Records>(ends: &Endpoints<F::Addr>) -> SocketAddr {
    address::<F>(ends.dst, ends.dst_port)
}

fn address<F: Records>(ip: F::Addr, port: U16) -> SocketAddr {
    SocketAddr::new(unmapped(ip.mapped()), port.get())
}
