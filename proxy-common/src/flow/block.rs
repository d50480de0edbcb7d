//! Where the records towards the client of one origin, source address and 256 source ports are.
//!
//! Blocks are found as records towards the origin are: by a seeded hash of their key, and a map in the row that it names of
//! the rows whose home that is.
#![expect(
    missing_debug_implementations,
    reason = "zerocopy's derives declare types of their own for the fields"
)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, network_endian::U32, transmute};

use super::{Endpoints, map_type};
use crate::{
    maps::{BLOCK_ROWS, Fingerprint, MapType},
    wire::Addr6,
};

map_type! {
    /// A row of the table of blocks. IPv4: four in a cache line.
    pub struct BlockV4 {
        /// The origin to our source address; the port without its low byte.
        pub endpoints: Endpoints<U32>,
        /// The first row of its records, a multiple of 256, and in the low byte the map: bit `n` means that the block `n` rows
        /// further has its home here. The map is of the row, not of the block in it.
        pub place: u32,
    }
}

map_type! {
    /// As [`BlockV4`], for IPv6.
    pub struct BlockV6 {
        /// The origin to our source address; the port without its low byte.
        pub endpoints: Endpoints<Addr6>,
        /// As of [`BlockV4`].
        pub place: u32,
    }
}

/// The bits of a place that are the map.
const HOMED: u32 = BLOCK_ROWS - 1;
/// Rows that a look-up looks at: one for each bit of the map.
pub const BLOCK_PROBES: u32 = HOMED.count_ones();

/// The map in a place.
#[inline(always)]
pub fn homed(place: u32) -> u32 {
    place & HOMED
}

/// The first row of a block, from its place.
#[inline(always)]
pub fn first_row(place: u32) -> u32 {
    place & !HOMED
}

/// A row of the table of blocks, of either family.
pub trait BlockRecord: MapType + Copy {
    /// The family's addresses.
    type Addr;
    /// The words of it; the place is in the last one.
    type Words: Copy;
    /// From its words.
    fn from_words(words: Self::Words) -> Self;
    /// As words.
    fn to_words(self) -> Self::Words;
    /// Of its parts.
    fn new(endpoints: Endpoints<Self::Addr>, place: u32) -> Self;
    /// Whose block it is.
    fn endpoints(&self) -> &Endpoints<Self::Addr>;
    /// Where its records are, and where other blocks.
    fn place(&self) -> u32;
}

macro_rules! block_record {
    ($name:ident, $addr:ty) => {
        impl BlockRecord for $name {
            type Addr = $addr;
            type Words = [u64; size_of::<Self>() / 8];

            #[inline(always)]
            fn from_words(words: Self::Words) -> Self {
                transmute!(words)
            }

            fn to_words(self) -> Self::Words {
                transmute!(self)
            }

            fn new(endpoints: Endpoints<$addr>, place: u32) -> Self {
                Self { endpoints, place }
            }

            fn endpoints(&self) -> &Endpoints<$addr> {
                &self.endpoints
            }

            #[inline(always)]
            fn place(&self) -> u32 {
                self.place
            }
        }
    };
}

block_record!(BlockV4, U32);
block_record!(BlockV6, Addr6);
