//! The limit: link-layer addresses and `bpf_redirect`, no table. And the floor: nothing at all.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use bench_ebpf::{Hop, Link, constant, finish, headers};

bench_ebpf::program_file!();

const NONE: Hop = Hop { link: Link { dst: [0; 3], src: [0; 3] }, ifindex: 0, reserved: [0; 4] };

#[unsafe(no_mangle)]
static TO_ORIGIN: Hop = NONE;

#[unsafe(no_mangle)]
static TO_CLIENT: Hop = NONE;

#[xdp]
fn to_origin(mut ctx: XdpContext) -> u32 {
    finish(redirect(&mut ctx, &TO_ORIGIN).map(Ok))
}

#[xdp]
fn to_client(mut ctx: XdpContext) -> u32 {
    finish(redirect(&mut ctx, &TO_CLIENT).map(Ok))
}

#[xdp]
fn nothing(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

#[inline(always)]
fn redirect(ctx: &mut XdpContext, hop: &'static Hop) -> Option<u32> {
    let hop = constant(hop);
    headers(ctx)?.link = hop.link;
    // SAFETY: the helper has no preconditions.
    Some((unsafe { aya_ebpf::helpers::generated::bpf_redirect(hop.ifindex, 0) }) as u32)
}
