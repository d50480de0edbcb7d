//! Names, sizes and the layout of the kernel tables.

use crate::{
    flow::{Arrival, ArrivalKey, Counters, Flow, FlowKey, NextHop, Rewrite, Route},
    verdict::{Engine, Reason},
};

/// Version of everything below. Pinned tables of another version are not touched.
pub const ABI_VERSION: u32 = 0;

/// [`FlowKey`] to record index.
pub const FLOW_INDEX: &str = "FLOW_INDEX";
/// [`Flow`] records.
pub const FLOWS: &str = "FLOWS";
/// [`NextHop`] rows.
pub const NEXT_HOPS: &str = "NEXT_HOPS";
/// Frames by [`Reason::slot`].
pub const REASONS: &str = "REASONS";
/// [`ArrivalKey`] to [`Arrival`].
pub const ARRIVALS: &str = "ARRIVALS";
/// Every table.
pub const ALL: [&str; 5] = [FLOW_INDEX, FLOWS, NEXT_HOPS, REASONS, ARRIVALS];

/// The XDP program.
pub const FORWARD_XDP: &str = "forward_xdp";
/// The TC program.
pub const FORWARD_TC: &str = "forward_tc";

/// Records of a flow: one per direction.
pub const RECORDS_PER_FLOW: u32 = 2;
/// Records unless the loader asks for another number.
pub const DEFAULT_RECORDS: u32 = RECORDS_PER_FLOW * 65536;
/// Rows of the next-hop table.
pub const NEXT_HOP_ROWS: u32 = 4096;
/// Remembered arrivals.
pub const ARRIVAL_ROWS: u32 = 4096;
/// Rows of the table of reasons.
pub const REASON_SLOTS: u32 = (Engine::ALL.len() * Reason::ALL.len()) as u32;

/// Names and places of all fields of all map types; it changes only together with [`ABI_VERSION`].
pub const LAYOUT_FINGERPRINT: u64 = FlowKey::LAYOUT
    .and(Rewrite::LAYOUT)
    .and(Route::LAYOUT)
    .and(Counters::LAYOUT)
    .and(Flow::LAYOUT)
    .and(NextHop::LAYOUT)
    .and(ArrivalKey::LAYOUT)
    .and(Arrival::LAYOUT)
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
            (0, 0x6073_3443_7751_5efa),
            "bump ABI_VERSION, then write the new fingerprint here"
        );
    }
}
