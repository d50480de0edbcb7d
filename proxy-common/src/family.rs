//! IPv4 and IPv6: the same packet path over two kinds of addresses, headers and records.

use core::{fmt::Debug, net::IpAddr};

use zerocopy::{
    network_endian::{U16, U32},
    transmute,
};

use crate::{
    checksum::Delta,
    flow::{Endpoints, RouteRecord, RouteV4, RouteV6},
    packet::Wire,
    verdict::Reason,
    wire::{Addr6, Ipv4, Ipv6},
};

/// An address family.
pub trait Family: Copy + Debug + Eq + 'static {
    /// Its addresses.
    type Addr: Address;
    /// Its header.
    type Ip: IpHeader<Addr = Self::Addr> + Debug;
    /// The part of its records that userspace writes.
    type Route: RouteRecord<Addr = Self::Addr>;
    /// Whether a UDP checksum of 0 means that there is none; if not, such a datagram is invalid (RFC 8200 §8.1).
    const CHECKSUM_MAY_BE_MISSING: bool;
}

/// IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V6;

impl Family for V4 {
    type Addr = U32;
    type Ip = Ipv4;
    type Route = RouteV4;
    const CHECKSUM_MAY_BE_MISSING: bool = true;
}

impl Family for V6 {
    type Addr = Addr6;
    type Ip = Ipv6;
    type Route = RouteV6;
    const CHECKSUM_MAY_BE_MISSING: bool = false;
}

/// What the packet path needs of a network header.
pub trait IpHeader: Wire {
    /// Its addresses.
    type Addr: Address;
    /// Whether a whole UDP datagram follows that may be forwarded.
    fn check(&self) -> Result<(), Reason>;
    /// Length of the datagram, this header included.
    fn datagram_len(&self) -> usize;
    /// From, to.
    fn addresses(&self) -> (Self::Addr, Self::Addr);
    /// Replaces both.
    fn set_addresses(&mut self, src: Self::Addr, dst: Self::Addr);
    /// Hops left.
    fn hops(&self) -> u8;
    /// Replaces the hops left.
    fn set_hops(&mut self, hops: u8);
    /// How this header's checksum changes with the hops.
    fn hops_delta(&self, hops: u8) -> Delta;
    /// Updates this header's checksum, if it has one.
    fn update_checksum(&mut self, delta: Delta);
    /// The sum of what the pseudo-header takes from this header.
    fn pseudo_sum(&self) -> Delta;
}

/// An address.
pub trait Address: Wire + Debug + Eq {
    /// The change of a sum when this becomes `new`.
    fn replaced_by(self, new: Self, delta: Delta) -> Delta;
    /// The change of a sum when this is added to it.
    fn appear(self, delta: Delta) -> Delta;
    /// As an IPv6 address (RFC 4291 §2.5.5.2), the form in tables that both families share.
    fn mapped(self) -> Addr6;
    /// The network that is policed as one source: a /24, a /56.
    fn prefix(self) -> u64;
    /// Mixes a pair into a hash.
    fn mix(src: Self, dst: Self, hash: u64) -> u64;
}

impl Address for U32 {
    #[inline(always)]
    fn replaced_by(self, new: Self, delta: Delta) -> Delta {
        delta.long(self, new)
    }

    #[inline(always)]
    fn appear(self, delta: Delta) -> Delta {
        delta.long(Self::MAX_VALUE, self)
    }

    #[inline(always)]
    fn mapped(self) -> Addr6 {
        let [a, b, c, d] = self.to_bytes();
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
    }

    #[inline(always)]
    fn prefix(self) -> u64 {
        let [a, b, c, _] = self.to_bytes();
        u64::from_ne_bytes([4, a, b, c, 0, 0, 0, 0])
    }

    #[inline(always)]
    fn mix(src: Self, dst: Self, hash: u64) -> u64 {
        let pair: u64 = transmute!([src, dst]);
        mix(hash, pair)
    }
}

impl Address for Addr6 {
    #[inline(always)]
    fn replaced_by(self, new: Self, delta: Delta) -> Delta {
        let (old, new): ([U32; 4], [U32; 4]) = (transmute!(self), transmute!(new));
        delta.long(old[0], new[0]).long(old[1], new[1]).long(old[2], new[2]).long(old[3], new[3])
    }

    #[inline(always)]
    fn appear(self, delta: Delta) -> Delta {
        [0xff; 16].replaced_by(self, delta)
    }

    #[inline(always)]
    fn mapped(self) -> Addr6 {
        self
    }

    #[inline(always)]
    fn prefix(self) -> u64 {
        let [a, b, c, d, e, f, g, ..] = self;
        u64::from_ne_bytes([6, a, b, c, d, e, f, g])
    }

    #[inline(always)]
    fn mix(src: Self, dst: Self, hash: u64) -> u64 {
        let (src, dst): ([u64; 2], [u64; 2]) = (transmute!(src), transmute!(dst));
        mix(mix(mix(mix(hash, src[0]), src[1]), dst[0]), dst[1])
    }
}

/// One step of the hash: a multiplication by an odd constant of high entropy, and its high half folded into the low one.
#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

