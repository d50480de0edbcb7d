//! libsrt, as far as the tests need it.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    net::SocketAddr,
    sync::Once,
};

use anyhow::{Result, bail, ensure};
use socket2::SockAddr;

/// What is set on a socket, or asked of it; numbers of `srt.h`.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(super) enum Flag {
    SendWaits = 1,
    ReceiveWaits = 2,
    ReceiveTimeout = 14,
    Latency = 23,
    Passphrase = 26,
    ConnectTimeout = 36,
    StreamId = 46,
}

/// The beginning of libsrt's statistics, and room for the rest of them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Statistics {
    milliseconds: i64,
    sent: i64,
    received: i64,
    lost_by_sender: c_int,
    lost_by_receiver: c_int,
    sent_again: c_int,
    acknowledgements_sent: c_int,
    acknowledgements: c_int,
    complaints: [c_int; 2],
    sending: i64,
    dropped_by_sender: c_int,
    dropped_by_receiver: c_int,
    rest: [u64; 96],
}

/// What a socket counted since it was connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets sent, also again.
    pub sent: i64,
    /// Packets received.
    pub received: i64,
    /// Packets that the receiver missed when it saw a later one.
    pub lost: i32,
    /// Packets sent again.
    pub sent_again: i32,
    /// Packets that came too late to be played, or not at all.
    pub dropped: i32,
    /// Acknowledgements received: they tell who sends that somebody receives.
    pub acknowledgements: i32,
}

type ListenHook = extern "C" fn(*mut c_void, c_int, c_int, *const libc::sockaddr, *const c_char) -> c_int;

#[link(name = "srt")]
unsafe extern "C" {
    fn srt_startup() -> c_int;
    fn srt_setloglevel(level: c_int);
    fn srt_create_socket() -> c_int;
    fn srt_setsockflag(socket: c_int, flag: c_int, value: *const c_void, length: c_int) -> c_int;
    fn srt_getsockflag(socket: c_int, flag: c_int, value: *mut c_void, length: *mut c_int) -> c_int;
    fn srt_bind(socket: c_int, address: *const libc::sockaddr, length: c_int) -> c_int;
    fn srt_listen(socket: c_int, backlog: c_int) -> c_int;
    fn srt_listen_callback(socket: c_int, hook: ListenHook, opaque: *mut c_void) -> c_int;
    fn srt_accept(socket: c_int, address: *mut libc::sockaddr_storage, length: *mut c_int) -> c_int;
    fn srt_connect(socket: c_int, address: *const libc::sockaddr, length: c_int) -> c_int;
    fn srt_getsockname(socket: c_int, address: *mut libc::sockaddr_storage, length: *mut c_int) -> c_int;
    fn srt_send(socket: c_int, bytes: *const u8, length: c_int) -> c_int;
    fn srt_recv(socket: c_int, bytes: *mut u8, length: c_int) -> c_int;
    fn srt_close(socket: c_int) -> c_int;
    fn srt_bstats(socket: c_int, statistics: *mut Statistics, clear: c_int) -> c_int;
    fn srt_getrejectreason(socket: c_int) -> c_int;
    fn srt_setrejectreason(socket: c_int, reason: c_int) -> c_int;
    fn srt_getlasterror(system: *mut c_int) -> c_int;
    fn srt_getlasterror_str() -> *const c_char;
}

/// `SRT_EASYNCRCV`, `SRT_EASYNCSND` and `SRT_ETIMEOUT`: nothing yet.
const NOT_YET: [c_int; 3] = [6002, 6001, 6003];
/// `LOG_CRIT`: what tests provoke is no news.
const CRITICAL: c_int = 2;

/// A socket; it is closed when dropped.
#[derive(Debug)]
pub(super) struct Socket(c_int);

impl Socket {
    pub(super) fn new() -> Result<Self> {
        static START: Once = Once::new();
        // SAFETY: neither has preconditions; the library is never cleaned up.
        START.call_once(|| unsafe {
            srt_startup();
            srt_setloglevel(CRITICAL);
        });
        // SAFETY: the library has been started.
        Self::checked(unsafe { srt_create_socket() })
    }

    fn checked(socket: c_int) -> Result<Self> {
        if socket < 0 { bail!("{}", last_error()) } else { Ok(Self(socket)) }
    }

    pub(super) fn set(&self, flag: Flag, value: i32) -> Result<()> {
        // SAFETY: the value lives through the call, and every flag that is set by a number has four bytes or takes them.
        let set = unsafe { srt_setsockflag(self.0, flag as c_int, (&raw const value).cast(), 4) };
        ensure!(set == 0, "{flag:?}: {}", last_error());
        Ok(())
    }

    pub(super) fn set_text(&self, flag: Flag, text: &str) -> Result<()> {
        let length = c_int::try_from(text.len())?;
        // SAFETY: the text lives through the call, which copies it.
        let set = unsafe { srt_setsockflag(self.0, flag as c_int, text.as_ptr().cast(), length) };
        ensure!(set == 0, "{flag:?}: {}", last_error());
        Ok(())
    }

