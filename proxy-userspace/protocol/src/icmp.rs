//! ICMP errors about UDP datagrams (RFC 792, RFC 4443): what went wrong, with which datagram.
//!
//! An error quotes the datagram as it was on the leg where it failed. [`IcmpError::translate`] writes the same error
//! about the same datagram as its sender knows it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::{
    checksum::{fold, sum, update},
    reader::{Reader, UnexpectedEnd},
};

mod endpoints;

use endpoints::endpoints;

const UDP: u8 = 17;
const FRAGMENT_HEADER: u8 = 44;
const ICMP: u8 = 1;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// An error is at most 576 bytes long over IPv4 (RFC 1812, section 4.3.2.3), and 1280 over IPv6.
const QUOTE_V4: usize = 576 - IPV4_HEADER - HEADER;
const QUOTE_V6: usize = 1280 - IPV6_HEADER - HEADER;
/// Of an ICMP message.
const HEADER: usize = 8;

/// The IP version of an error and of what it quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// ICMP.
    V4,
    /// `ICMPv6`.
    V6,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nobody is there, or may be reached.
    Unreachable {
        /// Why not, in the words of the version.
        code: u8,
    },
    /// The datagram does not fit.
    TooBig {
        /// What fits, from the IP header on; 0 from routers that do not tell.
        mtu: u32,
    },
    /// No hop was left, or a fragment was missing.
    TimeExceeded {
        /// Which.
        code: u8,
    },
}

/// Why bytes are no error about a UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IcmpFault {
    /// The message is cut, or what it quotes is.
    #[error("the message is cut")]
    Cut,
    /// It is ICMP, but no error that is passed on.
    #[error("not an error that is passed on")]
    Kind,
    /// The checksum does not fit.
    #[error("the checksum does not fit")]
    Checksum,
    /// It quotes something else than the beginning of a UDP datagram of its own version.
    #[error("quotes no UDP datagram")]
    Quote,
}

impl From<UnexpectedEnd> for IcmpFault {
    fn from(_: UnexpectedEnd) -> Self {
        Self::Cut
    }
}

/// An error and the datagram it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError<'a> {
    /// What went wrong.
    pub cause: Cause,
    /// With which datagram.
    pub quote: Quote<'a>,
}

/// The beginning of a UDP datagram, from its IP header on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote<'a> {
    version: Version,
    bytes: &'a [u8],
    from: SocketAddr,
    to: SocketAddr,
    /// Where the UDP header begins.
    udp: usize,
    length: usize,
}

impl<'a> IcmpError<'a> {
    /// Reads a packet from its IPv4 header on.
    ///
    /// # Errors
    ///
    /// Fails if it is no error about a UDP datagram.
    pub fn parse_v4(packet: &'a [u8]) -> Result<Self, IcmpFault> {
        let mut reader = Reader::new(packet);
        let header = usize::from(reader.u8()? & 0x0f) * 4;
        reader.bytes(header.checked_sub(1).ok_or(IcmpFault::Cut)?)?;
        let message = reader.remaining();
        if packet.get(9) != Some(&ICMP) {
            return Err(IcmpFault::Kind);
        }
        if !sum(message).is_multiple_of(0xffff) {
            return Err(IcmpFault::Checksum);
        }
        Self::parse(Version::V4, message)
    }

    /// Reads a message of `ICMPv6`, whose checksum the kernel has verified.
    ///
    /// # Errors
    ///
    /// Fails if it is no error about a UDP datagram.
    pub fn parse_v6(message: &'a [u8]) -> Result<Self, IcmpFault> {
        Self::parse(Version::V6, message)
    }

    fn parse(version: Version, message: &'a [u8]) -> Result<Self, IcmpFault> {
        let mut reader = Reader::new(message);
        let (kind, code, _checksum) = (reader.u8()?, reader.u8()?, reader.u16()?);
        let rest: [u8; 4] = reader.array()?;
        let [first, second, third, fourth] = rest;
        let cause = match (version, kind) {
            (Version::V4, 3) if code == 4 => {
                Cause::TooBig { mtu: u32::from(u16::from_be_bytes([third, fourth])) }
            }
            (Version::V4, 3) | (Version::V6, 1) => Cause::Unreachable { code },
            (Version::V6, 2) => Cause::TooBig { mtu: u32::from_be_bytes(rest) },
            (Version::V4, 11) | (Version::V6, 3) => Cause::TimeExceeded { code },
            (Version::V4 | Version::V6, _) => return Err(IcmpFault::Kind),
        };
        // RFC 4884: the length of the quote, if extensions follow it.
        let words = match (version, cause) {
            (Version::V6, Cause::TooBig { .. }) => 0,
            (Version::V4, _) => usize::from(second) * 4,
            (Version::V6, _) => usize::from(first) * 8,
        };
        let quoted = reader.remaining();
        let quoted = if words == 0 { quoted } else { quoted.get(..words).unwrap_or(quoted) };
        Ok(Self { cause, quote: Quote::parse(version, quoted)? })
    }

    /// The message for the one who sent the quoted datagram `from` there `to` here; none if these are of another version.
    ///
    /// Over IPv4 it is complete; over IPv6 the checksum is left to the kernel, which knows the addresses.
    #[must_use]
    pub fn translate(&self, from: SocketAddr, to: SocketAddr) -> Option<Vec<u8>> {
        Some(write(self.quote.version, self.cause, &self.quote.rewritten(from, to)?))
    }
}