impl<A: Address> Endpoints<A> {
    /// A hash that nobody can predict who does not know `seed`.
    #[inline(always)]
    pub fn hash(&self, seed: u64) -> u64 {
        let ports = u64::from(self.src_port.get()) << 16 | u64::from(self.dst_port.get());
        mix(mix(A::mix(self.src, self.dst, seed), ports), seed.rotate_left(32))
    }

    /// What all flows of a block have in common: the endpoints, our port without its low byte.
    #[inline(always)]
    #[must_use]
    pub fn without_low_port(&self) -> Self {
        let [high, _] = self.dst_port.to_bytes();
        Self { dst_port: U16::from_bytes([high, 0]), ..*self }
    }

    /// Where the search for this key's block begins in the table of blocks. Four blocks of neighbouring ports lie side by side,
    /// and those of IPv4 share a cache line: ports are leased from the lowest on, so a hundred origins with ten thousand
    /// sessions each need the lines of a thousand groups, which stay in a cache that those of four thousand blocks leave.
    #[inline(always)]
    pub fn block_home(&self, seed: u64) -> u32 {
        let [high, _] = self.dst_port.to_bytes();
        let group = Self { dst_port: U16::from_bytes([high & !(GROUP - 1), 0]), ..*self };
        // The low half names a row, as elsewhere.
        (group.hash(seed) as u32).wrapping_mul(u32::from(GROUP)).wrapping_add(u32::from(high % GROUP))
    }

    /// The row within the block.
    #[inline(always)]
    pub fn row_in_block(&self) -> u32 {
        let [_, low] = self.dst_port.to_bytes();
        u32::from(low)
    }

    /// The same seen from the other end.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port }
    }
}

/// Blocks that lie side by side.
pub(crate) const GROUP: u8 = 4;

/// The network that an address is policed with, whatever its family.
pub fn prefix(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => U32::from_bytes(ip.octets()).prefix(),
        IpAddr::V6(ip) => ip.octets().prefix(),
    }
}

/// The policed row of a source prefix.
#[inline(always)]
pub fn prefix_hash(prefix: u64, seed: u64) -> u64 {
    mix(mix(seed, prefix), seed.rotate_left(32))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::HashSet, vec::Vec};

    use super::*;

    fn endpoints(n: u32) -> Endpoints<U32> {
        let [.., high, low] = n.to_be_bytes();
        Endpoints {
            src: U32::new(0xc633_6400 + (n >> 16)),
            dst: U32::new(0xcb00_7101),
            src_port: U16::from_bytes([high, low]),
            dst_port: U16::new(8000),
        }
    }

    #[test]
    fn a_hash_spreads_neighbouring_clients_over_the_table() {
        let keys: Vec<_> = (0..32_768).map(endpoints).collect();
        let rows: HashSet<_> = keys.iter().map(|key| key.hash(0x1234_5678_9abc_def0) & 0xffff).collect();
        // Thrown at random, 32,768 balls leave 0.607 of 65,536 bins empty.
        assert!((24_000..28_000).contains(&rows.len()), "{} rows", rows.len());
    }

    #[test]
    fn a_hash_depends_on_the_seed_and_on_every_field() {
        let key = endpoints(1);
        let other = |change: fn(&mut Endpoints<U32>)| {
            let mut changed = key;
            change(&mut changed);
            changed.hash(1)
        };
        let hashes = HashSet::from([
            key.hash(1),
            key.hash(2),
            other(|key| key.src = U32::new(1)),
            other(|key| key.dst = U32::new(1)),
            other(|key| key.src_port = U16::new(9)),
            other(|key| key.dst_port = U16::new(9)),
        ]);
        assert_eq!(hashes.len(), 6);
    }

    #[test]
    fn neighbouring_blocks_lie_side_by_side_and_groups_of_them_apart() {
        let home = |port| Endpoints { dst_port: U16::new(port), ..endpoints(1) }.block_home(7);
        assert_eq!(
            [0xf000, 0xf0ff, 0xf100, 0xf2aa, 0xf3ff].map(|port| home(port) - home(0xf000)),
            [0, 0, 1, 2, 3]
        );
        assert_eq!(home(0xf000) % 4, 0);
        assert_ne!(home(0xf400), home(0xf000) + 4);
    }

    #[test]
    fn a_source_is_its_network_and_families_never_meet() {
        let v4 = |text: [u8; 4]| U32::from_bytes(text).prefix();
        assert_eq!(v4([198, 51, 100, 7]), v4([198, 51, 100, 250]));
        assert_ne!(v4([198, 51, 100, 7]), v4([198, 51, 101, 7]));
        let mut v6: Addr6 = [0x20, 1, 0xd, 0xb8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let before = v6.prefix();
        v6[7] = 9;
        assert_eq!(v6.prefix(), before);
        v6[6] = 2;
        assert_ne!(v6.prefix(), before);
        assert_ne!(Addr6::default().prefix(), U32::ZERO.prefix());
        assert_eq!(prefix(IpAddr::from([198, 51, 100, 7])), v4([198, 51, 100, 7]));
        assert_eq!(prefix(IpAddr::from(v6)), v6.prefix());
    }
}
