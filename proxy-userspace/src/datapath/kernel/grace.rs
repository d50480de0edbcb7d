//! Waiting until no program runs that saw the tables as they were.

use std::{io, thread, time::Duration};

/// Longer than a program may run by orders of magnitude.
const PATIENCE: Duration = Duration::from_millis(500);

/// Blocks for an RCU grace period: programs run inside RCU read-side sections. Takes some milliseconds.
///
/// Where the kernel refuses `membarrier` (with `nohz_full` CPUs, or by seccomp) it waits for a time that no program takes.
pub fn wait() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes no pointers; it only waits.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "no membarrier, waiting instead");
        thread::sleep(PATIENCE);
    }
}
