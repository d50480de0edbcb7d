//! The kernel tables and the only code that touches them.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_MMAPABLE},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use proxy_common::{
    flow::{Arrival, ArrivalKey, Flow, FlowKey, NextHop, Route, Stamp},
    forward::{Count, Tables},
    maps::{ARRIVAL_ROWS, DEFAULT_RECORDS, NEXT_HOP_ROWS, REASON_SLOTS},
    verdict::{Engine, Reason},
    wire::Headers,
};

#[map]
static FLOW_INDEX: HashMap<FlowKey, u32> = HashMap::with_max_entries(DEFAULT_RECORDS, 0);

#[map]
static FLOWS: Array<Flow> = Array::with_max_entries(DEFAULT_RECORDS, BPF_F_MMAPABLE);

#[map]
static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(NEXT_HOP_ROWS, BPF_F_MMAPABLE);

#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASON_SLOTS, 0);

#[map]
static ARRIVALS: LruHashMap<ArrivalKey, Arrival> = LruHashMap::with_max_entries(ARRIVAL_ROWS, 0);

/// The tables as a decision sees them.
pub(crate) struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn route(&self, key: &FlowKey) -> Option<(u32, Route)> {
        // SAFETY: preallocated entries are never unmapped while a program runs, and a value is one aligned word.
        let record = *unsafe { FLOW_INDEX.get(key) }?;
        let words = FLOWS.get_ptr(record)?.cast::<[u64; 2]>();
        // SAFETY: a record starts with its 16-byte route and is 8-byte aligned; userspace stores whole words.
        let words = unsafe { words.read_volatile() };
        Some((record, Route::from_words(words)))
    }

    #[inline(always)]
    fn next_hop(&self, index: u16) -> Option<NextHop> {
        let words = NEXT_HOPS.get_ptr(u32::from(index))?.cast::<[u64; 4]>();
        // SAFETY: a row is four aligned words; userspace stores whole words.
        let words = unsafe { words.read_volatile() };
        Some(NextHop::from_words(words))
    }
}

/// Adds a forwarded frame to its direction. Receive steering keeps a direction on one CPU, so plain adds lose nothing
/// but, at worst, a few counts while it moves.
#[inline(always)]
pub(crate) fn count_flow(record: u32, count: &Count) {
    let Some(flow) = FLOWS.get_ptr_mut(record) else { return };
    // SAFETY: the record outlives the program run, and only the kernel writes its counters.
    let counters = unsafe { &mut (*flow).counters };
    counters.add(count, now());
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
pub(crate) fn note_arrival(headers: &Headers, ifindex: u32) {
    let Headers { ip, udp, .. } = headers;
    let arrival = Arrival { addr: ip.dst, port: udp.dst, reserved: [0; 2], ifindex, stamp: now().0 };
    // A full table evicts its oldest row; nothing else can fail.
    let _ = ARRIVALS.insert(ArrivalKey::of(headers), arrival, u64::from(BPF_ANY));
}

#[inline(always)]
fn now() -> Stamp {
    // SAFETY: the helper has no preconditions.
    Stamp::from_nanos(unsafe { bpf_ktime_get_coarse_ns() })
}
