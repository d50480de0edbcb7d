//! The XDP and TC programs: adapt a context, let `proxy-common` decide, turn the verdict into an action code, count.
//!
//! Built for the BPF target by `proxy-userspace/build.rs`; the host build exists so that tooling sees the code.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod maps;
mod records;
mod tc;
mod xdp;

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// Forwards frames of installed flows before the kernel makes a socket buffer of them.
#[xdp(frags)]
fn forward_xdp(ctx: XdpContext) -> u32 {
    xdp::forward(&ctx)
}

/// Run by userspace on frames of its own, never attached: what becomes of them becomes of forwarded frames.
#[xdp]
fn send_by_xdp(ctx: XdpContext) -> u32 {
    xdp::send_by(&ctx)
}

/// Forwards frames of installed flows where XDP cannot.
#[classifier]
fn forward_tc(ctx: TcContext) -> i32 {
    tc::forward(&ctx)
}

/// Says which layout the object was built with.
#[unsafe(no_mangle)]
#[used]
static LAYOUT_FINGERPRINT: u64 = proxy_common::maps::LAYOUT_FINGERPRINT;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this loop can be reached.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
