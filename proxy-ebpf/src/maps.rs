//! The tables that do not depend on how records are found, and the only code that touches them.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use proxy_common::{
    family::{Address as _, Family},
    flow::{
        Arrival, ArrivalKey, BlockMasks, Endpoints, Hashing, MissCount, NextHop, Ownership, Policing,
        ServiceKey, Settings, Stamp,
    },
    forward::{Budget, Tables},
    maps::{
        ARRIVAL_ROWS, EXPECTED_ROWS, MISS_ROWS, NEXT_HOP_ROWS, REASON_SLOTS, SERVICE_ROWS, SESSION_BYTES,
        SESSION_ROWS,
    },
    verdict::{Engine, Reason},
};

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

    /// How blocks of records towards the client are found.
    #[inline(always)]
    pub(crate) fn block_masks(&self) -> Option<BlockMasks> {
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
