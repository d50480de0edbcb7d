//! Records towards the origin: open addressing by a seeded hash of the client's endpoints.
//!
//! Look-ups stop at a row that was never used, so a row that is given up becomes a tombstone, and tombstones in front of
//! such a row become rows that were never used again. An insertion takes the first tombstone on its way.

use std::marker::PhantomData;

use proxy_common::{
    flow::{Endpoints, FlowState, Head, RouteRecord as _, Stamp},
    forward::probe,
    maps::PROBES,
};

use super::{
    InstallError,
    record::{Records, load_head, reset_counters, store_head},
    rows::{Resting, Rows},
};

/// The table of one family.
#[derive(Debug)]
pub(super) struct ToOrigin<F, R> {
    pub(super) rows: R,
    seed: u64,
    capacity: u32,
    used: u32,
    resting: Resting,
    family: PhantomData<F>,
}

impl<F: Records, R: Rows> ToOrigin<F, R> {
    /// Over empty rows, a power of two of them, for at most `capacity` records.
    pub(super) fn new(rows: R, seed: u64, capacity: u32) -> Self {
        Self { rows, seed, capacity, used: 0, resting: Resting::default(), family: PhantomData }
    }

    /// Rows less one.
    pub(super) fn mask(&self) -> u32 {
        self.rows.len() - 1
    }

    /// Records in use.
    #[cfg(test)]
    fn used(&self) -> u32 {
        self.used
    }

    /// The row with this key.
    pub(super) fn find(&self, key: &Endpoints<F::Addr>) -> Option<u32> {
        let head = |row| Some(load_head(&self.rows, row));
        probe(self.hash(key), self.mask(), head, |row| F::load_route(&self.rows, row).key() == key)
    }

    /// Writes a record for `key` in a state that nothing is forwarded in.
    pub(super) fn insert(&mut self, key: Endpoints<F::Addr>, now: Stamp) -> Result<u32, InstallError> {
        if self.find(&key).is_some() {
            return Err(InstallError::Taken);
        }
        if self.used >= self.capacity {
            return Err(InstallError::Full);
        }
        let row = self.free_row(&key).ok_or(InstallError::Full)?;
        F::store_endpoints(&self.rows, row, F::Route::new(Head::FREE, key, key));
        reset_counters::<F>(&self.rows, row, now);
        store_head(&self.rows, row, Head { state: FlowState::User as u8, ..Head::FREE });
        self.used += 1;
        Ok(row)
    }

    /// Gives a row up.
    pub(super) fn remove(&mut self, row: u32) {
        store_head(&self.rows, row, Head { state: FlowState::Tombstone as u8, ..Head::FREE });
        self.resting.rest(row);
        self.used -= 1;
    }

    /// Notes that nothing is forwarded by a row any more.
    pub(super) fn rest(&mut self, row: u32) {
        self.resting.rest(row);
    }

    /// Whether a program may still be using what was in a row.
    pub(super) fn is_resting(&self, row: u32) -> bool {
        self.resting.contains(row)
    }

    /// A grace period begins; true if a row waits for one.
    pub(super) fn begin_grace(&mut self) -> bool {
        self.resting.begin_grace()
    }

    /// The grace period is over.
    pub(super) fn end_grace(&mut self) {
        for row in self.resting.end_grace() {
            self.clear_run(row);
        }
    }

    fn hash(&self, key: &Endpoints<F::Addr>) -> u32 {
        // The low half names the row, as in the programs.
        key.hash(self.seed) as u32
    }

    /// The first row on the way of `key` that may be written.
    fn free_row(&self, key: &Endpoints<F::Addr>) -> Option<u32> {
        let hash = self.hash(key);
        let way = (0..PROBES).map(|step| hash.wrapping_add(step) & self.mask());
        way.into_iter().find(|row| self.is_unused(*row) && !self.resting.contains(*row))
    }

    /// Turns the tombstones up to `row` into rows that were never used, if none that was used follows them.
    fn clear_run(&self, mut row: u32) {
        let next = row.wrapping_add(1) & self.mask();
        if load_head(&self.rows, next).state() != FlowState::Free {
            return;
        }
        for _ in 0..self.rows.len() {
            let is_tombstone = load_head(&self.rows, row).state() == FlowState::Tombstone;
            if !is_tombstone || self.resting.contains(row) {
                return;
            }
            store_head(&self.rows, row, Head::FREE);
            row = row.wrapping_sub(1) & self.mask();
        }
    }

    fn is_unused(&self, row: u32) -> bool {
        match load_head(&self.rows, row).state() {
            FlowState::Free | FlowState::Tombstone => true,
            FlowState::Forward | FlowState::User | FlowState::Drop => false,
        }
    }
}

#[cfg(test)]
mod tests;
