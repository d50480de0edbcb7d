//! What a thread of the relay waits for: its descriptors, and that it is to end.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

/// The name of what ends the wait: no place of a socket, so whoever looks for one finds nothing.
const STOP: u64 = u64::MAX;

/// Wakes the thread that waits for it.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Is ready from now on.
    pub(super) fn ring(&self) {
        if let Err(error) = rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "failed to wake a thread of the relay");
        }
    }

    /// Is ready no more; tells whether it was.
    pub(super) fn silence(&self) -> bool {
        // The event counts how often it was set; one read takes it back to zero.
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Descriptors by names that are given by whoever serves them.
pub(super) struct Reactor {
    epoll: OwnedFd,
    wake: Bell,
    stopping: AtomicBool,
}

impl Reactor {
    pub(super) fn new() -> io::Result<Self> {
        let (epoll, wake) = (epoll::create(epoll::CreateFlags::CLOEXEC)?, Bell::new()?);
        let reactor = Self { epoll, wake, stopping: AtomicBool::new(false) };
        reactor.watch(&reactor.wake, STOP)?;
        Ok(reactor)
    }

    /// Waits for `descriptor` as well, until it is closed.
    pub(super) fn watch(&self, descriptor: impl AsFd, name: u64) -> io::Result<()> {
        epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(name), epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Ends [`Reactor::wait`].
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.wake.ring();
    }

    /// Lets [`Reactor::wait`] be called again after [`Reactor::stop`].
    pub(super) fn rearm(&self) {
        self.wake.silence();
        self.stopping.store(false, Relaxed);
    }

    /// Fills `ready`, as far as it has room, with what is ready within `patience`; false if the thread is to end.
    pub(super) fn wait(&self, ready: &mut Vec<epoll::Event>, patience: Option<&Timespec>) -> bool {
        ready.clear();
        if self.stopping.load(Relaxed) {
            return false;
        }
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(ready), patience) {
            Ok(_) | Err(rustix::io::Errno::INTR) => true,
            Err(error) => {
                let thread = std::thread::current();
                tracing::error!(%error, thread = thread.name(), "a thread of the relay ends: epoll failed");
                false
            }
        }
    }
}
