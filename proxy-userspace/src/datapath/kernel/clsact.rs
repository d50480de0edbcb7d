//! Where our clsact filter is: a filter is no link, and rtnetlink tells whether it is still there when it is asked. Ours has
//! one priority and one handle on every device.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv, sendto,
    socket_with,
};

use super::features::attribute;

/// Priority of our filters.
pub(super) const PRIORITY: u16 = 1;
/// Their handle.
pub(super) const HANDLE: u16 = 1;

/// The place of our filter on a device.
#[derive(Debug)]
pub(super) struct Place {
    ifindex: u32,
    program: u32,
    added_qdisc: bool,
    /// The kernel was asked when the filter was there, and said so.
    tells: bool,
}

impl Place {
    /// Where `program` was put just now; the qdisc goes with it if it was added for it.
    pub(super) fn new(ifindex: u32, program: u32, added_qdisc: bool) -> Self {
        let place = Self { ifindex, program, added_qdisc, tells: true };
        let tells = place.holds_ours().unwrap_or(false);
        Self { tells, ..place }
    }

    /// Where an earlier process put its `program`.
    pub(super) fn inherited(ifindex: u32, program: u32) -> Self {
        Self { ifindex, program, added_qdisc: false, tells: true }
    }

    /// Whether our program is there; a kernel that does not tell has not removed it.
    pub(super) fn is_ours(&self) -> bool {
        !self.tells || self.holds_ours().unwrap_or(true)
    }

    /// Removes the qdisc if it was added for the filter and holds no other.
    pub(super) fn tidy(&self) {
        if self.added_qdisc
            && let Err(error) = self.remove_empty_qdisc()
        {
            tracing::debug!(%error, ifindex = self.ifindex, "the clsact qdisc stays");
        }
    }

    fn holds_ours(&self) -> io::Result<bool> {
        let question =
            Question { handle: HANDLE.into(), info: info(), ..self.question(RTM_GETTFILTER, INGRESS) };
        match question.ask() {
            Ok(answer) => Ok(program_of(&answer) == Some(self.program)),
            Err(error) if GONE.contains(&error.raw_os_error().unwrap_or_default()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_empty_qdisc(&self) -> io::Result<()> {
        for parent in [INGRESS, EGRESS] {
            let flags = NLM_F_REQUEST | NLM_F_DUMP;
            let answer = Question { flags, ..self.question(RTM_GETTFILTER, parent) }.ask()?;
            if kind(&answer) == Some(RTM_NEWTFILTER) {
                return Ok(());
            }
        }
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let question = Question { flags, handle: CLSACT & MAJOR, ..self.question(RTM_DELQDISC, CLSACT) };
        question.ask().map(drop)
    }

    fn question(&self, kind: u16, parent: u32) -> Question {
        Question { kind, flags: NLM_F_REQUEST, ifindex: self.ifindex, handle: 0, parent, info: 0 }
    }
}

const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const CLSACT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
const MAJOR: u32 = 0xffff_0000;
/// `ENOENT`, `ENODEV`, and `EINVAL` where the qdisc is gone: the filter is not there.
const GONE: [i32; 3] = [2, 19, 22];
/// Length of `nlmsghdr` and of `tcmsg`.
const HEADERS: usize = 16 + 20;

/// A message to traffic control.
struct Question {
    kind: u16,
    flags: u16,
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

impl Question {
    /// Sends it and returns the beginning of the answer.
    fn ask(&self) -> io::Result<Vec<u8>> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        // The first protocol is rtnetlink.
        let socket: OwnedFd = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        sendto(&socket, &self.bytes(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [const { MaybeUninit::uninit() }; 32_768];
        let ((answer, _), _) = recv(&socket, &mut answer, RecvFlags::empty())?;
        refusal(answer).map_or_else(|| Ok(answer.to_vec()), Err)
    }

    fn bytes(&self) -> [u8; HEADERS] {
        let mut bytes = [0; HEADERS];
        let header = [(HEADERS as u32).to_ne_bytes(), pair(self.kind, self.flags)].concat();
        // Behind the header sequence and port, which one question needs none of, and the family, which is none.
        let tc = [self.ifindex, self.handle, self.parent, self.info].map(u32::to_ne_bytes).concat();
        for (byte, value) in bytes.iter_mut().zip(header) {
            *byte = value;
        }
        for (byte, value) in bytes.iter_mut().skip(20).zip(tc) {
            *byte = value;
        }
        bytes
    }
}

fn pair(first: u16, second: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d]
}

/// Priority, and all protocols.
fn info() -> u32 {
    const ETH_P_ALL: u16 = 3;
    u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be())
}

fn kind(message: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?))
}

/// Why the kernel refused, if it did.
fn refusal(message: &[u8]) -> Option<io::Error> {
    const NLMSG_ERROR: u16 = 2;
    let code = i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?);
    (kind(message)? == NLMSG_ERROR && code != 0).then(|| io::Error::from_raw_os_error(code.wrapping_neg()))
}

/// The id of the program of a filter.
fn program_of(message: &[u8]) -> Option<u32> {
    const TCA_OPTIONS: u16 = 2;
    const TCA_BPF_ID: u16 = 11;
    let length = usize::try_from(u32::from_ne_bytes(message.get(..4)?.try_into().ok()?)).ok()?;
    let options = attribute(message.get(HEADERS..length)?, TCA_OPTIONS)?;
    Some(u32::from_ne_bytes(attribute(options, TCA_BPF_ID)?.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer about program 77, with the length in front.
    fn answer() -> Vec<u8> {
        let id = [pair(8, 11), 77_u32.to_ne_bytes()].concat();
        let name = [pair(8, 7), *b"abc\0"].concat();
        let options = [&pair(20, 2 | 0x8000)[..], &name, &id].concat();
        let question =
            Question { kind: RTM_NEWTFILTER, flags: 0, ifindex: 1, handle: 1, parent: INGRESS, info: info() };
        let mut message = [&question.bytes()[..], &pair(8, 1), b"bpf\0", &options].concat();
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message
    }

    #[test]
    fn finds_the_program_of_a_filter() {
        assert_eq!((kind(&answer()), program_of(&answer())), (Some(RTM_NEWTFILTER), Some(77)));
    }

    #[test]
    fn every_truncation_of_an_answer_names_no_program() {
        let answer = answer();
        for length in 0..answer.len() {
            assert_eq!(program_of(&answer[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn an_acknowledgement_is_no_refusal() {
        let said = |code: i32| [&[0; 4][..], &pair(2, 0), &[0; 8], &code.to_ne_bytes()].concat();
        assert!(refusal(&said(0)).is_none());
        assert_eq!(refusal(&said(-2)).and_then(|error| error.raw_os_error()), Some(2));
    }

    #[test]
    fn a_device_without_qdisc_has_no_filter_of_ours() {
        let place = Place { ifindex: u32::MAX >> 1, program: 1, added_qdisc: false, tells: true };
        assert!(!place.holds_ours().unwrap());
    }
}
