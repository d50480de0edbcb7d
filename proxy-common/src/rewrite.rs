//! Carrying out a [`Forward`]: addresses, ports, TTL, link-layer addresses and both checksums. DSCP, ECN, the IP
//! identification and don't-fragment stay as they are.

use zerocopy::network_endian::U16;

use crate::{
    checksum::{self, Delta},
    flow::{Counters, Rewrite, Stamp},
    forward::{Count, Egress, Forward},
    packet::Packet,
    verdict::Reason,
    wire::{Headers, Ipv4, Udp},
};

/// A frame whose checksums we write ourselves; TC frames have the kernel's helpers instead, which know what the device
/// has been asked to finish.
pub trait DirectFrame: Packet {
    /// The one's complement sum of `length` bytes from `offset`, or `None` if they are too many.
    fn sum(&mut self, offset: usize, length: usize) -> Option<u32>;
}

impl DirectFrame for [u8] {
    fn sum(&mut self, offset: usize, length: usize) -> Option<u32> {
        <[u8]>::get(self, offset..offset.checked_add(length)?).map(checksum::sum)
    }
}

/// Rewrites a frame, or says why not and leaves it as it was.
#[inline(always)]
pub fn rewrite_direct<F: DirectFrame + ?Sized>(frame: &mut F, forward: &Forward) -> Result<(), Reason> {
    let headers = frame.get_mut::<Headers>(0).ok_or(Reason::Truncated)?;
    if headers.udp.checksum != U16::ZERO && checksum::is_partial(headers) {
        finish_checksum(frame)?;
    }
    let headers = frame.get_mut::<Headers>(0).ok_or(Reason::Truncated)?;
    let changes = Changes::between(headers, forward);
    headers.ip.checksum = changes.network().update(headers.ip.checksum);
    if headers.udp.checksum != U16::ZERO {
        headers.udp.checksum = checksum::non_zero(changes.transport().update(headers.udp.checksum));
    }
    write_fields(headers, forward);
    Ok(())
}

/// Replaces the pseudo-header sum that stands in for the checksum: summed with the rest, it contributes what the
/// pseudo-header would.
#[inline(always)]
fn finish_checksum<F: DirectFrame + ?Sized>(frame: &mut F) -> Result<(), Reason> {
    let length = frame.get_mut::<Headers>(0).ok_or(Reason::Truncated)?.udp.len.get();
    let sum = frame.sum(Headers::UDP, usize::from(length)).ok_or(Reason::ChecksumTooLong)?;
    let headers = frame.get_mut::<Headers>(0).ok_or(Reason::Truncated)?;
    headers.udp.checksum = checksum::non_zero(checksum::complement(sum));
    Ok(())
}

/// How the sums over the headers change.
#[derive(Clone, Copy, Debug)]
pub struct Changes {
    /// Addresses: in the IPv4 header and in UDP's pseudo-header.
    pub addresses: Delta,
    /// Ports: in the UDP header alone.
    pub ports: Delta,
    /// TTL: in the IPv4 header alone.
    pub ttl: Delta,
}

impl Changes {
    /// What `forward` changes in `headers`.
    #[inline(always)]
    pub fn between(headers: &Headers, forward: &Forward) -> Self {
        let Headers { ip, udp, .. } = headers;
        let to = &forward.rewrite;
        Self {
            addresses: Delta::default().long(ip.src, to.src).long(ip.dst, to.dst),
            ports: Delta::default().word(udp.src, to.src_port).word(udp.dst, to.dst_port),
            ttl: Delta::default().word(ip.ttl_word(), ttl_after(ip, &forward.egress).ttl_word()),
        }
    }

    /// The change of the IPv4 header.
    #[inline(always)]
    pub fn network(&self) -> Delta {
        self.addresses.and(self.ttl)
    }

    /// The change of the UDP header and its pseudo-header.
    #[inline(always)]
    pub fn transport(&self) -> Delta {
        self.addresses.and(self.ports)
    }
}

