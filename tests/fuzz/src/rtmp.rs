//! What the values, commands and sessions of RTMP must hold for any bytes at all.

use proxy_protocol::{
    reader::{Reader, UnexpectedEnd},
    rtmp::{
        ClientSession, Message, OriginSession,
        amf0::{self, decode, encode},
        client_session::{ClientEffect, ClientStep, MAX_HELD_MESSAGES, ServerName},
        command::Command,
        control::Control,
        origin_session::{OriginEffect, OriginStep},
        request::{Asked, Connect, Refusal},
    },
    stream_url::StreamRules,
};

/// Values are written as they were read.
pub fn amf0(input: &[u8]) {
    let Ok(values) = decode(input) else { return };
    assert!(values.len() <= amf0::MAX_VALUES + 1);
    let written = encoded(&values);
    let again = decode(&written).expect("what we write can be read");
    // Only the bytes can be compared: a number may be none, and a true may be any number but zero.
    assert_eq!(encoded(&again), written);
    assert_eq!(written.len(), input.len());
}

fn encoded(values: &[amf0::Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(values, &mut bytes);
    bytes
}

/// Messages are understood or not, and neither session comes out of step or grows without bounds.
///
/// Of each message the input has the kind, the message stream, and the length of the payload that follows.
pub fn command(input: &[u8]) {
    let mut reader = Reader::new(input);
    let mut conversation = Conversation::default();
    while let Ok(message) = message(&mut reader) {
        parts(&message);
        conversation.client_says(message.clone());
        conversation.origin_says(message);
    }
    conversation.end();
}

fn message(reader: &mut Reader<'_>) -> Result<Message, UnexpectedEnd> {
    let (kind, stream, length) = (reader.u8()?, reader.u8()?, usize::from(reader.u16()?));
    let payload = reader.bytes(length.min(reader.remaining().len()))?.to_vec();
    Ok(Message { chunk_stream: 3, timestamp: 0, kind, stream: u32::from(stream), payload })
}

fn parts(message: &Message) {
    if let Ok(control) = Control::parse(message) {
        assert_eq!(Control::parse(&control.to_message()), Ok(control));
        assert!(Command::parse(message).is_err());
    }
    if let Ok(command) = Command::parse(message) {
        let written = command.to_message();
        let again = Command::parse(&written).expect("what we write can be read");
        assert_eq!(again.to_message(), written);
    }
}

/// Both sides of the proxy, fed with the same messages until each has ended.
#[derive(Default)]
struct Conversation {
    client: Option<ClientSession>,
    has_client_ended: bool,
    connect: Option<Connect>,
    origin: Option<OriginSession>,
}

impl Conversation {
    fn client_says(&mut self, message: Message) {
        if self.has_client_ended {
            return;
        }
        let client = self.client.get_or_insert_with(|| ClientSession::new(server()));
        let step = client.step();
        let Ok(effects) = client.apply(message) else {
            self.has_client_ended = true;
            return;
        };
        assert!(step != ClientStep::Origin || effects.is_empty());
        for effect in effects {
            match effect {
                ClientEffect::Send(message) => assert!(!message.payload.is_empty()),
                ClientEffect::Connected(connect) => self.connect = Some(connect),
                ClientEffect::Requested(asked) => self.ask(asked),
            }
        }
    }

    fn ask(&mut self, asked: Asked) {
        let connect = self.connect.as_ref().expect("a client connects before it asks");
        for go_compatible in [false, true] {
            let rules = StreamRules { vhosts: Vec::new(), go_compatible };
            let _ = connect.stream_key(&rules, asked.request.name());
        }
        let (session, messages) = OriginSession::start(connect, asked, 4096);
        let first = messages.first().and_then(|message| Command::parse(message).ok());
        assert!(first.is_some_and(|command| command.name == "connect"));
        self.origin = Some(session);
    }

    fn origin_says(&mut self, message: Message) {
        let Some(origin) = &mut self.origin else { return };
        let Ok(effects) = origin.apply(message) else {
            self.origin = None;
            return;
        };
        for effect in effects {
            match effect {
                OriginEffect::Send(message) | OriginEffect::Relay(message) => drop(message),
                OriginEffect::Started(said) => {
                    assert!(said.len() <= 2 * MAX_HELD_MESSAGES && !said.is_empty());
                }
                OriginEffect::Redirect { url } => assert!(!url.is_empty() && !url.contains('\n')),
                OriginEffect::Refused(_) => assert_eq!(origin.step(), OriginStep::Ended),
            }
        }
    }

    fn end(self) {
        if let Some(origin) = &self.origin {
            assert!(!origin.closed().description.is_empty());
        }
        let Some(client) = self.client else { return };
        let is_asking = client.step() == ClientStep::Origin;
        assert_eq!(client.refused(&Refusal::default()).len(), usize::from(is_asking));
    }
}

fn server() -> ServerName {
    ServerName {
        signature: "srs-xproxy".to_owned(),
        version: "1.0.0".to_owned(),
        connection: "fuzz".to_owned(),
    }
}
