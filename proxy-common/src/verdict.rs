//! What happens to a frame, and why: the one list of reasons that the kernel counts, metrics name and tests expect.

use crate::{family::Family, forward::Forward};

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict<F: Family> {
    /// Rewrite it and send it on its way.
    Forward(Forward<F>),
    /// Leave it as it is to whoever comes next: the TC program, the stack, our sockets.
    Pass(Reason),
    /// Discard it.
    Drop(Reason),
}

/// Which program forwards on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Engine {
    /// Native XDP, with TC behind it.
    Xdp,
    /// TC (tcx or clsact).
    Tc,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 2] = [Self::Xdp, Self::Tc];

    /// Its word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

macro_rules! reasons {
    ($($(#[$meta:meta])* $variant:ident = $word:literal,)*) => {
        /// Why a frame was forwarded, passed up or dropped; every way out of the packet path has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason { $($(#[$meta])* $variant,)* }

        impl Reason {
            /// Every reason, by index.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// Its word in logs and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

reasons! {
    /// Rewritten and sent.
    Forwarded = "forwarded",
    /// Shorter than the headers of a UDP datagram.
    Truncated = "truncated",
    /// Carries a VLAN tag: the VLAN's own device forwards it.
    Vlan = "vlan",
    /// Another network protocol.
    NotIp = "not_ip",
    /// IPv4 options: the ports are not where we look.
    IpOptions = "ip_options",
    /// Another transport protocol.
    NotUdp = "not_udp",
    /// A piece of a datagram: all but the first have no ports.
    Fragment = "fragment",
    /// No hop is left.
    TtlExpired = "ttl_expired",
    /// The lengths of frame, IP and UDP do not fit together.
    LengthMismatch = "length_mismatch",
    /// The owner of the tables has been gone for too long.
    Orphaned = "orphaned",
    /// UDP over IPv6 without a checksum.
    ChecksumMissing = "checksum_missing",
    /// No flow has this key.
    NoFlow = "no_flow",
    /// No flow has this key, and it is a STUN request: a session or a tuple of it begins.
    StunWithoutFlow = "stun_without_flow",
    /// No flow has this key, and it is an SRT handshake: somebody calls.
    CallWithoutFlow = "call_without_flow",
    /// No flow has this key, the packet cannot begin a session, and every relayed tuple has a record: dropped.
    Unsolicited = "unsolicited",
    /// No flow has this key, and its source or all sources together have sent more such packets than may come up: dropped.
    Policed = "policed",
    /// The key's record is that of a session which was silent for too long.
    Expired = "expired",
    /// Userspace relays this flow.
    UserState = "user_state",
    /// The flow's session is gone; its last packets are not for the next one.
    Quarantined = "quarantined",
    /// A STUN packet that userspace asked for.
    EscalatedCheck = "escalated_check",
    /// An SRT handshake of a forwarded conversation: its answer may have been lost, or given already.
    SrtHandshake = "srt_handshake",
    /// The next hop is not known.
    NextHopUnusable = "next_hop_unusable",
    /// Longer than the next hop's MTU.
    Oversize = "oversize",
    /// Another engine sends this kind of frame, or to this kind of next hop.
    EngineCannot = "engine_cannot",
    /// The sender left the checksum to us and the frame is too long to compute it.
    ChecksumTooLong = "checksum_too_long",
    /// A kernel helper failed in the midst of the rewrite.
    RewriteFailed = "rewrite_failed",
    /// Not a STUN message although its first bytes say so; userspace only, as all that follow.
    MalformedStun = "malformed_stun",
    /// A STUN request whose USERNAME names no session.
    UnknownUser = "unknown_user",
    /// A STUN request whose MESSAGE-INTEGRITY does not verify.
    BadIntegrity = "bad_integrity",
    /// Not an SRT handshake although its first bytes say so, or one that nobody who calls sends.
    MalformedHandshake = "malformed_handshake",
    /// An SRT handshake whose cookie is not that of its sender.
    BadCookie = "bad_cookie",
    /// An answer to an SRT handshake that the client has been given already.
    RepeatedAnswer = "repeated_answer",
    /// From the origin, for a session whose client has not been heard.
    NoClient = "no_client",
    /// The socket refused to send.
    SendFailed = "send_failed",
    /// The control plane could not take more events.
    ControlBusy = "control_busy",
}

impl Reason {
    /// The reason with this index.
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(index).ok()?).copied()
    }

    /// Where `engine` counts this reason in the table of reasons.
    #[inline(always)]
    pub const fn slot(self, engine: Engine) -> u32 {
        engine as u32 * Self::ALL.len() as u32 + self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_reason_by_its_index() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_index(reason as u32), Some(reason));
        }
        assert_eq!(Reason::from_index(Reason::ALL.len() as u32), None);
    }

    #[test]
    fn counts_every_engine_and_reason_in_a_slot_of_its_own() {
        let slots = Engine::ALL.into_iter().flat_map(|engine| Reason::ALL.map(|reason| reason.slot(engine)));
        assert!(slots.eq(0..crate::maps::REASON_SLOTS));
    }
}
