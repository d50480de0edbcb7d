//! The TC side: checksums through the kernel's helpers, which know when the device or the segmentation still has to
//! finish them (`CHECKSUM_PARTIAL`, GSO), and `TCX_NEXT` for everything that is not ours.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, tcx_action_base::TCX_NEXT},
    helpers::generated::{bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh},
    programs::TcContext,
};
use proxy_common::{
    family::{V4, V6},
    forward::{Egress, Facts, Forward, Kind, decide, key, kind},
    packet::{Packet, Wire},
    rewrite::{Changes, write_fields},
    verdict::{Engine, Reason, Verdict},
    wire::{Headers, Ipv4},
};

use crate::{
    maps::{KernelTables, count_reason, note_arrival, now},
    records::{Maps, count_flow},
};

#[inline(always)]
pub(crate) fn forward(ctx: &TcContext) -> i32 {
    let mut frame = SkbFrame(ctx);
    frame.pull(Headers::<Ipv4>::LEN);
    let facts = frame.facts();
    let (reason, action) = match kind(&mut frame, &facts) {
        Ok(Kind::V4) => forward_family::<V4>(&mut frame, &facts),
        Ok(Kind::V6) => forward_family::<V6>(&mut frame, &facts),
        Err(reason) => (reason, TCX_NEXT),
    };
    count_reason(Engine::Tc, reason, facts.datagrams);
    action
}

#[inline(always)]
fn forward_family<F: Helped>(frame: &mut SkbFrame<'_>, facts: &Facts) -> (Reason, i32) {
    frame.pull(Headers::<F::Ip>::LEN);
    let (reason, action) = match decide::<F, _>(frame, facts, &KernelTables) {
        Verdict::Forward(forward) => send(frame, &forward, facts),
        Verdict::Pass(reason) => (reason, TCX_NEXT),
        Verdict::Drop(reason) => (reason, TC_ACT_SHOT),
    };
    if matches!(reason, Reason::StunWithoutFlow | Reason::CallWithoutFlow) {
        frame.note_arrival::<F>(facts);
    }
    (reason, action)
}

#[inline(always)]
fn send<F: Helped>(frame: &mut SkbFrame<'_>, forward: &Forward<F>, facts: &Facts) -> (Reason, i32) {
    if frame.rewrite(forward).is_none() {
        // Half rewritten: it must not go anywhere.
        return (Reason::RewriteFailed, TC_ACT_SHOT);
    }
    count_flow::<F>(forward.record, &forward.count, facts.now);
    // SAFETY: neither helper has preconditions; without parameters the neighbour is that of the route.
    let action = unsafe {
        match forward.egress {
            Egress::Redirect { ifindex, .. } => bpf_redirect(ifindex, 0) as i32,
            Egress::Neighbour { ifindex } => bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32,
            Egress::Stack => TCX_NEXT,
        }
    };
    (Reason::Forwarded, action)
}

/// How the kernel's helpers update the checksums of a family.
trait Helped: Maps {
    /// Where the checksum of the network header is, if there is one.
    const IP_CHECKSUM: Option<u32>;
    /// Tells the helper that the pseudo-header is that of IPv6: only then is a sum over the whole frame
    /// (`CHECKSUM_COMPLETE`) kept right. Known to Linux since 6.16; before, the helper refuses the flag.
    const PSEUDO_HEADER: u64;
}

impl Helped for V4 {
    const IP_CHECKSUM: Option<u32> = Some(Headers::<Ipv4>::IP_CHECKSUM as u32);
    const PSEUDO_HEADER: u64 = BPF_F_PSEUDO_HDR as u64;
}

impl Helped for V6 {
    const IP_CHECKSUM: Option<u32> = None;
    const PSEUDO_HEADER: u64 = BPF_F_PSEUDO_HDR as u64 | BPF_F_IPV6;
}

const BPF_F_IPV6: u64 = 1 << 7;

struct SkbFrame<'a>(&'a TcContext);

impl SkbFrame<'_> {
    /// Brings headers, and the two bytes behind them that tell the payload's class, into the directly accessible part of
    /// the buffer.
    #[inline(always)]
    fn pull(&self, headers: usize) {
        let wanted = headers + 2;
        if self.0.data() + wanted > self.0.data_end() {
            // What cannot be pulled is missing when it is looked at.
            let _ = self.0.pull_data(self.0.len().min(wanted as u32));
        }
    }

    #[inline(always)]
    fn facts(&self) -> Facts {
        // SAFETY: the context is the one this run got.
        let skb = unsafe { &*self.0.skb.skb };
        Facts {
            engine: Engine::Tc,
            now: now(),
            length: skb.len,
            segment: skb.gso_size,
            datagrams: skb.gso_segs.max(1),
            vlan: skb.vlan_present != 0,
            linear: true,
        }
    }

    #[inline(always)]
    fn note_arrival<F: Maps>(&mut self, facts: &Facts) {
        // SAFETY: the context is the one this run got.
        let ifindex = unsafe { (*self.0.skb.skb).ifindex };
        if let Some(headers) = self.get_mut::<Headers<F::Ip>>(0) {
            note_arrival::<F>(&key::<F>(headers), ifindex, facts.now);
        }
    }

    /// The helpers take a change as a difference of sums if its size, in the low bits of the flags, is 0.
    #[inline(always)]
    fn rewrite<F: Helped>(&mut self, forward: &Forward<F>) -> Option<()> {
        let changes = Changes::between(self.get_mut::<Headers<F::Ip>>(0)?, forward);
        let network = u64::from(changes.network().folded());
        let addresses = u64::from(changes.addresses.folded());
        let ports = u64::from(changes.ports.folded());
        // SAFETY: the context is the one this run got; the helper checks the offset.
        let update_ip = |at| unsafe { bpf_l3_csum_replace(self.0.skb.skb, at, 0, network, 0) == 0 };
        let at = Headers::<F::Ip>::UDP_CHECKSUM as u32;
        let done = F::IP_CHECKSUM.is_none_or(update_ip)
            && (self.update_udp(at, addresses, F::PSEUDO_HEADER)
                || self.update_udp(at, addresses, u64::from(BPF_F_PSEUDO_HDR)))
            && self.update_udp(at, ports, 0);
        if !done {
            return None;
        }
        write_fields(self.get_mut::<Headers<F::Ip>>(0)?, forward);
        Some(())
    }

    #[inline(always)]
    fn update_udp(&self, at: u32, change: u64, flags: u64) -> bool {
        let flags = flags | u64::from(BPF_F_MARK_MANGLED_0);
        // SAFETY: the context is the one this run got; the helper checks the offset and refuses flags it does not know.
        unsafe { bpf_l4_csum_replace(self.0.skb.skb, at, 0, change, flags) == 0 }
    }
}

impl Packet for SkbFrame<'_> {
    #[inline(always)]
    fn get_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        let start = self.0.data() + offset;
        if start + size_of::<T>() > self.0.data_end() {
            return None;
        }
        // SAFETY: in bounds by the check above; any bytes at any address are a valid `T`.
        Some(unsafe { &mut *(start as *mut T) })
    }
}
