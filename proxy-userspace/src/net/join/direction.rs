//! One direction of a joined connection.

use std::{
    io,
    net::Shutdown,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::{
    held::{Held, Moved},
    pace::Pace,
    pipe::Pipe,
};
use crate::config::TcpJoin as Means;

/// Reads and writes in a row, before other connections of the thread have their turn.
const TURNS: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The sender has sent everything, the receiver has not got it yet.
    Ending,
    Ended,
}

#[derive(Debug)]
pub(super) struct Direction {
    held: Held,
    pace: Pace,
    phase: Phase,
    /// What is read is not held.
    forgets: bool,
}

impl Direction {
    pub(super) fn new(first: Bytes, means: Means) -> Self {
        Self { held: Held::of(first), pace: Pace::new(means), phase: Phase::Open, forgets: false }
    }

    /// Carries nothing but the end.
    pub(super) fn to_nobody() -> Self {
        Self { forgets: true, ..Self::new(Bytes::new(), Means::Copy) }
    }

    /// Whether bytes are not copied at the moment.
    pub(super) fn splices(&self) -> bool {
        self.pace.splices()
    }

    /// Moves what can be moved; ready when all was, the end included.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        count: &AtomicU64,
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            if self.phase == Phase::Ended {
                return Poll::Ready(Ok(()));
            }
            // A receiver that takes nothing has the sender wait: nothing is read for it.
            ready!(to.poll_write_ready(cx))?;
            if !self.held.is_empty() {
                let written = attempt(to, Interest::WRITABLE, || self.held.write_to(to))?;
                count.fetch_add(written as u64, Ordering::Relaxed);
            } else if self.phase == Phase::Ending {
                self.end(to)?;
            } else {
                ready!(from.poll_read_ready(cx))?;
                self.read(from)?;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end(&mut self, to: &TcpStream) -> io::Result<()> {
        self.phase = Phase::Ended;
        match SockRef::from(to).shutdown(Shutdown::Write) {
            // It is gone in both directions already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        }
    }

    fn read(&mut self, from: &TcpStream) -> io::Result<()> {
        let mut is_end = false;
        let bytes = attempt(from, Interest::READABLE, || {
            let moved = self.fill(from)?;
            is_end = moved.bytes == 0;
            Ok(moved)
        })?;
        if is_end {
            self.held = Held::Nothing;
            self.phase = Phase::Ending;
        } else if self.forgets {
            self.held = Held::Nothing;
        } else if bytes > 0 {
            self.pace.note(bytes);
        }
        Ok(())
    }

    fn fill(&mut self, from: &TcpStream) -> io::Result<Moved> {
        if self.pace.splices() {
            match Pipe::borrow() {
                Ok(pipe) => return self.held.splice_from(from, pipe),
                Err(_) => self.pace.lacks_pipes(),
            }
        }
        self.held.copy_from(from)
    }
}

/// Moves bytes, none where the socket is not ready after all. tokio learns that it is not from an attempt that fails so, and
/// one that moved less than it could says the same without a further system call.
fn attempt(
    socket: &TcpStream,
    interest: Interest,
    move_some: impl FnOnce() -> io::Result<Moved>,
) -> io::Result<usize> {
    let mut bytes = 0;
    let done = socket.try_io(interest, || {
        let moved = move_some()?;
        bytes = moved.bytes;
        if moved.is_short { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(bytes),
        Err(error) => Err(error),
        Ok(()) => Ok(bytes),
    }
}
