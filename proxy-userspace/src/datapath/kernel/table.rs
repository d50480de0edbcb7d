//! The tables as userspace writes them: records, next hops and settings through a shared mapping, the rest by syscall.

use std::{
    collections::HashSet,
    fmt, fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray},
};
use proxy_common::{
    family::{V4, V6},
    flow::{
        Arrival, ArrivalKey, BlockV4, BlockV6, EgressKind, FlowV4, FlowV6, MissCount, NextHop, ServiceKey,
        Settings, Stamp,
    },
    maps,
    verdict::{Engine, Reason},
};
use rustix::time::{ClockId, clock_gettime};
use zerocopy::IntoBytes as _;

use super::{
    LoadError,
    blocks::Blocks,
    flows::Flows,
    rows::{Mapping, Rows as _},
    to_client::ToClient,
    to_origin::ToOrigin,
};

/// Now, as the kernel stamps records.
pub(super) fn now() -> Stamp {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Stamp::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// The open tables.
pub(super) struct Tables {
    pub(super) v4: Flows<V4, Mapping>,
    pub(super) v6: Flows<V6, Mapping>,
    next_hops: Mapping,
    settings: Mapping,
    seed: u64,
    is_used: bool,
    services: HashMap<MapData, ServiceKey, u32>,
    expected: HashMap<MapData, u64, MissCount>,
    reasons: PerCpuArray<MapData, u64>,
    arrivals: HashMap<MapData, ArrivalKey, Arrival>,
    bytes: u64,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Flows of each family that the tables are for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    pub(super) v4: u32,
    pub(super) v6: u32,
}

impl Tables {
    /// Opens the tables; `seed` is for those that no process has used before.
    pub(super) fn open(ebpf: &mut Ebpf, capacity: Capacity, seed: u64) -> Result<Self, LoadError> {
        let settings = mapped::<Settings>(ebpf, maps::SETTINGS)?;
        let is_used = load_settings(&settings).abi_version != 0;
        let seed = if is_used { load_settings(&settings).hashing.seed } else { seed };
        let bytes = ebpf.maps().map(|(_, map)| memory_of(map)).sum();
        let v4 = Flows::new(
            ToOrigin::new(mapped::<FlowV4>(ebpf, maps::TO_ORIGIN_V4)?, seed, capacity.v4),
            ToClient::new(
                mapped::<FlowV4>(ebpf, maps::TO_CLIENT_V4)?,
                Blocks::new(mapped::<BlockV4>(ebpf, maps::BLOCKS_V4)?, seed),
            ),
        );
        let v6 = Flows::new(
            ToOrigin::new(mapped::<FlowV6>(ebpf, maps::TO_ORIGIN_V6)?, seed, capacity.v6),
            ToClient::new(
                mapped::<FlowV6>(ebpf, maps::TO_CLIENT_V6)?,
                Blocks::new(mapped::<BlockV6>(ebpf, maps::BLOCKS_V6)?, seed),
            ),
        );
        Ok(Self {
            v4,
            v6,
            next_hops: mapped::<NextHop>(ebpf, maps::NEXT_HOPS)?,
            settings,
            seed,
            is_used,
            services: typed(ebpf, maps::SERVICES)?,
            expected: typed(ebpf, maps::EXPECTED)?,
            reasons: typed(ebpf, maps::REASONS)?,
            arrivals: typed(ebpf, maps::ARRIVALS)?,
            bytes,
        })
    }

    /// How records are found.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether a process before this one wrote to them.
    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the settings, each word whole.
    pub(super) fn set_settings(&self, settings: Settings) {
        for (word, bytes) in settings.as_bytes().chunks_exact(size_of::<u64>()).enumerate() {
            let value = u64::from_ne_bytes(bytes.try_into().expect("chunks have the length of a word"));
            self.settings.store(0, word, value);
        }
    }

    /// Writes a row. A reader sees either row while only addresses or MTU change, and none in between otherwise.
    pub(super) fn set_next_hop(&self, row: u16, hop: NextHop) {
        let row = u32::from(row);
        let [neighbour, us, device, _] = hop.to_words();
        let [_, closed, ..] = NextHop { egress: EgressKind::Unusable as u8, ..hop }.to_words();
        if self.next_hops.load(row, 2) != device {
            self.next_hops.store(row, 1, closed);
        }
        self.next_hops.store(row, 0, neighbour);
        self.next_hops.store(row, 2, device);
        self.next_hops.store(row, 1, us);
    }

    pub(super) fn next_hop(&self, row: u16) -> NextHop {
        NextHop::from_words(self.next_hops.load_words(u32::from(row), 0))
    }

    pub(super) fn frames(&self, engine: Engine, reason: Reason) -> u64 {
        self.reasons.get(&reason.slot(engine), 0).map_or(0, |per_cpu| per_cpu.iter().sum())
    }

    pub(super) fn arrival(&self, key: &ArrivalKey) -> Option<Arrival> {
        self.arrivals.get(key, 0).ok()
    }

    pub(super) fn service(&self, key: &ServiceKey) -> Option<u32> {
        self.services.get(key, 0).ok()
    }

    pub(super) fn set_service(&mut self, key: ServiceKey, flags: u32) {
        if let Err(error) = self.services.insert(key, flags, 0) {
            tracing::warn!(%error, "a service cannot be policed");
        }
    }

    /// Forgets services that an earlier process policed and this one does not.
    pub(super) fn keep_services(&mut self, which: impl Fn(&ServiceKey) -> bool) {
        let keys: Vec<ServiceKey> = self.services.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| !which(key)) {
            // It may be gone already.
            let _missing = self.services.remove(key);
        }
    }

    /// Forgets networks that an earlier process awaited sessions from and this one does not.
    pub(super) fn keep_expected(&mut self, which: impl Fn(u64) -> bool) {
        let keys: Vec<u64> = self.expected.keys().filter_map(Result::ok).collect();
        keys.into_iter().filter(|prefix| !which(*prefix)).for_each(|prefix| self.unexpect(prefix));
    }

    pub(super) fn expect(&mut self, prefix: u64) {
        if let Err(error) = self.expected.insert(prefix, MissCount { window: 0, count: 0 }, 0) {
            tracing::debug!(%error, "a source prefix shares the budget of all");
        }
    }

    pub(super) fn unexpect(&mut self, prefix: u64) {
        // It may never have been there: the table was full.
        let _missing = self.expected.remove(&prefix);
    }
}

