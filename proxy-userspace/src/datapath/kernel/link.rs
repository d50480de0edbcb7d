//! Links: they attach a program to a device until they are closed, and can tell whether they still do.
//!
//! A link that is pinned stays when it is closed, so also when its process dies, and another process opens it again and
//! has it run another program, from one frame to the next.
//!
//! Whoever may, can detach a link while we hold it. The kernel tells nobody; but a link that leads to no device any more
//! says so when it is asked.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const BPF_F_BEFORE: u32 = 1 << 3;
/// Where `bpf_link_info` says the device, for XDP and tcx alike.
const INFO_IFINDEX: usize = 4;

/// A link; dropping it detaches the program, unless it is pinned.
#[derive(Debug)]
pub(super) struct Link {
    fd: OwnedFd,
    pin: Option<PathBuf>,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    /// In the driver.
    NativeXdp,
    /// At ingress, in front of other programs (Linux 6.6).
    TcxFirst,
}

impl Link {
    /// Attaches `program` to a device.
    pub(super) fn create(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<Self> {
        let (kind, flags) = match hook {
            Hook::NativeXdp => (BPF_XDP, XDP_FLAGS_DRV_MODE),
            Hook::TcxFirst => (BPF_TCX_INGRESS, BPF_F_BEFORE),
        };
        let mut attributes = [program.as_raw_fd().cast_unsigned(), ifindex, kind, flags, 0, 0, 0, 0];
        // SAFETY: the attributes hold no pointer.
        let fd = unsafe { bpf(BPF_LINK_CREATE, &mut attributes) }?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, pin: None })
    }

    /// The link that is pinned there.
    pub(super) fn open(pin: &Path) -> io::Result<Self> {
        let name = CString::new(pin.as_os_str().as_bytes())?;
        let [low, high] = halves(name.as_ptr() as u64);
        let mut attributes = [low, high, 0, 0];
        // SAFETY: the address is that of `name`, which ends in a zero and which the kernel only reads.
        let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, pin: Some(pin.to_owned()) })
    }

    /// Has it stay when it is closed.
    pub(super) fn pin(&mut self, pin: PathBuf) -> io::Result<()> {
        pin_object(self.fd.as_raw_fd(), &pin)?;
        self.pin = Some(pin);
        Ok(())
    }

    /// Has it go when it is closed.
    pub(super) fn unpin(&mut self) {
        if let Some(pin) = self.pin.take()
            && let Err(error) = fs::remove_file(&pin)
        {
            tracing::warn!(pin = %pin.display(), %error, "failed to unpin a link");
        }
    }

    /// Has it run another program: each frame meets the one or the other.
    pub(super) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attributes = [self.fd.as_raw_fd().cast_unsigned(), program.as_raw_fd().cast_unsigned(), 0, 0];
        // SAFETY: the attributes hold no pointer.
        unsafe { bpf(BPF_LINK_UPDATE, &mut attributes) }.map(drop)
    }

    /// Detaches it, whoever else has it.
    pub(super) fn detach(&self) {
        let mut attributes = [self.fd.as_raw_fd().cast_unsigned(), 0, 0, 0];
        // SAFETY: the attributes hold no pointer.
        if let Err(error) = unsafe { bpf(BPF_LINK_DETACH, &mut attributes) } {
            tracing::debug!(%error, "a link was detached before, or closing it has to do");
        }
    }

    /// Whether the program is still attached; a kernel that does not tell has not detached it.
    pub(super) fn is_attached(&self) -> bool {
        self.ifindex().map_or(true, |ifindex| ifindex != 0)
    }

    /// The device, or 0 if it is attached to none any more.
    pub(super) fn ifindex(&self) -> io::Result<u32> {
        let mut info = Info([0; 64]);
        let [low, high] = halves(&raw mut info as u64);
        let mut attributes = [self.fd.as_raw_fd().cast_unsigned(), size_of::<Info>() as u32, low, high];
        // SAFETY: the address is that of `info`, which lives during the call and is as long as the attributes say.
        unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
        Ok(info.0[INFO_IFINDEX])
    }
}

/// Closing the descriptor would detach too, but not while a child process that is about to execute has a copy of it.
impl Drop for Link {
    fn drop(&mut self) {
        if self.pin.is_none() {
            self.detach();
        }
    }
}

/// Keeps what is behind a descriptor until the pin is removed.
pub(super) fn pin_object(fd: RawFd, pin: &Path) -> io::Result<()> {
    let name = CString::new(pin.as_os_str().as_bytes())?;
    let [low, high] = halves(name.as_ptr() as u64);
    let mut attributes = [low, high, fd.cast_unsigned(), 0];
    // SAFETY: the address is that of `name`, which ends in a zero and which the kernel only reads.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }.map(drop)
}

/// An address as two attributes.
fn halves(address: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = address.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// More than `bpf_link_info` takes.
#[repr(align(8))]
struct Info([u32; 64]);

/// # Safety
/// Whatever address the attributes hold for this command is that of memory the kernel may use as the command does.
unsafe fn bpf<const N: usize>(command: libc::c_int, attributes: &mut [u32; N]) -> io::Result<RawFd> {
    // SAFETY: the kernel reads as many bytes of the attributes as it is told; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        RawFd::try_from(result).map_err(io::Error::other)
    }
}
