//! What a stranger with the rights to it can do to the proxy's programs: find their links and detach them.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, ensure};

const LINK_GET_FD_BY_ID: libc::c_int = 30;
const LINK_DETACH: libc::c_int = 34;

/// Detaches the link of `kind` (`xdp`, `tcx`) that `process` holds on the interface with this index.
///
/// # Errors
/// When the process holds none, or the kernel refuses.
pub fn detach(process: u32, kind: &str, ifindex: u32) -> Result<()> {
    let id = link_of(process, kind, ifindex)?.with_context(|| {
        format!("process {process} holds no {kind} link on the interface with index {ifindex}")
    })?;
    let fd = bpf(LINK_GET_FD_BY_ID, id).context("failed to open the link")?;
    // SAFETY: the kernel has just made this descriptor for us.
    let link = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd)?) };
    bpf(LINK_DETACH, u32::try_from(fd)?).context("failed to detach the link")?;
    // Asked of the link itself: its owner may attach another one at any moment.
    let said = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", link.as_raw_fd()))?;
    ensure!(field(&said, "ifindex:") == Some("0"), "a link that was detached says {said}");
    Ok(())
}

/// The kernel describes every descriptor of a process in its `fdinfo`.
fn link_of(process: u32, kind: &str, ifindex: u32) -> Result<Option<u32>> {
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        // A descriptor may have been closed in the meantime.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        if field(&text, "link_type:") == Some(kind) && field(&text, "ifindex:") == Some(&ifindex.to_string())
        {
            return Ok(field(&text, "link_id:").and_then(|id| id.parse().ok()));
        }
    }
    Ok(None)
}

fn field<'a>(fdinfo: &'a str, name: &str) -> Option<&'a str> {
    fdinfo.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()))
}

/// A command whose attributes begin with one number, the others 0.
fn bpf(command: libc::c_int, argument: u32) -> io::Result<libc::c_long> {
    let mut attributes = [0_u32; 4];
    attributes[0] = argument;
    // SAFETY: the kernel reads as many bytes of the attributes as it is told, and writes none for these commands.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
