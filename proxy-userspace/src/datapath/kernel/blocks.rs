//! Which rows towards the client belong to which origin, source address and high byte of a source port.
//!
//! The table is searched as that of records towards the origin is, see [`super::to_origin`]: blocks are in their home row
//! or in one of the next ones, and the home has a map of them. Homes of neighbouring ports are neighbours. Being named is all that makes a row a
//! block, so this process needs no memory of what the table holds, nor would the next one.

use std::marker::PhantomData;

use proxy_common::{
    flow::{
        BlockRecord as _, Endpoints,
        block::{BLOCK_PROBES, first_row, homed},
    },
    forward::probe,
};

use super::{
    record::Records,
    rows::{Resting, Rows},
};

/// The blocks of one family.
#[derive(Debug)]
pub(super) struct Blocks<F, R> {
    rows: R,
    seed: u64,
    resting: Resting,
    family: PhantomData<F>,
}

impl<F: Records, R: Rows> Blocks<F, R> {
    /// Over rows that are empty or an earlier process's, a power of two of them.
    pub(super) fn new(rows: R, seed: u64) -> Self {
        Self { rows, seed, resting: Resting::default(), family: PhantomData }
    }

    /// Rows less one.
    pub(super) fn mask(&self) -> u32 {
        self.rows.len() - 1
    }

    /// The first row for this key, whose port has no low byte.
    pub(super) fn find(&self, key: &Endpoints<F::Addr>) -> Option<u32> {
        Some(first_row(self.place(self.row(key)?)))
    }

    /// Every block: its key and its first row.
    pub(super) fn all(&self) -> Vec<(Endpoints<F::Addr>, u32)> {
        let named = (0..self.rows.len()).filter(|row| self.is_named(*row));
        named.map(|row| (*F::load_block(&self.rows, row).endpoints(), first_row(self.place(row)))).collect()
    }

    /// Makes a block known that is not; false if there is no room for it.
    pub(super) fn insert(&mut self, key: Endpoints<F::Addr>, base: u32) -> bool {
        let home = self.home(&key);
        let Some((step, row)) = self.free_row(home) else { return false };
        F::store_block(&self.rows, row, F::Block::new(key, base | homed(self.place(row))));
        self.store_place(home, self.place(home) | 1 << step);
        true
    }

    /// Makes a block unknown.
    pub(super) fn remove(&mut self, key: &Endpoints<F::Addr>) {
        let Some(row) = self.row(key) else { return };
        let home = self.home(key);
        self.store_place(home, self.place(home) & !(1 << (row.wrapping_sub(home) & self.mask())));
        self.resting.rest(row);
    }

    /// A grace period begins; true if a row waits for one.
    pub(super) fn begin_grace(&mut self) -> bool {
        self.resting.begin_grace()
    }

    /// The grace period is over.
    pub(super) fn end_grace(&mut self) {
        self.resting.end_grace();
    }

    fn row(&self, key: &Endpoints<F::Addr>) -> Option<u32> {
        let home = self.home(key);
        let is_wanted = |row| F::load_block(&self.rows, row).endpoints() == key;
        probe(home, self.mask(), homed(self.place(home)), is_wanted)
    }

    fn home(&self, key: &Endpoints<F::Addr>) -> u32 {
        key.block_home(self.seed) & self.mask()
    }

    /// The first row that may be written for a key of this home, and how far it is.
    fn free_row(&self, home: u32) -> Option<(u32, u32)> {
        let way = (0..BLOCK_PROBES).map(|step| (step, home.wrapping_add(step) & self.mask()));
        way.into_iter().find(|(_, row)| !self.is_named(*row) && !self.resting.contains(*row))
    }

    /// Whether a row is a block: one of the homes it may have says so.
    fn is_named(&self, row: u32) -> bool {
        let home = |step| row.wrapping_sub(step) & self.mask();
        (0..BLOCK_PROBES).any(|step| homed(self.place(home(step))) & 1 << step != 0)
    }

    fn place(&self, row: u32) -> u32 {
        F::load_block(&self.rows, row).place()
    }

    /// Changes the last word of a row.
    fn store_place(&self, row: u32, place: u32) {
        let block = F::load_block(&self.rows, row);
        F::store_block(&self.rows, row, F::Block::new(*block.endpoints(), place));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use proxy_common::{
        family::V4,
        flow::BlockV4,
        maps::{BLOCK_ROWS, block_rows},
    };
    use zerocopy::network_endian::U32;

    use super::{super::rows::memory::Memory, *};

    const BLOCKS: u32 = 64;

    fn table() -> Blocks<V4, Memory> {
        Blocks::new(Memory::new(block_rows(BLOCKS * BLOCK_ROWS), size_of::<BlockV4>() / 8), 0x5eed)
    }

    /// Eight blocks of neighbouring ports for each origin.
    fn key(n: u32) -> Endpoints<U32> {
        let (src, dst) = (U32::new(0x0a00_0000 + n / 8), U32::new(0x0a01_0001));
        let high = 0xee + u8::try_from(n % 8).unwrap();
        Endpoints { src, dst, src_port: 8000.into(), dst_port: u16::from_be_bytes([high, 0]).into() }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Toggle(u32),
        Grace,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![6 => (0..60_u32).prop_map(Step::Toggle), 1 => Just(Step::Grace)]
    }

    proptest! {
        #[test]
        fn a2_the_table_of_blocks_agrees_with_a_plain_map_under_any_history(
            steps in proptest::collection::vec(step(), 1..400),
        ) {
            let (mut table, mut model) = (table(), HashMap::new());
            for (step, n) in steps.into_iter().zip(1..) {
                match step {
                    Step::Toggle(origin) if model.remove(&origin).is_some() => table.remove(&key(origin)),
                    Step::Toggle(origin) if model.len() < BLOCKS as usize => {
                        if table.insert(key(origin), n * BLOCK_ROWS) {
                            model.insert(origin, n * BLOCK_ROWS);
                        }
                    }
                    Step::Toggle(_) => {}
                    Step::Grace => {
                        table.begin_grace();
                        table.end_grace();
                    }
                }
                for origin in 0..60 {
                    prop_assert_eq!(table.find(&key(origin)), model.get(&origin).copied());
                }
            }
        }
    }

    #[test]
    fn a2_a_block_is_not_written_again_before_a_grace_period_is_over() {
        let mut table = table();
        assert!(table.insert(key(1), BLOCK_ROWS));
        let row = table.row(&key(1));
        table.remove(&key(1));
        assert!(table.insert(key(1), 2 * BLOCK_ROWS));
        assert_ne!(table.row(&key(1)), row);
        table.remove(&key(1));
        table.begin_grace();
        table.end_grace();
        assert!(table.insert(key(1), BLOCK_ROWS));
        assert_eq!(table.row(&key(1)), row);
    }

    #[test]
    fn a2_blocks_find_room_however_many_came_and_went() {
        let (mut table, mut failures) = (table(), 0);
        for origin in 0..100 * BLOCKS {
            if let Some(oldest) = origin.checked_sub(BLOCKS) {
                table.remove(&key(oldest));
            }
            table.begin_grace();
            table.end_grace();
            failures += u32::from(!table.insert(key(origin), BLOCK_ROWS));
        }
        assert!(failures <= BLOCKS / 8, "{failures} of {} blocks found no room", 100 * BLOCKS);
    }
}
