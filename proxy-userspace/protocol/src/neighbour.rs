//! Questions to a neighbour that the kernel never asks by itself, so that their answers are nobody else's: an ARP probe
//! (RFC 5227 §2.1.1) and the solicitation of duplicate address detection (RFC 4862 §5.4.2), sent to one host alone.
//!
//! Every host answers them for its own addresses, and neither changes what anybody knows of us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::{
    checksum::{fold, sum},
    reader::{Reader, UnexpectedEnd},
};

/// A link-layer address.
pub type Mac = [u8; 6];

/// The shortest Ethernet frame, without its check sequence.
const SHORTEST: usize = 60;
/// What an ARP message for IPv4 over Ethernet begins with.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// An answer to an ARP probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// Whose address it is.
    pub from: Ipv4Addr,
    /// Who asked.
    pub to: Mac,
}

/// A message that answers no question of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no answer to a question of ours")]
pub struct NoAnswer;

impl From<UnexpectedEnd> for NoAnswer {
    fn from(_: UnexpectedEnd) -> Self {
        Self
    }
}

/// The frame that asks `neighbour` at `theirs` whether the address is its own.
#[must_use]
pub fn question(neighbour: IpAddr, ours: Mac, theirs: Mac) -> Vec<u8> {
    let mut frame = [theirs, ours].concat();
    match neighbour {
        IpAddr::V4(ip) => {
            frame.extend([0x08, 0x06]);
            frame.extend(arp(ARP_REQUEST, (ours, Ipv4Addr::UNSPECIFIED), ([0; 6], ip)));
        }
        IpAddr::V6(ip) => {
            frame.extend([0x86, 0xdd]);
            frame.extend(solicitation(ip));
        }
    }
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

/// Reads an ARP message, without the Ethernet header.
///
/// # Errors
/// If it is not the answer to a probe.
pub fn probe_answer(message: &[u8]) -> Result<ProbeAnswer, NoAnswer> {
    let mut reader = Reader::new(message);
    let head = (reader.array()?, reader.array()?);
    let _their_mac: Mac = reader.array()?;
    let from = Ipv4Addr::from(reader.array()?);
    let to = reader.array()?;
    let asked_as = Ipv4Addr::from(reader.array()?);
    let answers = head == (ARP_HEAD, ARP_REPLY) && asked_as.is_unspecified();
    answers.then_some(ProbeAnswer { from, to }).ok_or(NoAnswer)
}

/// Reads an ICMPv6 message: whose address it is that somebody asked for.
///
/// # Errors
/// If it is not an advertisement, or one that answers a host which has an address.
pub fn advertised(message: &[u8]) -> Result<Ipv6Addr, NoAnswer> {
    const SOLICITED: u8 = 0x40;
    let mut reader = Reader::new(message);
    let [kind, code, ..] = reader.array::<4>()?;
    let [flags, ..] = reader.array::<4>()?;
    let target = Ipv6Addr::from(reader.array()?);
    let answers = (kind, code) == (ADVERTISEMENT, 0) && flags & SOLICITED == 0;
    answers.then_some(target).ok_or(NoAnswer)
}

fn arp(operation: [u8; 2], sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let parties = [sender, target].map(|(mac, ip)| [&mac[..], &ip.octets()].concat());
    [&ARP_HEAD[..], &operation, &parties.concat()].concat()
}

/// From the unspecified address to the solicited-node group (RFC 4291 §2.7.1): a neighbour takes no other.
fn solicitation(target: Ipv6Addr) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    const HOP_LIMIT: u8 = 255;
    const LENGTH: u8 = 24;
    let group = solicited_node(target);
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    let pseudo = [&[0; 16][..], &group.octets(), &[0, 0, 0, LENGTH, 0, 0, 0, ICMPV6]].concat();
    let checksum = !fold(sum(&[pseudo, message.clone()].concat()));
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    let header = [0x60, 0, 0, 0, 0, LENGTH, ICMPV6, HOP_LIMIT];
    [&header[..], &[0; 16], &group.octets(), &message].concat()
}

fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    const GROUP: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from(GROUP | target.to_bits() & 0x00ff_ffff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Mac = [2, 0, 0, 0, 0, 1];
    const THEIRS: Mac = [2, 0, 0, 0, 0, 2];

    /// As `arping -D` sends it, to one host.
    #[test]
    fn an_arp_probe_asks_without_an_address_of_its_own() {
        let frame = question([10, 0, 0, 1].into(), OURS, THEIRS);
        let expected = [
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x06, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // IPv4 over Ethernet, request
            2, 0, 0, 0, 0, 1, 0, 0, 0, 0, // from us, who have no address
            0, 0, 0, 0, 0, 0, 10, 0, 0, 1,
        ];
        assert_eq!(frame[..expected.len()], expected);
        assert_eq!((frame.len(), &frame[expected.len()..]), (60, &[0; 18][..]));
    }

    /// The checksum was computed apart from this code.
    #[test]
    fn a_solicitation_goes_to_the_group_of_the_address() {
        let frame = question("fe80::2".parse().unwrap(), OURS, THEIRS);
        assert_eq!(frame.len(), 14 + 40 + 24);
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd]);
        let group: Ipv6Addr = "ff02::1:ff00:2".parse().unwrap();
        assert_eq!(frame[38..54], group.octets());
        assert_eq!(frame[54..58], [135, 0, 0x7c, 0x23]);
    }

    fn reply(from: Ipv4Addr, to: Mac, asked_as: Ipv4Addr) -> Vec<u8> {
        arp(ARP_REPLY, (THEIRS, from), (to, asked_as))
    }

    fn advertisement(flags: u8, target: Ipv6Addr) -> Vec<u8> {
        [&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), &[2, 1], &THEIRS].concat()
    }

    #[test]
    fn an_answer_to_the_kernel_is_none_to_us() {
        let (from, us) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(probe_answer(&reply(from, OURS, us)), Err(NoAnswer));
        let request = arp(ARP_REQUEST, (THEIRS, from), ([0; 6], Ipv4Addr::UNSPECIFIED));
        assert_eq!(probe_answer(&request), Err(NoAnswer));
        assert_eq!(advertised(&advertisement(0x60, Ipv6Addr::LOCALHOST)), Err(NoAnswer));
        assert_eq!(advertised(&[135; 32]), Err(NoAnswer));
    }

    proptest! {
        #[test]
        fn an_answer_names_who_gave_it(from: [u8; 4], target: [u8; 16], router: bool) {
            let answer = probe_answer(&reply(from.into(), OURS, Ipv4Addr::UNSPECIFIED));
            prop_assert_eq!(answer, Ok(ProbeAnswer { from: from.into(), to: OURS }));
            let flags = if router { 0xa0 } else { 0x20 };
            let target = Ipv6Addr::from(target);
            prop_assert_eq!(advertised(&advertisement(flags, target)), Ok(target));
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let arp = reply([10, 0, 0, 1].into(), OURS, Ipv4Addr::UNSPECIFIED);
        assert!((0..arp.len()).all(|length| probe_answer(&arp[..length]).is_err()));
        let advertisement = advertisement(0x20, Ipv6Addr::LOCALHOST);
        assert!((0..24).all(|length| advertised(&advertisement[..length]).is_err()));
    }
}
