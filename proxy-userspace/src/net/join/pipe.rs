//! Pipes that threads lend.

use std::{cell::RefCell, io};

use rustix::{
    fd::{AsFd, OwnedFd},
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

/// Room for four super-packets: each takes a slot for each of its pages.
const SIZE: usize = 256 << 10;
/// How many a thread keeps, two descriptors each.
const KEPT: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe with something in it, or nothing; only an empty one goes back when dropped.
#[derive(Debug)]
pub(super) struct Pipe {
    ends: Option<Ends>,
    filled: usize,
}

impl Pipe {
    /// One that is empty; an error where the process may have no more of them.
    pub(super) fn borrow() -> io::Result<Self> {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        let ends = match spare {
            Some(ends) => ends,
            None => Ends::open()?,
        };
        Ok(Self { ends: Some(ends), filled: 0 })
    }

    /// Bytes in it.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// Moves what a socket has received into the empty pipe; 0 is the end of what it receives.
    pub(super) fn fill_from(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        self.filled = splice(socket, None, &ends.write, None, SIZE, flags)?;
        Ok(self.filled)
    }

    /// Moves what is in it to a socket, as much as that takes.
    pub(super) fn drain_to(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let moved = splice(&ends.read, None, socket, None, self.filled, flags)?;
        self.filled -= moved;
        Ok(moved)
    }
}

impl Ends {
    fn open() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user may have 64 MiB in pipes (pipe-user-pages-soft); beyond, what there is by default has to do.
        let _ = fcntl_setpipe_size(&write, SIZE);
        Ok(Self { read, write })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take().filter(|_| self.filled == 0) else { return };
        // A thread that ends keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(ends);
            }
        });
    }
}
