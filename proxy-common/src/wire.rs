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

use crate::{
    checksum::Delta,
    family::{Address as _, IpHeader},
    verdict::Reason,
};

/// A link-layer address.
pub type Mac = [u8; 6];
/// An IPv6 address.
pub type Addr6 = [u8; 16];

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
    /// An IPv6 header.
    pub struct Ipv6 {
        /// 6, traffic class, flow label.
        pub version_class_flow: U32,
        /// What follows this header.
        pub payload_len: U16,
        /// What follows.
        pub next_header: u8,
        /// Hop limit.
        pub hop_limit: u8,
        /// From.
        pub src: Addr6,
        /// To.
        pub dst: Addr6,
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

/// The three headers of every frame we forward, back to back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Headers<N> {
    /// Link layer.
    pub eth: Eth,
    /// Network layer.
    pub ip: N,
    /// Transport layer.
    pub udp: Udp,
}

const _: () = assert!(Eth::LEN == 14 && Ipv4::LEN == 20 && Ipv6::LEN == 40 && Udp::LEN == 8);
const _: () = assert!(Headers::<Ipv4>::LEN == 42 && Headers::<Ipv6>::LEN == 62);

impl<N> Headers<N> {
    /// Its length in bytes.
    pub const LEN: usize = size_of::<Self>();
    /// Where the UDP header starts in the frame.
    pub const UDP: usize = Eth::LEN + size_of::<N>();
    /// Where the UDP checksum is in the frame.
    pub const UDP_CHECKSUM: usize = Self::UDP + core::mem::offset_of!(Udp, checksum);
    /// IP and UDP: what a datagram is longer than its payload.
    pub const L3_LEN: usize = size_of::<N>() + Udp::LEN;
}

impl Headers<Ipv4> {
    /// Where the IPv4 checksum is in the frame.
    pub const IP_CHECKSUM: usize = Eth::LEN + core::mem::offset_of!(Ipv4, checksum);
}

impl Eth {
    /// Whether an IPv4 header follows.
    #[inline(always)]
    pub fn is_ipv4(&self) -> bool {
        self.is(EtherType::Ipv4)
    }

    /// Whether an IPv6 header follows.
    #[inline(always)]
    pub fn is_ipv6(&self) -> bool {
        self.is(EtherType::Ipv6)
    }

    /// Whether a VLAN tag follows.
    #[inline(always)]
    pub fn is_vlan(&self) -> bool {
        self.is(EtherType::Ieee8021q) || self.is(EtherType::Ieee8021ad)
    }

    #[inline(always)]
    fn is(&self, kind: EtherType) -> bool {
        self.ethertype.to_bytes() == (kind as u16).to_ne_bytes()
    }
}

impl Ipv4 {
    const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;
    /// More-fragments and the offset; don't-fragment is not among them.
    const FRAGMENT: u16 = 0x3fff;

    /// TTL and protocol as the one checksummed word they share.
    #[inline(always)]
    fn ttl_word(ttl: u8, protocol: u8) -> U16 {
        U16::from_bytes([ttl, protocol])
    }
}

impl IpHeader for Ipv4 {
    type Addr = U32;

    #[inline(always)]
    fn check(&self) -> Result<(), Reason> {
        if self.version_ihl != Self::VERSION_4_WITHOUT_OPTIONS {
            return Err(Reason::IpOptions);
        }
        if self.protocol != IpProto::Udp as u8 {
            return Err(Reason::NotUdp);
        }
        if self.fragment.get() & Self::FRAGMENT != 0 {
            return Err(Reason::Fragment);
        }
        if self.ttl <= 1 { Err(Reason::TtlExpired) } else { Ok(()) }
    }

    #[inline(always)]
    fn datagram_len(&self) -> usize {
        usize::from(self.total_len.get())
    }

    #[inline(always)]
    fn addresses(&self) -> (U32, U32) {
        (self.src, self.dst)
    }

    #[inline(always)]
    fn set_addresses(&mut self, src: U32, dst: U32) {
        (self.src, self.dst) = (src, dst);
    }

    #[inline(always)]
    fn hops(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn set_hops(&mut self, hops: u8) {
        self.ttl = hops;
    }

    #[inline(always)]
    fn hops_delta(&self, hops: u8) -> Delta {
        Delta::default().word(Self::ttl_word(self.ttl, self.protocol), Self::ttl_word(hops, self.protocol))
    }

    #[inline(always)]
    fn update_checksum(&mut self, delta: Delta) {
        self.checksum = delta.update(self.checksum);
    }

    #[inline(always)]
    fn pseudo_sum(&self) -> Delta {
        let protocol = U16::from_bytes([0, self.protocol]);
        self.src.appear(self.dst.appear(Delta::default())).word(U16::MAX_VALUE, protocol)
    }
}

impl Ipv6 {
    const VERSION: u8 = 6;
}

impl IpHeader for Ipv6 {
    type Addr = Addr6;

    #[inline(always)]
    fn check(&self) -> Result<(), Reason> {
        if self.version_class_flow.to_bytes()[0] >> 4 != Self::VERSION {
            return Err(Reason::NotIp);
        }
        // Extension headers come first if there are any, the one of fragments among them.
        if self.next_header == IpProto::Ipv6Frag as u8 {
            return Err(Reason::Fragment);
        }
        if self.next_header != IpProto::Udp as u8 {
            return Err(Reason::NotUdp);
        }
        if self.hop_limit <= 1 { Err(Reason::TtlExpired) } else { Ok(()) }
    }

    #[inline(always)]
    fn datagram_len(&self) -> usize {
        Self::LEN + usize::from(self.payload_len.get())
    }

    #[inline(always)]
    fn addresses(&self) -> (Addr6, Addr6) {
        (self.src, self.dst)
    }

    #[inline(always)]
    fn set_addresses(&mut self, src: Addr6, dst: Addr6) {
        (self.src, self.dst) = (src, dst);
    }

    #[inline(always)]
    fn hops(&self) -> u8 {
        self.hop_limit
    }

    #[inline(always)]
    fn set_hops(&mut self, hops: u8) {
        self.hop_limit = hops;
    }

    /// No checksum covers the hop limit.
    #[inline(always)]
    fn hops_delta(&self, _: u8) -> Delta {
        Delta::default()
    }

    #[inline(always)]
    fn update_checksum(&mut self, _: Delta) {}

    #[inline(always)]
    fn pseudo_sum(&self) -> Delta {
        let protocol = U16::from_bytes([0, self.next_header]);
        self.src.appear(self.dst.appear(Delta::default())).word(U16::MAX_VALUE, protocol)
    }
}
