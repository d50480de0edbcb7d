//! What kind of packet a UDP payload is, by its first two bytes: the ranges of RFC 7983, with the STUN types and the
//! DTLS alert told apart. One function for the kernel and for userspace; the kernel knows no more of the protocols.

/// The class of a payload on a WebRTC endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// STUN binding request.
    StunRequest,
    /// STUN binding indication: a keep-alive.
    StunIndication,
    /// STUN binding success response.
    StunSuccess,
    /// STUN binding error response.
    StunError,
    /// DTLS record other than an alert.
    Dtls,
    /// DTLS alert record: close_notify, unless it is still encrypted.
    DtlsAlert,
    /// RTP.
    Rtp,
    /// RTCP.
    Rtcp,
    /// None of these, or too short to tell.
    Other,
}

impl Class {
    /// Whether this answers a STUN request.
    #[inline(always)]
    pub fn is_stun_response(self) -> bool {
        matches!(self, Self::StunSuccess | Self::StunError)
    }
}

/// Classifies a payload by its first two bytes.
#[inline(always)]
pub fn classify(first: [u8; 2]) -> Class {
    const DTLS_ALERT: u8 = 21;
    match first {
        [0x00, 0x01] => Class::StunRequest,
        [0x00, 0x11] => Class::StunIndication,
        [0x01, 0x01] => Class::StunSuccess,
        [0x01, 0x11] => Class::StunError,
        [DTLS_ALERT, _] => Class::DtlsAlert,
        [20..=63, _] => Class::Dtls,
        // RFC 5761 §4: the RTCP packet types, where RTP would have marker and payload type.
        [128..=191, 192..=223] => Class::Rtcp,
        [128..=191, _] => Class::Rtp,
        [_, _] => Class::Other,
    }
}

/// The class of a payload on an SRT endpoint, where the same bytes mean other things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtClass {
    /// Handshake: a retransmitted one must get the stored answer.
    Handshake,
    /// Shutdown: the connection ends.
    Shutdown,
    /// Any other control packet.
    Control,
    /// Media.
    Data,
}

impl SrtClass {
    /// Whether userspace is to see it on a conversation that the kernel forwards, whichever way it goes: a request may be
    /// one whose answer was lost, and an answer one that was given already.
    #[inline(always)]
    pub fn is_for_userspace(self) -> bool {
        self == Self::Handshake
    }

    /// Whether it may begin a conversation.
    #[inline(always)]
    pub fn may_begin(self) -> bool {
        self == Self::Handshake
    }

    /// Whether it ends the conversation that it belongs to, unless something follows.
    #[inline(always)]
    pub fn is_closing(self) -> bool {
        self == Self::Shutdown
    }
}

/// Classifies an SRT payload by its first two bytes: a control flag and the control type.
#[inline(always)]
pub fn srt_class(first: [u8; 2]) -> SrtClass {
    match u16::from_be_bytes(first) {
        0x8000 => SrtClass::Handshake,
        0x8005 => SrtClass::Shutdown,
        0x8001.. => SrtClass::Control,
        ..0x8000 => SrtClass::Data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a12_tells_the_classes_apart_by_two_bytes() {
        let rows = [
            ("binding request", [0x00, 0x01], Class::StunRequest),
            ("binding indication", [0x00, 0x11], Class::StunIndication),
            ("binding success", [0x01, 0x01], Class::StunSuccess),
            ("binding error", [0x01, 0x11], Class::StunError),
            ("TURN allocate is not ours", [0x00, 0x03], Class::Other),
            ("first DTLS type", [20, 254], Class::Dtls),
            ("DTLS alert", [21, 254], Class::DtlsAlert),
            ("DTLS handshake", [22, 254], Class::Dtls),
            ("last DTLS type", [63, 0], Class::Dtls),
            ("TURN channel", [64, 0], Class::Other),
            ("RTP version 2", [0x80, 96], Class::Rtp),
            ("RTP with marker", [0x80, 0x80 | 96], Class::Rtp),
            ("RTCP sender report", [0x80, 200], Class::Rtcp),
            ("last RTCP type", [0xbf, 223], Class::Rtcp),
            ("above the RTCP types", [0x80, 224], Class::Rtp),
            ("version 3", [0xc0, 0], Class::Other),
        ];
        for (name, first, class) in rows {
            assert_eq!(classify(first), class, "{name}");
        }
    }

    #[test]
    fn a12_tells_srt_control_types_apart() {
        let rows = [
            ("handshake", [0x80, 0x00], SrtClass::Handshake),
            ("keep-alive", [0x80, 0x01], SrtClass::Control),
            ("shutdown", [0x80, 0x05], SrtClass::Shutdown),
            ("user-defined", [0xff, 0xff], SrtClass::Control),
            ("data", [0x7f, 0xff], SrtClass::Data),
        ];
        for (name, first, class) in rows {
            assert_eq!(srt_class(first), class, "{name}");
        }
    }
}
