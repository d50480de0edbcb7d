//! Our side towards origins.

use std::net::Ipv4Addr;

use super::{HandshakeError, PACKET_LEN, RANDOM_LEN, VERSION, skip, take_packet, take_version};

/// What SRS takes for the beginning of a proxy's preamble.
const PREAMBLE: u8 = 0xF3;

/// The handshake with an origin, in its simple form.
#[derive(Debug)]
pub struct Client {
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Version,
    S1,
    S2 { left: usize },
}

impl Client {
    /// Appends C0 and C1 with the random bytes to `out`.
    ///
    /// With the address of a client they come after a preamble that tells it. SRS writes that address to its log and
    /// does nothing else with it; other servers may not know the preamble.
    #[must_use]
    pub fn start(random: &[u8; RANDOM_LEN], preamble: Option<Ipv4Addr>, out: &mut Vec<u8>) -> Self {
        if let Some(client) = preamble {
            out.extend([PREAMBLE, 0, 4]);
            out.extend(client.octets());
        }
        out.push(VERSION);
        // The epoch, and four bytes that stay zero.
        out.extend([0; 8]);
        out.extend(random);
        Self { state: State::Version }
    }

    /// Takes what belongs to the handshake off `input`, and appends C2 to `out` as soon as S1 is whole.
    ///
    /// Chunks may be sent after C2. Gives whether the handshake is over; what `input` has then are chunks.
    ///
    /// # Errors
    ///
    /// Fails if the origin speaks something else.
    pub fn read(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        loop {
            let next = match self.state {
                State::Version => take_version(input)?.map(|()| State::S1),
                State::S1 => take_packet(input).map(|s1| {
                    out.extend(s1);
                    State::S2 { left: PACKET_LEN }
                }),
                State::S2 { left: 0 } => return Ok(true),
                State::S2 { left } if !input.is_empty() => Some(State::S2 { left: skip(input, left) }),
                State::S2 { .. } => None,
            };
            let Some(next) = next else { return Ok(false) };
            self.state = next;
        }
    }
}
