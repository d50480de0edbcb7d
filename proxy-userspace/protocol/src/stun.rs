//! STUN messages as ICE uses them (RFC 8489, RFC 8445).
//!
//! [`Message::parse`] walks the attributes once and remembers what the proxy routes on. It computes nothing: the two
//! checks that hash the message, [`Message::verify_integrity`] and [`Message::fingerprint`], run when they are asked
//! for. No attribute is required, since clients differ: ffmpeg sends USE-CANDIDATE without PRIORITY.

mod address;
mod builder;
mod crc32;

use std::net::SocketAddr;

use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use thiserror::Error;

pub use self::builder::MessageBuilder;
use crate::reader::{Reader, UnexpectedEnd};

pub(crate) const HEADER_LEN: usize = 20;
pub(crate) const MAGIC_COOKIE: u32 = 0x2112_A442;
const ATTRIBUTE_HEADER_LEN: usize = 4;
const INTEGRITY_LEN: usize = 20;
const FINGERPRINT_LEN: usize = 4;

/// Attribute types of RFC 8489 and RFC 8445.
mod attribute {
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(super) const PRIORITY: u16 = 0x0024;
    pub(super) const USE_CANDIDATE: u16 = 0x0025;
    pub(super) const FINGERPRINT: u16 = 0x8028;
}

type HmacSha1 = Hmac<Sha1>;

/// Why a datagram is not a STUN message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StunError {
    /// The header or an attribute runs past the end of the message.
    #[error("stun message is truncated")]
    Truncated,
    /// The type is none of those that RFC 7983 leaves to STUN: its first byte is above 3.
    #[error("message type is not of stun")]
    NotStun,
    /// The magic cookie is missing: not STUN, or STUN from before RFC 5389.
    #[error("stun magic cookie is wrong")]
    Cookie,
    /// The length field is no multiple of four, or disagrees with the size of the datagram.
    #[error("stun length field is wrong")]
    Length,
    /// An attribute has a size or content that its type does not allow.
    #[error("stun attribute 0x{0:04x} is malformed")]
    Attribute(u16),
}

impl From<UnexpectedEnd> for StunError {
    fn from(UnexpectedEnd: UnexpectedEnd) -> Self {
        Self::Truncated
    }
}

/// What a message is to its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Expects a response.
    Request,
    /// Expects none.
    Indication,
    /// Answers a request that was accepted.
    Success,
    /// Answers a request that was refused.
    Error,
}

impl Class {
    const fn from_type(message_type: u16) -> Self {
        match (message_type & 0x0100 != 0, message_type & 0x0010 != 0) {
            (false, false) => Self::Request,
            (false, true) => Self::Indication,
            (true, false) => Self::Success,
            (true, true) => Self::Error,
        }
    }

    const fn type_bits(self) -> u16 {
        match self {
            Self::Request => 0x0000,
            Self::Indication => 0x0010,
            Self::Success => 0x0100,
            Self::Error => 0x0110,
        }
    }
}

/// What a message is about: a number below 256, of which ICE uses one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Method(u16);

impl Method {
    /// The only method of ICE.
    pub const BINDING: Self = Self(1);

    /// The method's bits lie around the two class bits.
    const fn from_type(message_type: u16) -> Self {
        Self((message_type & 0x000F) | (message_type & 0x00E0) >> 1 | (message_type & 0x0200) >> 2)
    }

    const fn type_bits(self) -> u16 {
        (self.0 & 0x000F) | (self.0 & 0x0070) << 1 | (self.0 & 0x0080) << 2
    }
}

/// Ties a response to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// A well-formed STUN message that borrows the datagram it came in.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    message_type: u16,
    transaction_id: TransactionId,
    attributes: Attributes<'a>,
}

#[derive(Debug, Clone, Default)]
struct Attributes<'a> {
    username: Option<&'a str>,
    priority: Option<u32>,
    use_candidate: bool,
    xor_mapped_address: Option<SocketAddr>,
    integrity: Option<Seal<'a, INTEGRITY_LEN>>,
    fingerprint: Option<Seal<'a, FINGERPRINT_LEN>>,
}

/// An attribute computed over everything that precedes it.
#[derive(Debug, Clone)]
struct Seal<'a, const N: usize> {
    covered: &'a [u8],
    value: [u8; N],
}

impl<'a, const N: usize> Seal<'a, N> {
    fn new(covered: &'a [u8], value: &[u8]) -> Option<Self> {
        Some(Self { covered, value: value.try_into().ok()? })
    }
}

