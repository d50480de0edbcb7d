//! Makes frames in a live test run: each goes out by the device the run names, with the next template in it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action},
    macros::{map, xdp},
    maps::{Array, PerCpuArray},
    programs::XdpContext,
};
use bench_ebpf::{Link, Template, constant, headers};

bench_ebpf::program_file!();

#[map]
static TEMPLATES: Array<Template> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static SENT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// How many templates there are.
#[unsafe(no_mangle)]
static COUNT: u32 = 1;

#[unsafe(no_mangle)]
static LINK: Link = Link { dst: [0; 3], src: [0; 3] };

#[map]
static NEXT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

#[xdp]
fn generate(mut ctx: XdpContext) -> u32 {
    fill(&mut ctx).unwrap_or(xdp_action::XDP_DROP)
}

#[inline(always)]
fn fill(ctx: &mut XdpContext) -> Option<u32> {
    let template = TEMPLATES.get(take_number()?)?;
    // Pages are recycled with what the last consumer wrote into them: every field that forwarding changes is written.
    let headers = headers(ctx)?;
    headers.link = constant(&LINK);
    headers.ttl = 64;
    headers.tuple = template.tuple;
    headers.ip_checksum = template.ip_checksum;
    headers.udp_checksum = template.udp_checksum;
    Some(xdp_action::XDP_TX)
}

#[inline(always)]
fn take_number() -> Option<u32> {
    let (next, sent) = (NEXT.get_ptr_mut(0)?, SENT.get_ptr_mut(0)?);
    // SAFETY: a constant that the loader writes.
    let count = unsafe { core::ptr::read_volatile(&raw const COUNT) };
    // SAFETY: the slots are this CPU's own, and a program is not preempted by itself.
    unsafe {
        let number = *next;
        *next = if number + 1 < count { number + 1 } else { 0 };
        *sent += 1;
        Some(number)
    }
}
