//! Flows of one family: two records that are published and withdrawn as one.

use std::collections::HashSet;

use proxy_common::flow::{Direction, Endpoints, FlowFlags, FlowState, Head, Idle, RouteRecord as _, Stamp};

mod found;

use super::{
    super::{DirectionCounters, Escalation, FlowCounters, FlowSpec, InstallError, NextHopId, Protocol},
    record::{Records, load_counters, load_head, reset_counters, store_head},
    rows::Rows,
    table,
    to_client::ToClient,
    to_origin::ToOrigin,
};

/// The tables of one family.
#[derive(Debug)]
pub(super) struct Flows<F: Records, R> {
    to_origin: ToOrigin<F, R>,
    to_client: ToClient<F, R>,
    /// Rows towards clients of flows that are not published yet.
    staged: HashSet<u32>,
}

/// A flow's rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowRows {
    to_origin: u32,
    to_client: u32,
    /// Rows that the flow brought along and takes away again; the others belong to a tuple or a lease.
    owned: (bool, bool),
}

impl FlowRows {
    /// The row towards the origin belongs to a tuple.
    pub(super) fn leave_to_origin(&mut self) {
        self.owned.0 = false;
    }

    /// The row towards the client belongs to a lease.
    pub(super) fn leave_to_client(&mut self) {
        self.owned.1 = false;
    }
}

