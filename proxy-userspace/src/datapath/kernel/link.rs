//! Links: they attach a program to a device until they are closed, and can tell whether they still do.
//!
//! Whoever may, can detach a link while we hold it. The kernel tells nobody; but a link that leads to no device any more
//! says so when it is asked.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const BPF_F_BEFORE: u32 = 1 << 3;
/// Where `bpf_link_info` says the device, for XDP and tcx alike.
const INFO_IFINDEX: usize = 4;

/// A link; dropping it detaches the program.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

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
        let program = program.as_raw_fd().cast_unsigned();
        let mut attributes = [program, ifindex, kind, flags, 0, 0, 0, 0];
        // SAFETY: the attributes hold no pointer.
        let fd = unsafe { bpf(BPF_LINK_CREATE, &mut attributes) }?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Whether the program is still attached; a kernel that does not tell has not detached it.
    pub(super) fn is_attached(&self) -> bool {
        self.ifindex().map_or(true, |ifindex| ifindex != 0)
    }

    fn ifindex(&self) -> io::Result<u32> {
        let mut info = Info([0; 64]);
        let mut attributes = [0_u32; 4];
        attributes[0] = self.0.as_raw_fd().cast_unsigned();
        attributes[1] = size_of::<Info>() as u32;
        let [.., low, high] = &mut attributes;
        let address = (&raw mut info as u64).to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = address;
        (*low, *high) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        // SAFETY: the address is that of `info`, which lives during the call and is as long as the attributes say.
        unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
        Ok(info.0[INFO_IFINDEX])
    }
}

/// Closing the descriptor would detach too, but not while a child process that is about to execute has a copy of it.
impl Drop for Link {
    fn drop(&mut self) {
        let mut attributes = [self.0.as_raw_fd().cast_unsigned(), 0, 0, 0];
        // SAFETY: the attributes hold no pointer.
        if let Err(error) = unsafe { bpf(BPF_LINK_DETACH, &mut attributes) } {
            tracing::debug!(%error, "a link was detached before, or closing it has to do");
        }
    }
}

/// More than `bpf_link_info` takes.
#[repr(align(8))]
struct Info([u32; 64]);

/// # Safety
/// Whatever address the attributes hold for this command is that of memory the kernel may write to.
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
