//! The records of the kernel tables.
//!
//! A flow is two records, one per direction and each enough for its direction: its cache line holds the key, what to
//! make of the datagram, and the counters. Towards the origin a record is found by a hash of the client's endpoints,
//! towards the client by the [`block`] of the origin's endpoints and our port. The kernel writes [`Counters`], userspace
//! everything else.
#![expect(
    missing_debug_implementations,
    reason = "zerocopy's derives declare types of their own for the fields"
)]

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32},
    transmute,
};

use crate::{
    demux::{Class, classify, srt_class},
    family::Address,
    maps::{Fingerprint, MapType},
    wire::Addr6,
};

pub mod block;
mod next_hop;
mod policy;

pub use block::{BlockRecord, BlockV4, BlockV6};
pub use next_hop::{EgressKind, NextHop, NextHopFlags};
pub use policy::{
    Arrival, ArrivalKey, BlockMasks, Hashing, MissCount, Ownership, Policing, ServiceFlags, ServiceKey,
    Settings,
};

/// Declares a type that lives in a map: `repr(C)` and without padding (`IntoBytes` refuses it), because padding would be
/// part of a hash key; its layout is part of [`crate::maps::LAYOUT_FINGERPRINT`]. Aligned to words, or the verifier would
/// refuse to have one loaded by words from the stack.
macro_rules! map_type {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C, align(4))]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)* }

        impl MapType for $name {
            const LAYOUT: Fingerprint = Fingerprint::of(stringify!($name), size_of::<Self>())
                $(.field(stringify!($field), core::mem::offset_of!(Self, $field), size_of::<$ty>()))*;
        }

        #[cfg(feature = "user")]
        #[expect(unsafe_code, reason = "aya's mark for types that may be read from a map's bytes")]
        // SAFETY: `FromBytes` and `IntoBytes` are derived: any bytes are a value, and no byte is padding.
        unsafe impl aya::Pod for $name {}
    };
}
pub(crate) use map_type;

/// Addresses and ports of a datagram: the key of one direction of a conversation as on the wire at the hook, or what
/// forwarding makes of it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Endpoints<A> {
    /// From.
    pub src: A,
    /// To.
    pub dst: A,
    /// From.
    pub src_port: U16,
    /// To.
    pub dst_port: U16,
}

map_type! {
    /// The word of a record that says what it is for, and whose records are behind it; userspace stores it whole.
    ///
    /// Towards the origin a record is in the row that the hash of its key names, its home, or in one of the next 15. The
    /// head of the home says in which of them the records are whose home it is, and a look-up looks at no others. So two
    /// words make a record: its own head, which says what it is for, and the bit in its home, which makes it found. They
    /// may be one word.
    pub struct Head {
        /// A [`FlowState`].
        pub state: u8,
        /// Of [`FlowFlags`].
        pub flags: u8,
        /// Row of the next-hop table.
        pub next_hop: u16,
        /// Bit `n`: the record `n` rows further has its home here. Of the row, not of the record in it.
        pub homed: u16,
        /// Zero.
        pub reserved: u16,
    }
}

map_type! {
    /// The part of a [`FlowV4`] that userspace writes.
    pub struct RouteV4 {
        /// What the record is for.
        pub head: Head,
        /// The datagrams it is for.
        pub key: Endpoints<U32>,
        /// Their new endpoints.
        pub rewrite: Endpoints<U32>,
    }
}

map_type! {
    /// The part of a [`FlowV6`] that userspace writes.
    pub struct RouteV6 {
        /// What the record is for.
        pub head: Head,
        /// The datagrams it is for.
        pub key: Endpoints<Addr6>,
        /// Their new endpoints.
        pub rewrite: Endpoints<Addr6>,
    }
}

map_type! {
    /// The part of a record that the kernel writes, while it forwards by the record.
    pub struct Counters {
        /// When the last datagram was forwarded, in [`Stamp`] units.
        pub last_seen: u32,
        /// A record that forwarded nothing for this long is none any more, in [`Stamp`] units; 0: never. The kernel leaves
        /// it as it is.
        pub idle_limit: u32,
        /// Datagrams forwarded.
        pub packets: u64,
        /// Their length from the IP header on.
        pub bytes: u64,
        /// STUN requests (to the origin) or responses (to the client) among them.
        pub checks: u32,
        /// DTLS alerts, or SRT shutdowns, among them.
        pub alerts: u32,
    }
}

