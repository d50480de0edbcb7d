//! epoll for threads that serve thousands of sockets.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, time::Duration};

use anyhow::Result;
use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    fd::AsFd,
    io::Errno,
};

const AT_ONCE: usize = 256;

/// Sockets that are watched, by number.
#[derive(Debug)]
pub(super) struct Poll {
    epoll: OwnedFd,
}

/// What one of them is ready for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) key: u64,
    pub(super) flags: EventFlags,
}

pub(super) const READ: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);
pub(super) const BOTH: EventFlags = READ.union(EventFlags::OUT);

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(super) fn add(&self, source: impl AsFd, key: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(key), flags)?)
    }

    pub(super) fn change(&self, source: impl AsFd, key: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(key), flags)?)
    }

    pub(super) fn forget(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// What is ready, at the latest after `limit`.
    pub(super) fn wait(&self, limit: Duration) -> Result<Vec<Ready>> {
        let limit =
            Timespec { tv_sec: i64::try_from(limit.as_secs())?, tv_nsec: limit.subsec_nanos().into() };
        let mut events = [MaybeUninit::<Event>::uninit(); AT_ONCE];
        match epoll::wait(&self.epoll, &mut events, Some(&limit)) {
            Ok((events, _)) => {
                let ready = |event: &Event| Ready { key: event.data.u64(), flags: event.flags };
                Ok(events.iter().map(ready).collect())
            }
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}
