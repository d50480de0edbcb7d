//! Sockets and state go from a running process to the one that takes over from it.
//!
//! ```text
//!    new                                     old
//!     │ Hello ───────────────────────────────► │  finishes requests, freezes its control plane
//!     │ ◄───────── Manifest, Sockets…, State… │  its relay goes on
//!     │ prepares everything                    │
//!     │ Ready ───────────────────────────────► │  stops reading
//!     │ ◄──────────────────────────────── Yours │  leaves
//!     │ reads                                  ·
//! ```
//!
//! Until `Yours` is sent, whatever goes wrong leaves the old process serving. The sockets are the same open sockets in
//! both processes, so what arrives in between waits in them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
        accept_with, bind, connect, listen, recvmsg, sendmsg, socket_with,
        sockopt::{Timeout, set_socket_timeout, socket_peercred},
    },
};
use tokio::io::unix::AsyncFd;

use crate::codec::DecodeError;

mod message;

pub use message::{Manifest, Message, Role};

/// The version of the conversation; a process that speaks another one is not taken over from.
pub const VERSION: u16 = 1;
/// Descriptors that one message carries at most (SCM_MAX_FD of the kernel).
const MAX_DESCRIPTORS: usize = 253;
/// The longest message; it must fit into the smallest send buffer a host is likely to have.
const MAX_MESSAGE: usize = 64 << 10;
const STATE_PIECE: usize = 32 << 10;
/// A million sessions of 512 bytes.
const MAX_STATE: u64 = 512 << 20;
/// As many as a process may have descriptors.
const MAX_SOCKETS: u32 = 1 << 20;

