//! `hash`: the shipped XDP program, line by line, over BPF hashes instead of the shipped tables of records.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[expect(dead_code, reason = "TC notes arrivals, and blocks are found by the shipped records alone")]
#[path = "../../../../../proxy-ebpf/src/maps.rs"]
mod maps;
mod records;
#[expect(dead_code, reason = "what userspace sends to see whether it arrives is no traffic")]
#[path = "../../../../../proxy-ebpf/src/xdp.rs"]
mod xdp;

use aya_ebpf::{macros::xdp, programs::XdpContext};

bench_ebpf::program_file!();

#[xdp(frags)]
fn forward_xdp(ctx: XdpContext) -> u32 {
    xdp::forward(&ctx)
}
