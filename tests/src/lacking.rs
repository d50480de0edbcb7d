//! A system that lacks something, as one process sees it: a system call about it fails, as on a kernel without it.

use std::{io, os::unix::process::CommandExt as _, process::Command};

/// A system call that fails where one argument has one value.
#[derive(Clone, Copy, Debug)]
pub struct Lacking {
    call: libc::c_long,
    argument: u32,
    value: u32,
    error: i32,
}

impl Lacking {
    /// Network namespaces have no number (before 5.14).
    pub const NAMESPACE_NUMBERS: Self = Self {
        call: libc::SYS_getsockopt,
        argument: 2,
        value: libc::SO_NETNS_COOKIE as u32,
        error: libc::ENOPROTOOPT,
    };
    /// No program may be loaded.
    pub const PROGRAMS: Self =
        Self { call: libc::SYS_bpf, argument: 0, value: BPF_PROG_LOAD, error: libc::EPERM };
    /// The network is not to be asked.
    pub const NETLINK: Self = Self {
        call: libc::SYS_socket,
        argument: 0,
        value: libc::AF_NETLINK as u32,
        error: libc::EAFNOSUPPORT,
    };

    /// Has the process that `command` starts, and those that it starts, lack this.
    pub fn apply(self, command: &mut Command) {
        let filter = self.filter();
        // SAFETY: between fork and exec the closure makes one system call and touches no memory but its own.
        unsafe { command.pre_exec(move || install(&filter)) };
    }

    fn filter(self) -> [libc::sock_filter; 6] {
        let failed = libc::SECCOMP_RET_ERRNO | self.error.unsigned_abs();
        [
            load(std::mem::offset_of!(libc::seccomp_data, nr)),
            unless(u32::try_from(self.call).expect("system calls have small numbers"), 3),
            load(std::mem::offset_of!(libc::seccomp_data, args) + low_half(self.argument)),
            unless(self.value, 1),
            give(failed),
            give(libc::SECCOMP_RET_ALLOW),
        ]
    }
}

const BPF_PROG_LOAD: u32 = 5;

/// Where the lower half of an argument is.
fn low_half(argument: u32) -> usize {
    let within = if cfg!(target_endian = "big") { size_of::<u32>() } else { 0 };
    size_of::<u64>() * argument as usize + within
}

fn load(offset: usize) -> libc::sock_filter {
    let offset = u32::try_from(offset).expect("what a filter sees is small");
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset)
}

/// Skips as many instructions unless what was loaded is `value`.
fn unless(value: u32, skip: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, value)
}

fn give(verdict: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, verdict)
}

fn instruction(code: u32, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("a code has 16 bits"), jt: 0, jf, k }
}

fn install(filter: &[libc::sock_filter; 6]) -> io::Result<()> {
    let program = libc::sock_fprog { len: 6, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the filter, which lives during the call, and writes nothing.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