map_type! {
    /// One direction of an IPv4 flow: one cache line.
    pub struct FlowV4 {
        /// What to do.
        pub route: RouteV4,
        /// What was done.
        pub counters: Counters,
    }
}

map_type! {
    /// One direction of an IPv6 flow: two cache lines of one direction.
    pub struct FlowV6 {
        /// What to do.
        pub route: RouteV6,
        /// What was done.
        pub counters: Counters,
        /// Zero.
        pub reserved: [u64; 2],
    }
}

const _: () = assert!(size_of::<FlowV4>() == 64 && size_of::<FlowV6>() == 128);

impl<A: Address> Endpoints<A> {
    /// Names of the fields and their places.
    pub(crate) const LAYOUT: Fingerprint = Fingerprint::of("Endpoints", size_of::<Self>())
        .field("src", core::mem::offset_of!(Self, src), size_of::<A>())
        .field("dst", core::mem::offset_of!(Self, dst), size_of::<A>())
        .field("src_port", core::mem::offset_of!(Self, src_port), 2)
        .field("dst_port", core::mem::offset_of!(Self, dst_port), 2);
}

macro_rules! of_family {
    ($addr:ty) => {
        impl Endpoints<$addr> {
            /// As half words, in the order of a record.
            #[inline(always)]
            pub fn to_words(self) -> [u32; size_of::<Self>() / 4] {
                transmute!(self)
            }
        }
    };
}

of_family!(U32);
of_family!(Addr6);

/// State of a record.
///
/// ```text
///            ┌──────────► User ◄───────┐   a session holds the endpoints, userspace relays it
/// Free ◄─────┤              │        remove
///  ▲         └──install──► Forward ────┘   the kernel forwards
///  │                        │
///  └──── port rested ─── Drop ◄── retire   towards the client: the session is gone
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// Nobody's.
    Free = 0,
    /// Forwarded by the kernel.
    Forward = 1,
    /// Passed up.
    User = 2,
    /// Dropped.
    Drop = 3,
}

/// Bits of [`Head::flags`].
#[derive(Clone, Copy, Debug)]
pub struct FlowFlags;

impl FlowFlags {
    /// STUN requests (to the origin) or responses (to the client) of this record go up.
    pub const ESCALATE_CHECK: u8 = 1;
    /// The record of the direction towards the client.
    pub const TO_CLIENT: u8 = 2;
    /// SRT: the same first bytes mean other things than on WebRTC, so a record says which.
    pub const SRT: u8 = 4;
}

/// Which way datagrams of a record go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the origin.
    ToOrigin,
    /// From the origin to the client.
    ToClient,
}

impl Head {
    /// A record that is not in use.
    pub const FREE: Self = Self { state: 0, flags: 0, next_hop: 0, homed: 0, reserved: 0 };

    /// From a record's first word.
    #[inline(always)]
    pub fn from_word(word: u64) -> Self {
        transmute!(word)
    }

    /// As a record's first word.
    pub fn to_word(self) -> u64 {
        transmute!(self)
    }

    /// The state; a value that no version wrote is nobody's: nothing is forwarded.
    #[inline(always)]
    pub fn state(&self) -> FlowState {
        match self.state {
            1 => FlowState::Forward,
            2 => FlowState::User,
            3 => FlowState::Drop,
            _ => FlowState::Free,
        }
    }

    /// Whether a packet that starts so is a connectivity check in this direction, or its answer.
    #[inline(always)]
    pub fn is_check(&self, start: [u8; 2]) -> bool {
        if self.has(FlowFlags::SRT) {
            false
        } else if self.has(FlowFlags::TO_CLIENT) {
            classify(start).is_stun_response()
        } else {
            classify(start) == Class::StunRequest
        }
    }

