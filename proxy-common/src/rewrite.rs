//! Carrying out a [`Forward`]: addresses, ports, TTL, link-layer addresses and both checksums. DSCP, ECN, the IP
//! identification and don't-fragment stay as they are.

use zerocopy::network_endian::U16;

use crate::{
    checksum::{self, Delta},
    family::{Address as _, Family, IpHeader},
    flow::{Counters, Stamp},
    forward::{Count, Egress, Forward},
    packet::Packet,
    verdict::Reason,
    wire::{Headers, Udp},
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
pub fn rewrite_direct<F: Family, D: DirectFrame + ?Sized>(
    frame: &mut D,
    forward: &Forward<F>,
) -> Result<(), Reason> {
    let headers = frame.get_mut::<Headers<F::Ip>>(0).ok_or(Reason::Truncated)?;
    if headers.udp.checksum != U16::ZERO && checksum::is_partial(headers) {
        finish_checksum::<F, D>(frame)?;
    }
    let headers = frame.get_mut::<Headers<F::Ip>>(0).ok_or(Reason::Truncated)?;
    let changes = Changes::between(headers, forward);
    headers.ip.update_checksum(changes.network());
    if headers.udp.checksum != U16::ZERO {
        headers.udp.checksum = checksum::non_zero(changes.transport().update(headers.udp.checksum));
    }
    write_fields(headers, forward);
    Ok(())
}

/// Replaces the pseudo-header sum that stands in for the checksum: summed with the rest, it contributes what the
/// pseudo-header would.
#[inline(always)]
fn finish_checksum<F: Family, D: DirectFrame + ?Sized>(frame: &mut D) -> Result<(), Reason> {
    let length = frame.get_mut::<Headers<F::Ip>>(0).ok_or(Reason::Truncated)?.udp.len.get();
    let sum = frame.sum(Headers::<F::Ip>::UDP, usize::from(length)).ok_or(Reason::ChecksumTooLong)?;
    let headers = frame.get_mut::<Headers<F::Ip>>(0).ok_or(Reason::Truncated)?;
    headers.udp.checksum = checksum::non_zero(checksum::complement(sum));
    Ok(())
}

/// How the sums over the headers change.
#[derive(Clone, Copy, Debug)]
pub struct Changes {
    /// Addresses: in the network header, if that has a checksum, and in UDP's pseudo-header.
    pub addresses: Delta,
    /// Ports: in the UDP header alone.
    pub ports: Delta,
    /// Hops left: in the network header alone.
    pub hops: Delta,
}

impl Changes {
    /// What `forward` changes in `headers`.
    #[inline(always)]
    pub fn between<F: Family>(headers: &Headers<F::Ip>, forward: &Forward<F>) -> Self {
        let Headers { ip, udp, .. } = headers;
        let ((src, dst), to) = (ip.addresses(), &forward.rewrite);
        Self {
            addresses: dst.replaced_by(to.dst, src.replaced_by(to.src, Delta::default())),
            ports: Delta::default().word(udp.src, to.src_port).word(udp.dst, to.dst_port),
            hops: ip.hops_delta(hops_after(ip, &forward.egress)),
        }
    }

    /// The change of the network header.
    #[inline(always)]
    pub fn network(&self) -> Delta {
        self.addresses.and(self.hops)
    }

    /// The change of the UDP header and its pseudo-header.
    #[inline(always)]
    pub fn transport(&self) -> Delta {
        self.addresses.and(self.ports)
    }
}

/// Writes every new field but the checksums.
#[inline(always)]
pub fn write_fields<F: Family>(headers: &mut Headers<F::Ip>, forward: &Forward<F>) {
    let Headers { eth, ip, udp } = headers;
    let to = &forward.rewrite;
    ip.set_hops(hops_after(ip, &forward.egress));
    ip.set_addresses(to.src, to.dst);
    *udp = Udp { src: to.src_port, dst: to.dst_port, ..*udp };
    if let Egress::Redirect { link, .. } = forward.egress {
        eth.dst = link.dst;
        eth.src = link.src;
    }
}

#[inline(always)]
fn hops_after(ip: &impl IpHeader, egress: &Egress) -> u8 {
    ip.hops().wrapping_sub(u8::from(egress.is_hop()))
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
mod tests;