fn load_settings(rows: &Mapping) -> Settings {
    let words: [u64; size_of::<Settings>() / size_of::<u64>()] = rows.load_words(0, 0);
    zerocopy::transmute!(words)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Missing(name))
}

pub(super) fn typed<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, LoadError> {
    take(ebpf, name)?.try_into().map_err(|source| LoadError::Map { name, source })
}

fn mapped<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<Mapping, LoadError> {
    let Map::Array(map) = take(ebpf, name)? else { return Err(LoadError::Missing(name)) };
    let rows = map.info().map_err(|source| LoadError::Map { name, source })?.max_entries();
    let words = size_of::<T>() / size_of::<u64>();
    Mapping::new(map, rows, words).map_err(|source| LoadError::Mmap { name, source })
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

/// Rows of a table that are in use.
#[derive(Debug)]
pub(super) struct RowPool {
    capacity: u32,
    used: u32,
    free: Vec<u32>,
}

impl RowPool {
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, used: 0, free: Vec::new() }
    }

    /// All but these are free.
    pub(super) fn inherit(&mut self, taken: &HashSet<u32>) {
        self.used = taken.iter().max().map_or(0, |last| last + 1);
        self.free = (0..self.used).filter(|row| !taken.contains(row)).collect();
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(row) = self.free.pop() {
            return Some(row);
        }
        let row = (self.used < self.capacity).then_some(self.used)?;
        self.used += 1;
        Some(row)
    }

    pub(super) fn give_back(&mut self, rows: Vec<u32>) {
        self.free.extend(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_given_twice() {
        let mut rows = RowPool::new(2);
        assert_eq!((rows.take(), rows.take(), rows.take()), (Some(0), Some(1), None));
        rows.give_back(vec![1]);
        assert_eq!((rows.take(), rows.take()), (Some(1), None));
    }
}
