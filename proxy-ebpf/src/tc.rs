//! The TC side: checksums through the kernel's helpers, which know when the device or the segmentation still has to
//! finish them (`CHECKSUM_PARTIAL`, GSO), and `TCX_NEXT` for everything that is not ours.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, tcx_action_base::TCX_NEXT},
    helpers::generated::{bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh},
    programs::TcContext,
};
use proxy_common::{
    forward::{Egress, Facts, Forward, decide},
    packet::{Packet, Wire},
    rewrite::{Changes, write_fields},
    verdict::{Engine, Reason, Verdict},
    wire::Headers,
};

use crate::maps::{KernelTables, count_flow, count_reason, note_arrival};

#[inline(always)]
pub(crate) fn forward(ctx: &TcContext) -> i32 {
    let mut frame = SkbFrame(ctx);
    frame.pull_headers();
    let facts = frame.facts();
    let (reason, action) = match decide(&mut frame, &facts, &KernelTables) {
        Verdict::Forward(forward) => send(&mut frame, &forward),
        Verdict::Pass(reason) => (reason, TCX_NEXT),
        Verdict::Drop(reason) => (reason, TC_ACT_SHOT),
    };
    if reason == Reason::StunWithoutFlow {
        frame.note_arrival();
    }
    count_reason(Engine::Tc, reason, facts.datagrams);
    action
}

#[inline(always)]
fn send(frame: &mut SkbFrame<'_>, forward: &Forward) -> (Reason, i32) {
    if frame.rewrite(forward).is_none() {
        // Half rewritten: it must not go anywhere.
        return (Reason::RewriteFailed, TC_ACT_SHOT);
    }
    count_flow(forward.record, &forward.count);
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

struct SkbFrame<'a>(&'a TcContext);

impl SkbFrame<'_> {
    /// The headers and the two bytes that tell the payload's class.
    const WANTED: usize = Headers::LEN + 2;

    /// Brings what we look at into the directly accessible part of the buffer.
    #[inline(always)]
    fn pull_headers(&self) {
        if self.0.data() + Self::WANTED > self.0.data_end() {
            // What cannot be pulled is missing when it is looked at.
            let _ = self.0.pull_data(self.0.len().min(Self::WANTED as u32));
        }
    }

    #[inline(always)]
    fn facts(&self) -> Facts {
        // SAFETY: the context is the one this run got.
        let skb = unsafe { &*self.0.skb.skb };
        Facts {
            engine: Engine::Tc,
            length: skb.len,
            segment: skb.gso_size,
            datagrams: skb.gso_segs.max(1),
            vlan: skb.vlan_present != 0,
            linear: true,
        }
    }

    #[inline(always)]
    fn note_arrival(&mut self) {
        // SAFETY: the context is the one this run got.
        let ifindex = unsafe { (*self.0.skb.skb).ifindex };
        if let Some(headers) = self.get_mut::<Headers>(0) {
            note_arrival(headers, ifindex);
        }
    }

    /// The helpers take a change as a difference of sums if its size, in the low bits of the flags, is 0.
    #[inline(always)]
    fn rewrite(&mut self, forward: &Forward) -> Option<()> {
        const PORTS: u64 = BPF_F_MARK_MANGLED_0 as u64;
        const ADDRESSES: u64 = PORTS | BPF_F_PSEUDO_HDR as u64;
        let changes = Changes::between(self.get_mut::<Headers>(0)?, forward);
        let network = u64::from(changes.network().folded());
        let addresses = u64::from(changes.addresses.folded());
        let ports = u64::from(changes.ports.folded());
        let (skb, ip, udp) = (self.0.skb.skb, Headers::IP_CHECKSUM as u32, Headers::UDP_CHECKSUM as u32);
        // SAFETY: the context is the one this run got; the helpers check the offsets.
        let done = unsafe {
            bpf_l3_csum_replace(skb, ip, 0, network, 0) == 0
                && bpf_l4_csum_replace(skb, udp, 0, addresses, ADDRESSES) == 0
                && bpf_l4_csum_replace(skb, udp, 0, ports, PORTS) == 0
        };
        if !done {
            return None;
        }
        write_fields(self.get_mut::<Headers>(0)?, forward);
        Some(())
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
