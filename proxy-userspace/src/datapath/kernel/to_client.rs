//! Records towards the client: found by the block of the origin's endpoints and our port, and the port within it.
//!
//! A record lives as long as the lease of its source port: relayed while a session has the port, forwarded while its
//! flow is installed, dropped while the port rests.

use std::{collections::HashMap, fmt, marker::PhantomData};

use proxy_common::{
    flow::{Endpoints, FlowFlags, FlowState, Head, RouteRecord as _, Stamp},
    maps::BLOCK_ROWS,
};

use super::{
    InstallError,
    blocks::Blocks,
    record::{Records, load_head, reset_counters, store_head},
    rows::{Resting, Rows},
};

/// The table of one family.
pub(super) struct ToClient<F: Records, R> {
    pub(super) rows: R,
    /// Where the programs look blocks up.
    index: Blocks<F, R>,
    blocks: HashMap<BlockId<F>, Block>,
    free: Vec<u32>,
    resting_rows: Resting,
    resting_blocks: Resting,
    family: PhantomData<F>,
}

/// A block by its endpoints: the origin to our address, and the high byte of our port.
type BlockId<F> = Endpoints<<F as proxy_common::family::Family>::Addr>;

#[derive(Debug)]
struct Block {
    base: u32,
    used: u32,
}

impl<F: Records, R> fmt::Debug for ToClient<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToClient").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

impl<F: Records, R: Rows> ToClient<F, R>
where
    F::Addr: std::hash::Hash,
{
    /// Over rows that are empty, or that [`Self::read`] is to be asked of.
    pub(super) fn new(rows: R, index: Blocks<F, R>) -> Self {
        let free = (0..rows.len() / BLOCK_ROWS).rev().map(|block| block * BLOCK_ROWS).collect();
        Self {
            rows,
            index,
            blocks: HashMap::new(),
            free,
            resting_rows: Resting::default(),
            resting_blocks: Resting::default(),
            family: PhantomData,
        }
    }

    /// Learns which blocks an earlier process used, and names the rows of its records.
    pub(super) fn read(&mut self) -> Vec<u32> {
        let mut records = Vec::new();
        for (id, base) in self.index.all() {
            let found = self.records_of(&id, base);
            if found.is_empty() {
                // It died between the block and its first record, or the reverse.
                self.index.remove(&id);
                continue;
            }
            self.free.retain(|free| *free != base);
            let used = u32::try_from(found.len()).expect("a block has few rows");
            self.blocks.insert(id, Block { base, used });
            records.extend(found);
        }
        records
    }

    fn records_of(&self, id: &BlockId<F>, base: u32) -> Vec<u32> {
        let is_record = |row: &u32| {
            load_head(&self.rows, *row).state() != FlowState::Free
                && F::load_route(&self.rows, *row).key().without_low_port() == *id
        };
        (base..self.rows.len().min(base + BLOCK_ROWS)).filter(is_record).collect()
    }

    /// Rows of the table of blocks less one.
    pub(super) fn block_mask(&self) -> u32 {
        self.index.mask()
    }

    /// The row with this key.
    pub(super) fn find(&self, key: &Endpoints<F::Addr>) -> Option<u32> {
        let row = self.base(key)? + key.row_in_block();
        (load_head(&self.rows, row).state() != FlowState::Free && F::load_route(&self.rows, row).key() == key)
            .then_some(row)
    }

    /// The first row of the block of `key`, if there is one.
    pub(super) fn base(&self, key: &Endpoints<F::Addr>) -> Option<u32> {
        self.index.find(&key.without_low_port())
    }

    /// Writes a record for `key` in a state that nothing is forwarded in.
    pub(super) fn insert(&mut self, key: Endpoints<F::Addr>, now: Stamp) -> Result<u32, InstallError> {
        if self.find(&key).is_some() {
            return Err(InstallError::Taken);
        }
        let base = self.block(&key)?;
        let row = base + key.row_in_block();
        F::store_endpoints(&self.rows, row, F::Route::new(Head::FREE, key, key));
        reset_counters::<F>(&self.rows, row, now, 0);
        store_head(&self.rows, row, head(FlowState::User));
        Ok(row)
    }

    /// Drops what still arrives for a record's session.
    pub(super) fn retire(&mut self, row: u32) {
        store_head(&self.rows, row, head(FlowState::Drop));
    }

    /// Gives a record up.
    pub(super) fn remove(&mut self, key: &Endpoints<F::Addr>) {
        let Some(row) = self.find(key) else { return };
        store_head(&self.rows, row, Head::FREE);
        self.resting_rows.rest(row);
        let id = key.without_low_port();
        let Some(block) = self.blocks.get_mut(&id) else { return };
        block.used -= 1;
        if block.used == 0 {
            let base = block.base;
            self.blocks.remove(&id);
            self.index.remove(&id);
            self.resting_blocks.rest(base);
        }
    }

    /// Notes that nothing is forwarded by a row any more.
    pub(super) fn rest(&mut self, row: u32) {
        self.resting_rows.rest(row);
    }

    /// Whether a program may still be using what was in a row.
    pub(super) fn is_resting(&self, row: u32) -> bool {
        self.resting_rows.contains(row)
    }

    /// A grace period begins; true if a row or block waits for one.
    pub(super) fn begin_grace(&mut self) -> bool {
        let waiting =
            [self.resting_rows.begin_grace(), self.resting_blocks.begin_grace(), self.index.begin_grace()];
        waiting.contains(&true)
    }

    /// The grace period is over.
    pub(super) fn end_grace(&mut self) {
        self.resting_rows.end_grace();
        self.index.end_grace();
        self.free.extend(self.resting_blocks.end_grace());
    }

    /// The first row of the block of `key`, which has a record more from now on.
    fn block(&mut self, key: &Endpoints<F::Addr>) -> Result<u32, InstallError> {
        let id = key.without_low_port();
        if let Some(block) = self.blocks.get_mut(&id) {
            block.used += 1;
            return Ok(block.base);
        }
        let base = self.free.pop().ok_or(InstallError::Full)?;
        if !self.index.insert(id, base) {
            self.free.push(base);
            return Err(InstallError::Full);
        }
        self.blocks.insert(id, Block { base, used: 1 });
        Ok(base)
    }
}

