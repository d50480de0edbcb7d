//! Names, sizes and the layout of the kernel tables.

use zerocopy::network_endian::U32;

use crate::{
    family::GROUP,
    flow::{
        Arrival, ArrivalKey, BlockMasks, BlockV4, BlockV6, Counters, Endpoints, FlowV4, FlowV6, Hashing,
        Head, MissCount, NextHop, Ownership, Policing, RouteV4, RouteV6, ServiceKey, Settings,
        block::BLOCK_PROBES,
    },
    verdict::{Engine, Reason},
    wire::Addr6,
};

/// Version of everything below. What is pinned of another version is not used, and taken away.
pub const ABI_VERSION: u32 = 2;

/// [`FlowV4`] records towards the origin, by hash.
pub const TO_ORIGIN_V4: &str = "TO_ORIGIN_V4";
/// [`FlowV6`] records towards the origin, by hash.
pub const TO_ORIGIN_V6: &str = "TO_ORIGIN_V6";
/// [`FlowV4`] records towards the client, by block and port.
pub const TO_CLIENT_V4: &str = "TO_CLIENT_V4";
/// [`FlowV6`] records towards the client, by block and port.
pub const TO_CLIENT_V6: &str = "TO_CLIENT_V6";
/// [`BlockV4`] rows by hash: where its rows in [`TO_CLIENT_V4`] are.
pub const BLOCKS_V4: &str = "BLOCKS_V4";
/// [`BlockV6`] rows by hash: where its rows in [`TO_CLIENT_V6`] are.
pub const BLOCKS_V6: &str = "BLOCKS_V6";
/// [`NextHop`] rows.
pub const NEXT_HOPS: &str = "NEXT_HOPS";
/// One row of [`Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// [`ServiceKey`] to [`crate::flow::ServiceFlags`].
pub const SERVICES: &str = "SERVICES";
/// Source prefixes that sessions are awaited from, or have, to [`MissCount`].
pub const EXPECTED: &str = "EXPECTED";
/// [`MissCount`] by hash of the source prefix.
pub const MISSES: &str = "MISSES";
/// [`MissCount`] of all sources, by engine; per CPU.
pub const MISSES_IN_ALL: &str = "MISSES_IN_ALL";
/// Frames by [`Reason::slot`].
pub const REASONS: &str = "REASONS";
/// [`ArrivalKey`] to [`Arrival`].
pub const ARRIVALS: &str = "ARRIVALS";
/// Numbers of sessions to what outlives the process of each: [`SESSION_BYTES`], which the kernel does not read.
pub const SESSIONS: &str = "SESSIONS";
/// Every table.
pub const ALL: [&str; 15] = [
    TO_ORIGIN_V4,
    TO_ORIGIN_V6,
    TO_CLIENT_V4,
    TO_CLIENT_V6,
    BLOCKS_V4,
    BLOCKS_V6,
    NEXT_HOPS,
    SETTINGS,
    SERVICES,
    EXPECTED,
    MISSES,
    MISSES_IN_ALL,
    REASONS,
    ARRIVALS,
    SESSIONS,
];

/// The XDP program.
pub const FORWARD_XDP: &str = "forward_xdp";
/// The TC program.
pub const FORWARD_TC: &str = "forward_tc";
/// The program that sends frames of ours as redirected ones go.
pub const SEND_BY_XDP: &str = "send_by_xdp";

