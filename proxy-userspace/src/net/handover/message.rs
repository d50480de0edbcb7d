//! What two processes say to each other when one takes over from the other.

use std::net::SocketAddr;

use crate::codec::{DecodeError, Decoder, Encoder};

/// Begins every message: whoever connects to the wrong socket is told apart at once.
const MAGIC: u32 = u32::from_be_bytes(*b"XPHO");

/// One message; descriptors travel beside [`Message::Sockets`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The new process asks for everything.
    Hello {
        /// The version of this conversation it speaks.
        version: u16,
        /// Its process id, for the log.
        pid: u32,
    },
    /// The old process keeps what it has.
    Refused(String),
    /// What will follow.
    Manifest(Manifest),
    /// What the descriptors beside this message are, in their order.
    Sockets(Vec<Role>),
    /// The next piece of the state.
    State(Vec<u8>),
    /// The new process has everything and can go on with it.
    Ready,
    /// The old process has let go: this is the moment of the take-over.
    Yours,
}

/// What will follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The old process.
    pub pid: u32,
    /// How many descriptors.
    pub sockets: u32,
    /// How many bytes of state.
    pub state: u64,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The lock of the runtime directory.
    Lock,
    /// The socket on which a new process announces itself.
    Doorbell,
    /// One of the sockets that clients send media to.
    Media {
        /// The relay worker that reads it.
        worker: u16,
        /// Its address.
        address: SocketAddr,
    },
    /// One of the sockets that SRT callers send to.
    Srt {
        /// The relay worker that reads it.
        worker: u16,
        /// Its address.
        address: SocketAddr,
    },
    /// A socket on a source port.
    Source(SocketAddr),
    /// A listener of `PROXY_HTTP_API`.
    HttpApi(SocketAddr),
    /// A listener of `PROXY_HTTP_SERVER`.
    HttpServer(SocketAddr),
    /// A listener of `PROXY_SYSTEM_API`.
    SystemApi(SocketAddr),
    /// A listener of `PROXY_RTMP_SERVER`.
    RtmpServer(SocketAddr),
    /// A listener of `PROXY_WEBRTC_TCP_SERVER`.
    WebrtcTcp(SocketAddr),
}

impl Message {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u32(MAGIC);
        match self {
            Self::Hello { version, pid } => {
                out.u8(0);
                out.u16(*version);
                out.u32(*pid);
            }
            Self::Refused(reason) => {
                out.u8(1);
                out.text(reason);
            }
            Self::Manifest(Manifest { pid, sockets, state }) => {
                out.u8(2);
                out.u32(*pid);
                out.u32(*sockets);
                out.u64(*state);
            }
            Self::Sockets(roles) => {
                out.u8(3);
                out.list(roles, |out, role| role.encode(out));
            }
            Self::State(bytes) => {
                out.u8(4);
                out.bytes(bytes);
            }
            Self::Ready => out.u8(5),
            Self::Yours => out.u8(6),
        }
        out.into_bytes()
    }

    /// Reads one message that is all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        if from.u32()? != MAGIC {
            return Err(DecodeError::Invalid("beginning"));
        }
        let message = match from.u8()? {
            0 => Self::Hello { version: from.u16()?, pid: from.u32()? },
            1 => Self::Refused(from.text()?.to_owned()),
            2 => Self::Manifest(Manifest { pid: from.u32()?, sockets: from.u32()?, state: from.u64()? }),
            3 => Self::Sockets(from.list(Role::decode)?),
            4 => Self::State(from.bytes()?.to_vec()),
            5 => Self::Ready,
            6 => Self::Yours,
            _ => return Err(DecodeError::Invalid("kind of message")),
        };
        from.finish()?;
        Ok(message)
    }
}

