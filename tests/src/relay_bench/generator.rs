//! Frames put on a link at a steady rate, past the sender's stack.

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Frames of one system call.
pub(super) const BURST: usize = 64;

/// `struct virtio_net_hdr`: the device is to finish the checksum, as for any frame of a local sender.
const CHECKSUM_LEFT: [u8; 10] = {
    let mut header = [0; 10];
    header[0] = 1;
    header[6] = 34;
    header[8] = 6;
    header
};

/// Frames ready to go.
pub(super) struct Generator {
    socket: OwnedFd,
    /// What the headers point at.
    _frames: Vec<Vec<u8>>,
    _iovecs: Vec<[libc::iovec; 2]>,
    headers: Vec<libc::mmsghdr>,
    /// Where the next burst begins.
    next: usize,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Generator {
    /// Will send `frames`, which are whole bursts, over and over by `device` of the calling thread's network namespace.
    pub(super) fn new(device: &str, mut frames: Vec<Vec<u8>>) -> Result<Self> {
        let socket = packet_socket(device)?;
        let part =
            |bytes: &mut [u8]| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let checksum_left =
            libc::iovec { iov_base: CHECKSUM_LEFT.as_ptr().cast_mut().cast(), iov_len: CHECKSUM_LEFT.len() };
        let mut iovecs: Vec<_> = frames.iter_mut().map(|frame| [checksum_left, part(frame)]).collect();
        let headers = iovecs.iter_mut().map(|iovecs| {
            // SAFETY: mmsghdr is plain data for which zeroes are valid.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_iov = iovecs.as_mut_ptr();
            header.msg_hdr.msg_iovlen = iovecs.len();
            header
        });
        let headers = headers.collect();
        Ok(Self { socket, _frames: frames, _iovecs: iovecs, headers, next: 0 })
    }

    /// Sends bursts at `rate` packets per second for `duration`.
    pub(super) fn send(&mut self, rate: f64, duration: Duration) -> io::Result<()> {
        let pause = Duration::from_secs_f64(BURST as f64 / rate);
        let (start, mut due) = (Instant::now(), Instant::now());
        while start.elapsed() < duration {
            self.burst()?;
            due += pause;
            let now = Instant::now();
            if due > now {
                sleep(due - now);
            } else if now - due > Duration::from_millis(2) {
                // A sender that fell behind does not make it up by a flood that no relay was asked to take.
                due = now;
            }
        }
        Ok(())
    }

    fn burst(&mut self) -> io::Result<()> {
        let (mut sent, end) = (self.next, self.next + BURST);
        self.next = end % self.headers.len();
        while let Some(rest) = self.headers.get_mut(sent..end).filter(|rest| !rest.is_empty()) {
            // SAFETY: the headers point at frames and vectors that this struct owns and never moves.
            let n = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0)
            };
            match usize::try_from(n) {
                Ok(n) => sent += n,
                // The link's queue is full: what it did not take was not offered.
                Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS) => sent += 1,
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }
}

fn packet_socket(device: &str) -> Result<OwnedFd> {
    let all = i32::from(0u16.to_be());
    // SAFETY: a new descriptor, checked and owned from here on.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all);
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        OwnedFd::from_raw_fd(fd)
    };
    for option in [libc::PACKET_QDISC_BYPASS, libc::PACKET_VNET_HDR] {
        set_packet_option(&socket, option)?;
    }
    let name = CString::new(device)?;
    // SAFETY: sockaddr_ll is plain data for which zeroes are valid; the calls read it and the name.
    let bound = unsafe {
        let mut address: libc::sockaddr_ll = zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()).cast_signed();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length)
    };
    if bound < 0 { Err(io::Error::last_os_error().into()) } else { Ok(socket) }
}

fn set_packet_option(socket: &OwnedFd, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is an int that lives during the call.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
