//! What userspace tells the programs beside flows, and what the programs note for userspace.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, network_endian::U16, transmute};

use super::{Stamp, map_type};
use crate::{
    family::Address,
    maps::{Fingerprint, MapType},
    wire::Addr6,
};

map_type! {
    /// How records towards the origin are found.
    pub struct Hashing {
        /// Secret of the hash.
        pub seed: u64,
        /// Rows of the IPv4 table less one.
        pub mask_v4: u32,
        /// Rows of the IPv6 table less one.
        pub mask_v6: u32,
    }
}

map_type! {
    /// Who stands behind the tables, and which ports are ours.
    pub struct Ownership {
        /// When the owner was last alive, in [`Stamp`] units.
        pub seen: u32,
        /// Without an owner for this long the programs pass everything, in [`Stamp`] units.
        pub limit: u32,
        /// First source port.
        pub first_port: u16,
        /// Last source port.
        pub last_port: u16,
        /// Zero.
        pub reserved: u32,
    }
}

map_type! {
    /// How many packets without a flow may come up in a second.
    pub struct Policing {
        /// From one source prefix.
        pub per_source: u32,
        /// From one source prefix that a session is awaited from, or has.
        pub per_expected: u32,
        /// From all prefixes that no session is awaited from, on one CPU.
        pub in_all: u32,
        /// Zero.
        pub reserved: u32,
    }
}

map_type! {
    /// How blocks of records towards the client are found, beside the seed.
    pub struct BlockMasks {
        /// Rows of the table of IPv4 blocks less one.
        pub v4: u32,
        /// Rows of the table of IPv6 blocks less one.
        pub v6: u32,
    }
}

map_type! {
    /// The one row of the table of settings.
    pub struct Settings {
        /// How records are found.
        pub hashing: Hashing,
        /// Whose they are.
        pub ownership: Ownership,
        /// What else may come up.
        pub policing: Policing,
        /// [`crate::maps::ABI_VERSION`] of who wrote this.
        pub abi_version: u64,
        /// How blocks are found.
        pub blocks: BlockMasks,
    }
}

map_type! {
    /// An address and port that clients send to, as on the wire at the hook; with port 0 an address that our source ports
    /// are on.
    pub struct ServiceKey {
        /// The address, an IPv4 one as IPv6.
        pub addr: Addr6,
        /// The port.
        pub port: U16,
        /// Zero.
        pub reserved: [u8; 2],
    }
}

map_type! {
    /// Packets without a flow that came up from one source in the present window.
    pub struct MissCount {
        /// Which window.
        pub window: u32,
        /// How many.
        pub count: u32,
    }
}

map_type! {
    /// A client whose STUN request had no flow.
    pub struct ArrivalKey {
        /// Its address, an IPv4 one as IPv6.
        pub addr: Addr6,
        /// Its port.
        pub port: U16,
        /// Zero.
        pub reserved: [u8; 2],
    }
}

map_type! {
    /// Where that request entered: an observation for userspace, never forwarding state.
    pub struct Arrival {
        /// Its destination on the wire, an IPv4 one as IPv6.
        pub addr: Addr6,
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

const _: () = assert!(size_of::<Settings>() == 64);

/// Bits of a service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceFlags;

impl ServiceFlags {
    /// Every tuple that userspace relays has a record, so only what begins a session may come up without one.
    pub const STRICT: u32 = 1;
    /// SRT: a handshake begins a session, and a STUN request does not.
    pub const SRT: u32 = 2;
}

impl Hashing {
    /// From its words.
    #[inline(always)]
    pub fn from_words(words: [u64; 2]) -> Self {
        transmute!(words)
    }
}

impl BlockMasks {
    /// From its word.
    #[inline(always)]
    pub fn from_word(word: u64) -> Self {
        transmute!(word)
    }
}

impl Ownership {
    /// From its words.
    #[inline(always)]
    pub fn from_words(words: [u64; 2]) -> Self {
        transmute!(words)
    }

    /// Whether the owner has been gone for too long.
    #[inline(always)]
    pub fn is_orphaned(&self, now: Stamp) -> bool {
        self.limit != 0 && now.units_since(Stamp(self.seen)) > self.limit
    }

    /// Whether a datagram to this port comes from an origin.
    #[inline(always)]
    pub fn is_source_port(&self, port: U16) -> bool {
        (self.first_port..=self.last_port).contains(&port.get())
    }
}

impl Policing {
    /// From its words.
    #[inline(always)]
    pub fn from_words(words: [u64; 2]) -> Self {
        transmute!(words)
    }
}

impl MissCount {
    /// A window is 2^10 stamps long, about a second.
    #[inline(always)]
    pub fn window(now: Stamp) -> u32 {
        now.0 >> 10
    }

    /// Takes one of `limit` packets of the window; false if none is left.
    #[inline(always)]
    pub fn spend(&mut self, window: u32, limit: u32) -> bool {
        if self.window != window {
            *self = Self { window, count: 0 };
        }
        if self.count >= limit {
            return false;
        }
        self.count += 1;
        true
    }
}

impl ServiceKey {
    /// Of an address and a port.
    #[inline(always)]
    pub fn of(addr: impl Address, port: U16) -> Self {
        Self { addr: addr.mapped(), port, reserved: [0; 2] }
    }
}

impl ArrivalKey {
    /// Of a client.
    #[inline(always)]
    pub fn of(addr: impl Address, port: U16) -> Self {
        Self { addr: addr.mapped(), port, reserved: [0; 2] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_renewed_with_the_window() {
        let mut count = MissCount { window: 0, count: 0 };
        let spent: [bool; 3] = core::array::from_fn(|_| count.spend(7, 2));
        assert_eq!(spent, [true, true, false]);
        assert!(count.spend(8, 2));
    }

    #[test]
    fn an_owner_that_is_gone_for_too_long_leaves_orphans() {
        let ownership = Ownership { seen: 1000, limit: 100, first_port: 1, last_port: 2, reserved: 0 };
        assert!(!ownership.is_orphaned(Stamp(1100)));
        assert!(ownership.is_orphaned(Stamp(1101)));
        // A stamp that another CPU wrote a moment later is no age of 52 days.
        assert!(!ownership.is_orphaned(Stamp(999)));
        assert!(!Ownership { limit: 0, ..ownership }.is_orphaned(Stamp(5000)));
    }
}
