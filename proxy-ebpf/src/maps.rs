//! The kernel tables and the only code that touches them.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use proxy_common::{
    family::{Address as _, Family, V4, V6},
    flow::{
        Arrival, ArrivalKey, BlockMasks, BlockV4, BlockV6, Counters, Direction, Endpoints, FlowV4, FlowV6,
        Hashing, Head, Idle, MissCount, NextHop, Ownership, Policing, RouteRecord, RouteV4, RouteV6,
        ServiceKey, Settings, Stamp,
        block::{first_row, homed},
    },
    forward::{Budget, Count, Records, Tables, probe},
    maps::{
        ARRIVAL_ROWS, DEFAULT_FLOWS, EXPECTED_ROWS, MISS_ROWS, NEXT_HOP_ROWS, REASON_SLOTS, SERVICE_ROWS,
        SESSION_BYTES, SESSION_ROWS, block_rows, to_client_rows, to_origin_rows,
    },
    verdict::{Engine, Reason},
};

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

#[map]
static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(NEXT_HOP_ROWS, BPF_F_MMAPABLE);

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static SERVICES: HashMap<ServiceKey, u32> = HashMap::with_max_entries(SERVICE_ROWS, 0);

#[map]
static EXPECTED: HashMap<u64, MissCount> = HashMap::with_max_entries(EXPECTED_ROWS, 0);

#[map]
static MISSES: Array<MissCount> = Array::with_max_entries(MISS_ROWS * Engine::ALL.len() as u32, 0);

#[map]
static MISSES_IN_ALL: PerCpuArray<MissCount> = PerCpuArray::with_max_entries(Engine::ALL.len() as u32, 0);

#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASON_SLOTS, 0);

#[map]
static ARRIVALS: LruHashMap<ArrivalKey, Arrival> = LruHashMap::with_max_entries(ARRIVAL_ROWS, 0);

/// No program looks here: the kernel keeps it for the next process.
#[map]
static SESSIONS: HashMap<u64, [u8; SESSION_BYTES]> =
    HashMap::with_max_entries(SESSION_ROWS, BPF_F_NO_PREALLOC);

/// The tables as a decision sees them.
pub(crate) struct KernelTables;

impl KernelTables {
    /// Two words of the settings.
    #[inline(always)]
    fn settings(&self, first: usize) -> Option<[u64; 2]> {
        let words = SETTINGS.get_ptr(0)?.cast::<[u64; 2]>();
        // SAFETY: the row is eight aligned words, and `first` is one of its even ones; userspace stores whole words.
        Some(unsafe { words.byte_add(first).read_volatile() })
    }
}