impl<'a> Message<'a> {
    /// Reads the message that fills `datagram`.
    ///
    /// Attributes of other types are skipped; of several attributes of one type the first counts; what follows
    /// MESSAGE-INTEGRITY is ignored but for FINGERPRINT, and what follows FINGERPRINT is ignored altogether.
    ///
    /// # Errors
    ///
    /// Fails if the datagram is no STUN message, or if it is malformed.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, StunError> {
        let mut reader = Reader::new(datagram);
        let message_type = reader.u16()?;
        if message_type & 0xFC00 != 0 {
            return Err(StunError::NotStun);
        }
        let length = reader.u16()?;
        if reader.u32()? != MAGIC_COOKIE {
            return Err(StunError::Cookie);
        }
        let transaction_id = TransactionId(reader.array()?);
        if !length.is_multiple_of(4) || usize::from(length) != reader.remaining().len() {
            return Err(StunError::Length);
        }
        let attributes = Attributes::parse(&mut reader, transaction_id)?;
        Ok(Self { message_type, transaction_id, attributes })
    }

    /// Whether it is a request, an indication or a response.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::from_type(self.message_type)
    }

    /// What it is about.
    #[must_use]
    pub const fn method(&self) -> Method {
        Method::from_type(self.message_type)
    }

    /// The transaction it belongs to.
    #[must_use]
    pub const fn transaction_id(&self) -> TransactionId {
        self.transaction_id
    }

    /// USERNAME: in a client's request, the origin's ufrag, a colon, and its own.
    #[must_use]
    pub const fn username(&self) -> Option<&'a str> {
        self.attributes.username
    }

    /// USE-CANDIDATE: the client nominates the pair of addresses this request travels on.
    #[must_use]
    pub const fn use_candidate(&self) -> bool {
        self.attributes.use_candidate
    }

    /// PRIORITY, if present.
    #[must_use]
    pub const fn priority(&self) -> Option<u32> {
        self.attributes.priority
    }

    /// XOR-MAPPED-ADDRESS: the requester's address as the responder saw it.
    #[must_use]
    pub const fn xor_mapped_address(&self) -> Option<SocketAddr> {
        self.attributes.xor_mapped_address
    }

    /// Whether the message is signed at all.
    #[must_use]
    pub const fn has_integrity(&self) -> bool {
        self.attributes.integrity.is_some()
    }

    /// Whether MESSAGE-INTEGRITY is present and was made with `key`.
    #[must_use]
    pub fn verify_integrity(&self, key: &[u8]) -> bool {
        let Some(seal) = &self.attributes.integrity else { return false };
        integrity_over(key, seal.covered).is_some_and(|mac| mac.verify_slice(&seal.value).is_ok())
    }

    /// Whether FINGERPRINT is right, if it is present.
    #[must_use]
    pub fn fingerprint(&self) -> Option<bool> {
        let seal = self.attributes.fingerprint.as_ref()?;
        Some(fingerprint_over(seal.covered) == u32::from_be_bytes(seal.value))
    }
}

impl<'a> Attributes<'a> {
    fn parse(reader: &mut Reader<'a>, transaction_id: TransactionId) -> Result<Self, StunError> {
        let mut attributes = Self::default();
        while !reader.is_empty() && attributes.fingerprint.is_none() {
            let covered = reader.consumed();
            let kind = reader.u16()?;
            let length = usize::from(reader.u16()?);
            let value = reader.bytes(length)?;
            reader.bytes(padding_after(length))?;
            if attributes.integrity.is_none() || kind == attribute::FINGERPRINT {
                attributes.take(kind, value, covered, transaction_id).ok_or(StunError::Attribute(kind))?;
            }
        }
        Ok(attributes)
    }

    /// Keeps an attribute the proxy knows; `None` if its value is not what its type demands.
    fn take(&mut self, kind: u16, value: &'a [u8], covered: &'a [u8], id: TransactionId) -> Option<()> {
        match kind {
            attribute::USERNAME => keep_first(&mut self.username, std::str::from_utf8(value).ok()?),
            attribute::PRIORITY => keep_first(&mut self.priority, u32::from_be_bytes(value.try_into().ok()?)),
            attribute::USE_CANDIDATE => self.use_candidate = true,
            attribute::XOR_MAPPED_ADDRESS => {
                keep_first(&mut self.xor_mapped_address, address::decode(value, id)?);
            }
            attribute::MESSAGE_INTEGRITY => self.integrity = Some(Seal::new(covered, value)?),
            attribute::FINGERPRINT => self.fingerprint = Some(Seal::new(covered, value)?),
            _ => {}
        }
        Some(())
    }
}

fn keep_first<T>(field: &mut Option<T>, value: T) {
    field.get_or_insert(value);
}

const fn padding_after(length: usize) -> usize {
    length.wrapping_neg() % 4
}

/// MESSAGE-INTEGRITY of a message that so far reads `covered`.
///
/// The length field counts as if the message ended with MESSAGE-INTEGRITY (RFC 8489, section 14.5).
fn integrity_over(key: &[u8], covered: &[u8]) -> Option<HmacSha1> {
    let mut reader = Reader::new(covered);
    let message_type: [u8; 2] = reader.array().ok()?;
    reader.u16().ok()?;
    let end = covered.len() + ATTRIBUTE_HEADER_LEN + INTEGRITY_LEN;
    let length = u16::try_from(end.checked_sub(HEADER_LEN)?).ok()?;

    let mut mac = HmacSha1::new_from_slice(key).ok()?;
    mac.update(&message_type);
    mac.update(&length.to_be_bytes());
    mac.update(reader.remaining());
    Some(mac)
}

fn fingerprint_over(covered: &[u8]) -> u32 {
    crc32::checksum(covered) ^ 0x5354_554E
}

#[cfg(test)]
mod tests;
