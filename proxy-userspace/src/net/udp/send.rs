//! Sending in batches: neighbouring bursts to one receiver become one message, which the kernel cuts, and messages
//! leave by one system call.

use std::{
    io,
    mem::zeroed,
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockAddr;

use super::{BATCH, Transmit, UdpSocket, control::Control};

/// Pieces of payload in the messages of one call.
const PIECES: usize = 4 * BATCH;
/// What the kernel cuts a message into at most (`UDP_MAX_SEGMENTS` before 6.1; more since).
const MAX_SEGMENTS: usize = 64;
/// The longest message: the payload of an IPv4 datagram that has options of the longest kind.
const MAX_MESSAGE: usize = 65_535 - 60 - 8;
/// A socket whose buffer is full gets this long, once a batch; longer, and other sockets would lose what they got.
const PATIENCE: Duration = Duration::from_millis(1);

/// Datagrams of equal length, but for the last, to one receiver.
#[derive(Clone, Copy, Debug)]
pub struct Burst<'a> {
    /// Their receiver, and their payloads one after the other.
    pub transmit: Transmit<'a>,
    /// The length of each but the last.
    pub segment: usize,
}

/// What became of datagrams of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which burst of those given.
    pub burst: usize,
    /// How many of its datagrams.
    pub datagrams: usize,
    /// Their payload bytes.
    pub bytes: usize,
    /// Whether the kernel took them.
    pub taken: bool,
}

/// Room for the messages of one call, made once and used again.
pub struct SendBatch {
    messages: Vec<Message>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    pieces: Vec<Piece>,
    /// A wait was granted to this batch.
    waited: bool,
    /// The message that was tried again last.
    retried: Option<usize>,
}

/// A message being put together.
struct Message {
    /// Where it goes and how; its payload is in the pieces.
    route: Transmit<'static>,
    name: SockAddr,
    control: Control,
    /// The length of its datagrams but the last.
    segment: usize,
    datagrams: usize,
    bytes: usize,
    pieces: Range<usize>,
}

/// What a piece of payload is part of.
#[derive(Clone, Copy)]
struct Piece {
    burst: usize,
    datagrams: usize,
    bytes: usize,
}

// SAFETY: pointers are in the vectors during a call of `send_batch` alone.
unsafe impl Send for SendBatch {}

impl std::fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendBatch").field("messages", &self.messages.len()).finish_non_exhaustive()
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self {
            messages: Vec::with_capacity(BATCH),
            headers: Vec::with_capacity(BATCH),
            iovecs: Vec::with_capacity(PIECES),
            pieces: Vec::with_capacity(PIECES),
            waited: false,
            retried: None,
        }
    }
}

impl UdpSocket {
    /// Sends `bursts` in their order and reports what became of every datagram.
    pub fn send_batch<'a>(
        &self,
        room: &mut SendBatch,
        bursts: impl IntoIterator<Item = Burst<'a>>,
        mut report: impl FnMut(Sent),
    ) {
        room.waited = false;
        for (index, burst) in bursts.into_iter().enumerate() {
            let cut = self.cuts_runs();
            for part in parts(burst, cut) {
                if room.is_full() {
                    room.flush(self, &mut report);
                }
                if !(cut && room.join(&part, index)) {
                    room.begin(&part, index);
                }
            }
        }
        room.flush(self, &mut report);
    }
}

/// What becomes messages of its own: as much as the kernel cuts, or single datagrams.
fn parts(burst: Burst<'_>, cut: bool) -> impl Iterator<Item = Burst<'_>> {
    let segment = burst.segment.max(1);
    let most = if cut { MAX_SEGMENTS.min(MAX_MESSAGE / segment).max(1) } else { 1 };
    let payload = burst.transmit.payload;
    (0..payload.len().max(1)).step_by(segment * most).map(move |start| {
        let end = payload.len().min(start + segment * most);
        let payload = payload.get(start..end).unwrap_or_default();
        Burst { transmit: Transmit { payload, ..burst.transmit }, segment: segment.min(payload.len()) }
    })
}

impl Burst<'_> {
    fn datagrams(&self) -> usize {
        self.transmit.payload.len().div_ceil(self.segment.max(1)).max(1)
    }
}

