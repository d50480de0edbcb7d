//! Digests in C1, S1 and S2.
//!
//! Four bytes of a packet tell the place of its digest: their sum modulo 728 is the distance from behind them. They
//! are at the beginning of either half of the packet; the other half holds a key that RTMPE uses.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::PACKET_LEN;

/// The length of a digest.
pub(super) const DIGEST_LEN: usize = 32;

/// Where a digest can begin, counted from behind the four bytes.
const PLACES: usize = 728;

/// What both of Adobe's keys end with.
const KEY_TAIL: [u8; 32] = [
    0xF0, 0xEE, 0xC2, 0x4A, 0x80, 0x68, 0xBE, 0xE8, 0x2E, 0x00, 0xD0, 0xD1, 0x02, 0x9E, 0x7E, 0x57, 0x6E,
    0xEC, 0x5D, 0x2D, 0x29, 0x80, 0x6F, 0xAB, 0x93, 0xB8, 0xE6, 0x36, 0xCF, 0xEB, 0x31, 0xAE,
];
/// The key of the digests that players send.
pub(super) const PLAYER_KEY: &[u8] = b"Genuine Adobe Flash Player 001";
/// The key of the digests that servers send.
pub(super) const SERVER_KEY: &[u8] = b"Genuine Adobe Flash Media Server 001";

/// In which half of a packet its digest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schema {
    /// The second half: what Flash players send.
    KeyFirst,
    /// The first half.
    DigestFirst,
}

impl Schema {
    /// In the order in which SRS tries them.
    const ALL: [Self; 2] = [Self::KeyFirst, Self::DigestFirst];

    const fn place_bytes(self) -> usize {
        match self {
            Self::KeyFirst => 8 + 764,
            Self::DigestFirst => 8,
        }
    }
}

/// The digest of a C1, if it has a right one.
pub(super) fn find(c1: &[u8; PACKET_LEN]) -> Option<(Schema, [u8; DIGEST_LEN])> {
    Schema::ALL.into_iter().find_map(|schema| {
        let (before, digest, after) = split(c1, schema);
        (hmac(PLAYER_KEY, &[before, after]) == digest).then_some((schema, digest))
    })
}

/// Writes the digest of a packet to its place.
pub(super) fn sign(packet: &mut [u8; PACKET_LEN], schema: Schema, key: &[u8]) {
    let (before, _, after) = split(packet, schema);
    let digest = hmac(key, &[before, after]);
    let place = before.len();
    packet.iter_mut().skip(place).zip(digest).for_each(|(byte, new)| *byte = new);
}

/// The signature at the end of an S2, over what is before it.
pub(super) fn s2_signature(body: &[u8], c1_digest: &[u8; DIGEST_LEN]) -> [u8; DIGEST_LEN] {
    let key = hmac(&[SERVER_KEY, &KEY_TAIL].concat(), &[c1_digest]);
    hmac(&key, &[body])
}

/// What is before the digest, the digest, and what is after it.
fn split(packet: &[u8; PACKET_LEN], schema: Schema) -> (&[u8], [u8; DIGEST_LEN], &[u8]) {
    let (_, block) = packet.split_at(schema.place_bytes());
    let place: usize = block.iter().take(4).map(|byte| usize::from(*byte)).sum::<usize>() % PLACES;
    let (before, rest) = packet.split_at(schema.place_bytes() + 4 + place);
    let (digest, after) =
        rest.split_first_chunk().expect("a place is at least 36 bytes from the end of its half");
    (before, *digest, after)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST_LEN] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