    /// Whether a packet that starts so ends the conversation of this record, unless something follows.
    #[inline(always)]
    pub fn is_closing(&self, start: [u8; 2]) -> bool {
        if self.has(FlowFlags::SRT) {
            srt_class(start).is_closing()
        } else {
            classify(start) == Class::DtlsAlert
        }
    }

    /// Whether a bit of [`FlowFlags`] is set.
    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The part of a record that userspace writes, in either family.
pub trait RouteRecord: MapType + Copy {
    /// The family's addresses.
    type Addr;
    /// The words of it.
    type Words: Copy;
    /// From the first words of a record.
    fn from_words(words: Self::Words) -> Self;
    /// As the first words of a record.
    fn to_words(self) -> Self::Words;
    /// Of its parts.
    fn new(head: Head, key: Endpoints<Self::Addr>, rewrite: Endpoints<Self::Addr>) -> Self;
    /// What the record is for.
    fn head(&self) -> Head;
    /// The datagrams it is for.
    fn key(&self) -> &Endpoints<Self::Addr>;
    /// Their new endpoints.
    fn rewrite(&self) -> &Endpoints<Self::Addr>;
}

macro_rules! route_record {
    ($name:ident, $addr:ty) => {
        impl RouteRecord for $name {
            type Addr = $addr;
            type Words = [u64; size_of::<Self>() / 8];

            #[inline(always)]
            fn from_words(words: Self::Words) -> Self {
                transmute!(words)
            }

            fn to_words(self) -> Self::Words {
                transmute!(self)
            }

            #[inline(always)]
            fn new(head: Head, key: Endpoints<$addr>, rewrite: Endpoints<$addr>) -> Self {
                Self { head, key, rewrite }
            }

            #[inline(always)]
            fn head(&self) -> Head {
                self.head
            }

            #[inline(always)]
            fn key(&self) -> &Endpoints<$addr> {
                &self.key
            }

            #[inline(always)]
            fn rewrite(&self) -> &Endpoints<$addr> {
                &self.rewrite
            }
        }
    };
}

route_record!(RouteV4, U32);
route_record!(RouteV6, Addr6);

impl Counters {
    /// From the words behind a record's route.
    pub fn from_words(words: [u64; 4]) -> Self {
        transmute!(words)
    }

    /// As the words behind a record's route.
    pub fn to_words(self) -> [u64; 4] {
        transmute!(self)
    }
}

/// How long ago a record forwarded, and how long it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    last_seen: Stamp,
    limit: u32,
}

impl Idle {
    /// From the first word of [`Counters`].
    #[inline(always)]
    pub fn from_word(word: u64) -> Self {
        let [last_seen, limit]: [u32; 2] = transmute!(word);
        Self { last_seen: Stamp(last_seen), limit }
    }

    /// Whether the record is out of date.
    #[inline(always)]
    pub fn is_expired(&self, now: Stamp) -> bool {
        self.limit != 0 && now.units_since(self.last_seen) > self.limit
    }
}

/// Kernel monotonic time in units of 2^20 ns (about 1 ms); it wraps after 52 days, so only differences mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(pub u32);

impl Stamp {
    const SHIFT: u32 = 20;

    /// From nanoseconds of `CLOCK_MONOTONIC`.
    #[inline(always)]
    pub fn from_nanos(nanos: u64) -> Self {
        // Wrapping is the point: see above.
        Self((nanos >> Self::SHIFT) as u32)
    }

    /// Time from `earlier` to this.
    pub fn since(self, earlier: Self) -> core::time::Duration {
        core::time::Duration::from_nanos(u64::from(self.units_since(earlier)) << Self::SHIFT)
    }

    /// Units from `earlier` to this; none if `earlier` is later, as the stamp of another CPU may be.
    #[inline(always)]
    pub fn units_since(self, earlier: Self) -> u32 {
        let units = self.0.wrapping_sub(earlier.0);
        if units > u32::MAX / 2 { 0 } else { units }
    }

    /// A duration in units, at least one; what is too long for the clock is as long as it can tell.
    pub fn units(duration: core::time::Duration) -> u32 {
        u32::try_from(duration.as_nanos() >> Self::SHIFT).unwrap_or(u32::MAX).clamp(1, u32::MAX / 2)
    }
}
