//! `bare hash8`: a BPF hash at its best, a key of 8 bytes and a value of 64.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::{map, xdp},
    maps::HashMap,
    programs::XdpContext,
};
use bench_ebpf::{Miss, Value64, finish, forward, headers};

bench_ebpf::program_file!();

#[map]
static FLOWS: HashMap<u64, Value64> = HashMap::with_max_entries(1, 0);

#[xdp]
fn to_origin(mut ctx: XdpContext) -> u32 {
    finish(relay(&mut ctx))
}

#[xdp]
fn to_client(mut ctx: XdpContext) -> u32 {
    finish(relay(&mut ctx))
}

#[inline(always)]
fn relay(ctx: &mut XdpContext) -> Option<Result<u32, Miss>> {
    let headers = headers(ctx)?;
    let tuple = headers.tuple;
    let Some(value) = FLOWS.get_ptr_mut(tuple.short()) else { return Some(Err(Miss)) };
    // SAFETY: entries are preallocated, and only this direction's program writes the counters.
    let value = unsafe { &mut *value };
    value.packets += 1;
    value.bytes += headers.length();
    // SAFETY: the helper has no preconditions.
    value.last_seen = unsafe { bpf_ktime_get_coarse_ns() };
    Some(Ok(forward(headers, &value.rewrite, &value.link, value.ifindex)))
}
