//! The tables as userspace writes them: records and next hops through a shared mapping, keys by syscall.
//!
//! Userspace and the kernel never write the same word; each word is stored and loaded whole.

use std::{
    collections::VecDeque,
    fmt, fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray},
    sys::SyscallError,
};
use proxy_common::{
    flow::{Arrival, ArrivalKey, Counters, EgressKind, Flow, FlowKey, FlowState, NextHop, Route, Stamp},
    maps,
    verdict::{Engine, Reason},
};
use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
    time::{ClockId, clock_gettime},
};

use super::{InstallError, LoadError};

/// A removed row rests this long: a program that found it just before may still use it.
const REST: Duration = Duration::from_secs(1);
/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;

/// Now, as the kernel stamps records.
pub(super) fn now() -> Stamp {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Stamp::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// The open tables.
pub(super) struct Tables {
    index: HashMap<MapData, FlowKey, u32>,
    flows: Mapping<Flow>,
    next_hops: Mapping<NextHop>,
    reasons: PerCpuArray<MapData, u64>,
    arrivals: HashMap<MapData, ArrivalKey, Arrival>,
    bytes: u64,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Tables {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let bytes = ebpf.maps().map(|(_, map)| memory_of(map)).sum();
        Ok(Self {
            index: typed(ebpf, maps::FLOW_INDEX)?,
            flows: mapped(ebpf, maps::FLOWS)?,
            next_hops: mapped(ebpf, maps::NEXT_HOPS)?,
            reasons: typed(ebpf, maps::REASONS)?,
            arrivals: typed(ebpf, maps::ARRIVALS)?,
            bytes,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes a record that no key leads to.
    pub(super) fn set_record(&self, record: u32, route: Route, now: Stamp) {
        let none = Counters { packets: 0, bytes: 0, checks: 0, alerts: 0, last_seen: now.0, reserved: 0 };
        self.flows.store(record, ROUTE_WORDS, none.to_words());
        self.flows.store(record, 0, route.to_words());
    }

    pub(super) fn record_of(&self, key: &FlowKey) -> Option<u32> {
        self.index.get(key, 0).ok()
    }

    pub(super) fn route(&self, record: u32) -> Route {
        Route::from_words(self.flows.load(record, 0))
    }

    pub(super) fn counters(&self, record: u32) -> Counters {
        Counters::from_words(self.flows.load(record, ROUTE_WORDS))
    }

    pub(super) fn set_flag(&self, record: u32, flag: u8, on: bool) {
        let route = self.route(record);
        let flags = if on { route.flags | flag } else { route.flags & !flag };
        self.flows.store(record, 0, Route { flags, ..route }.to_words());
    }

    pub(super) fn set_state(&self, record: u32, state: FlowState) {
        let route = Route { state: state as u8, ..self.route(record) };
        self.flows.store(record, 0, route.to_words());
    }

    /// Makes two records found: both, or neither.
    pub(super) fn publish_pair(
        &mut self,
        first: (FlowKey, u32),
        second: (FlowKey, u32),
    ) -> Result<(), InstallError> {
        self.publish(first)?;
        self.publish(second).inspect_err(|_| self.withdraw(&first.0))
    }

    fn publish(&mut self, (key, record): (FlowKey, u32)) -> Result<(), InstallError> {
        self.index.insert(key, record, NO_EXIST).map_err(|error| install_error(&error))
    }

    /// Makes a record unfindable.
    pub(super) fn withdraw(&mut self, key: &FlowKey) {
        if let Err(error) = self.index.remove(key) {
            tracing::warn!(?error, "failed to remove a flow key");
        }
    }

    /// Writes a row. A reader sees either row while only addresses or MTU change, and none in between otherwise.
    pub(super) fn set_next_hop(&self, row: u16, hop: NextHop) {
        let row = u32::from(row);
        let [neighbour, us, device, _] = hop.to_words();
        let [_, closed, ..] = NextHop { egress: EgressKind::Unusable as u8, ..hop }.to_words();
        let [_, _, old_device, _] = self.next_hops.load(row, 0);
        if old_device != device {
            self.next_hops.store(row, 1, [closed]);
        }
        self.next_hops.store(row, 0, [neighbour]);
        self.next_hops.store(row, 2, [device]);
        self.next_hops.store(row, 1, [us]);
    }

    pub(super) fn next_hop(&self, row: u16) -> NextHop {
        NextHop::from_words(self.next_hops.load(u32::from(row), 0))
    }

    pub(super) fn frames(&self, engine: Engine, reason: Reason) -> u64 {
        self.reasons.get(&reason.slot(engine), 0).map_or(0, |per_cpu| per_cpu.iter().sum())
    }

    pub(super) fn arrival(&self, key: &ArrivalKey) -> Option<Arrival> {
        self.arrivals.get(key, 0).ok()
    }
}

const ROUTE_WORDS: usize = size_of::<Route>() / size_of::<u64>();

fn install_error(error: &MapError) -> InstallError {
    let MapError::SyscallError(SyscallError { io_error, .. }) = error else {
        return InstallError::Kernel(0);
    };
    match Errno::from_io_error(io_error) {
        Some(Errno::EXIST) => InstallError::Taken,
        Some(Errno::TOOBIG) => InstallError::Full,
        errno => InstallError::Kernel(errno.map_or(0, Errno::raw_os_error)),
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Missing(name))
}

fn typed<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, LoadError> {
    take(ebpf, name)?.try_into().map_err(|source| LoadError::Map { name, source })
}

fn mapped<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<Mapping<T>, LoadError> {
    let Map::Array(map) = take(ebpf, name)? else { return Err(LoadError::Missing(name)) };
    let rows = map.info().map_err(|source| LoadError::Map { name, source })?.max_entries();
    Mapping::new(map, rows).map_err(|source| LoadError::Mmap { name, source })
}

/// What the kernel charges for a map.
fn memory_of(map: &Map) -> u64 {
    let (Map::Array(map) | Map::HashMap(map) | Map::LruHashMap(map) | Map::PerCpuArray(map)) = map else {
        return 0;
    };
    charged(map.fd().as_fd()).unwrap_or(0)
}

fn charged(fd: BorrowedFd<'_>) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

/// An array map of `T` in this process's memory.
#[derive(Debug)]
struct Mapping<T> {
    base: NonNull<T>,
    rows: u32,
    // Keeps the map open: aya closes it on drop.
    _map: MapData,
}

// SAFETY: the mapping is memory of the process, not of a thread, and is only accessed atomically.
unsafe impl<T> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapping<T> {}

impl<T> Mapping<T> {
    fn new(map: MapData, rows: u32) -> io::Result<Self> {
        let length = Self::length(rows);
        // SAFETY: a new mapping at an address of the kernel's choice; the kernel refuses a length behind the map's end.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, rows, _map: map })
    }

    fn length(rows: u32) -> usize {
        rows as usize * size_of::<T>()
    }

    fn store<const N: usize>(&self, row: u32, first: usize, words: [u64; N]) {
        for (offset, word) in words.into_iter().enumerate() {
            self.word(row, first + offset).store(word, Ordering::Release);
        }
    }

    fn load<const N: usize>(&self, row: u32, first: usize) -> [u64; N] {
        std::array::from_fn(|offset| self.word(row, first + offset).load(Ordering::Acquire))
    }

    fn word(&self, row: u32, word: usize) -> &AtomicU64 {
        assert!(row < self.rows && word < size_of::<T>() / size_of::<u64>(), "row {row} is not in the table");
        // SAFETY: in bounds by the assertion, aligned because rows are multiples of words, and mapped as long as `self`.
        unsafe { AtomicU64::from_ptr(self.base.add(row as usize).cast::<u64>().add(word).as_ptr()) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length, and no reference to it outlives `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), Self::length(self.rows)) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Which rows are in use.
#[derive(Debug)]
pub(super) struct RowPool {
    capacity: u32,
    used: u32,
    resting: VecDeque<(Stamp, u32)>,
}

impl RowPool {
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, used: 0, resting: VecDeque::new() }
    }

    /// A row that nobody can still be using.
    pub(super) fn take(&mut self, now: Stamp) -> Option<u32> {
        if let Some((_, row)) = self.resting.pop_front_if(|(since, _)| now.since(*since) >= REST) {
            return Some(row);
        }
        let row = (self.used < self.capacity).then_some(self.used)?;
        self.used += 1;
        Some(row)
    }

    pub(super) fn give_back(&mut self, row: u32, now: Stamp) {
        self.resting.push_back((now, row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u32 = 1_000_000_000 >> 20;

    #[test]
    fn a_row_rests_before_it_is_used_again() {
        let mut rows = RowPool::new(1);
        assert_eq!(rows.take(Stamp(0)), Some(0));
        rows.give_back(0, Stamp(0));
        assert_eq!(rows.take(Stamp(SECOND / 2)), None);
        assert_eq!(rows.take(Stamp(SECOND + 1)), Some(0));
    }

    #[test]
    fn a_rest_survives_the_wrap_of_the_clock() {
        let mut rows = RowPool::new(1);
        rows.take(Stamp(0));
        rows.give_back(0, Stamp(u32::MAX - 10));
        assert_eq!(rows.take(Stamp(0)), None);
        assert_eq!(rows.take(Stamp(SECOND)), Some(0));
    }

    #[test]
    fn no_row_is_given_twice() {
        let mut rows = RowPool::new(2);
        assert_eq!((rows.take(Stamp(0)), rows.take(Stamp(0)), rows.take(Stamp(0))), (Some(0), Some(1), None));
    }
}
