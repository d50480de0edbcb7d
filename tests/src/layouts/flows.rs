//! The flows of the benchmark: clients of one service, on a hundred origins, from as many of our ports as they need.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Result, ensure};
use bench_tables::{Template, Tuple};
use proxy_common::{
    family::{Family, V4},
    flow::Endpoints,
};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::frame::{has_valid_checksums, offset};

/// Length of the datagrams from the IP header on.
pub(super) const LENGTH: u16 = 200;
const TTL: u8 = 64;

const ORIGINS: u32 = 100;
/// 61440 to 65535: whole blocks of 256.
const SOURCE_PORTS: u32 = 4096;
pub(super) const FIRST_SOURCE_PORT: u16 = 61440;
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
const CLIENT_PORTS: u32 = 1 << 15;
const FIRST_CLIENT_PORT: u16 = 1024;
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 8000);
const SOURCES: Ipv4Addr = Ipv4Addr::new(10, 72, 3, 0);
const ORIGIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 72, 4, 0), 8000);

/// A conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) client: SocketAddrV4,
    pub(super) service: SocketAddrV4,
    pub(super) source: SocketAddrV4,
    pub(super) origin: SocketAddrV4,
}

impl Flow {
    /// The flow of this number; no two have a client, or a source towards an origin, in common.
    pub(super) fn number(number: u32) -> Self {
        let (origin, lease) = (number % ORIGINS, number / ORIGINS);
        Self {
            client: at(CLIENTS, number / CLIENT_PORTS, FIRST_CLIENT_PORT, number % CLIENT_PORTS),
            service: SERVICE,
            source: at(SOURCES, lease / SOURCE_PORTS, FIRST_SOURCE_PORT, lease % SOURCE_PORTS),
            origin: at(*ORIGIN.ip(), origin, ORIGIN.port(), 0),
        }
    }

    /// With the client of another number.
    pub(super) fn with_client_of(self, number: u32) -> Self {
        Self { client: Self::number(number).client, ..self }
    }

    /// With all of a number of flows towards one origin, as `bare slot` needs it: by row of its table.
    pub(super) fn with_slot(self, row: u32) -> Self {
        let source = at(SOURCES, row / CLIENT_PORTS, 20000, row % CLIENT_PORTS);
        Self { source, origin: ORIGIN, ..self }
    }

    /// What the client sends.
    pub(super) fn sent(self) -> Tuple {
        tuple(self.client, self.service)
    }

    /// What the origin gets.
    pub(super) fn to_origin(self) -> Tuple {
        tuple(self.source, self.origin)
    }

    /// What the origin answers.
    pub(super) fn answered(self) -> Tuple {
        tuple(self.origin, self.source)
    }

    /// What the client gets.
    pub(super) fn to_client(self) -> Tuple {
        tuple(self.service, self.client)
    }
}

/// Addresses of the shipped tables.
pub(super) type Addr = <V4 as Family>::Addr;
/// Keys of the shipped tables.
pub(super) type Key = Endpoints<Addr>;

/// The same in the shipped types.
pub(super) fn endpoints(tuple: &Tuple) -> Key {
    let Tuple { src, dst, src_port, dst_port } = *tuple;
    let [src, dst] = [src, dst].map(|word| Addr::from_bytes(word.to_ne_bytes()));
    Endpoints { src, dst, src_port: u16::from_be(src_port).into(), dst_port: u16::from_be(dst_port).into() }
}

/// The bytes of a link-layer address.
pub(super) fn mac([a, b, c]: [u16; 3]) -> [u8; 6] {
    let [a, b, c] = [a, b, c].map(u16::to_ne_bytes);
    [a[0], a[1], b[0], b[1], c[0], c[1]]
}

/// In an order that no cache guesses, the same in each run.
pub(super) fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    items.shuffle(&mut StdRng::seed_from_u64(0x5eed));
    items
}

/// What a generator has to write for a datagram with these addresses.
pub(super) fn template(tuple: &Tuple) -> Template {
    let addresses = sum_of(tuple.src) + sum_of(tuple.dst);
    let header = [0x4500, LENGTH, 0, 0, u16::from_be_bytes([TTL, UDP])].map(|word| u32::from(word.to_be()));
    let udp_len = LENGTH - IP_HEADER;
    let datagram = [u16::from(UDP), udp_len, udp_len].map(|word| u32::from(word.to_be()));
    // The payload is zeros.
    let ports = u32::from(tuple.src_port) + u32::from(tuple.dst_port);
    Template {
        tuple: *tuple,
        ip_checksum: complement(addresses + header.iter().sum::<u32>()),
        udp_checksum: complement(addresses + ports + datagram.iter().sum::<u32>()),
    }
}

