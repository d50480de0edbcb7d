//! The work that is the same in every bare candidate.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_redirect},
    programs::XdpContext,
};

use crate::{Link, Tuple};

/// Ethernet, IPv4 and UDP.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed)]
pub struct Headers {
    /// Link-layer addresses.
    pub link: Link,
    ethertype: u16,
    version: u8,
    tos: u8,
    total_len: u16,
    identification: u16,
    fragment: u16,
    /// Time to live.
    pub ttl: u8,
    protocol: u8,
    /// Of the IPv4 header.
    pub ip_checksum: u16,
    /// Addresses and ports, which are neighbours.
    pub tuple: Tuple,
    udp_len: u16,
    /// Of the datagram.
    pub udp_checksum: u16,
}

/// The reason why a datagram was not forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Miss;

/// The headers of a datagram that may be forwarded.
#[inline(always)]
pub fn headers(ctx: &mut XdpContext) -> Option<&mut Headers> {
    let headers = any_headers(ctx)?;
    let is_udp = headers.ethertype == 0x0800_u16.to_be() && headers.version == 0x45 && headers.protocol == 17;
    (is_udp && headers.fragment & 0x3fff_u16.to_be() == 0 && headers.ttl > 1).then_some(headers)
}

/// As many bytes as headers are long.
#[inline(always)]
fn any_headers(ctx: &mut XdpContext) -> Option<&mut Headers> {
    let start = ctx.data();
    if start + size_of::<Headers>() > ctx.data_end() {
        return None;
    }
    // SAFETY: in bounds by the check above; any bytes at any address are headers, and the context lends them once a run.
    Some(unsafe { &mut *(start as *mut Headers) })
}

impl Headers {
    /// From the IP header on.
    #[inline(always)]
    #[must_use]
    pub fn length(&self) -> u64 {
        u64::from(u16::from_be(self.total_len))
    }

    #[inline(always)]
    fn rewrite(&mut self, to: &Tuple) {
        let from = self.tuple;
        let addresses = without(from.src) + without(from.dst) + halves(to.src) + halves(to.dst);
        let ports =
            flip(from.src_port) + flip(from.dst_port) + u32::from(to.src_port) + u32::from(to.dst_port);
        if self.udp_checksum != 0 {
            let checksum = !fold(flip(self.udp_checksum) + u32::from(fold(addresses)) + ports);
            self.udp_checksum = if checksum == 0 { 0xffff } else { checksum };
        }
        // One less in the byte of the TTL, in one's complement.
        self.ip_checksum = !fold(flip(self.ip_checksum) + addresses + u32::from(!1_u16));
        self.ttl -= 1;
        self.tuple = *to;
    }
}

/// Rewrites and sends.
#[inline(always)]
pub fn forward(headers: &mut Headers, to: &Tuple, link: &Link, ifindex: u32) -> u32 {
    headers.rewrite(to);
    headers.link = *link;
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_redirect(ifindex, 0) }) as u32
}

/// The action for what came of a frame. A miss is dropped, so that what is measured ends here and not in the stack.
#[inline(always)]
pub fn finish(outcome: Option<Result<u32, Miss>>) -> u32 {
    match outcome {
        Some(Ok(action)) => action,
        Some(Err(Miss)) => XDP_DROP,
        None => XDP_PASS,
    }
}

/// Kernel time in units of 2^20 ns.
#[inline(always)]
#[must_use]
pub fn now() -> u32 {
    // SAFETY: the helper has no preconditions. Wrapping is harmless: stamps are only compared.
    (unsafe { bpf_ktime_get_coarse_ns() } >> 20) as u32
}

/// A constant that the loader writes. Words could be read as volatile; a struct read so becomes a call of `memmove`.
#[inline(always)]
pub fn constant<T: Copy>(value: &'static T) -> T {
    *core::hint::black_box(value)
}

#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[inline(always)]
fn flip(word: u16) -> u32 {
    u32::from(!word)
}

#[inline(always)]
fn halves(long: u32) -> u32 {
    (long & 0xffff) + (long >> 16)
}

#[inline(always)]
fn without(long: u32) -> u32 {
    flip(long as u16) + flip((long >> 16) as u16)
}