impl KernelTables {
    #[inline(always)]
    fn block_masks(&self) -> Option<BlockMasks> {
        let [_, masks] = self.settings(core::mem::offset_of!(Settings, abi_version))?;
        Some(BlockMasks::from_word(masks))
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn hashing(&self) -> Option<Hashing> {
        self.settings(core::mem::offset_of!(Settings, hashing)).map(Hashing::from_words)
    }

    #[inline(always)]
    fn ownership(&self) -> Option<Ownership> {
        self.settings(core::mem::offset_of!(Settings, ownership)).map(Ownership::from_words)
    }

    #[inline(always)]
    fn policing(&self) -> Option<Policing> {
        self.settings(core::mem::offset_of!(Settings, policing)).map(Policing::from_words)
    }

    #[inline(always)]
    fn next_hop(&self, index: u16) -> Option<NextHop> {
        let words = NEXT_HOPS.get_ptr(u32::from(index))?.cast::<[u64; 4]>();
        // SAFETY: a row is four aligned words; userspace stores whole words.
        let words = unsafe { words.read_volatile() };
        Some(NextHop::from_words(words))
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<u32> {
        // SAFETY: preallocated entries are never unmapped while a program runs, and a value is one aligned word.
        unsafe { SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn spend(&self, budget: Budget, window: u32, limit: u32) -> Option<bool> {
        let count = match budget {
            Budget::Expected(prefix) => EXPECTED.get_ptr_mut(prefix)?,
            Budget::Source(row) => MISSES.get_ptr_mut(row)?,
            Budget::All(engine) => MISSES_IN_ALL.get_ptr_mut(engine as u32)?,
        };
        // SAFETY: entries are never unmapped while a program runs. CPUs may count over each other: a budget is then a little
        // larger than it says.
        Some(unsafe { (*count).spend(window, limit) })
    }
}

/// A family's own tables.
pub(crate) trait Maps: Family {
    /// A record's words.
    fn record(direction: Direction, row: u32) -> Option<*mut Self::Route>;
    /// The first row of the block that a key of this direction is in.
    fn block(key: &Endpoints<Self::Addr>) -> Option<u32>;
    /// The row that has this key. Like the block it is looked for out of line: what the verifier walks behind the search does
    /// not depend on how long it was.
    fn find(key: &Endpoints<Self::Addr>) -> Option<u32>;
}

macro_rules! maps {
    (
        $family:ident, $route:ident, $mask:ident, $masks:ident,
        $to_origin:ident, $to_client:ident, $blocks:ident, $search:ident, $search_block:ident
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
                u32::try_from($search_block(key)).ok()
            }

            #[inline(always)]
            fn find(key: &Endpoints<Self::Addr>) -> Option<u32> {
                u32::try_from($search(key)).ok()
            }
        }

        #[inline(never)]
        fn $search(key: &Endpoints<<$family as Family>::Addr>) -> i64 {
            let Some(Hashing { seed, $mask: mask, .. }) = KernelTables.hashing() else { return -1 };
            // The hash names a row by its low half.
            let home = key.hash(seed) as u32 & mask;
            let Some(record) = $to_origin.get_ptr(home) else { return -1 };
            // SAFETY: a record starts with its head, one aligned word, which userspace stores whole.
            let head = Head::from_word(unsafe { record.cast::<u64>().read_volatile() });
            let wanted = key.to_words();
            let is_wanted = |row| {
                let Some(record) = $to_origin.get_ptr(row) else { return false };
                // SAFETY: in a record the key follows the head, in aligned half words.
                let word = |n: usize| unsafe { record.cast::<u32>().add(2 + n).read_volatile() };
                (0..wanted.len()).all(|n| word(n) == wanted[n])
            };
            probe(home, mask, u32::from(head.homed), is_wanted).map_or(-1, i64::from)
        }

        #[inline(never)]
        fn $search_block(key: &Endpoints<<$family as Family>::Addr>) -> i64 {
            let (Some(Hashing { seed, .. }), Some(BlockMasks { $masks: mask, .. })) =
                (KernelTables.hashing(), KernelTables.block_masks())
            else {
                return -1;
            };
            let key = key.without_low_port();
            let home = key.hash(seed) as u32 & mask;
            let wanted = key.to_words();
            let words = |row| Some($blocks.get_ptr(row)?.cast::<u32>());
            // SAFETY: a row is its endpoints and behind them its place, in aligned half words that userspace stores whole.
            let word = |words: *const u32, n: usize| unsafe { words.add(n).read_volatile() };
            let place = |row| Some(word(words(row)?, wanted.len()));
            let is_wanted = |row| {
                let Some(words) = words(row) else { return false };
                (0..wanted.len()).all(|n| word(words, n) == wanted[n])
            };
            let Some(map) = place(home).map(homed) else { return -1 };
            let found = probe(home, mask, map, is_wanted).and_then(place);
            found.map_or(-1, |place| i64::from(first_row(place)))
        }
    };
}

maps!(V4, RouteV4, mask_v4, v4, TO_ORIGIN_V4, TO_CLIENT_V4, BLOCKS_V4, search_v4, search_block_v4);
maps!(V6, RouteV6, mask_v6, v6, TO_ORIGIN_V6, TO_CLIENT_V6, BLOCKS_V6, search_v6, search_block_v6);

impl<F: Maps> Records<F> for KernelTables {
    #[inline(always)]
    fn route(&self, direction: Direction, row: u32) -> Option<F::Route> {
        let words = F::record(direction, row)?.cast::<<F::Route as RouteRecord>::Words>();
        // SAFETY: a record starts with its route and is 8-byte aligned; userspace stores whole words.
        let words = unsafe { words.read_volatile() };
        Some(F::Route::from_words(words))
    }

    #[inline(always)]
    fn idle(&self, direction: Direction, row: u32) -> Option<Idle> {
        let counters = counters::<F>(direction, row)?;
        // SAFETY: the record outlives the program run, and its counters start with one aligned word.
        Some(Idle::from_word(unsafe { counters.cast::<u64>().read_volatile() }))
    }

    #[inline(always)]
    fn block(&self, key: &Endpoints<F::Addr>) -> Option<u32> {
        F::block(key)
    }

    #[inline(always)]
    fn find(&self, key: &Endpoints<F::Addr>) -> Option<u32> {
        F::find(key)
    }
}

#[inline(always)]
fn counters<F: Maps>(direction: Direction, row: u32) -> Option<*mut Counters> {
    let route = F::record(direction, row)?;
    // SAFETY: in a record the counters follow the route.
    Some(unsafe { route.add(1) }.cast())
}

/// Adds a forwarded frame to its direction. Receive steering keeps a direction on one CPU, so plain adds lose nothing
/// but, at worst, a few counts while it moves.
#[inline(always)]
pub(crate) fn count_flow<F: Maps>((direction, row): (Direction, u32), count: &Count, now: Stamp) {
    let Some(counters) = counters::<F>(direction, row) else { return };
    // SAFETY: the record outlives the program run, and only the kernel writes its counters.
    unsafe { (*counters).add(count, now) };
}

/// Counts `frames` frames that left the packet path for `reason`.
#[inline(always)]
pub(crate) fn count_reason(engine: Engine, reason: Reason, frames: u32) {
    if let Some(slot) = REASONS.get_ptr_mut(reason.slot(engine)) {
        // SAFETY: the slot is this CPU's own, and a program is not preempted by itself.
        unsafe { *slot = (*slot).wrapping_add(u64::from(frames)) };
    }
}

/// Records where a STUN request without a flow came in.
#[inline(always)]
pub(crate) fn note_arrival<F: Family>(key: &Endpoints<F::Addr>, ifindex: u32, now: Stamp) {
    let arrival =
        Arrival { addr: key.dst.mapped(), port: key.dst_port, reserved: [0; 2], ifindex, stamp: now.0 };
    // A full table evicts its oldest row; nothing else can fail.
    let _ = ARRIVALS.insert(ArrivalKey::of(key.src, key.src_port), arrival, u64::from(BPF_ANY));
}

/// Now.
#[inline(always)]
pub(crate) fn now() -> Stamp {
    // SAFETY: the helper has no preconditions.
    Stamp::from_nanos(unsafe { bpf_ktime_get_coarse_ns() })
}
