//! The XDP side: direct access to the frame, and `XDP_PASS` for everything that is not forwarded or dropped.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{
        bpf_csum_diff, bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
    programs::XdpContext,
};
use proxy_common::{
    family::{V4, V6},
    forward::{Egress, Facts, Forward, Kind, decide, kind},
    packet::{Packet, Wire},
    rewrite::{DirectFrame, rewrite_direct},
    verdict::{Engine, Reason, Verdict},
};

use crate::{
    maps::{KernelTables, count_reason, now},
    records::{Maps, count_flow},
};

#[inline(always)]
pub(crate) fn forward(ctx: &XdpContext) -> u32 {
    let mut frame = XdpFrame(ctx);
    let facts = frame.facts();
    match kind(&mut frame, &facts) {
        Ok(Kind::V4) => forward_family::<V4>(&mut frame, &facts),
        Ok(Kind::V6) => forward_family::<V6>(&mut frame, &facts),
        Err(reason) => finish(reason, xdp_action::XDP_PASS),
    }
}

#[inline(always)]
fn forward_family<F: Maps>(frame: &mut XdpFrame<'_>, facts: &Facts) -> u32 {
    match decide::<F, _>(frame, facts, &KernelTables) {
        Verdict::Forward(forward) => send(frame, &forward, facts),
        Verdict::Pass(reason) => finish(reason, xdp_action::XDP_PASS),
        Verdict::Drop(reason) => finish(reason, xdp_action::XDP_DROP),
    }
}

#[inline(always)]
fn send<F: Maps>(frame: &mut XdpFrame<'_>, forward: &Forward<F>, facts: &Facts) -> u32 {
    let Egress::Redirect { ifindex, .. } = forward.egress else {
        return finish(Reason::EngineCannot, xdp_action::XDP_PASS);
    };
    if let Err(reason) = rewrite_direct(frame, forward) {
        return finish(reason, xdp_action::XDP_PASS);
    }
    count_flow::<F>(forward.record, &forward.count, facts.now);
    // Also when the frame leaves by the device it came from: veth kicks its peer's ring after XDP_TX only if the peer
    // runs an XDP program (veth_xdp_flush).
    // SAFETY: the helper has no preconditions.
    let action = unsafe { bpf_redirect(ifindex, 0) };
    finish(Reason::Forwarded, action as u32)
}

/// Sends a frame by the device whose index stands in front of it, in host order, as forwarded frames are sent.
#[inline(always)]
pub(crate) fn send_by(ctx: &XdpContext) -> u32 {
    type Ifindex = [u8; 4];
    let Some(ifindex) = XdpFrame(ctx).get_mut::<Ifindex>(0).copied() else { return xdp_action::XDP_ABORTED };
    // SAFETY: the context is the one this run got, and no pointer into the frame is alive.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, size_of::<Ifindex>() as i32) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_redirect(u32::from_ne_bytes(ifindex), 0) }) as u32
}

#[inline(always)]
fn finish(reason: Reason, action: u32) -> u32 {
    count_reason(Engine::Xdp, reason, 1);
    action
}

struct XdpFrame<'a>(&'a XdpContext);

impl XdpFrame<'_> {
    #[inline(always)]
    fn facts(&self) -> Facts {
        // SAFETY: the context is the one this run got.
        let length = unsafe { bpf_xdp_get_buff_len(self.0.ctx) } as u32;
        let linear = self.0.data() + length as usize <= self.0.data_end();
        Facts { engine: Engine::Xdp, now: now(), length, segment: 0, datagrams: 1, vlan: false, linear }
    }
}

impl Packet for XdpFrame<'_> {
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

impl DirectFrame for XdpFrame<'_> {
    #[inline(always)]
    fn sum(&mut self, offset: usize, length: usize) -> Option<u32> {
        u32::try_from(sum_bytes(self.0.ctx, offset as u32, length as u32)).ok()
    }
}

/// Bytes summed per step, on the stack, of which the verifier grants 512 to all calls together.
const CHUNK: u32 = 128;
/// Longest sum in steps: more than a frame in one page can hold.
const CHUNKS: usize = 32;

type Chunk = [u64; CHUNK as usize / 8];

/// Out of line, so that the verifier walks the loop apart from the program's paths; negative if it cannot be done.
#[inline(never)]
fn sum_bytes(ctx: *mut xdp_md, mut offset: u32, mut length: u32) -> i64 {
    let mut sum = 0;
    let mut chunk: Chunk = [0; CHUNK as usize / 8];
    for _ in 0..CHUNKS {
        if length < CHUNK {
            break;
        }
        // SAFETY: the buffer is `CHUNK` bytes long; the helper checks the frame's bounds.
        if unsafe { bpf_xdp_load_bytes(ctx, offset, chunk.as_mut_ptr().cast(), CHUNK) } < 0 {
            return -1;
        }
        sum = add(&mut chunk, sum);
        offset += CHUNK;
        length -= CHUNK;
    }
    sum_tail(ctx, offset, length, &mut chunk, sum)
}

#[inline(always)]
fn sum_tail(ctx: *mut xdp_md, offset: u32, length: u32, chunk: &mut Chunk, sum: u32) -> i64 {
    if length >= CHUNK {
        return -1;
    }
    // Opaque to LLVM, which knows the bound and would drop the mask that shows it to the verifier.
    let length = core::hint::black_box(length) % CHUNK;
    if length == 0 {
        return i64::from(sum);
    }
    // What follows the last byte counts as zero.
    *chunk = [0; CHUNK as usize / 8];
    // SAFETY: the buffer is longer than `length`; the helper checks the frame's bounds.
    if unsafe { bpf_xdp_load_bytes(ctx, offset, chunk.as_mut_ptr().cast(), length) } < 0 {
        return -1;
    }
    i64::from(add(chunk, sum))
}

#[inline(always)]
fn add(chunk: &mut Chunk, sum: u32) -> u32 {
    // SAFETY: the buffer is `CHUNK` bytes long, a multiple of 4.
    (unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, chunk.as_mut_ptr().cast(), CHUNK, sum) }) as u32
}
