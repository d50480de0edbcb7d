//! How the kernel engine is set up.

use std::{ops::RangeInclusive, time::Duration};

use proxy_common::maps;

use super::Pinning;

/// How to set up the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelOptions {
    /// IPv4 flows at once; the kernel allocates and charges the tables at once.
    pub max_flows: u32,
    /// IPv6 flows at once.
    pub max_flows_v6: u32,
    /// Which program to prefer.
    pub choice: EngineChoice,
    /// Our ports towards origins.
    pub source_ports: RangeInclusive<u16>,
    /// A flow that forwarded nothing in one direction for this long is none any more in that direction.
    pub idle_limit: Duration,
    /// Without [`Datapath::keep_alive`](super::Datapath::keep_alive) for this long the programs pass everything.
    pub orphan_timeout: Duration,
    /// Packets without a flow that come up in a second.
    pub misses: MissLimits,
    /// Records of sessions at once.
    pub max_sessions: u32,
    /// What outlives the process.
    pub pinning: Pinning,
    /// Another process has the pins and is about to let go.
    pub takes_over: bool,
    /// How TC is attached.
    pub hook: TcHook,
}

/// How many packets without a flow come up in a second; more are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissLimits {
    /// From one network (a /24, a /56) that no session is awaited from.
    pub per_source: u32,
    /// From one network that a session is awaited from, or has.
    pub per_expected: u32,
    /// From all networks that no session is awaited from, on one CPU.
    pub in_all: u32,
    /// Whether what cannot begin a session is dropped while every relayed tuple is known.
    pub drop_unsolicited: bool,
}

impl Default for MissLimits {
    fn default() -> Self {
        Self { per_source: 64, per_expected: 4096, in_all: 2048, drop_unsolicited: true }
    }
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            max_flows: maps::DEFAULT_FLOWS,
            max_flows_v6: maps::DEFAULT_FLOWS / 4,
            choice: EngineChoice::Auto,
            source_ports: 61000..=65535,
            idle_limit: Duration::from_secs(120),
            orphan_timeout: Duration::from_secs(600),
            misses: MissLimits::default(),
            max_sessions: maps::SESSION_ROWS,
            pinning: Pinning::None,
            takes_over: false,
            hook: TcHook::Best,
        }
    }
}

/// Which program to prefer on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// Native XDP where nothing can be lost by it.
    Auto,
    /// Native XDP wherever the driver has it.
    Xdp,
    /// TC everywhere.
    Tc,
}

/// How TC programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcHook {
    /// By tcx where the kernel has it, by clsact elsewhere.
    Best,
    /// By clsact, as kernels before 6.6 do it.
    Clsact,
}