impl SendBatch {
    fn is_full(&self) -> bool {
        self.messages.len() == BATCH || self.pieces.len() == PIECES
    }

    /// Adds `part` to the last message if the kernel will cut both apart again where they meet.
    fn join(&mut self, part: &Burst<'_>, burst: usize) -> bool {
        let joins = self.messages.last_mut().is_some_and(|message| message.take(part));
        if joins {
            self.add_piece(part, burst);
        }
        joins
    }

    fn begin(&mut self, part: &Burst<'_>, burst: usize) {
        self.messages.push(Message {
            route: Transmit { payload: &[], ..part.transmit },
            name: part.transmit.peer.into(),
            control: Control::default(),
            segment: part.segment,
            datagrams: part.datagrams(),
            bytes: part.transmit.payload.len(),
            pieces: self.pieces.len()..self.pieces.len(),
        });
        self.add_piece(part, burst);
    }

    fn add_piece(&mut self, part: &Burst<'_>, burst: usize) {
        let payload = part.transmit.payload;
        self.iovecs
            .push(libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() });
        self.pieces.push(Piece { burst, datagrams: part.datagrams(), bytes: payload.len() });
        if let Some(message) = self.messages.last_mut() {
            message.pieces.end = self.pieces.len();
        }
    }

    /// Sends what was gathered and forgets it.
    fn flush(&mut self, socket: &UdpSocket, report: &mut impl FnMut(Sent)) {
        self.write_headers(socket);
        let mut next = 0;
        while let Some(rest) = self.headers.get_mut(next..).filter(|rest| !rest.is_empty()) {
            match send_many(socket, rest) {
                Ok(sent) => {
                    (next..next + sent).for_each(|at| self.report(at, true, report));
                    next += sent;
                }
                Err(error) => {
                    if self.must_give_up(socket, next, &error, report) {
                        next += 1;
                    }
                }
            }
        }
        self.retried = None;
        self.messages.clear();
        self.headers.clear();
        self.iovecs.clear();
        self.pieces.clear();
    }

    /// Points the headers at the messages, none of which moves until they are sent.
    fn write_headers(&mut self, socket: &UdpSocket) {
        let iovecs = self.iovecs.as_mut_ptr();
        for message in &mut self.messages {
            // SAFETY: mmsghdr is plain data for which zeroes are valid.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_name = message.name.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = message.name.len();
            header.msg_hdr.msg_iov = iovecs.wrapping_add(message.pieces.start);
            header.msg_hdr.msg_iovlen = message.pieces.len();
            let segment = u16::try_from(message.segment).ok().filter(|_| message.datagrams > 1);
            message.control.write(&mut header.msg_hdr, &message.route, socket.local.ip(), segment);
            self.headers.push(header);
        }
    }

    /// Copes with `error`, which the message `at` met: false to try it again, true if it was dealt with.
    fn must_give_up(
        &mut self,
        socket: &UdpSocket,
        at: usize,
        error: &io::Error,
        report: &mut impl FnMut(Sent),
    ) -> bool {
        let is_run = self.messages.get(at).is_some_and(|message| message.datagrams > 1);
        if error.kind() == io::ErrorKind::Interrupted {
            return false;
        }
        if error.kind() == io::ErrorKind::WouldBlock && !self.waited {
            self.waited = true;
            wait_for_room(socket);
            return false;
        }
        if is_run && refuses_to_cut(error) {
            if error.raw_os_error() == Some(libc::EIO) {
                socket.stop_cutting_runs();
            }
            self.send_one_by_one(socket, at, report);
            return true;
        }
        if belongs_to_an_earlier_datagram(error) && self.retried != Some(at) {
            self.retried = Some(at);
            return false;
        }
        self.report(at, false, report);
        true
    }

    /// Sends the datagrams of a message that the kernel does not cut.
    fn send_one_by_one(&self, socket: &UdpSocket, at: usize, report: &mut impl FnMut(Sent)) {
        let Some(message) = self.messages.get(at) else { return };
        let pieces = self.pieces.get(message.pieces.clone()).unwrap_or_default();
        let iovecs = self.iovecs.get(message.pieces.clone()).unwrap_or_default();
        for (piece, iovec) in pieces.iter().zip(iovecs) {
            // SAFETY: the piece is part of a burst that `send_batch` borrows until it returns.
            let payload = unsafe { std::slice::from_raw_parts(iovec.iov_base.cast::<u8>(), iovec.iov_len) };
            for datagram in payload.chunks(message.segment) {
                let taken = socket.send(&Transmit { payload: datagram, ..message.route }).is_ok();
                report(Sent { burst: piece.burst, datagrams: 1, bytes: datagram.len(), taken });
            }
        }
    }

    fn report(&self, at: usize, taken: bool, report: &mut impl FnMut(Sent)) {
        let pieces = self.messages.get(at).and_then(|message| self.pieces.get(message.pieces.clone()));
        for &Piece { burst, datagrams, bytes } in pieces.into_iter().flatten() {
            report(Sent { burst, datagrams, bytes, taken });
        }
    }
}

