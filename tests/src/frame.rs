//! Ethernet frames with a UDP datagram in them, built by etherparse and then bent where a test wants it.

use std::net::SocketAddr;

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};

/// Offsets of what tests bend in IPv4 frames.
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
    src: SocketAddr,
    dst: SocketAddr,
    ttl: u8,
    payload: Vec<u8>,
    checksum: Checksum,
}

impl Frame {
    /// With TTL 64 and a valid checksum; both ends are of one family.
    #[must_use]
    pub fn udp(src: impl Into<SocketAddr>, dst: impl Into<SocketAddr>, payload: &[u8]) -> Self {
        let (src, dst) = (src.into(), dst.into());
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
    ///
    /// # Panics
    /// When the ends are of two families.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let link = PacketBuilder::ethernet2([0x02, 0, 0, 0, 0, 1], [0x02, 0, 0, 0, 0, 2]);
        let network = match (self.src, self.dst) {
            (SocketAddr::V4(src), SocketAddr::V4(dst)) => {
                link.ipv4(src.ip().octets(), dst.ip().octets(), self.ttl)
            }
            (SocketAddr::V6(src), SocketAddr::V6(dst)) => {
                link.ipv6(src.ip().octets(), dst.ip().octets(), self.ttl)
            }
            mixed => panic!("no datagram goes between {mixed:?}"),
        };
        let datagram = network.udp(self.src.port(), self.dst.port());
        datagram
            .write(&mut bytes, &self.payload)
            .expect("a vector takes every frame, and payloads are short");
        let checksum = match self.checksum {
            Checksum::Valid => return bytes,
            Checksum::Zero => 0,
            Checksum::Partial => self.pseudo_header_sum(),
        };
        put(&mut bytes, self.udp_checksum(), &checksum.to_be_bytes());
        bytes
    }

    /// Where its UDP checksum is.
    #[must_use]
    pub fn udp_checksum(&self) -> usize {
        if self.src.is_ipv4() { offset::UDP_CHECKSUM } else { offset::UDP_CHECKSUM + 20 }
    }

    fn pseudo_header_sum(&self) -> u16 {
        let octets = |address: SocketAddr| match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let length = u16::try_from(8 + self.payload.len()).expect("payloads are short");
        let words = [octets(self.src), octets(self.dst), vec![0, 17], length.to_be_bytes().to_vec()].concat();
        let sum: u32 = words.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
    }
}

/// Overwrites bytes of a frame.
pub fn put(frame: &mut [u8], offset: usize, bytes: &[u8]) {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Whether the checksums of a frame are what etherparse computes; a UDP checksum of 0 is none.
#[must_use]
pub fn has_valid_checksums(frame: &[u8]) -> bool {
    let Ok(packet) = PacketHeaders::from_ethernet_slice(frame) else { return false };
    let (Some(net), Some(TransportHeader::Udp(udp))) = (packet.net, packet.transport) else { return false };
    let payload = packet.payload.slice();
    match net {
        NetHeaders::Ipv4(ip, _) => {
            let computed = udp.calc_checksum_ipv4(&ip, payload);
            ip.header_checksum == ip.calc_header_checksum()
                && (udp.checksum == 0 || computed.is_ok_and(|computed| udp.checksum == computed))
        }
        NetHeaders::Ipv6(ip, _) => {
            udp.calc_checksum_ipv6(&ip, payload).is_ok_and(|computed| udp.checksum == computed)
        }
        NetHeaders::Arp(_) => false,
    }
}