impl Role {
    fn encode(self, out: &mut Encoder) {
        match self {
            Self::Lock => out.u8(0),
            Self::Doorbell => out.u8(1),
            Self::Media { worker, address } => {
                out.u8(2);
                out.u16(worker);
                out.address(address);
            }
            Self::Source(address) => {
                out.u8(3);
                out.address(address);
            }
            Self::HttpApi(address) => {
                out.u8(4);
                out.address(address);
            }
            Self::HttpServer(address) => {
                out.u8(5);
                out.address(address);
            }
            Self::SystemApi(address) => {
                out.u8(6);
                out.address(address);
            }
            Self::RtmpServer(address) => {
                out.u8(7);
                out.address(address);
            }
            Self::WebrtcTcp(address) => {
                out.u8(8);
                out.address(address);
            }
            Self::Srt { worker, address } => {
                out.u8(9);
                out.u16(worker);
                out.address(address);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            0 => Ok(Self::Lock),
            1 => Ok(Self::Doorbell),
            2 => Ok(Self::Media { worker: from.u16()?, address: from.address()? }),
            3 => Ok(Self::Source(from.address()?)),
            4 => Ok(Self::HttpApi(from.address()?)),
            5 => Ok(Self::HttpServer(from.address()?)),
            6 => Ok(Self::SystemApi(from.address()?)),
            7 => Ok(Self::RtmpServer(from.address()?)),
            8 => Ok(Self::WebrtcTcp(from.address()?)),
            9 => Ok(Self::Srt { worker: from.u16()?, address: from.address()? }),
            _ => Err(DecodeError::Invalid("kind of socket")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn examples() -> Vec<Message> {
        let v4 = "10.0.0.1:8000".parse().unwrap();
        let v6 = "[2001:db8::1]:443".parse().unwrap();
        vec![
            Message::Hello { version: 1, pid: 4711 },
            Message::Refused("it is stopping".to_owned()),
            Message::Manifest(Manifest { pid: 4711, sockets: 4536, state: 1 << 40 }),
            Message::Sockets(vec![
                Role::Lock,
                Role::Doorbell,
                Role::Media { worker: 3, address: v6 },
                Role::Source(v4),
                Role::HttpApi(v4),
                Role::HttpServer(v6),
                Role::RtmpServer(v4),
                Role::WebrtcTcp(v6),
                Role::Srt { worker: 0, address: v4 },
                Role::SystemApi(v4),
            ]),
            Message::State(b"anything".to_vec()),
            Message::Ready,
            Message::Yours,
        ]
    }

    #[test]
    fn every_message_is_read_as_it_was_written() {
        for message in examples() {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn every_truncation_and_every_extension_of_a_message_is_refused() {
        for message in examples() {
            let mut bytes = message.encode();
            for end in 0..bytes.len() {
                assert!(Message::decode(&bytes[..end]).is_err(), "{message:?} cut at {end}");
            }
            bytes.push(0);
            assert_eq!(Message::decode(&bytes), Err(DecodeError::Trailing), "{message:?}");
        }
    }

    #[test]
    fn what_begins_otherwise_is_refused() {
        assert_eq!(Message::decode(b"GET / HTTP/1.1\r\n\r\n"), Err(DecodeError::Invalid("beginning")));
    }

    prop_compose! {
        fn any_address()(octets in any::<[u8; 16]>(), is_v4 in any::<bool>(), port in any::<u16>()) -> SocketAddr {
            let [a, b, c, d, ..] = octets;
            if is_v4 { ([a, b, c, d], port).into() } else { (octets, port).into() }
        }
    }

    fn any_role() -> impl Strategy<Value = Role> {
        prop_oneof![
            Just(Role::Lock),
            Just(Role::Doorbell),
            (any::<u16>(), any_address()).prop_map(|(worker, address)| Role::Media { worker, address }),
            any_address().prop_map(Role::Source),
            any_address().prop_map(Role::HttpApi),
            any_address().prop_map(Role::HttpServer),
            any_address().prop_map(Role::RtmpServer),
            any_address().prop_map(Role::WebrtcTcp),
            any_address().prop_map(Role::SystemApi),
        ]
    }

    fn any_message() -> impl Strategy<Value = Message> {
        prop_oneof![
            (any::<u16>(), any::<u32>()).prop_map(|(version, pid)| Message::Hello { version, pid }),
            ".{0,80}".prop_map(Message::Refused),
            (any::<u32>(), any::<u32>(), any::<u64>())
                .prop_map(|(pid, sockets, state)| Message::Manifest(Manifest { pid, sockets, state })),
            proptest::collection::vec(any_role(), 0..20).prop_map(Message::Sockets),
            proptest::collection::vec(any::<u8>(), 0..200).prop_map(Message::State),
            Just(Message::Ready),
            Just(Message::Yours),
        ]
    }

    proptest! {
        #[test]
        fn any_message_is_read_as_it_was_written(message in any_message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn any_bytes_are_one_message_or_refused(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = MAGIC.to_be_bytes().to_vec();
            bytes.extend(garbage);
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}
