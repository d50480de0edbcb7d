//! Answers of neighbours to the questions of [`proxy_protocol::neighbour`], which the kernel does not ask.

use std::{
    io::{self, Read as _},
    net::IpAddr,
};

use proxy_protocol::neighbour::{Mac, advertised, probe_answer};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::filter::{IF_EQUAL, LOAD_BYTE, TAKE, WHOLE, jump, op};

/// Messages read at once; the rest waits in the sockets' buffers, which are bounded too.
const BATCH: usize = 1024;
/// Longer than any message that is looked at.
const MESSAGE: usize = 128;

/// Listens on every device of the network namespace it was opened in.
#[derive(Debug)]
pub struct NeighbourAnswers {
    arp: Socket,
    icmpv6: Socket,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The neighbour.
    pub from: IpAddr,
    /// Whom it answered; neighbour discovery answers everybody.
    pub to: Option<Mac>,
}

impl NeighbourAnswers {
    /// Listens from now on; needs CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        const ETH_P_ARP: u16 = 0x0806;
        let arp = Socket::new(Domain::PACKET, Type::DGRAM, Some(i32::from(ETH_P_ARP.to_be()).into()))?;
        let icmpv6 = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        icmpv6.attach_filter(&ADVERTISEMENTS)?;
        for socket in [&arp, &icmpv6] {
            socket.set_nonblocking(true)?;
        }
        Ok(Self { arp, icmpv6 })
    }

    /// What was answered since the last call.
    pub fn take(&self) -> Vec<Answer> {
        let arp = messages(&self.arp, |message| {
            let answer = probe_answer(message).ok()?;
            Some(Answer { from: answer.from.into(), to: Some(answer.to) })
        });
        let icmpv6 = messages(&self.icmpv6, |message| {
            Some(Answer { from: advertised(message).ok()?.into(), to: None })
        });
        [arp, icmpv6].concat()
    }
}

fn messages(mut socket: &Socket, read: impl Fn(&[u8]) -> Option<Answer>) -> Vec<Answer> {
    let mut buffer = [0; MESSAGE];
    // An error is the end of what there is.
    let received = std::iter::from_fn(|| {
        let length = socket.read(&mut buffer).ok()?;
        Some(buffer.get(..length).and_then(&read))
    });
    received.take(BATCH).flatten().collect()
}

/// Takes neighbour advertisements alone, so that others' pings wake nobody and fill no buffer.
const ADVERTISEMENTS: [SockFilter; 4] =
    [op(LOAD_BYTE, 0), jump(IF_EQUAL, ADVERTISEMENT, 0, 1), op(TAKE, WHOLE), op(TAKE, 0)];
const ADVERTISEMENT: u32 = 136;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_nothing_is_left_out() {
        // Needs a privilege that the suite's owner has, and an ordinary user has not.
        let Ok(answers) = NeighbourAnswers::open() else { return };
        assert_eq!(answers.take(), []);
    }
}
