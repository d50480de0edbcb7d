//! A command channel into a thread that otherwise sleeps in `poll` or `epoll`: every message also raises an
//! eventfd, so that the thread wakes at once and never polls for commands.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};

use rustix::event::{EventfdFlags, eventfd};

/// Creates a connected pair of sender and mailbox.
///
/// # Errors
/// When no eventfd can be created.
pub fn mailbox<T>() -> io::Result<(Sender<T>, Mailbox<T>)> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = mpsc::channel();
    Ok((Sender { sender, wake: Arc::clone(&wake) }, Mailbox { receiver, wake }))
}

/// The sending half; clones share the mailbox.
#[derive(Debug)]
pub struct Sender<T> {
    sender: mpsc::Sender<T>,
    wake: Arc<OwnedFd>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), wake: Arc::clone(&self.wake) }
    }
}

impl<T> Sender<T> {
    /// Sends one message; false means that the receiving thread is gone.
    pub fn send(&self, message: T) -> bool {
        let delivered = self.sender.send(message).is_ok();
        // A full counter already keeps the descriptor readable, so a failed write loses nothing.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        delivered
    }

    /// Sends a message that carries a reply channel and waits for the answer; `None` when the thread is gone.
    pub fn ask<R>(&self, message: impl FnOnce(mpsc::Sender<R>) -> T) -> Option<R> {
        let (reply, answer) = mpsc::channel();
        self.send(message(reply));
        answer.recv().ok()
    }
}

/// The receiving half: readable while messages may wait.
#[derive(Debug)]
pub struct Mailbox<T> {
    receiver: mpsc::Receiver<T>,
    wake: Arc<OwnedFd>,
}

impl<T> Mailbox<T> {
    /// Takes the next message, if one waits.
    pub fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Makes the descriptor unreadable again; call it before taking messages, never after.
    pub fn acknowledge(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn asks_and_gets_the_answer_of_the_other_thread() {
        let (sender, mailbox) = mailbox::<mpsc::Sender<u32>>().unwrap();
        let worker = thread::spawn(move || {
            let reply = loop {
                if let Some(reply) = mailbox.take() {
                    break reply;
                }
            };
            reply.send(7).unwrap();
        });
        assert_eq!(sender.ask(|reply| reply), Some(7));
        worker.join().unwrap();
    }

    #[test]
    fn says_when_the_other_thread_is_gone() {
        let (sender, mailbox) = mailbox::<u32>().unwrap();
        drop(mailbox);
        assert!(!sender.send(1));
    }
}
