//! The address plan: every address of the networks exists twice, as IPv4 and as an IPv6 address that ends in it, so
//! that a rule is written once and runs over either.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use super::MTU;

/// The IP version of one leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

const SITE: u16 = 0xfd78;
const UDP_HEADER: u16 = 8;

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The address that stands for `address` in this family.
    #[must_use]
    pub fn of(self, address: Ipv4Addr) -> IpAddr {
        match self {
            Self::V4 => address.into(),
            Self::V6 if address.is_loopback() => Ipv6Addr::LOCALHOST.into(),
            Self::V6 => twin(address).into(),
        }
    }

    /// The family of `address`.
    #[must_use]
    pub fn is_of(self, address: IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    /// `address/length` in this family, for a network that has this prefix in IPv4.
    #[must_use]
    pub fn network(self, address: Ipv4Addr, length: u8) -> String {
        let length = match self {
            Self::V4 => length,
            Self::V6 => length + 96,
        };
        format!("{}/{length}", self.of(address))
    }

    /// The largest UDP payload of an unfragmented packet of `mtu` bytes.
    #[must_use]
    pub fn largest_payload(self, mtu: u16) -> usize {
        let header = match self {
            Self::V4 => 20,
            Self::V6 => 40,
        };
        usize::from(mtu - header - UDP_HEADER)
    }

    /// The largest UDP payload of an unfragmented packet on the usual links.
    #[must_use]
    pub fn usual_payload(self) -> usize {
        self.largest_payload(MTU)
    }

    /// What `ip` calls it.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }

    /// A destination as `ip route` takes it: `default`, an address or a prefix, written in IPv4.
    pub(super) fn destination(self, written: &str) -> Result<String> {
        if written == "default" {
            return Ok(written.to_owned());
        }
        let (address, length) = written.split_once('/').unwrap_or((written, "32"));
        let parse = || Some((address.parse().ok()?, length.parse().ok()?));
        let (address, length) = parse().with_context(|| format!("{written} is no IPv4 destination"))?;
        Ok(self.network(address, length))
    }
}

fn twin(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets();
    Ipv6Addr::new(SITE, 0, 0, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 2);

    #[test]
    fn an_address_has_one_form_in_each_family() {
        assert_eq!(Family::V4.of(ADDRESS).to_string(), "10.71.1.2");
        assert_eq!(Family::V6.of(ADDRESS).to_string(), "fd78::a47:102");
        assert_eq!(Family::V6.of(Ipv4Addr::LOCALHOST).to_string(), "::1");
    }

    #[test]
    fn a_destination_keeps_its_prefix_in_either_family() {
        for (written, v4, v6) in [
            ("default", "default", "default"),
            ("10.71.1.0/24", "10.71.1.0/24", "fd78::a47:100/120"),
            ("10.71.1.2", "10.71.1.2/32", "fd78::a47:102/128"),
        ] {
            assert_eq!(Family::V4.destination(written).unwrap(), v4);
            assert_eq!(Family::V6.destination(written).unwrap(), v6);
        }
        assert!(Family::V4.destination("nowhere").is_err());
    }
}