    pub(super) fn stream_id(&self) -> Result<String> {
        let mut text = [0_u8; 513];
        let mut length = c_int::try_from(text.len())?;
        // SAFETY: the buffer has the length that is told.
        let got = unsafe {
            srt_getsockflag(self.0, Flag::StreamId as c_int, text.as_mut_ptr().cast(), &raw mut length)
        };
        ensure!(got == 0, "{}", last_error());
        let text = text.get(..usize::try_from(length)?).unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    pub(super) fn bind(&self, address: SocketAddr) -> Result<()> {
        let address = SockAddr::from(address);
        // SAFETY: the address lives through the call.
        let bound = unsafe { srt_bind(self.0, address.as_ptr().cast(), length_of(&address)) };
        ensure!(bound == 0, "{}", last_error());
        Ok(())
    }

    /// Listens, and refuses with this reason who wants a stream with this name in its id.
    pub(super) fn listen(&self, backlog: i32) -> Result<()> {
        // SAFETY: the hook is a function, and gets no pointer of ours.
        let hooked = unsafe { srt_listen_callback(self.0, refuse_forbidden, std::ptr::null_mut()) };
        ensure!(hooked == 0, "{}", last_error());
        // SAFETY: the socket is ours.
        let listening = unsafe { srt_listen(self.0, backlog) };
        ensure!(listening == 0, "{}", last_error());
        Ok(())
    }

    /// Somebody who called and whom it was, if there is one.
    pub(super) fn accept(&self) -> Result<Option<(Self, SocketAddr)>> {
        let mut storage = socket2::SockAddrStorage::zeroed();
        let mut length = c_int::try_from(storage.size_of())?;
        // SAFETY: the storage has the length that is told, and is that of any address.
        let socket = unsafe { srt_accept(self.0, (&raw mut storage).cast(), &raw mut length) };
        if socket < 0 {
            return if is_not_yet() { Ok(None) } else { bail!("{}", last_error()) };
        }
        // SAFETY: the library has filled it.
        let address = unsafe { SockAddr::new(storage, u32::try_from(length)?) };
        Ok(Some((Self(socket), address.as_socket().unwrap_or_else(|| ([0, 0, 0, 0], 0).into()))))
    }

    pub(super) fn connect(&self, address: SocketAddr) -> Result<(), i32> {
        let address = SockAddr::from(address);
        // SAFETY: the address lives through the call.
        let connected = unsafe { srt_connect(self.0, address.as_ptr().cast(), length_of(&address)) };
        // SAFETY: the socket is ours.
        if connected < 0 { Err(unsafe { srt_getrejectreason(self.0) }) } else { Ok(()) }
    }

    pub(super) fn local_addr(&self) -> Result<SocketAddr> {
        let mut storage = socket2::SockAddrStorage::zeroed();
        let mut length = c_int::try_from(storage.size_of())?;
        // SAFETY: the storage has the length that is told, and is that of any address.
        let got = unsafe { srt_getsockname(self.0, (&raw mut storage).cast(), &raw mut length) };
        ensure!(got == 0, "{}", last_error());
        // SAFETY: the library has filled it.
        let address = unsafe { SockAddr::new(storage, u32::try_from(length)?) };
        address.as_socket().ok_or_else(|| anyhow::anyhow!("no address of an IP version"))
    }

    /// Sends one packet; false if there is no room for it.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<bool> {
        // SAFETY: the bytes live through the call.
        let sent = unsafe { srt_send(self.0, bytes.as_ptr(), c_int::try_from(bytes.len())?) };
        if sent < 0 && !is_not_yet() {
            bail!("{}", last_error());
        }
        Ok(sent >= 0)
    }

    /// Receives one packet; none if there is none yet.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
        // SAFETY: the buffer has the length that is told.
        let length = unsafe { srt_recv(self.0, buffer.as_mut_ptr(), c_int::try_from(buffer.len())?) };
        match usize::try_from(length) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(_) if is_not_yet() => Ok(None),
            Err(_) => bail!("{}", last_error()),
        }
    }

    pub(super) fn counts(&self) -> Result<Counts> {
        // SAFETY: numbers alone, of which zeroes are some.
        let mut statistics: Statistics = unsafe { std::mem::zeroed() };
        // SAFETY: there is more room than the library's type has in any version.
        let told = unsafe { srt_bstats(self.0, &raw mut statistics, 0) };
        ensure!(told == 0, "{}", last_error());
        let Statistics {
            sent,
            received,
            lost_by_receiver: lost,
            sent_again,
            dropped_by_receiver: dropped,
            acknowledgements,
            ..
        } = statistics;
        Ok(Counts { sent, received, lost, sent_again, dropped, acknowledgements })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: the socket is ours, and nobody uses it after this.
        unsafe { srt_close(self.0) };
    }
}

extern "C" fn refuse_forbidden(
    _: *mut c_void,
    socket: c_int,
    _: c_int,
    _: *const libc::sockaddr,
    stream_id: *const c_char,
) -> c_int {
    if stream_id.is_null() {
        return 0;
    }
    // SAFETY: the library gives a text that lives through the call.
    let id = unsafe { CStr::from_ptr(stream_id) }.to_string_lossy();
    if !id.contains(super::origin::FORBIDDEN) {
        return 0;
    }
    const FORBIDDEN: c_int = 1403;
    // SAFETY: the socket is the one that is being accepted.
    unsafe { srt_setrejectreason(socket, FORBIDDEN) };
    -1
}

fn length_of(address: &SockAddr) -> c_int {
    c_int::try_from(address.len()).unwrap_or_default()
}

fn is_not_yet() -> bool {
    // SAFETY: a null pointer is allowed.
    NOT_YET.contains(&unsafe { srt_getlasterror(std::ptr::null_mut()) })
}

fn last_error() -> String {
    // SAFETY: the library gives a text of its own for this thread.
    unsafe { CStr::from_ptr(srt_getlasterror_str()) }.to_string_lossy().into_owned()
}