impl<'a> Quote<'a> {
    /// Reads the beginning of a packet.
    ///
    /// # Errors
    ///
    /// Fails if it is not the beginning of a UDP datagram of this version.
    pub fn parse(version: Version, bytes: &'a [u8]) -> Result<Self, IcmpFault> {
        let mut reader = Reader::new(bytes);
        let (source, destination, length) = match version {
            Version::V4 => read_v4(&mut reader)?,
            Version::V6 => read_v6(&mut reader)?,
        };
        let udp = reader.position();
        let (from, to) = (reader.u16()?, reader.u16()?);
        reader.bytes(4)?;
        // Ethernet pads short frames, and some routers quote the padding.
        let bytes = bytes.get(..length).unwrap_or(bytes);
        if bytes.len() < udp + HEADER {
            return Err(IcmpFault::Quote);
        }
        let (from, to) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
        Ok(Self { version, bytes, from, to, udp, length })
    }

    /// Who sent it.
    #[must_use]
    pub const fn from(&self) -> SocketAddr {
        self.from
    }

    /// To whom.
    #[must_use]
    pub const fn to(&self) -> SocketAddr {
        self.to
    }

    /// How long the whole datagram is, from the IP header on.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// The message that tells its sender that it is too big.
    #[must_use]
    pub fn too_big(&self, mtu: u32) -> Vec<u8> {
        write(self.version, Cause::TooBig { mtu }, self.bytes)
    }

    fn rewritten(&self, from: SocketAddr, to: SocketAddr) -> Option<Vec<u8>> {
        let before = endpoints(self.from, self.to, self.version)?;
        let after = endpoints(from, to, self.version)?;
        let mut bytes = self.bytes.to_vec();
        match self.version {
            Version::V4 => {
                put(&mut bytes, 12, &after.addresses);
                put(&mut bytes, 10, &[0, 0]);
                let checksum = !fold(sum(bytes.get(..self.udp)?));
                put(&mut bytes, 10, &checksum.to_be_bytes());
            }
            Version::V6 => put(&mut bytes, 8, &after.addresses),
        }
        put(&mut bytes, self.udp, &after.ports);
        let at = self.udp + 6;
        let checksum = u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?);
        if checksum != 0 {
            let checksum = update(checksum, before.sum(), after.sum());
            put(&mut bytes, at, &checksum.to_be_bytes());
        }
        Some(bytes)
    }
}

impl Version {
    /// The version of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The length of its header.
    #[must_use]
    pub const fn header(self) -> usize {
        match self {
            Self::V4 => IPV4_HEADER,
            Self::V6 => IPV6_HEADER,
        }
    }

    /// How much of a datagram an error quotes at most, from the IP header on.
    #[must_use]
    pub const fn quote(self) -> usize {
        match self {
            Self::V4 => QUOTE_V4,
            Self::V6 => QUOTE_V6,
        }
    }
}

/// The header of a UDP datagram over IPv6 that is told without one: traffic class and flow label are not known.
#[must_use]
pub fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr, datagram: &[u8]) -> Vec<u8> {
    let length = datagram.get(4..6).unwrap_or(&[0, 0]);
    [&[0x60, 0, 0, 0], length, &[UDP, 64], &source.octets(), &destination.octets()].concat()
}

/// The header up to the UDP header: addresses, and the length of the whole.
fn read_v4(reader: &mut Reader<'_>) -> Result<(IpAddr, IpAddr, usize), IcmpFault> {
    let first = reader.u8()?;
    let header = usize::from(first & 0x0f) * 4;
    reader.u8()?;
    let length = usize::from(reader.u16()?);
    let (_id, fragment, _ttl, protocol) = (reader.u16()?, reader.u16()?, reader.u8()?, reader.u8()?);
    reader.u16()?;
    let (source, destination) = (reader.array::<4>()?, reader.array::<4>()?);
    let options = header.checked_sub(IPV4_HEADER).ok_or(IcmpFault::Quote)?;
    reader.bytes(options)?;
    let is_first = fragment & 0x1fff == 0;
    if first >> 4 != 4 || protocol != UDP || !is_first {
        return Err(IcmpFault::Quote);
    }
    Ok((source.into(), destination.into(), length))
}

fn read_v6(reader: &mut Reader<'_>) -> Result<(IpAddr, IpAddr, usize), IcmpFault> {
    let first = reader.u32()?;
    let length = usize::from(reader.u16()?) + IPV6_HEADER;
    let (mut next, _hops) = (reader.u8()?, reader.u8()?);
    let (source, destination) = (reader.array::<16>()?, reader.array::<16>()?);
    if next == FRAGMENT_HEADER {
        next = reader.u8()?;
        reader.u8()?;
        let is_first = reader.u16()? & 0xfff8 == 0;
        reader.u32()?;
        if !is_first {
            return Err(IcmpFault::Quote);
        }
    }
    if first >> 28 != 6 || next != UDP {
        return Err(IcmpFault::Quote);
    }
    Ok((source.into(), destination.into(), length))
}

fn write(version: Version, cause: Cause, quote: &[u8]) -> Vec<u8> {
    let (kind, code, rest) = match (version, cause) {
        (Version::V4, Cause::Unreachable { code }) => (3, code, 0),
        (Version::V4, Cause::TooBig { mtu }) => (3, 4, mtu.min(u16::MAX.into())),
        (Version::V4, Cause::TimeExceeded { code }) => (11, code, 0),
        (Version::V6, Cause::Unreachable { code }) => (1, code, 0),
        (Version::V6, Cause::TooBig { mtu }) => (2, 0, mtu),
        (Version::V6, Cause::TimeExceeded { code }) => (3, code, 0),
    };
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest.to_be_bytes());
    message.extend(quote.get(..version.quote()).unwrap_or(quote));
    if version == Version::V4 {
        let checksum = !fold(sum(&message));
        put(&mut message, 2, &checksum.to_be_bytes());
    }
    message
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(field.len())) {
        place.copy_from_slice(field);
    }
}

#[cfg(test)]
mod tests;
