//! Which network namespace this process is in: two proxies of one host are strangers if theirs differ.

use std::{io, net::UdpSocket, os::fd::AsRawFd as _};

/// The number of this network namespace: no other one has it or gets it until the host boots again (Linux 5.14).
///
/// The inode number of the namespace will not do: it is given to the next one as soon as it is free.
pub fn cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"))?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: value and length are locals that live during the call, and the length is that of the value.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// What directories of this network namespace are called.
pub fn name() -> io::Result<String> {
    Ok(format!("net-{}", cookie()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_number() {
        let first = cookie().unwrap();
        assert_ne!(first, 0);
        assert_eq!(cookie().unwrap(), first);
        assert_eq!(name().unwrap(), format!("net-{first}"));
    }
}
