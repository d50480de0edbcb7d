//! The tables of records, and the only code that touches them.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use proxy_common::{
    family::{Family, V4, V6},
    flow::{
        BlockMasks, BlockV4, BlockV6, Counters, Direction, Endpoints, FlowV4, FlowV6, Hashing, Head, Idle,
        RouteRecord, RouteV4, RouteV6, Stamp,
        block::{first_row, homed},
    },
    forward::{Count, Place, Record, Records, Tables as _, probe},
    maps::{DEFAULT_FLOWS, block_rows, to_client_rows, to_origin_rows},
};

use crate::maps::KernelTables;

#[map]
static TO_ORIGIN_V4: Array<FlowV4> = Array::with_max_entries(to_origin_rows(DEFAULT_FLOWS), BPF_F_MMAPABLE);

#[map]
static TO_ORIGIN_V6: Array<FlowV6> = Array::with_max_entries(to_origin_rows(DEFAULT_FLOWS), BPF_F_MMAPABLE);

#[map]
static TO_CLIENT_V4: Array<FlowV4> = Array::with_max_entries(to_client_rows(DEFAULT_FLOWS), BPF_F_MMAPABLE);

#[map]
static TO_CLIENT_V6: Array<FlowV6> = Array::with_max_entries(to_client_rows(DEFAULT_FLOWS), BPF_F_MMAPABLE);

#[map]
static BLOCKS_V4: Array<BlockV4> =
    Array::with_max_entries(block_rows(to_client_rows(DEFAULT_FLOWS)), BPF_F_MMAPABLE);

#[map]
static BLOCKS_V6: Array<BlockV6> =
    Array::with_max_entries(block_rows(to_client_rows(DEFAULT_FLOWS)), BPF_F_MMAPABLE);

/// A family's own tables.
pub(crate) trait Maps: Family {
    /// A record's words.
    fn record(direction: Direction, row: u32) -> Option<*mut Self::Route>;
    /// The first row of the block that a key of this direction is in.
    fn block(key: &Endpoints<Self::Addr>) -> Option<u32>;
    /// The row that has this key. Both are looked for in line: a call costs a packet 6 ns where returns are guarded against
    /// speculation, and the verifier walks less when it sees the map of a home and what follows from it together.
    fn find(key: &Endpoints<Self::Addr>) -> Option<u32>;
}

macro_rules! maps {
    (
        $family:ident, $route:ident, $mask:ident, $masks:ident,
        $to_origin:ident, $to_client:ident, $blocks:ident
    ) => {
        impl Maps for $family {
            #[inline(always)]
            fn record(direction: Direction, row: u32) -> Option<*mut $route> {
                let record = match direction {
                    Direction::ToOrigin => $to_origin.get_ptr_mut(row)?,
                    Direction::ToClient => $to_client.get_ptr_mut(row)?,
                };
                Some(record.cast())
            }

            #[inline(always)]
            fn block(key: &Endpoints<Self::Addr>) -> Option<u32> {
                let Hashing { seed, .. } = KernelTables.hashing()?;
                let BlockMasks { $masks: mask, .. } = KernelTables.block_masks()?;
                let key = key.without_low_port();
                let home = key.block_home(seed) & mask;
                let wanted = key.to_words();
                let words = |row| Some($blocks.get_ptr(row)?.cast::<u32>());
                // SAFETY: a row is its endpoints and behind them its place, in aligned half words that userspace stores whole.
                let word = |words: *const u32, n: usize| unsafe { words.add(n).read_volatile() };
                let place = |row| Some(word(words(row)?, wanted.len()));
                let is_wanted = |row| {
                    let Some(words) = words(row) else { return false };
                    (0..wanted.len()).all(|n| word(words, n) == wanted[n])
                };
                let row = probe(home, mask, homed(place(home)?), is_wanted)?;
                place(row).map(first_row)
            }

            #[inline(always)]
            fn find(key: &Endpoints<Self::Addr>) -> Option<u32> {
                let Hashing { seed, $mask: mask, .. } = KernelTables.hashing()?;
                // The hash names a row by its low half.
                let home = key.hash(seed) as u32 & mask;
                let word = $to_origin.get_ptr(home)?.cast::<u64>();
                // SAFETY: a record starts with its head, one aligned word, which userspace stores whole.
                let head = Head::from_word(unsafe { word.read_volatile() });
                let wanted = key.to_words();
                let is_wanted = |row| {
                    let Some(record) = $to_origin.get_ptr(row) else { return false };
                    // SAFETY: in a record the key follows the head, in aligned half words.
                    let word = |n: usize| unsafe { record.cast::<u32>().add(2 + n).read_volatile() };
                    (0..wanted.len()).all(|n| word(n) == wanted[n])
                };
                probe(home, mask, u32::from(head.homed), is_wanted)
            }
        }
    };
}

maps!(V4, RouteV4, mask_v4, v4, TO_ORIGIN_V4, TO_CLIENT_V4, BLOCKS_V4);
maps!(V6, RouteV6, mask_v6, v6, TO_ORIGIN_V6, TO_CLIENT_V6, BLOCKS_V6);

impl<F: Maps> Records<F> for KernelTables {
    #[inline(always)]
    fn find(&self, direction: Direction, key: &Endpoints<F::Addr>) -> Option<Place> {
        let row = match direction {
            Direction::ToOrigin => F::find(key)?,
            Direction::ToClient => F::block(key)?.wrapping_add(key.row_in_block()),
        };
        Some(Place(F::record(direction, row)? as u64))
    }

    #[inline(always)]
    fn route(&self, (_, Place(address)): Record) -> F::Route {
        let words = address as *const <F::Route as RouteRecord>::Words;
        // SAFETY: `find` got the address of a record, which starts with its route, is 8-byte aligned and outlives the program
        // run; userspace stores whole words.
        F::Route::from_words(unsafe { words.read_volatile() })
    }

    #[inline(always)]
    fn idle(&self, record: Record) -> Idle {
        // SAFETY: as above, and the counters start with one aligned word.
        Idle::from_word(unsafe { counters::<F>(record).cast::<u64>().read_volatile() })
    }
}

/// The counters of a record that was found.
#[inline(always)]
fn counters<F: Maps>((_, Place(address)): Record) -> *mut Counters {
    // In a record the counters follow the route.
    (address as *mut F::Route).wrapping_add(1).cast()
}

/// Adds a forwarded frame to its direction. Receive steering keeps a direction on one CPU, so plain adds lose nothing
/// but, at worst, a few counts while it moves.
#[inline(always)]
pub(crate) fn count_flow<F: Maps>(record: Record, count: &Count, now: Stamp) {
    // SAFETY: the record outlives the program run, and only the kernel writes its counters.
    unsafe { (*counters::<F>(record)).add(count, now) };
}