/// The head of a record towards the client that is not forwarded.
fn head(state: FlowState) -> Head {
    Head { state: state as u8, flags: FlowFlags::TO_CLIENT, ..Head::FREE }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use proxy_common::{
        family::V4,
        flow::{BlockV4, FlowV4},
        maps::block_rows,
    };
    use zerocopy::network_endian::U32;

    use super::{super::rows::memory::Memory, *};

    type Table = ToClient<V4, Memory>;

    const NOW: Stamp = Stamp(1);

    fn table(blocks: u32) -> Table {
        let rows = Memory::new(blocks * BLOCK_ROWS, size_of::<FlowV4>() / 8);
        let index = Memory::new(block_rows(blocks * BLOCK_ROWS), size_of::<BlockV4>() / 8);
        ToClient::new(rows, Blocks::new(index, 0x5eed))
    }

    fn key(origin: u32, port: u16) -> Endpoints<U32> {
        let (src, dst) = (U32::new(0x0a00_0000 + origin), U32::new(0x0a01_0001));
        Endpoints { src, dst, src_port: 8000.into(), dst_port: port.into() }
    }

    proptest! {
        #[test]
        fn a1_every_origin_and_port_has_a_row_of_its_own_under_any_history(
            steps in proptest::collection::vec((0..5_u32, 0..700_u16, any::<bool>()), 1..300),
        ) {
            let (mut table, mut model) = (table(64), HashMap::new());
            for (origin, port, insert) in steps {
                let key = key(origin, 61_000 + port);
                if insert {
                    match table.insert(key, NOW) {
                        Ok(row) => prop_assert_eq!(model.insert(key, row), None),
                        Err(error) => prop_assert_eq!((error, model.contains_key(&key)), (InstallError::Taken, true)),
                    }
                } else if model.remove(&key).is_some() {
                    table.remove(&key);
                }
                table.begin_grace();
                table.end_grace();
            }
            for (key, row) in &model {
                prop_assert_eq!(table.find(key), Some(*row));
                let base = table.base(key);
                prop_assert_eq!(base.map(|base| base + key.row_in_block()), Some(*row));
            }
            let rows: std::collections::HashSet<_> = model.values().collect();
            prop_assert_eq!(rows.len(), model.len());
        }
    }

    #[test]
    fn a_block_is_given_to_another_origin_after_a_grace_period() {
        let mut table = table(1);
        table.insert(key(1, 61_000), NOW).unwrap();
        assert_eq!(table.insert(key(2, 61_000), NOW), Err(InstallError::Full));
        table.remove(&key(1, 61_000));
        assert_eq!(table.insert(key(2, 61_000), NOW), Err(InstallError::Full));
        table.begin_grace();
        table.end_grace();
        table.insert(key(2, 61_000), NOW).unwrap();
        assert_eq!(table.find(&key(1, 61_000)), None);
    }

    #[test]
    fn ports_of_one_origin_share_blocks() {
        let mut table = table(2);
        for port in 61_184..61_184 + 512 {
            table.insert(key(1, port), NOW).unwrap();
        }
        assert_eq!(table.insert(key(1, 61_183), NOW), Err(InstallError::Full));
    }
}
