//! Our side towards clients.

use super::{HandshakeError, PACKET_LEN, RANDOM_LEN, VERSION, digest, skip, take_packet, take_version};

/// The version that SRS gives in an S1 with a digest. Clients that see a zero there expect none.
const DIGEST_VERSION: [u8; 4] = [1, 0, 5, 4];

/// The handshake with a client.
#[derive(Debug)]
pub struct Server {
    random: [u8; RANDOM_LEN],
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Version,
    C1,
    C2 { left: usize },
}

impl Server {
    /// Before the first byte. The random bytes go into S1.
    #[must_use]
    pub const fn new(random: [u8; RANDOM_LEN]) -> Self {
        Self { random, state: State::Version }
    }

    /// Takes what belongs to the handshake off `input`, and appends the answer to `out` when it is due.
    ///
    /// Gives whether the handshake is over; what `input` has then are chunks.
    ///
    /// # Errors
    ///
    /// Fails if the client speaks something else.
    pub fn read(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        loop {
            let next = match self.state {
                State::Version => take_version(input)?.map(|()| State::C1),
                State::C1 => take_packet(input).map(|c1| self.answer(&c1, out)),
                State::C2 { left: 0 } => return Ok(true),
                State::C2 { left } if !input.is_empty() => Some(State::C2 { left: skip(input, left) }),
                State::C2 { .. } => None,
            };
            let Some(next) = next else { return Ok(false) };
            self.state = next;
        }
    }

    fn answer(&self, c1: &[u8; PACKET_LEN], out: &mut Vec<u8>) -> State {
        out.push(VERSION);
        match digest::find(c1) {
            Some((schema, c1_digest)) => {
                let mut s1 = self.s1(DIGEST_VERSION);
                digest::sign(&mut s1, schema, digest::SERVER_KEY);
                out.extend(s1);
                out.extend(self.signed_s2(&c1_digest));
            }
            None => {
                out.extend(self.s1([0; 4]));
                out.extend(c1);
            }
        }
        State::C2 { left: PACKET_LEN }
    }

    /// Our epoch, which is zero, the version, and the random bytes.
    fn s1(&self, version: [u8; 4]) -> [u8; PACKET_LEN] {
        let mut s1 = [0; PACKET_LEN];
        let bytes = [0; 4].iter().chain(&version).chain(&self.random);
        s1.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        s1
    }

    fn signed_s2(&self, c1_digest: &[u8; digest::DIGEST_LEN]) -> Vec<u8> {
        let mut s2: Vec<u8> = self.random.iter().copied().take(PACKET_LEN - digest::DIGEST_LEN).collect();
        s2.extend(digest::s2_signature(&s2, c1_digest));
        s2
    }
}
