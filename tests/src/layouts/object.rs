//! The embedded objects, and what all of them need.

use std::{
    fmt, fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, PerCpuArray},
    programs::{Program, ProgramError, Xdp},
};

macro_rules! object {
    ($name:literal) => {
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/", $name))
    };
}

pub(super) static GENERATOR: &[u8] = object!("generator");
pub(super) static SINK: &[u8] = object!("sink");
pub(super) static REDIRECT: &[u8] = object!("redirect");
pub(super) static HASH: &[u8] = object!("hash");
pub(super) static BARE_HASH: &[u8] = object!("bare_hash");
pub(super) static BARE_HASH8: &[u8] = object!("bare_hash8");
pub(super) static BARE_SLOT: &[u8] = object!("bare_slot");

/// Loads an object and its programs.
pub(super) fn load<'a>(object: &[u8], options: impl FnOnce(&mut EbpfLoader<'a>)) -> Result<Ebpf> {
    ensure!(!object.is_empty(), "this build does not carry the object (feature `layouts`, AYA_BUILD_SKIP)");
    let mut loader = EbpfLoader::new();
    options(&mut loader);
    let mut ebpf = loader.load(object).context("failed to load an object of the benchmark (needs root)")?;
    for (name, program) in ebpf.programs_mut() {
        let xdp: &mut Xdp = program.try_into()?;
        xdp.load().with_context(|| format!("failed to load {name}"))?;
    }
    Ok(ebpf)
}

pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    Ok(program.try_into()?)
}

/// A map, which from then on belongs to the caller.
pub(super) fn map(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the object has no map {name}"))
}

/// A number that programs count up, each CPU its own.
pub(super) struct Counter(PerCpuArray<MapData, u64>);

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&self.total().ok()).finish()
    }
}

impl Counter {
    pub(super) fn of(ebpf: &mut Ebpf, name: &str) -> Result<Self> {
        Ok(Self(map(ebpf, name)?.try_into()?))
    }

    pub(super) fn total(&self) -> Result<u64> {
        Ok(self.0.get(&0, 0)?.iter().sum())
    }
}

/// What the kernel charges for the tables of an object.
pub(super) fn bytes(ebpf: &Ebpf) -> u64 {
    ebpf.maps().map(|(_, map)| memory_of(map)).sum()
}

fn memory_of(map: &Map) -> u64 {
    let (Map::Array(map) | Map::HashMap(map)) = map else { return 0 };
    charged(map)
}

/// What the kernel charges for a map.
pub(super) fn charged(map: &MapData) -> u64 {
    let info = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", map.fd().as_fd().as_raw_fd()));
    let info = info.unwrap_or_default();
    let charged = info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    charged.unwrap_or(0)
}