/// A frame with a template's fields in it, as a generator sends it but for the link-layer addresses.
pub(super) fn frame(template: &Template) -> Vec<u8> {
    let Template { tuple, ip_checksum, udp_checksum } = template;
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend(LENGTH.to_be_bytes());
    frame.extend([0, 0, 0, 0, TTL, UDP]);
    frame.extend(ip_checksum.to_ne_bytes());
    frame.extend([tuple.src.to_ne_bytes(), tuple.dst.to_ne_bytes()].concat());
    frame.extend([tuple.src_port.to_ne_bytes(), tuple.dst_port.to_ne_bytes()].concat());
    frame.extend((LENGTH - IP_HEADER).to_be_bytes());
    frame.extend(udp_checksum.to_ne_bytes());
    frame.resize(ETHERNET_HEADER + usize::from(LENGTH), 0);
    frame
}

/// Whether some frames become what they must: a fast program that forwards wrongly is no candidate.
pub(super) fn check(
    name: &str,
    pairs: &[(Tuple, Tuple)],
    mut run: impl FnMut(&[u8]) -> Result<(u32, Vec<u8>)>,
) -> Result<()> {
    for (arrives, leaves) in pairs.iter().step_by(pairs.len().div_ceil(SAMPLES).max(1)) {
        let (action, left) = run(&frame(&template(arrives)))?;
        let expected = frame(&template(leaves));
        ensure!(action == REDIRECT, "{name} returned {action} for {arrives:?}");
        let addresses = offset::IP_CHECKSUM + 2..offset::UDP_LEN;
        ensure!(left[addresses.clone()] == expected[addresses], "{name} rewrote {arrives:?} wrongly");
        ensure!(has_valid_checksums(&left), "{name} left wrong checksums in {arrives:?}");
    }
    Ok(())
}

const REDIRECT: u32 = 4;
const SAMPLES: usize = 64;
const ETHERNET_HEADER: usize = 14;
/// Where the payload begins.
pub(super) const HEADERS: usize = ETHERNET_HEADER + 20 + 8;
const IP_HEADER: u16 = 20;
const UDP: u8 = 17;

fn at(first: Ipv4Addr, address: u32, first_port: u16, port: u32) -> SocketAddrV4 {
    let port = first_port + u16::try_from(port).expect("the benchmark's ports start low enough");
    SocketAddrV4::new(Ipv4Addr::from(u32::from(first) + address), port)
}

fn tuple(from: SocketAddrV4, to: SocketAddrV4) -> Tuple {
    let word = |address: SocketAddrV4| u32::from(*address.ip()).to_be();
    Tuple { src: word(from), dst: word(to), src_port: from.port().to_be(), dst_port: to.port().to_be() }
}

fn sum_of(address: u32) -> u32 {
    (address & 0xffff) + (address >> 16)
}

fn complement(sum: u32) -> u16 {
    let sum = sum_of(sum_of(sum));
    !u16::try_from(sum).expect("folded twice")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn frames_have_the_checksums_that_etherparse_computes() {
        for number in [0, 1, 99, 100, 1 << 17, (1 << 20) - 1] {
            let flow = Flow::number(number);
            for tuple in [flow.sent(), flow.answered()] {
                assert!(has_valid_checksums(&frame(&template(&tuple))), "{flow:?}");
            }
        }
    }

    #[test]
    fn no_two_flows_have_a_key_in_common() {
        let flows = || (0..1 << 17).map(|n| Flow::number(n * 8));
        let sent: HashSet<_> = flows().map(Flow::sent).collect();
        let answered: HashSet<_> = flows().map(Flow::answered).collect();
        let short: HashSet<_> =
            flows().flat_map(|flow| [flow.sent().short(), flow.answered().short()]).collect();
        assert_eq!([sent.len(), answered.len(), short.len()], [1 << 17, 1 << 17, 1 << 18]);
    }
}
