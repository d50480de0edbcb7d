//! `bare hash`: what everybody would write. One BPF hash, a key of 16 bytes, a value of 72 with everything in it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::{map, xdp},
    maps::HashMap,
    programs::XdpContext,
};
use bench_ebpf::{Key, Miss, Value72, finish, forward, headers};

bench_ebpf::program_file!();

#[map]
static FLOWS: HashMap<Key, Value72> = HashMap::with_max_entries(1, 0);

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
    let Some(value) = FLOWS.get_ptr_mut(Key { tuple: headers.tuple, protocol: 17 }) else {
        return Some(Err(Miss));
    };
    // SAFETY: entries are preallocated, and only this direction's program writes the counters.
    let value = unsafe { &mut *value };
    value.packets += 1;
    value.bytes += headers.length();
    // SAFETY: the helper has no preconditions.
    value.last_seen = unsafe { bpf_ktime_get_coarse_ns() };
    Some(Ok(forward(headers, &value.rewrite, &value.link, value.ifindex)))
}
