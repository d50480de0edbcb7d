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

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
    };

    use rustix::pipe::fcntl_getpipe_size;

    use super::*;

    /// A socket that has received much, in writes of so many bytes.
    fn filled(at_once: usize) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        sender.set_nonblocking(true).unwrap();
        sender.set_nodelay(true).unwrap();
        let some = vec![7; at_once];
        while sender.write(&some).is_ok() {}
        (sender, receiver)
    }

    #[test]
    fn a_pipe_holds_at_most_what_it_is_made_for_however_small_the_packets_are() {
        for at_once in [100, 5_000, 1 << 20] {
            let (_sender, receiver) = filled(at_once);
            let mut pipe = Pipe::borrow().unwrap();
            let ends = pipe.ends.as_ref().unwrap();
            assert!(fcntl_getpipe_size(&ends.read).unwrap() <= SIZE);
            let moved = pipe.fill_from(&receiver).unwrap();
            assert!((1..=SIZE).contains(&moved), "{moved} bytes in writes of {at_once}");
            assert_eq!(pipe.filled(), moved);
        }
    }

    #[test]
    fn only_an_empty_pipe_is_lent_again() {
        let (_sender, receiver) = filled(5_000);
        let mut pipe = Pipe::borrow().unwrap();
        pipe.fill_from(&receiver).unwrap();
        SPARE.with_borrow_mut(Vec::clear);
        drop(pipe);
        assert!(SPARE.with_borrow(Vec::is_empty));
        drop(Pipe::borrow().unwrap());
        assert_eq!(SPARE.with_borrow(Vec::len), 1);
    }
}
