//! Threads as a measurement needs them: on one CPU, interruptible, and with a clock of their own.

use std::{
    io,
    os::unix::thread::{JoinHandleExt as _, RawPthread},
    sync::Once,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Runs the calling thread on one CPU.
pub(super) fn pin_this_one(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).with_context(|| format!("failed to run on CPU {cpu}"))
}

/// Makes a system call of the thread return; does nothing to a thread outside of one.
pub(super) fn interrupt<T>(thread: &JoinHandle<T>) {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(ignore_wake_ups);
    // SAFETY: a thread that was not joined has a valid id, and the handler of the signal does nothing.
    let sent = unsafe { libc::pthread_kill(id(thread), libc::SIGUSR1) };
    debug_assert!(sent == 0 || thread.is_finished());
}

/// Installs a handler: an ignored signal would interrupt nothing.
fn ignore_wake_ups() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all zeros are a valid `sigaction`: no flags, so that system calls are not restarted, and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler touches nothing.
    let installed = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    debug_assert_eq!(installed, 0);
}

/// Processor time the thread has used, softirqs that it ran included.
pub(super) fn processor_time<T>(thread: &JoinHandle<T>) -> Result<Duration> {
    let mut clock = 0;
    // SAFETY: a thread that was not joined has a valid id, and the clock is a live integer.
    let found = unsafe { libc::pthread_getcpuclockid(id(thread), &raw mut clock) };
    ensure!(found == 0, "a generator ended too early");
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is a live struct.
    let read = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(read == 0, "failed to read a thread's clock: {}", io::Error::last_os_error());
    Ok(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec)?))
}

fn id<T>(thread: &JoinHandle<T>) -> RawPthread {
    thread.as_pthread_t()
}
