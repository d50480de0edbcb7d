//! Table layouts in comparison, each a program in `src/bin`; `generator` and `sink` stand at both ends.
//!
//! `hash` is the shipped program over another table. The others are bare: they share nothing with the proxy and do the least
//! that full NAT needs: parse, rewrite with incremental checksums, count, redirect.
//!
//! Nothing that runs on the host may link this crate: aya-ebpf brings a `memset` that returns nothing, and C code expects its
//! argument back.
#![no_std]

mod forward;

pub use bench_tables::{
    FlowEntry, FlowKey, Hop, Key, Link, PROBES, Slot, Template, Tuple, Value64, Value72, slot_home,
};
pub use forward::{Headers, Miss, constant, finish, forward, headers, now};

/// What every program file needs beside its programs.
#[macro_export]
macro_rules! program_file {
    () => {
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
    };
}
