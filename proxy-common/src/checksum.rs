//! Internet checksum arithmetic.
//!
//! The checksum is the complement of the one's complement sum of a header's 16-bit words. When words change, RFC 1624
//! equation 3 updates it without reading the rest: `new = !(!old + Σ(!old_word + new_word))`. [`Delta`] is that Σ, so
//! one value serves the direct update and the kernel's checksum helpers alike.
//!
//! A one's complement sum does not depend on byte order (RFC 1071 §2B), so words are added as they lie in memory:
//! no swaps, and the same representation the kernel's `__wsum` has.

use zerocopy::network_endian::{U16, U32};

use crate::{family::IpHeader, wire::Headers};

/// How the sum over a header changes when some of its words do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Delta(u32);

impl Delta {
    /// Also replaces the word `old` by `new`.
    #[inline(always)]
    pub fn word(self, old: U16, new: U16) -> Self {
        Self(self.0 + u32::from(!memory(old)) + u32::from(memory(new)))
    }

    /// Also replaces the two words of `old` by those of `new`.
    #[inline(always)]
    pub fn long(self, old: U32, new: U32) -> Self {
        let (old_high, old_low) = halves(old);
        let (new_high, new_low) = halves(new);
        self.word(old_high, new_high).word(old_low, new_low)
    }

    /// Also makes the changes of `other`.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum after the change.
    #[inline(always)]
    #[must_use]
    pub fn update(self, checksum: U16) -> U16 {
        stored(!fold(u32::from(!memory(checksum)) + u32::from(self.folded())))
    }

    /// The change as a `__wsum`, as `bpf_l3_csum_replace` and `bpf_l4_csum_replace` take it with a size of 0.
    #[inline(always)]
    #[must_use]
    pub fn folded(self) -> u16 {
        fold(self.0)
    }
}

/// A UDP checksum that may be sent: 0 would mean that there is none (RFC 768).
#[inline(always)]
pub fn non_zero(checksum: U16) -> U16 {
    if checksum == U16::ZERO { U16::MAX_VALUE } else { checksum }
}

/// The checksum of bytes with this sum.
#[inline(always)]
pub fn complement(sum: u32) -> U16 {
    stored(!fold(sum))
}

/// The one's complement sum of `bytes`, at most 64 KiB of them.
pub fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|word| u32::from(u16::from_ne_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
        .sum()
}

/// Whether the UDP checksum is the bare sum of the pseudo-header.
///
/// A local sender (veth, tap) leaves it like that for the device to finish (`CHECKSUM_PARTIAL`), which XDP is not told.
/// One in 65536 finished checksums looks the same; finishing such a frame again yields the checksum it had.
#[inline(always)]
pub fn is_partial<N: IpHeader>(headers: &Headers<N>) -> bool {
    let pseudo = headers.ip.pseudo_sum().word(U16::MAX_VALUE, headers.udp.len);
    pseudo.folded() == memory(headers.udp.checksum)
}

#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // The second addition cannot carry out of 16 bits.
    sum as u16
}

#[inline(always)]
fn memory(word: U16) -> u16 {
    u16::from_ne_bytes(word.to_bytes())
}

#[inline(always)]
fn stored(word: u16) -> U16 {
    U16::from_bytes(word.to_ne_bytes())
}

#[inline(always)]
fn halves(long: U32) -> (U16, U16) {
    let [a, b, c, d] = long.to_bytes();
    (U16::from_bytes([a, b]), U16::from_bytes([c, d]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn updates_the_example_of_rfc_1624() {
        // §4: a word 0x5555 becomes 0x3285 and the checksum 0xdd2f becomes 0x0000, which equation 2 gets wrong.
        let delta = Delta::default().word(U16::new(0x5555), U16::new(0x3285));
        assert_eq!(delta.update(U16::new(0xdd2f)), U16::ZERO);
    }

    #[test]
    fn sums_an_odd_byte_as_if_a_zero_followed() {
        assert_eq!(sum(&[1, 2, 3]), sum(&[1, 2, 3, 0]));
    }

    proptest! {
        #[test]
        fn an_update_equals_a_recomputation(
            words in proptest::collection::vec(any::<[u8; 2]>(), 2..30),
            new in any::<[u8; 4]>(),
        ) {
            let mut bytes = words.concat();
            let before = complement(sum(&bytes));
            let old = U32::from_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            bytes[..4].copy_from_slice(&new);
            let updated = Delta::default().long(old, U32::from_bytes(new)).update(before);
            let computed = complement(sum(&bytes));
            // 0x0000 and 0xffff are the same number in one's complement.
            prop_assert_eq!(non_zero(updated), non_zero(computed));
        }
    }
}
