//! Ethernet frames with a UDP datagram in them, built by etherparse and then bent where a test wants it.

use std::net::SocketAddrV4;

use etherparse::PacketBuilder;

/// Offsets of what tests bend.
pub mod offset {
    /// Ethertype.
    pub const ETHERTYPE: usize = 12;
    /// Version and header length.
    pub const VERSION_IHL: usize = 14;
    /// DSCP and ECN.
    pub const TOS: usize = 15;
    /// IPv4 total length.
    pub const TOTAL_LEN: usize = 16;
    /// Fragment flags and offset.
    pub const FRAGMENT: usize = 20;
    /// Time to live.
    pub const TTL: usize = 22;
    /// Protocol.
    pub const PROTOCOL: usize = 23;
    /// IPv4 checksum.
    pub const IP_CHECKSUM: usize = 24;
    /// UDP length.
    pub const UDP_LEN: usize = 38;
    /// UDP checksum.
    pub const UDP_CHECKSUM: usize = 40;
    /// UDP payload.
    pub const PAYLOAD: usize = 42;
}

/// What is in the UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// What belongs there.
    Valid,
    /// Nothing: the sender computed none.
    Zero,
    /// The pseudo-header's sum, as a local sender leaves it to the device.
    Partial,
}

/// A frame from `src` to `dst`.
#[derive(Clone, Debug)]
pub struct Frame {
    src: SocketAddrV4,
    dst: SocketAddrV4,
    ttl: u8,
    payload: Vec<u8>,
    checksum: Checksum,
}

impl Frame {
    /// With TTL 64 and a valid checksum.
    #[must_use]
    pub fn udp(src: SocketAddrV4, dst: SocketAddrV4, payload: &[u8]) -> Self {
        Self { src, dst, ttl: 64, payload: payload.into(), checksum: Checksum::Valid }
    }

    /// With another TTL.
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// With another checksum.
    #[must_use]
    pub fn checksum(self, checksum: Checksum) -> Self {
        Self { checksum, ..self }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([0x02, 0, 0, 0, 0, 1], [0x02, 0, 0, 0, 0, 2])
            .ipv4(self.src.ip().octets(), self.dst.ip().octets(), self.ttl)
            .udp(self.src.port(), self.dst.port())
            .write(&mut bytes, &self.payload)
            .expect("a vector takes every frame, and payloads of tests are short");
        let checksum = match self.checksum {
            Checksum::Valid => return bytes,
            Checksum::Zero => 0,
            Checksum::Partial => pseudo_header_sum(&bytes),
        };
        put(&mut bytes, offset::UDP_CHECKSUM, &checksum.to_be_bytes());
        bytes
    }
}

/// Overwrites bytes of a frame.
pub fn put(frame: &mut [u8], offset: usize, bytes: &[u8]) {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Whether the checksums of a frame are what etherparse computes; a UDP checksum of 0 is none.
#[must_use]
pub fn has_valid_checksums(frame: &[u8]) -> bool {
    let Ok(packet) = etherparse::PacketHeaders::from_ethernet_slice(frame) else { return false };
    let (Some(etherparse::NetHeaders::Ipv4(ip, _)), Some(etherparse::TransportHeader::Udp(udp))) =
        (packet.net, packet.transport)
    else {
        return false;
    };
    let computed = udp.calc_checksum_ipv4(&ip, packet.payload.slice());
    ip.header_checksum == ip.calc_header_checksum()
        && (udp.checksum == 0 || computed.is_ok_and(|computed| udp.checksum == computed))
}

fn pseudo_header_sum(frame: &[u8]) -> u16 {
    let udp_len = &frame[offset::UDP_LEN..offset::UDP_CHECKSUM];
    let addresses = &frame[26..34];
    let words = [addresses, &[0, 17], udp_len].concat();
    let sum: u32 = words.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}
