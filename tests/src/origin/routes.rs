//! Whose datagram is this: by STUN user name, else by the address it came from.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::session::SessionId;

const BINDING_REQUEST: [u8; 2] = [0, 1];
const HEADER: usize = 20;
const USERNAME: u16 = 0x0006;

/// The user name of a STUN binding request, `None` for everything else.
pub(super) fn username(datagram: &[u8]) -> Option<&[u8]> {
    let mut attributes = datagram.strip_prefix(&BINDING_REQUEST)?.get(HEADER - BINDING_REQUEST.len()..)?;
    loop {
        let (kind, rest) = attributes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        if u16::from_be_bytes(*kind) == USERNAME {
            return rest.get(..length);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// The two indexes of sessions.
#[derive(Debug, Default)]
pub(super) struct Routes {
    by_username: HashMap<Vec<u8>, SessionId>,
    by_address: HashMap<SocketAddr, SessionId>,
    address_first: bool,
}

impl Routes {
    pub(super) fn new(address_first: bool) -> Self {
        Self { address_first, ..Self::default() }
    }

    pub(super) fn has_username(&self, username: &str) -> bool {
        self.by_username.contains_key(username.as_bytes())
    }

    pub(super) fn add_username(&mut self, username: &str, session: SessionId) {
        self.by_username.insert(username.as_bytes().to_vec(), session);
    }

    /// Binds an address to the session whose authenticated request came from it.
    pub(super) fn bind(&mut self, address: SocketAddr, session: SessionId) {
        self.by_address.insert(address, session);
    }

    pub(super) fn remove(&mut self, session: SessionId) {
        self.by_username.retain(|_, id| *id != session);
        self.by_address.retain(|_, id| *id != session);
    }

    /// The session that a request names.
    pub(super) fn named(&self, datagram: &[u8]) -> Option<SessionId> {
        self.by_username.get(username(datagram)?).copied()
    }

    pub(super) fn find(&self, datagram: &[u8], source: SocketAddr) -> Option<SessionId> {
        let bound = || self.by_address.get(&source).copied();
        let named = || self.named(datagram);
        if self.address_first { bound().or_else(named) } else { named().or_else(bound) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 5000);

    fn request(username: &str) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        bytes.resize(HEADER, 7);
        bytes.extend([0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
        bytes.extend(USERNAME.to_be_bytes());
        bytes.extend(u16::try_from(username.len()).unwrap().to_be_bytes());
        bytes.extend(username.as_bytes());
        bytes
    }

    #[test]
    fn finds_the_username_behind_a_padded_attribute() {
        assert_eq!(username(&request("local:remote")), Some(&b"local:remote"[..]));
    }

    #[test]
    fn every_truncated_request_has_no_username() {
        let whole = request("local:remote");
        for length in 0..whole.len() {
            assert_eq!(username(&whole[..length]), None, "length {length}");
        }
    }

    #[test]
    fn the_username_beats_the_address_unless_told_otherwise() {
        for (address_first, expected) in [(false, 2), (true, 1)] {
            let mut routes = Routes::new(address_first);
            routes.bind(CLIENT, SessionId(1));
            routes.add_username("a:b", SessionId(2));
            assert_eq!(routes.find(&request("a:b"), CLIENT), Some(SessionId(expected)));
            assert_eq!(routes.find(&[0x80, 96], CLIENT), Some(SessionId(1)));
        }
    }
}
