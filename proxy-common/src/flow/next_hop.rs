//! Rows of the next-hop table.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use super::map_type;
use crate::{
    maps::{Fingerprint, MapType},
    wire::Mac,
};

map_type! {
    /// How frames reach one neighbour. Each address shares a 64-bit word with what must change with it, so that a reader
    /// never sees half an address.
    pub struct NextHop {
        /// The neighbour's link-layer address.
        pub dst_mac: Mac,
        /// Longest datagram from the IP header on.
        pub mtu: u16,
        /// Our link-layer address.
        pub src_mac: Mac,
        /// An [`EgressKind`].
        pub egress: u8,
        /// Of [`NextHopFlags`].
        pub flags: u8,
        /// The device frames leave by.
        pub ifindex: u32,
        /// Zero.
        pub reserved: [u32; 3],
    }
}

const _: () = assert!(size_of::<NextHop>() == 32);

/// How a next hop is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EgressKind {
    /// Not known: frames go up.
    Unusable = 0,
    /// Redirected with the addresses of the row.
    Redirect = 1,
    /// Redirected by TC, which resolves the neighbour.
    Neighbour = 2,
    /// Handed to the stack by TC.
    Stack = 3,
}

/// Bits of [`NextHop::flags`].
#[derive(Clone, Copy, Debug)]
pub struct NextHopFlags;

impl NextHopFlags {
    /// The device transmits XDP frames.
    pub const XDP: u8 = 1;
}

impl NextHop {
    /// From the words of a row.
    #[inline(always)]
    pub fn from_words(words: [u64; 4]) -> Self {
        transmute!(words)
    }

    /// As the words of a row.
    pub fn to_words(self) -> [u64; 4] {
        transmute!(self)
    }

    /// How it is reached; a value that no version wrote counts as unusable.
    #[inline(always)]
    pub fn egress(&self) -> EgressKind {
        match self.egress {
            1 => EgressKind::Redirect,
            2 => EgressKind::Neighbour,
            3 => EgressKind::Stack,
            _ => EgressKind::Unusable,
        }
    }
}
