//! Instructions of classic BPF (`bpf(4)` of BSD), for filters of what a raw socket takes.

use socket2::SockFilter;

pub(super) const LOAD_BYTE: u16 = 0x30;
pub(super) const LOAD_BYTE_BEHIND: u16 = 0x50;
pub(super) const LOAD_HALF: u16 = 0x28;
/// Sets what "behind" refers to: the end of the IPv4 header.
pub(super) const LOAD_HEADER_LENGTH: u16 = 0xb1;
pub(super) const IF_EQUAL: u16 = 0x15;
pub(super) const IF_GREATER: u16 = 0x25;
pub(super) const IF_SET: u16 = 0x45;
/// Ends the filter with as many bytes of the packet; none drops it.
pub(super) const TAKE: u16 = 0x06;
/// More bytes than any packet has.
pub(super) const WHOLE: u32 = 0xffff;

pub(super) const fn op(code: u16, value: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, value)
}

/// Skips `then` instructions if the condition holds, else `otherwise`.
pub(super) const fn jump(code: u16, value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(code, then, otherwise, value)
}