/// How many rows from its home on a record towards the origin may be: one for each bit of [`Head::homed`].
pub const PROBES: u32 = 16;
/// Rows of a block: the ports that share their high byte.
pub const BLOCK_ROWS: u32 = 256;
/// Flows of a family unless the loader asks for another number.
pub const DEFAULT_FLOWS: u32 = 65536;
/// Rows of the next-hop table.
pub const NEXT_HOP_ROWS: u32 = 4096;
/// Remembered arrivals.
pub const ARRIVAL_ROWS: u32 = 4096;
/// Bytes of a session's record.
pub const SESSION_BYTES: usize = 1024;
/// Sessions at once unless the loader asks for another number.
pub const SESSION_ROWS: u32 = 65536;
/// Known services.
pub const SERVICE_ROWS: u32 = 1024;
/// Source prefixes that sessions are awaited from.
pub const EXPECTED_ROWS: u32 = 65536;
/// Rows in which the other source prefixes are counted, of one engine.
pub const MISS_ROWS: u32 = 4096;
/// Rows of the table of reasons.
pub const REASON_SLOTS: u32 = (Engine::ALL.len() * Reason::ALL.len()) as u32;

/// Rows of a table towards the origin for so many flows: at most half are in use.
pub const fn to_origin_rows(flows: u32) -> u32 {
    let wanted = if flows < PROBES { PROBES } else { flows };
    wanted.saturating_mul(2).next_power_of_two()
}

/// Rows of a table towards the client for so many flows: blocks are not always full.
pub const fn to_client_rows(flows: u32) -> u32 {
    flows.saturating_mul(2).next_multiple_of(BLOCK_ROWS) + 16 * BLOCK_ROWS
}

/// Rows of the table of blocks of such a table: at most a sixteenth are in use, because a block that finds no row
/// among eight keeps the kernel from 256 ports.
pub const fn block_rows(to_client_rows: u32) -> u32 {
    (to_client_rows / BLOCK_ROWS).saturating_mul(16).next_power_of_two()
}

/// Names and places of all fields of all map types, and how rows and bytes are counted that no type tells; it changes only
/// together with [`ABI_VERSION`].
pub const LAYOUT_FINGERPRINT: u64 = Endpoints::<U32>::LAYOUT
    .and(Endpoints::<Addr6>::LAYOUT)
    .and(BlockV4::LAYOUT)
    .and(BlockV6::LAYOUT)
    .and(Head::LAYOUT)
    .and(RouteV4::LAYOUT)
    .and(RouteV6::LAYOUT)
    .and(Counters::LAYOUT)
    .and(FlowV4::LAYOUT)
    .and(FlowV6::LAYOUT)
    .and(NextHop::LAYOUT)
    .and(Hashing::LAYOUT)
    .and(Ownership::LAYOUT)
    .and(Policing::LAYOUT)
    .and(BlockMasks::LAYOUT)
    .and(Settings::LAYOUT)
    .and(ServiceKey::LAYOUT)
    .and(MissCount::LAYOUT)
    .and(ArrivalKey::LAYOUT)
    .and(Arrival::LAYOUT)
    .number(PROBES as u64)
    .number(BLOCK_PROBES as u64)
    .number(BLOCK_ROWS as u64)
    .number(GROUP as u64)
    .number(SESSION_BYTES as u64)
    .0;

/// A type that lives in a map.
pub trait MapType {
    /// Where its fields are.
    const LAYOUT: Fingerprint;
}

/// A hash over a layout (FNV-1a).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of a type without fields.
    pub const fn of(name: &str, size: usize) -> Self {
        Self(0xcbf2_9ce4_8422_2325).text(name).number(size as u64)
    }

    /// With a field more.
    #[must_use]
    pub const fn field(self, name: &str, offset: usize, size: usize) -> Self {
        self.text(name).number(offset as u64).number(size as u64)
    }

    const fn and(self, other: Self) -> Self {
        self.number(other.0)
    }

    const fn text(mut self, text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            self = self.number(bytes[i] as u64);
            i += 1;
        }
        self
    }

    const fn number(self, number: u64) -> Self {
        Self((self.0 ^ number).wrapping_mul(0x0000_0100_0000_01b3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_changes_only_with_the_abi_version() {
        let layout = (ABI_VERSION, LAYOUT_FINGERPRINT);
        assert_eq!(
            layout,
            (2, 0xea9d_cbc6_63f5_4929),
            "bump ABI_VERSION, then write the new fingerprint here"
        );
    }
}
