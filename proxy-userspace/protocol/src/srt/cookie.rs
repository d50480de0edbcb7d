//! Cookies that prove a caller's address without anything being stored for it.

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// How long a cookie is the current one; it is accepted for as long once more.
pub const SLICE_SECONDS: u64 = 60;

/// The secret that cookies are made with.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieKey([u8; 32]);

impl CookieKey {
    /// Of random bytes.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// The secret, for the process that takes over.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The cookie of a caller that calls our port in a slice of time.
    #[must_use]
    pub fn cookie(&self, caller: SocketAddr, port: u16, slice: u64) -> u32 {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of HMAC has any length");
        match caller.ip().to_canonical() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&caller.port().to_be_bytes());
        mac.update(&port.to_be_bytes());
        mac.update(&slice.to_be_bytes());
        let [a, b, c, d, ..]: [u8; 32] = mac.finalize().into_bytes().into();
        // A first request carries 0, so no cookie is that.
        u32::from_be_bytes([a, b, c, d]).max(1)
    }

    /// Whether a cookie is that of a caller in this slice or the one before.
    #[must_use]
    pub fn accepts(&self, cookie: u32, caller: SocketAddr, port: u16, slice: u64) -> bool {
        cookie == self.cookie(caller, port, slice)
            || slice.checked_sub(1).is_some_and(|before| cookie == self.cookie(caller, port, before))
    }
}

impl std::fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieKey(secret)")
    }
}
