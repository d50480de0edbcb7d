//! Records towards the origin: open addressing by a seeded hash of the client's endpoints.
//!
//! A record is in the row that the hash names, its home, or in one of the next ones, and the home has a map of the rows
//! where records are whose home it is. A look-up follows the map, so it costs what the home's own records cost, whatever
//! was in the table before.
//!
//! Stores are ordered, and programs run at any time between them:
//!
//! * A record becomes one by its own head and is found by its bit in the home, which is set last. A program sees the map
//!   with the bit or without it. A row that its map does not name it does not look at, so a row may be filled while
//!   programs search past it.
//! * To give a record up, its bit is taken first. Who has the map from before finds the row free, or the record as it was:
//!   the row is not filled again before a grace period is over.

use std::marker::PhantomData;

use proxy_common::{
    flow::{Endpoints, FlowState, Head, RouteRecord as _, Stamp},
    forward::probe,
    maps::PROBES,
};

use super::{
    InstallError,
    record::{Records, load_head, reset_counters, store_head, store_homed},
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
    /// Over rows that are empty, or that [`Self::read`] is to be asked of, a power of two of them, for at most `capacity` records.
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
        let home = self.home(key);
        let homed = u32::from(load_head(&self.rows, home).homed);
        probe(home, self.mask(), homed, |row| F::load_route(&self.rows, row).key() == key)
    }

    /// Writes a record for `key` in a state that nothing is forwarded in.
    pub(super) fn insert(&mut self, key: Endpoints<F::Addr>, now: Stamp) -> Result<u32, InstallError> {
        if self.find(&key).is_some() {
            return Err(InstallError::Taken);
        }
        if self.used >= self.capacity {
            return Err(InstallError::Full);
        }
        let home = self.home(&key);
        let (step, row) = self.free_row(home).ok_or(InstallError::Full)?;
        F::store_endpoints(&self.rows, row, F::Route::new(Head::FREE, key, key));
        reset_counters::<F>(&self.rows, row, now, 0);
        store_head(&self.rows, row, Head { state: FlowState::User as u8, ..Head::FREE });
        store_homed(&self.rows, home, load_head(&self.rows, home).homed | 1 << step);
        self.used += 1;
        Ok(row)
    }

    /// Counts the records that an earlier process wrote, and names their rows. What it had begun to write or to give up
    /// when it died is given up.
    pub(super) fn read(&mut self) -> Vec<u32> {
        let rows: Vec<u32> = (0..self.rows.len()).filter(|row| !self.is_free(*row)).collect();
        let (records, strays): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| self.is_homed(*row));
        strays.into_iter().for_each(|row| store_head(&self.rows, row, Head::FREE));
        self.used = u32::try_from(records.len()).expect("a row is named by 32 bits");
        records
    }

    /// Whether the map of its home names a row.
    fn is_homed(&self, row: u32) -> bool {
        let home = self.home(F::load_route(&self.rows, row).key());
        let step = row.wrapping_sub(home) & self.mask();
        step < PROBES && load_head(&self.rows, home).homed & 1 << step != 0
    }

    /// Gives a row up.
    pub(super) fn remove(&mut self, row: u32) {
        let home = self.home(F::load_route(&self.rows, row).key());
        let step = row.wrapping_sub(home) & self.mask();
        store_homed(&self.rows, home, load_head(&self.rows, home).homed & !(1 << step));
        store_head(&self.rows, row, Head::FREE);
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
        self.resting.end_grace();
    }

    fn home(&self, key: &Endpoints<F::Addr>) -> u32 {
        // The low half names the row, as in the programs.
        key.hash(self.seed) as u32 & self.mask()
    }

    /// The first row that may be written for a key of this home, and how far it is.
    fn free_row(&self, home: u32) -> Option<(u32, u32)> {
        let way = (0..PROBES).map(|step| (step, home.wrapping_add(step) & self.mask()));
        way.into_iter().find(|(_, row)| self.is_free(*row))
    }

    fn is_free(&self, row: u32) -> bool {
        load_head(&self.rows, row).state() == FlowState::Free && !self.resting.contains(row)
    }
}

#[cfg(test)]
mod tests;
