//! Messages of connection tracking (`ctnetlink`), as far as entries are kept alive by them.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::Conversation;

/// Subsystem 1 (`NFNL_SUBSYS_CTNETLINK`), command 0 (`IPCTNL_MSG_CT_NEW`), which updates an entry that is there.
const CT_NEW: u16 = 1 << 8;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TIMEOUT: u16 = 7;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4: [u16; 2] = [1, 2];
const CTA_IP_V6: [u16; 2] = [3, 4];
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const UDP: u8 = 17;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What becomes of an entry that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is made.
    Create,
    /// The kernel says so.
    Refuse,
}

/// Appends the wish that the entry of `conversation` lives for `life` from now on.
pub(super) fn prolong(
    out: &mut Vec<u8>,
    sequence: u32,
    conversation: &Conversation,
    life: Duration,
    missing: Missing,
) {
    let flags = match missing {
        Missing::Create => NLM_F_REQUEST | NLM_F_CREATE,
        Missing::Refuse => NLM_F_REQUEST,
    };
    let Conversation { from, to } = *conversation;
    let family = if from.is_ipv4() { AF_INET } else { AF_INET6 };
    let seconds = u32::try_from(life.as_secs()).unwrap_or(u32::MAX);
    let start = out.len();
    out.extend([0; 4]);
    out.extend(CT_NEW.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    // The port of the sender, which the kernel knows; then family, version and resource.
    out.extend([0, 0, 0, 0, family, 0, 0, 0]);
    nest(out, CTA_TUPLE_ORIG, |out| tuple(out, from, to));
    nest(out, CTA_TUPLE_REPLY, |out| tuple(out, to, from));
    attribute(out, CTA_TIMEOUT, &seconds.to_be_bytes());
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    put(out, start, &length.to_ne_bytes());
}

/// What a datagram of the kernel says went wrong: sequence and errno of each message, nothing after one that is cut short.
pub(super) fn refusals(mut datagram: &[u8]) -> impl Iterator<Item = (u32, i32)> {
    std::iter::from_fn(move || {
        loop {
            let length = u32::from_ne_bytes(*datagram.first_chunk()?);
            let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
            let message = datagram.get(..length)?;
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
            if let Some(refusal) = refusal(message) {
                return Some(refusal);
            }
        }
    })
}

fn refusal(message: &[u8]) -> Option<(u32, i32)> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
    let code = i32::from_ne_bytes(message.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR && code != 0).then_some((sequence, code.saturating_neg()))
}

fn tuple(out: &mut Vec<u8>, from: SocketAddr, to: SocketAddr) {
    nest(out, CTA_TUPLE_IP, |out| {
        for (at, ip) in [from.ip(), to.ip()].into_iter().enumerate() {
            match ip {
                IpAddr::V4(ip) => attribute(out, CTA_IP_V4[at], &ip.octets()),
                IpAddr::V6(ip) => attribute(out, CTA_IP_V6[at], &ip.octets()),
            }
        }
    });
    nest(out, CTA_TUPLE_PROTO, |out| {
        attribute(out, CTA_PROTO_NUM, &[UDP]);
        attribute(out, CTA_PROTO_SRC_PORT, &from.port().to_be_bytes());
        attribute(out, CTA_PROTO_DST_PORT, &to.port().to_be_bytes());
    });
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let start = begin(out, kind);
    out.extend(value);
    end(out, start);
}

fn nest(out: &mut Vec<u8>, kind: u16, content: impl FnOnce(&mut Vec<u8>)) {
    let start = begin(out, kind | NESTED);
    content(out);
    end(out, start);
}

fn begin(out: &mut Vec<u8>, kind: u16) -> usize {
    let start = out.len();
    out.extend([0; 2]);
    out.extend(kind.to_ne_bytes());
    start
}

/// Lengths do not count the padding behind an attribute.
fn end(out: &mut Vec<u8>, start: usize) {
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    put(out, start, &length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(from: &str, to: &str) -> Conversation {
        Conversation { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    /// As `conntrack -U` sends it, on a machine that stores the lower byte first.
    #[test]
    #[cfg(target_endian = "little")]
    fn an_update_has_the_bytes_that_the_kernel_expects() {
        let mut bytes = Vec::new();
        let conversation = conversation("10.0.0.1:61000", "10.0.0.2:8000");
        prolong(&mut bytes, 7, &conversation, Duration::from_secs(60), Missing::Refuse);
        let expected: &[&[u8]] = &[
            &[132, 0, 0, 0, 0, 1, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0],
            &[52, 0, 1, 0x80],
            &[20, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 1, 8, 0, 2, 0, 10, 0, 0, 2],
            &[28, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 2, 0, 0xee, 0x48, 0, 0],
            &[6, 0, 3, 0, 0x1f, 0x40, 0, 0],
            &[52, 0, 2, 0x80],
            &[20, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 2, 8, 0, 2, 0, 10, 0, 0, 1],
            &[28, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 2, 0, 0x1f, 0x40, 0, 0],
            &[6, 0, 3, 0, 0xee, 0x48, 0, 0],
            &[8, 0, 7, 0, 0, 0, 0, 60],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn an_entry_is_made_only_if_that_was_asked_for() {
        let conversation = conversation("[2001:db8::1]:1", "[2001:db8::2]:2");
        for (missing, flags) in [(Missing::Create, 0x401_u16), (Missing::Refuse, 0x001)] {
            let mut bytes = vec![0; 8];
            prolong(&mut bytes, 1, &conversation, Duration::from_secs(60), missing);
            assert_eq!(bytes[8 + 6..8 + 8], flags.to_ne_bytes());
            assert_eq!(u32::from_ne_bytes(bytes[8..12].try_into().unwrap()) as usize, bytes.len() - 8);
            assert_eq!(bytes[8 + HEADER], AF_INET6);
        }
    }

    fn answer(sequence: u32, code: i32) -> Vec<u8> {
        let mut bytes = Vec::from(20_u32.to_ne_bytes());
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(code.to_ne_bytes());
        bytes
    }

    #[test]
    fn refusals_are_told_from_acknowledgements() {
        let datagram = [answer(1, 0), answer(2, -2), answer(3, -16)].concat();
        assert!(refusals(&datagram).eq([(2, 2), (3, 16)]));
    }

    #[test]
    fn every_truncation_of_an_answer_is_read_or_left() {
        let datagram = answer(2, -2);
        for length in 0..datagram.len() {
            assert_eq!(refusals(&datagram[..length]).count(), 0, "{length} bytes");
        }
        assert_eq!(refusals(&[0xff; 64]).count(), 0);
        assert_eq!(refusals(&[0; 64]).count(), 0);
    }
}
