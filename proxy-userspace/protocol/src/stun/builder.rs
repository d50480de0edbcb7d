use std::net::SocketAddr;

use hmac::Mac as _;

use super::{
    ATTRIBUTE_HEADER_LEN, Class, FINGERPRINT_LEN, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, address,
    attribute, fingerprint_over, integrity_over, padding_after,
};

/// Writes a STUN message, attribute by attribute in the order of the calls.
///
/// [`integrity`](Self::integrity) and [`fingerprint`](Self::fingerprint) seal what was written before them, so they
/// come last, in this order.
#[derive(Debug, Clone)]
pub struct MessageBuilder {
    transaction_id: TransactionId,
    bytes: Vec<u8>,
}

impl MessageBuilder {
    /// Starts a message without attributes.
    #[must_use]
    pub fn new(class: Class, method: Method, transaction_id: TransactionId) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend((class.type_bits() | method.type_bits()).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        bytes.extend(transaction_id.0);
        Self { transaction_id, bytes }
    }

    /// Adds USERNAME.
    #[must_use]
    pub fn username(self, username: &str) -> Self {
        self.attribute(attribute::USERNAME, username.as_bytes())
    }

    /// Adds USE-CANDIDATE.
    #[must_use]
    pub fn use_candidate(self) -> Self {
        self.attribute(attribute::USE_CANDIDATE, &[])
    }

    /// Adds PRIORITY.
    #[must_use]
    pub fn priority(self, priority: u32) -> Self {
        self.attribute(attribute::PRIORITY, &priority.to_be_bytes())
    }

    /// Adds XOR-MAPPED-ADDRESS.
    #[must_use]
    pub fn xor_mapped_address(self, address: SocketAddr) -> Self {
        let value = address::encode(address, self.transaction_id);
        self.attribute(attribute::XOR_MAPPED_ADDRESS, &value)
    }

    /// Signs what was written so far.
    #[must_use]
    pub fn integrity(self, key: &[u8]) -> Self {
        let mac =
            integrity_over(key, &self.bytes).expect("the message has a header and is shorter than 64 KiB");
        let value = mac.finalize().into_bytes();
        self.attribute(attribute::MESSAGE_INTEGRITY, &value)
    }

    /// Adds the checksum that tells STUN from other protocols on the same port.
    #[must_use]
    pub fn fingerprint(mut self) -> Self {
        // The checksum covers a length field that already counts FINGERPRINT.
        self.set_length(self.bytes.len() + ATTRIBUTE_HEADER_LEN + FINGERPRINT_LEN);
        let checksum = fingerprint_over(&self.bytes);
        self.attribute(attribute::FINGERPRINT, &checksum.to_be_bytes())
    }

    /// The finished datagram.
    #[must_use]
    pub fn build(self) -> Vec<u8> {
        self.bytes
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len()).expect("an attribute is shorter than 64 KiB");
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(value);
        self.bytes.extend(std::iter::repeat_n(0, padding_after(value.len())));
        self.set_length(self.bytes.len());
        self
    }

    fn set_length(&mut self, end: usize) {
        let length = u16::try_from(end - HEADER_LEN).expect("a message is shorter than 64 KiB");
        let header = self.bytes.first_chunk_mut().expect("a message starts with its header");
        let [_, _, high, low] = header;
        [*high, *low] = length.to_be_bytes();
    }
}