/// Why a take-over failed.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The socket failed, or the other side was too slow.
    #[error("the other process cannot be talked to")]
    Io(#[from] io::Error),
    /// A message made no sense.
    #[error("a message is wrong: {0}")]
    Decode(#[from] DecodeError),
    /// A message was longer than any may be, or descriptors were lost: most likely this process may open too few files.
    #[error("a message or its descriptors were cut (is the limit of open files too low?)")]
    Cut,
    /// The other process ended, or closed the connection.
    #[error("the other process is gone")]
    Gone,
    /// The other process refused.
    #[error("it refused: {0}")]
    Refused(String),
    /// A message came where another one was due.
    #[error("a message came out of turn; {0} was due")]
    OutOfTurn(&'static str),
    /// The other process belongs to somebody else.
    #[error("the other process belongs to user {0}")]
    Stranger(u32),
    /// The other process speaks another version.
    #[error("it speaks version {0} of the hand-over, not {VERSION}")]
    Version(u16),
}

/// Everything that changes hands.
#[derive(Debug)]
pub struct Parcel {
    /// Sockets and what they are.
    pub sockets: Vec<(Role, OwnedFd)>,
    /// What only userspace knows.
    pub state: Vec<u8>,
}

/// Where a new process announces itself.
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

/// A conversation with the other process. Calls block, for no longer than until the deadline.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    deadline: Instant,
}

impl Doorbell {
    /// Listens at `path`; whatever is there goes.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = seqpacket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        listen(&socket, 4)?;
        Ok(Self(socket))
    }

    /// Goes on listening on the socket of an earlier process.
    pub fn inherit(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Has the runtime wait for visitors.
    pub fn watch(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is owned by the doorbell, so it stays the same and open for as long as it is watched.
        let watched = unsafe { AsyncFd::register(self) };
        Ok(watched?)
    }

    /// The next visitor; `WouldBlock` when there is none.
    pub fn answer(&self, patience: Duration) -> io::Result<Channel> {
        let socket = accept_with(&self.0, SocketFlags::CLOEXEC)?;
        Ok(Channel { socket, deadline: Instant::now() + patience })
    }

    /// A second descriptor of the same socket.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What tokio watches is named by number.
impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Channel {
    /// Rings at `path`.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let socket = seqpacket(SocketFlags::CLOEXEC)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket, deadline: Instant::now() + patience })
    }

    /// Allows the conversation this much more time.
    pub fn extend(&mut self, patience: Duration) {
        self.deadline = Instant::now() + patience;
    }

    /// Takes the visitor's greeting and returns its process id; a stranger or an unknown version is sent away.
    pub fn greet(&self) -> Result<u32, HandoverError> {
        self.check_peer()?;
        match self.receive()? {
            (Message::Hello { version: VERSION, pid }, _) => Ok(pid),
            (Message::Hello { version, .. }, _) => {
                self.refuse(&format!("it speaks version {VERSION} of the hand-over"));
                Err(HandoverError::Version(version))
            }
            _ => Err(HandoverError::OutOfTurn("Hello")),
        }
    }

    /// Tells the visitor why it gets nothing.
    pub fn refuse(&self, reason: &str) {
        // The visitor may have gone already, which comes to the same.
        let _gone = self.send(&Message::Refused(reason.to_owned()), &[]);
    }

    /// Gives everything and waits until the other process can go on with it.
    pub fn give(&self, parcel: &Parcel) -> Result<(), HandoverError> {
        let manifest = Manifest {
            pid: std::process::id(),
            sockets: u32::try_from(parcel.sockets.len()).unwrap_or(u32::MAX),
            state: parcel.state.len() as u64,
        };
        self.send(&Message::Manifest(manifest), &[])?;
        for batch in parcel.sockets.chunks(MAX_DESCRIPTORS) {
            let roles = batch.iter().map(|(role, _)| *role).collect();
            let descriptors: Vec<_> = batch.iter().map(|(_, fd)| fd.as_fd()).collect();
            self.send(&Message::Sockets(roles), &descriptors)?;
        }
        for piece in parcel.state.chunks(STATE_PIECE) {
            self.send(&Message::State(piece.to_vec()), &[])?;
        }
        match self.receive()? {
            (Message::Ready, _) => Ok(()),
            (Message::Refused(reason), _) => Err(HandoverError::Refused(reason)),
            _ => Err(HandoverError::OutOfTurn("Ready")),
        }
    }

    /// Lets go. When this succeeds the other process owns everything.
    pub fn let_go(&self) -> Result<(), HandoverError> {
        self.send(&Message::Yours, &[])
    }

    /// Asks for everything; returns it with the process id of the old process.
    pub fn take(&self) -> Result<(u32, Parcel), HandoverError> {
        self.check_peer()?;
        self.send(&Message::Hello { version: VERSION, pid: std::process::id() }, &[])?;
        let manifest = match self.receive()? {
            (Message::Manifest(manifest), _) => manifest,
            (Message::Refused(reason), _) => return Err(HandoverError::Refused(reason)),
            _ => return Err(HandoverError::OutOfTurn("Manifest")),
        };
        if manifest.state > MAX_STATE || manifest.sockets > MAX_SOCKETS {
            return Err(HandoverError::Cut);
        }
        let sockets = self.take_sockets(manifest.sockets as usize)?;
        let state = self.take_state(manifest.state as usize)?;
        Ok((manifest.pid, Parcel { sockets, state }))
    }

    /// Says that everything is there, and waits until the old process has let go.
    pub fn claim(&self) -> Result<(), HandoverError> {
        self.send(&Message::Ready, &[])?;
        match self.receive()? {
            (Message::Yours, _) => Ok(()),
            _ => Err(HandoverError::OutOfTurn("Yours")),
        }
    }

    fn take_sockets(&self, count: usize) -> Result<Vec<(Role, OwnedFd)>, HandoverError> {
        let mut sockets = Vec::new();
        while sockets.len() < count {
            let (Message::Sockets(roles), descriptors) = self.receive()? else {
                return Err(HandoverError::OutOfTurn("Sockets"));
            };
            if roles.is_empty() || roles.len() != descriptors.len() {
                return Err(HandoverError::Cut);
            }
            sockets.extend(roles.into_iter().zip(descriptors));
        }
        if sockets.len() == count { Ok(sockets) } else { Err(HandoverError::OutOfTurn("State")) }
    }

    fn take_state(&self, length: usize) -> Result<Vec<u8>, HandoverError> {
        let mut state = Vec::new();
        while state.len() < length {
            let (Message::State(piece), _) = self.receive()? else {
                return Err(HandoverError::OutOfTurn("State"));
            };
            if piece.is_empty() {
                return Err(HandoverError::Cut);
            }
            state.extend(piece);
        }
        if state.len() == length { Ok(state) } else { Err(HandoverError::OutOfTurn("Ready")) }
    }

    /// Root and the user this process runs as are trusted with its sockets.
    fn check_peer(&self) -> Result<(), HandoverError> {
        let peer = socket_peercred(&self.socket).map_err(io::Error::from)?.uid;
        if peer.is_root() || peer == rustix::process::geteuid() {
            Ok(())
        } else {
            Err(HandoverError::Stranger(peer.as_raw()))
        }
    }

    fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
        self.set_timeout(Timeout::Send)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(HandoverError::Cut);
        }
        let bytes = message.encode();
        match sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(HandoverError::Gone),
            Err(error) => Err(timed_out(error).into()),
        }
    }

    fn receive(&self) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
        self.set_timeout(Timeout::Recv)?;
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut iov = [IoSliceMut::new(&mut buffer)];
        let received = match recvmsg(&self.socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received,
            Err(Errno::CONNRESET) => return Err(HandoverError::Gone),
            Err(error) => return Err(timed_out(error).into()),
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(HandoverError::Cut);
        }
        match buffer.get(..received.bytes) {
            None => Err(HandoverError::Cut),
            // A message is never empty, so this is the end of the connection.
            Some([]) => Err(HandoverError::Gone),
            Some(bytes) => Ok((Message::decode(bytes)?, descriptors)),
        }
    }

    fn set_timeout(&self, which: Timeout) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(set_socket_timeout(&self.socket, which, Some(left))?)
    }
}

fn seqpacket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// A socket with a time limit says that it would block when the limit is over.
fn timed_out(error: Errno) -> io::Error {
    if error == Errno::AGAIN { io::ErrorKind::TimedOut.into() } else { error.into() }
}

#[cfg(test)]
mod tests;
