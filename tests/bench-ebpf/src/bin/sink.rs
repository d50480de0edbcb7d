//! Counts what arrives and drops it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::PerCpuArray,
    programs::XdpContext,
};

bench_ebpf::program_file!();

#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[xdp]
fn sink(_: XdpContext) -> u32 {
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: the slot is this CPU's own, and a program is not preempted by itself.
        unsafe { *arrived += 1 };
    }
    xdp_action::XDP_DROP
}