/// Writes every new field but the checksums.
#[inline(always)]
pub fn write_fields(headers: &mut Headers, forward: &Forward) {
    let Headers { eth, ip, udp } = headers;
    let Rewrite { src, dst, src_port, dst_port } = forward.rewrite;
    *ip = Ipv4 { src, dst, ..ttl_after(ip, &forward.egress) };
    *udp = Udp { src: src_port, dst: dst_port, ..*udp };
    if let Egress::Redirect { link, .. } = forward.egress {
        eth.dst = link.dst;
        eth.src = link.src;
    }
}

#[inline(always)]
fn ttl_after(ip: &Ipv4, egress: &Egress) -> Ipv4 {
    Ipv4 { ttl: ip.ttl.wrapping_sub(u8::from(egress.is_hop())), ..*ip }
}

impl Counters {
    /// Counts a forwarded frame. The stamp is written only when it changes, so that a quiet line stays clean.
    #[inline(always)]
    pub fn add(&mut self, count: &Count, now: Stamp) {
        self.packets = self.packets.wrapping_add(u64::from(count.packets));
        self.bytes = self.bytes.wrapping_add(u64::from(count.bytes));
        self.checks = self.checks.wrapping_add(u32::from(count.check));
        self.alerts = self.alerts.wrapping_add(u32::from(count.alert));
        if self.last_seen != now.0 {
            self.last_seen = now.0;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
    use proptest::prelude::*;
    use zerocopy::{IntoBytes as _, network_endian::U32};

    use super::*;
    use crate::wire::Link;

    fn frame(from: &Rewrite, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4(from.src.to_bytes(), from.dst.to_bytes(), 64)
            .udp(from.src_port.get(), from.dst_port.get())
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    fn assert_checksums(frame: &[u8]) {
        let packet = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) = (packet.net, packet.transport)
        else {
            panic!("not a UDP datagram");
        };
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        assert_eq!(udp.checksum, udp.calc_checksum_ipv4(&ip, packet.payload.slice()).unwrap());
    }

    fn forward(rewrite: Rewrite, egress: Egress) -> Forward {
        let count = Count { packets: 1, bytes: 0, check: false, alert: false };
        Forward { rewrite, egress, record: 0, count }
    }

    fn redirect() -> Egress {
        Egress::Redirect { ifindex: 1, link: Link { dst: [3; 6], src: [4; 6] } }
    }

    fn addresses() -> impl Strategy<Value = Rewrite> {
        any::<(u32, u32, u16, u16)>().prop_map(|(src, dst, src_port, dst_port)| Rewrite {
            src: U32::new(src),
            dst: U32::new(dst),
            src_port: U16::new(src_port),
            dst_port: U16::new(dst_port),
        })
    }

    proptest! {
        #[test]
        fn a_rewritten_frame_has_the_checksums_that_etherparse_computes(
            from in addresses(), to in addresses(), payload in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let mut frame = frame(&from, &payload);
            rewrite_direct(frame.as_mut_slice(), &forward(to, redirect())).unwrap();
            assert_checksums(&frame);
        }

        #[test]
        fn an_unfinished_checksum_is_finished(
            from in addresses(), to in addresses(), payload in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let mut frame = frame(&from, &payload);
            let headers = Packet::get_mut::<Headers>(frame.as_mut_slice(), 0).unwrap();
            let pseudo = [from.src.as_bytes(), from.dst.as_bytes(), &[0, 17], headers.udp.len.as_bytes()].concat();
            headers.udp.checksum = U16::from_bytes((!checksum::complement(checksum::sum(&pseudo)).get()).to_be_bytes());
            rewrite_direct(frame.as_mut_slice(), &forward(to, redirect())).unwrap();
            assert_checksums(&frame);
        }

        #[test]
        fn a_rewrite_up_the_stack_and_back_restores_the_frame(
            from in addresses(), to in addresses(), payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let original = frame(&from, &payload);
            let mut frame = original.clone();
            rewrite_direct(frame.as_mut_slice(), &forward(to, Egress::Stack)).unwrap();
            rewrite_direct(frame.as_mut_slice(), &forward(from, Egress::Stack)).unwrap();
            prop_assert_eq!(frame, original);
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
}
