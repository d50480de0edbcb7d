//! `bare slot`: both directions in one line whose row number is the source port. For one origin only.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::{map, xdp},
    maps::Array,
    programs::XdpContext,
};
use bench_ebpf::{Hop, Link, Miss, PROBES, Slot, Tuple, constant, finish, forward, headers, now, slot_home};

bench_ebpf::program_file!();

const NONE: Hop = Hop { link: Link { dst: [0; 3], src: [0; 3] }, ifindex: 0, reserved: [0; 4] };

#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[unsafe(no_mangle)]
static SEED: u64 = 0;

#[unsafe(no_mangle)]
static MASK: u32 = 0;

/// The service towards the origin; ports of row 0.
#[unsafe(no_mangle)]
static SERVICE_TO_ORIGIN: Tuple = Tuple { src: 0, dst: 0, src_port: 0, dst_port: 0 };

/// Our first source towards the origin.
#[unsafe(no_mangle)]
static SOURCE_TO_ORIGIN: Tuple = Tuple { src: 0, dst: 0, src_port: 0, dst_port: 0 };

#[unsafe(no_mangle)]
static TO_ORIGIN: Hop = NONE;

#[unsafe(no_mangle)]
static TO_CLIENT: Hop = NONE;

/// Rows of a source address.
const PORTS: u32 = 1 << 15;

#[xdp]
fn to_origin(mut ctx: XdpContext) -> u32 {
    finish(send(&mut ctx))
}

#[xdp]
fn to_client(mut ctx: XdpContext) -> u32 {
    finish(answer(&mut ctx))
}

#[inline(always)]
fn send(ctx: &mut XdpContext) -> Option<Result<u32, Miss>> {
    let headers = headers(ctx)?;
    let Tuple { src, dst, src_port, dst_port } = headers.tuple;
    let service = constant(&SERVICE_TO_ORIGIN);
    if dst != service.src || dst_port != service.src_port {
        return Some(Err(Miss));
    }
    let key = u64::from(src) | u64::from(src_port) << 32 | u64::from(dst_port) << 48;
    let Some((row, slot)) = find(key) else { return Some(Err(Miss)) };
    // SAFETY: rows are never unmapped; each direction has counters of its own.
    let slot = unsafe { &mut *slot };
    slot.sent += 1;
    slot.sent_bytes += headers.length();
    slot.sent_last = now();
    let first = constant(&SOURCE_TO_ORIGIN);
    let source = Tuple {
        src: u32::from_be(first.src).wrapping_add(row / PORTS).to_be(),
        src_port: u16::from_be(first.src_port).wrapping_add((row % PORTS) as u16).to_be(),
        ..first
    };
    let hop = constant(&TO_ORIGIN);
    Some(Ok(forward(headers, &source, &hop.link, hop.ifindex)))
}

#[inline(always)]
fn find(key: u64) -> Option<(u32, *mut Slot)> {
    let (seed, mask) = (constant(&SEED), constant(&MASK));
    let first = slot_home(key, seed, mask);
    let mut probe = 0;
    while probe < PROBES {
        let row = first.wrapping_add(probe) & mask;
        let slot = SLOTS.get_ptr_mut(row)?;
        // SAFETY: a row starts with its key, an aligned word.
        let found = unsafe { slot.cast::<u64>().read_volatile() };
        if found == key {
            return Some((row, slot));
        }
        if found == 0 {
            return None;
        }
        probe += 1;
    }
    None
}

#[inline(always)]
fn answer(ctx: &mut XdpContext) -> Option<Result<u32, Miss>> {
    let headers = headers(ctx)?;
    let Tuple { src, dst, src_port, dst_port } = headers.tuple;
    let first = constant(&SOURCE_TO_ORIGIN);
    if src != first.dst || src_port != first.dst_port {
        return Some(Err(Miss));
    }
    let address = u32::from_be(dst).wrapping_sub(u32::from_be(first.src));
    let port = u16::from_be(dst_port).wrapping_sub(u16::from_be(first.src_port));
    let slot = SLOTS.get_ptr_mut(address.wrapping_mul(PORTS).wrapping_add(u32::from(port)))?;
    // SAFETY: rows are never unmapped; each direction has counters of its own.
    let slot = unsafe { &mut *slot };
    let key = slot.key;
    if key == 0 {
        return Some(Err(Miss));
    }
    slot.answered += 1;
    slot.answered_bytes += headers.length();
    slot.answered_last = now();
    let service = constant(&SERVICE_TO_ORIGIN);
    let client =
        Tuple { src: service.src, dst: key as u32, src_port: service.src_port, dst_port: (key >> 32) as u16 };
    let hop = constant(&TO_CLIENT);
    let link = Link { dst: slot.client_mac, src: hop.link.src };
    Some(Ok(forward(headers, &client, &link, hop.ifindex)))
}