impl<F: Records, R: Rows> Flows<F, R>
where
    F::Addr: std::hash::Hash,
{
    pub(super) fn new(to_origin: ToOrigin<F, R>, to_client: ToClient<F, R>) -> Self {
        Self { to_origin, to_client, staged: HashSet::new() }
    }

    /// Rows towards the origin less one.
    pub(super) fn mask(&self) -> u32 {
        self.to_origin.mask()
    }

    /// Rows of the table of blocks less one.
    pub(super) fn block_mask(&self) -> u32 {
        self.to_client.block_mask()
    }

    /// Makes a relayed tuple known; one that is known stays so.
    pub(super) fn bind(&mut self, key: Endpoints<F::Addr>) -> Result<(), InstallError> {
        match self.to_origin.insert(key, table::now()) {
            Ok(_) | Err(InstallError::Taken) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Forgets a relayed tuple.
    pub(super) fn unbind(&mut self, key: &Endpoints<F::Addr>) {
        if let Some(row) = self.to_origin.find(key) {
            self.to_origin.remove(row);
        }
    }

    /// Makes a leased source port known; what comes from the origin is relayed, unless a flow forwards it already.
    pub(super) fn lease(&mut self, key: Endpoints<F::Addr>) -> Result<(), InstallError> {
        match self.to_client.find(&key) {
            Some(row) if load_head(&self.to_client.rows, row).state() == FlowState::Forward => {}
            Some(row) => set_state(&self.to_client.rows, row, FlowState::User),
            None => drop(self.to_client.insert(key, table::now())?),
        }
        Ok(())
    }

    /// Drops what still comes from the origin to a source port.
    pub(super) fn retire(&mut self, key: &Endpoints<F::Addr>) {
        if let Some(row) = self.to_client.find(key) {
            self.to_client.retire(row);
        }
    }

    /// Forgets a source port.
    pub(super) fn release(&mut self, key: &Endpoints<F::Addr>) {
        self.to_client.remove(key);
    }

    /// Writes both records, not yet to be seen.
    pub(super) fn stage(&mut self, flow: &FlowSpec, idle_limit: u32) -> Result<FlowRows, InstallError> {
        let ends = |src, dst| F::endpoints(src, dst).ok_or(InstallError::MixedFamilies);
        let (asked, sent) = (ends(flow.client, flow.service)?, ends(flow.source, flow.origin)?);
        let now = table::now();
        let (to_client, owns_reverse) = self.reverse_row(sent.reversed(), now)?;
        let (to_origin, owns_forward) = match self.forward_row(asked, now) {
            Ok(row) => row,
            Err(error) => {
                if owns_reverse {
                    self.to_client.remove(&sent.reversed());
                }
                return Err(error);
            }
        };
        let idle = (now, idle_limit);
        write::<F>(&self.to_origin.rows, to_origin, (asked, sent), idle);
        write::<F>(&self.to_client.rows, to_client, (sent.reversed(), asked.reversed()), idle);
        self.staged.insert(to_client);
        Ok(FlowRows { to_origin, to_client, owned: (owns_forward, owns_reverse) })
    }

    /// Publishes both records, the reverse one first.
    pub(super) fn publish(&mut self, rows: FlowRows, flow: &FlowSpec, what: Escalation) {
        let head = |flags, NextHopId(next_hop)| Head {
            state: FlowState::Forward as u8,
            flags,
            next_hop,
            ..Head::FREE
        };
        self.staged.remove(&rows.to_client);
        let speaks = speaks(flow.protocol);
        let reverse = speaks | FlowFlags::TO_CLIENT | escalated(what.responses);
        let forward = speaks | escalated(what.requests);
        store_head(&self.to_client.rows, rows.to_client, head(reverse, flow.to_client));
        store_head(&self.to_origin.rows, rows.to_origin, head(forward, flow.to_origin));
    }

    /// Withdraws both records, the forward one first; what they belong to stays known.
    pub(super) fn withdraw(&mut self, rows: FlowRows) {
        self.staged.remove(&rows.to_client);
        if rows.owned.0 {
            self.to_origin.remove(rows.to_origin);
        } else {
            self.unforward(Direction::ToOrigin, rows.to_origin);
        }
        self.unforward(Direction::ToClient, rows.to_client);
        if rows.owned.1 {
            let key = *F::load_route(&self.to_client.rows, rows.to_client).key();
            self.to_client.remove(&key);
        }
    }

    pub(super) fn set_state(&self, rows: FlowRows, state: FlowState) {
        set_state(&self.to_origin.rows, rows.to_origin, state);
        set_state(&self.to_client.rows, rows.to_client, state);
    }

    pub(super) fn set_hop(&self, rows: FlowRows, direction: Direction, hop: NextHopId) {
        let row = match direction {
            Direction::ToOrigin => rows.to_origin,
            Direction::ToClient => rows.to_client,
        };
        change_head(self.rows(direction), row, |head| Head { next_hop: hop.0, ..head });
    }

    pub(super) fn escalate(&self, rows: FlowRows, what: Escalation) {
        let change = |on| {
            move |head: Head| Head { flags: head.flags & !FlowFlags::ESCALATE_CHECK | escalated(on), ..head }
        };
        change_head(&self.to_origin.rows, rows.to_origin, change(what.requests));
        change_head(&self.to_client.rows, rows.to_client, change(what.responses));
    }

    pub(super) fn counters(&self, rows: FlowRows) -> FlowCounters {
        let ((to_origin, client_alert), (to_client, origin_alert)) = (
            direction::<F>(&self.to_origin.rows, rows.to_origin),
            direction::<F>(&self.to_client.rows, rows.to_client),
        );
        FlowCounters { to_origin, to_client, closing: client_alert || origin_alert }
    }

    /// A grace period begins; true if rows wait for one.
    pub(super) fn begin_grace(&mut self) -> bool {
        let forward = self.to_origin.begin_grace();
        self.to_client.begin_grace() || forward
    }

    /// The grace period is over.
    pub(super) fn end_grace(&mut self) {
        self.to_origin.end_grace();
        self.to_client.end_grace();
    }

    /// A record as the programs see it.
    pub(super) fn route(&self, direction: Direction, row: u32) -> F::Route {
        F::load_route(self.rows(direction), row)
    }

    pub(super) fn idle(&self, direction: Direction, row: u32) -> Idle {
        Idle::from_word(self.rows(direction).load(row, F::ROUTE_WORDS))
    }

    /// The row in which the programs find this key, or look for it.
    pub(super) fn find(&self, direction: Direction, key: &Endpoints<F::Addr>) -> Option<u32> {
        match direction {
            Direction::ToOrigin => self.to_origin.find(key),
            Direction::ToClient => Some(self.to_client.base(key)? + key.row_in_block()),
        }
    }

    /// The row for `key` towards the origin, and whether it is new.
    fn forward_row(&mut self, key: Endpoints<F::Addr>, now: Stamp) -> Result<(u32, bool), InstallError> {
        match self.to_origin.find(&key) {
            Some(row) => reuse(&self.to_origin.rows, row, self.to_origin.is_resting(row)),
            None => Ok((self.to_origin.insert(key, now)?, true)),
        }
    }

    /// The same towards the client.
    fn reverse_row(&mut self, key: Endpoints<F::Addr>, now: Stamp) -> Result<(u32, bool), InstallError> {
        match self.to_client.find(&key) {
            Some(row) if self.staged.contains(&row) => Err(InstallError::Taken),
            Some(row) => reuse(&self.to_client.rows, row, self.to_client.is_resting(row)),
            None => Ok((self.to_client.insert(key, now)?, true)),
        }
    }

    /// What comes by a record is relayed from now on.
    fn unforward(&mut self, direction: Direction, row: u32) {
        set_state(self.rows(direction), row, FlowState::User);
        match direction {
            Direction::ToOrigin => self.to_origin.rest(row),
            Direction::ToClient => self.to_client.rest(row),
        }
    }

    fn rows(&self, direction: Direction) -> &R {
        match direction {
            Direction::ToOrigin => &self.to_origin.rows,
            Direction::ToClient => &self.to_client.rows,
        }
    }
}

/// Takes the row of what userspace relays, once no program can still be using what was in it.
fn reuse(rows: &impl Rows, row: u32, is_resting: bool) -> Result<(u32, bool), InstallError> {
    match load_head(rows, row).state() {
        _ if is_resting => Err(InstallError::Resting),
        FlowState::User => Ok((row, false)),
        FlowState::Free | FlowState::Forward | FlowState::Drop => Err(InstallError::Taken),
    }
}

fn escalated(on: bool) -> u8 {
    if on { FlowFlags::ESCALATE_CHECK } else { 0 }
}

fn speaks(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::WebRtc => 0,
        Protocol::Srt => FlowFlags::SRT,
    }
}

type Pair<A> = (Endpoints<A>, Endpoints<A>);

fn write<F: Records>(
    rows: &impl Rows,
    row: u32,
    (key, rewrite): Pair<F::Addr>,
    (now, idle_limit): (Stamp, u32),
) {
    F::store_endpoints(rows, row, F::Route::new(Head::FREE, key, rewrite));
    reset_counters::<F>(rows, row, now, idle_limit);
}

fn change_head(rows: &impl Rows, row: u32, change: impl Fn(Head) -> Head) {
    store_head(rows, row, change(load_head(rows, row)));
}

fn set_state(rows: &impl Rows, row: u32, state: FlowState) {
    change_head(rows, row, |head| Head { state: state as u8, ..head });
}

fn direction<F: Records>(rows: &impl Rows, row: u32) -> (DirectionCounters, bool) {
    let counters = load_counters::<F>(rows, row);
    let direction = DirectionCounters {
        packets: counters.packets,
        bytes: counters.bytes,
        checks: counters.checks,
        idle: table::now().since(Stamp(counters.last_seen)),
    };
    (direction, counters.alerts > 0)
}
