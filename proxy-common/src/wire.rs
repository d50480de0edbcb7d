//! Views of the headers we read and rewrite. Their fields are network-order types, so a port of unknown byte order
//! cannot be held.
#![expect(
    missing_debug_implementations,
    reason = "zerocopy's derives declare types of their own for the fields"
)]

use network_types::{eth::EtherType, ip::IpProto};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32},
};

/// A link-layer address.
pub type Mac = [u8; 6];

/// Declares a header view.
macro_rules! header {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)* }

        impl $name {
            /// Its length in bytes.
            pub const LEN: usize = size_of::<Self>();
        }
    };
}

/// The addresses of an Ethernet header, aligned so that they are moved by words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Link {
    /// To.
    pub dst: Mac,
    /// From.
    pub src: Mac,
}

header! {
    /// An Ethernet II header.
    pub struct Eth {
        /// To.
        pub dst: Mac,
        /// From.
        pub src: Mac,
        /// What follows.
        pub ethertype: U16,
    }
}

header! {
    /// An IPv4 header without options.
    pub struct Ipv4 {
        /// 4, and the header length in words.
        pub version_ihl: u8,
        /// DSCP and ECN.
        pub tos: u8,
        /// Header and payload.
        pub total_len: U16,
        /// Identification.
        pub id: U16,
        /// Flags and fragment offset.
        pub fragment: U16,
        /// Time to live.
        pub ttl: u8,
        /// What follows.
        pub protocol: u8,
        /// Over this header.
        pub checksum: U16,
        /// From.
        pub src: U32,
        /// To.
        pub dst: U32,
    }
}

header! {
    /// A UDP header.
    pub struct Udp {
        /// From.
        pub src: U16,
        /// To.
        pub dst: U16,
        /// Header and payload.
        pub len: U16,
        /// Over the pseudo-header, this header and the payload; 0 if the sender computed none.
        pub checksum: U16,
    }
}

header! {
    /// The three headers of every frame we forward, back to back.
    pub struct Headers {
        /// Link layer.
        pub eth: Eth,
        /// Network layer.
        pub ip: Ipv4,
        /// Transport layer.
        pub udp: Udp,
    }
}

const _: () = assert!(Eth::LEN == 14 && Ipv4::LEN == 20 && Udp::LEN == 8 && Headers::LEN == 42);

impl Headers {
    /// Where the IPv4 checksum is in the frame.
    pub const IP_CHECKSUM: usize = Eth::LEN + core::mem::offset_of!(Ipv4, checksum);
    /// Where the UDP header starts in the frame.
    pub const UDP: usize = Eth::LEN + Ipv4::LEN;
    /// Where the UDP checksum is in the frame.
    pub const UDP_CHECKSUM: usize = Self::UDP + core::mem::offset_of!(Udp, checksum);
    /// IPv4 and UDP: what a datagram is longer than its payload.
    pub const L3_LEN: usize = Ipv4::LEN + Udp::LEN;
}

impl Eth {
    /// Whether an IPv4 header follows.
    #[inline(always)]
    pub fn is_ipv4(&self) -> bool {
        self.ethertype.to_bytes() == (EtherType::Ipv4 as u16).to_ne_bytes()
    }

    /// Whether a VLAN tag follows.
    #[inline(always)]
    pub fn is_vlan(&self) -> bool {
        let bytes = self.ethertype.to_bytes();
        bytes == (EtherType::Ieee8021q as u16).to_ne_bytes()
            || bytes == (EtherType::Ieee8021ad as u16).to_ne_bytes()
    }
}

impl Ipv4 {
    const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;
    /// More-fragments and the offset; don't-fragment is not among them.
    const FRAGMENT: u16 = 0x3fff;

    /// Whether the payload follows the 20 bytes of this view.
    #[inline(always)]
    pub fn has_plain_header(&self) -> bool {
        self.version_ihl == Self::VERSION_4_WITHOUT_OPTIONS
    }

    /// Whether this is a piece of a datagram, the first included.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment.get() & Self::FRAGMENT != 0
    }

    /// Whether a UDP header follows.
    #[inline(always)]
    pub fn is_udp(&self) -> bool {
        self.protocol == IpProto::Udp as u8
    }

    /// TTL and protocol as the one checksummed word they share.
    #[inline(always)]
    pub fn ttl_word(&self) -> U16 {
        U16::from_bytes([self.ttl, self.protocol])
    }
}
