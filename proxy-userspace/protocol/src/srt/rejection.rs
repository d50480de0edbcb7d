//! Why a connection is refused, in the numbers of libsrt (`srt.h`, `access_control.h`).

/// A reason of libsrt, or one of a server's above 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rejection(pub u32);

impl Rejection {
    /// `SRT_REJ_RESOURCE`.
    pub const RESOURCE: Self = Self(3);
    /// `SRT_REJ_ROGUE`: the handshake makes no sense.
    pub const ROGUE: Self = Self(4);
    /// `SRT_REJ_CLOSE`: the listener closes.
    pub const CLOSE: Self = Self(7);
    /// `SRT_REJ_VERSION`: the caller is too old.
    pub const VERSION: Self = Self(8);
    /// `SRT_REJX_BAD_REQUEST`: a stream id that names no stream.
    pub const BAD_REQUEST: Self = Self(1400);
    /// `SRT_REJX_OVERLOAD`.
    pub const OVERLOAD: Self = Self(1402);
    /// `SRT_REJX_BAD_MODE`: neither publish nor request.
    pub const BAD_MODE: Self = Self(1405);
    /// `SRT_REJX_UNIMPLEMENTED`.
    pub const UNIMPLEMENTED: Self = Self(1501);
    /// `SRT_REJX_GW`: the server behind a gateway does not answer.
    pub const GATEWAY: Self = Self(1502);
    /// `SRT_REJX_DOWN`: there is no server now.
    pub const DOWN: Self = Self(1503);
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
