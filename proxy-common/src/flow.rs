//! The records of the kernel tables.
//!
//! A flow is two [`Flow`] records, one per direction, each found by its own [`FlowKey`] and each in its own cache line:
//! the kernel writes the [`Counters`] of the line of its own direction, userspace everything else.
#![expect(
    missing_debug_implementations,
    reason = "zerocopy's derives declare types of their own for the fields"
)]

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    network_endian::{U16, U32},
    transmute,
};

use crate::{
    demux::{Class, classify},
    maps::{Fingerprint, MapType},
    wire::{Headers, Mac},
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

map_type! {
    /// Names one direction of a UDP conversation, as on the wire at the hook.
    pub struct FlowKey {
        /// From.
        pub src: U32,
        /// To.
        pub dst: U32,
        /// From.
        pub src_port: U16,
        /// To.
        pub dst_port: U16,
        /// IP protocol.
        pub protocol: u8,
        /// Zero.
        pub reserved: [u8; 3],
    }
}

map_type! {
    /// What forwarding makes of a datagram's addresses.
    pub struct Rewrite {
        /// New source.
        pub src: U32,
        /// New destination.
        pub dst: U32,
        /// New source port.
        pub src_port: U16,
        /// New destination port.
        pub dst_port: U16,
    }
}

map_type! {
    /// The part of a [`Flow`] that userspace writes.
    pub struct Route {
        /// A [`FlowState`].
        pub state: u8,
        /// Of [`FlowFlags`].
        pub flags: u8,
        /// Row of the next-hop table.
        pub next_hop: u16,
        /// The datagram's new addresses.
        pub rewrite: Rewrite,
    }
}

map_type! {
    /// The part of a [`Flow`] that the kernel writes.
    pub struct Counters {
        /// Datagrams forwarded.
        pub packets: u64,
        /// Their length from the IP header on.
        pub bytes: u64,
        /// STUN requests (to the origin) or responses (to the client) among them.
        pub checks: u32,
        /// DTLS alerts among them.
        pub alerts: u32,
        /// When the last one was, in [`Stamp`] units.
        pub last_seen: u32,
        /// Zero.
        pub reserved: u32,
    }
}

map_type! {
    /// One direction of a flow: one cache line.
    pub struct Flow {
        /// What to do.
        pub route: Route,
        /// What was done.
        pub counters: Counters,
        /// Zero.
        pub reserved: [u64; 2],
    }
}

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

map_type! {
    /// A client whose STUN request had no flow.
    pub struct ArrivalKey {
        /// Its address.
        pub addr: U32,
        /// Its port.
        pub port: U16,
        /// Zero.
        pub reserved: [u8; 2],
    }
}

map_type! {
    /// Where that request entered: an observation for userspace, never forwarding state.
    pub struct Arrival {
        /// Its destination on the wire.
        pub addr: U32,
        /// Its destination port on the wire.
        pub port: U16,
        /// Zero.
        pub reserved: [u8; 2],
        /// The device.
        pub ifindex: u32,
        /// When, in [`Stamp`] units.
        pub stamp: u32,
    }
}

const _: () = assert!(size_of::<Flow>() == 64 && size_of::<NextHop>() == 32 && size_of::<Route>() == 16);

/// State of a [`Flow`] record.
///
/// ```text
/// Free ──install──► Forward ◄──► User          (relayed by userspace)
///  ▲                  │  └─────► Drop          (session gone, port resting)
///  └──── remove ──────┴── User, Drop
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// Not in use.
    Free = 0,
    /// Forwarded by the kernel.
    Forward = 1,
    /// Passed up.
    User = 2,
    /// Dropped.
    Drop = 3,
}

/// Bits of [`Route::flags`].
#[derive(Clone, Copy, Debug)]
pub struct FlowFlags;

impl FlowFlags {
    /// STUN requests (to the origin) or responses (to the client) of this record go up.
    pub const ESCALATE_CHECK: u8 = 1;
    /// The record of the direction towards the client.
    pub const TO_CLIENT: u8 = 2;
}

impl Route {
    /// From the first words of a record.
    #[inline(always)]
    pub fn from_words(words: [u64; 2]) -> Self {
        transmute!(words)
    }

    /// As the first words of a record.
    pub fn to_words(self) -> [u64; 2] {
        transmute!(self)
    }

    /// The state; a value that no version wrote counts as free.
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
        if self.has(FlowFlags::TO_CLIENT) {
            classify(start).is_stun_response()
        } else {
            classify(start) == Class::StunRequest
        }
    }

    /// Whether a bit of [`FlowFlags`] is set.
    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

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

impl FlowKey {
    /// The key of the flow this datagram belongs to.
    #[inline(always)]
    pub fn of(headers: &Headers) -> Self {
        let Headers { ip, udp, .. } = headers;
        let (src, dst, protocol) = (ip.src, ip.dst, ip.protocol);
        Self { src, dst, src_port: udp.src, dst_port: udp.dst, protocol, reserved: [0; 3] }
    }
}

impl ArrivalKey {
    /// The client that sent this datagram.
    #[inline(always)]
    pub fn of(headers: &Headers) -> Self {
        Self { addr: headers.ip.src, port: headers.udp.src, reserved: [0; 2] }
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
        core::time::Duration::from_nanos(u64::from(self.0.wrapping_sub(earlier.0)) << Self::SHIFT)
    }
}
