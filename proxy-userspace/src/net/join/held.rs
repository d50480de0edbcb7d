//! What was read and is not written yet.

use std::io;

use bytes::{Buf as _, Bytes};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::net::TcpStream;

use super::{buffer::Buffer, pipe::Pipe};

#[derive(Debug, Default)]
pub(super) enum Held {
    #[default]
    Nothing,
    /// Read before the connections were joined.
    Bytes(Bytes),
    Buffer(Buffer),
    Pipe(Pipe),
}

/// What came of moving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) bytes: usize,
    /// The socket has no more, or takes no more, for now.
    pub(super) is_short: bool,
}

impl Held {
    /// Empty bytes may be the end of a big buffer, which is given back.
    pub(super) fn of(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Nothing } else { Self::Bytes(bytes) }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Buffer(buffer) => buffer.filled().is_empty(),
            Self::Pipe(pipe) => pipe.filled() == 0,
        }
    }

    /// Reads by copying; nothing may be held.
    pub(super) fn copy_from(&mut self, socket: &TcpStream) -> io::Result<Moved> {
        let mut buffer = Buffer::borrow();
        let space = buffer.space();
        let room = space.len();
        let (bytes, _) = recv(socket, space, RecvFlags::empty())?;
        buffer.fill(bytes);
        *self = Self::Buffer(buffer);
        Ok(Moved { bytes, is_short: bytes < room })
    }

    /// Reads by splicing into a pipe; nothing may be held.
    pub(super) fn splice_from(&mut self, socket: &TcpStream, mut pipe: Pipe) -> io::Result<Moved> {
        let bytes = pipe.fill_from(socket)?;
        *self = Self::Pipe(pipe);
        // A pipe may be full although there is room in it: small packets fill its slots. So only the next attempt tells.
        Ok(Moved { bytes, is_short: false })
    }

    /// Writes, and lends nothing any longer once all is written.
    pub(super) fn write_to(&mut self, socket: &TcpStream) -> io::Result<Moved> {
        let moved = match self {
            Self::Nothing => 0,
            Self::Bytes(bytes) => {
                let sent = send(socket, bytes, SendFlags::NOSIGNAL)?;
                bytes.advance(sent);
                sent
            }
            Self::Buffer(buffer) => {
                let sent = send(socket, buffer.filled(), SendFlags::NOSIGNAL)?;
                buffer.take(sent);
                sent
            }
            Self::Pipe(pipe) => pipe.drain_to(socket)?,
        };
        let is_short = !self.is_empty();
        if !is_short {
            *self = Self::Nothing;
        }
        Ok(Moved { bytes: moved, is_short })
    }
}
