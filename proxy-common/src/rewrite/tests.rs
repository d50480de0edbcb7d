extern crate std;

use std::vec::Vec;

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use proptest::prelude::*;
use zerocopy::{IntoBytes as _, network_endian::U32};

use super::*;
use crate::{
    family::{V4, V6},
    flow::{Direction, Endpoints},
    wire::{Addr6, Link},
};

/// A family that etherparse builds frames of.
trait Buildable: Family {
    fn frame(from: &Endpoints<Self::Addr>, payload: &[u8]) -> Vec<u8>;
    fn addr(bytes: [u8; 16]) -> Self::Addr;
}

impl Buildable for V4 {
    fn frame(from: &Endpoints<U32>, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4(from.src.to_bytes(), from.dst.to_bytes(), 64)
            .udp(from.src_port.get(), from.dst_port.get())
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    fn addr([a, b, c, d, ..]: [u8; 16]) -> U32 {
        U32::from_bytes([a, b, c, d])
    }
}

impl Buildable for V6 {
    fn frame(from: &Endpoints<Addr6>, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv6(from.src, from.dst, 64)
            .udp(from.src_port.get(), from.dst_port.get())
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    fn addr(bytes: [u8; 16]) -> Addr6 {
        bytes
    }
}

type Ends = ([u8; 16], [u8; 16], u16, u16);

fn endpoints<F: Buildable>((src, dst, src_port, dst_port): Ends) -> Endpoints<F::Addr> {
    let (src_port, dst_port) = (U16::new(src_port), U16::new(dst_port));
    Endpoints { src: F::addr(src), dst: F::addr(dst), src_port, dst_port }
}

fn assert_checksums(frame: &[u8]) {
    let packet = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = packet.payload.slice();
    let (Some(net), Some(TransportHeader::Udp(udp))) = (packet.net, packet.transport) else {
        panic!("not a UDP datagram");
    };
    let expected = match net {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            udp.calc_checksum_ipv4(&ip, payload)
        }
        NetHeaders::Ipv6(ip, _) => udp.calc_checksum_ipv6(&ip, payload),
        NetHeaders::Arp(_) => panic!("not IP"),
    };
    assert_eq!(udp.checksum, expected.unwrap());
}

fn forward<F: Family>(rewrite: Endpoints<F::Addr>, egress: Egress) -> Forward<F> {
    let count = Count { packets: 1, bytes: 0, check: false, alert: false };
    Forward { rewrite, egress, record: (Direction::ToOrigin, crate::forward::Place(0)), count }
}

fn redirect() -> Egress {
    Egress::Redirect { ifindex: 1, link: Link { dst: [3; 6], src: [4; 6] } }
}

fn rewritten_frame_is_valid<F: Buildable>(from: Ends, to: Ends, payload: &[u8], is_partial: bool) {
    let from = endpoints::<F>(from);
    let mut frame = F::frame(&from, payload);
    if is_partial {
        let headers = Packet::get_mut::<Headers<F::Ip>>(frame.as_mut_slice(), 0).unwrap();
        let pseudo =
            [from.src.as_bytes(), from.dst.as_bytes(), &[0, 17], headers.udp.len.as_bytes()].concat();
        headers.udp.checksum =
            U16::from_bytes((!checksum::complement(checksum::sum(&pseudo)).get()).to_be_bytes());
    }
    rewrite_direct(frame.as_mut_slice(), &forward::<F>(endpoints::<F>(to), redirect())).unwrap();
    assert_checksums(&frame);
}

fn there_and_back_is_the_same<F: Buildable>(from: Ends, to: Ends, payload: &[u8]) {
    let (from, to) = (endpoints::<F>(from), endpoints::<F>(to));
    let original = F::frame(&from, payload);
    let mut frame = original.clone();
    rewrite_direct(frame.as_mut_slice(), &forward::<F>(to, Egress::Stack)).unwrap();
    rewrite_direct(frame.as_mut_slice(), &forward::<F>(from, Egress::Stack)).unwrap();
    assert_eq!(frame, original);
}

fn payload(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..longest)
}

proptest! {
    #[test]
    fn a_rewritten_frame_has_the_checksums_that_etherparse_computes(
        from in any::<Ends>(), to in any::<Ends>(), payload in payload(1500),
    ) {
        rewritten_frame_is_valid::<V4>(from, to, &payload, false);
        rewritten_frame_is_valid::<V6>(from, to, &payload, false);
    }

    #[test]
    fn an_unfinished_checksum_is_finished(
        from in any::<Ends>(), to in any::<Ends>(), payload in payload(1500),
    ) {
        rewritten_frame_is_valid::<V4>(from, to, &payload, true);
        rewritten_frame_is_valid::<V6>(from, to, &payload, true);
    }

    #[test]
    fn a_rewrite_up_the_stack_and_back_restores_the_frame(
        from in any::<Ends>(), to in any::<Ends>(), payload in payload(100),
    ) {
        there_and_back_is_the_same::<V4>(from, to, &payload);
        there_and_back_is_the_same::<V6>(from, to, &payload);
    }
}

#[test]
fn a_stamp_is_the_time_of_the_last_frame() {
    let mut counters = Counters::from_words([0; 4]);
    let count = Count { packets: 3, bytes: 90, check: true, alert: false };
    counters.add(&count, Stamp(7));
    counters.add(&count, Stamp(9));
    assert_eq!((counters.packets, counters.bytes, counters.checks, counters.last_seen), (6, 180, 2, 9));
}