impl Message {
    /// Takes `part` in if the kernel will cut it off where it begins.
    fn take(&mut self, part: &Burst<'_>) -> bool {
        let (datagrams, bytes) = (part.datagrams(), part.transmit.payload.len());
        let is_whole = self.bytes == self.datagrams * self.segment;
        let fits = part.segment == self.segment || (datagrams == 1 && bytes < self.segment);
        let joins = is_whole
            && fits
            && bytes > 0
            && self.goes_like(&part.transmit)
            && self.datagrams + datagrams <= MAX_SEGMENTS
            && self.bytes + bytes <= MAX_MESSAGE;
        if joins {
            self.datagrams += datagrams;
            self.bytes += bytes;
        }
        joins
    }

    fn goes_like(&self, other: &Transmit<'_>) -> bool {
        let own = &self.route;
        own.peer == other.peer && own.local_ip == other.local_ip && own.traffic_class == other.traffic_class
    }
}

/// An ICMP message about a datagram sent before: the kernel tells it once, instead of sending this one.
pub(super) fn belongs_to_an_earlier_datagram(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

/// The device computes no checksums (EIO), or a datagram and its headers are longer than its MTU (EINVAL, EMSGSIZE).
fn refuses_to_cut(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP))
}

fn send_many(socket: &UdpSocket, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let (fd, count) = (socket.as_fd().as_raw_fd(), headers.len() as libc::c_uint);
    if let [header] = headers
        && header.msg_hdr.msg_controllen == 0
        && header.msg_hdr.msg_iovlen == 1
    {
        return send_plain(fd, &header.msg_hdr);
    }
    // SAFETY: `write_headers` pointed the headers at messages, control messages and pieces that live until they are
    // sent; the kernel writes to the lengths in the headers alone.
    let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Sends the one piece of `header` without a header, which the kernel need not read and check then: a twentieth of what
/// a datagram costs.
fn send_plain(fd: RawFd, header: &libc::msghdr) -> io::Result<usize> {
    // SAFETY: as in `send_many`, of which this is a part; the vector is that of the only piece.
    let sent = unsafe {
        let (piece, name) = (*header.msg_iov, header.msg_name.cast());
        libc::sendto(fd, piece.iov_base, piece.iov_len, libc::MSG_DONTWAIT, name, header.msg_namelen)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(1) }
}

fn wait_for_room(socket: &UdpSocket) {
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(PATIENCE.subsec_nanos()) };
    // Whatever comes of it, the next attempt tells.
    let _ready = poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&patience));
}
