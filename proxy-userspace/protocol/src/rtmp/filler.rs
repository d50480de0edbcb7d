//! Messages that say nothing, where a chunk stream has to look as if nothing had been left out.
//!
//! Later chunks refer to the last message on their chunk stream: its timestamp, length, kind and message stream. Where
//! the proxy took messages for itself, the other end lacks the one that the sender's next chunk will refer to, and the
//! two connections could not be joined. A filler of the same head makes up for it: a command that nobody knows and
//! that asks for no answer, or once more what was said about the connection.

use std::collections::BTreeMap;

use super::{
    amf0::{self, Text, Value},
    control::Control,
    message::{Message, kind},
};

/// How many chunk streams are remembered. Those beyond are joined after their next message only.
const MAX_CHUNK_STREAMS: usize = 64;
const NAME: &[u8] = b"_filler";

/// The heads of the last messages that were not passed on.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads(BTreeMap<u32, Head>);

#[derive(Debug, Clone)]
struct Head {
    timestamp: u32,
    kind: u8,
    stream: u32,
    length: usize,
    control: Option<Control>,
}

impl Heads {
    /// Remembers a message that is not passed on.
    pub(super) fn note(&mut self, message: &Message) {
        let is_known = self.0.contains_key(&message.chunk_stream);
        if !is_known && self.0.len() >= MAX_CHUNK_STREAMS {
            return;
        }
        let head = Head {
            timestamp: message.timestamp,
            kind: message.kind,
            stream: message.stream,
            length: message.payload.len(),
            control: Control::parse(message).ok(),
        };
        self.0.insert(message.chunk_stream, head);
    }

    /// A filler for each chunk stream on which none of `later` goes, as far as there can be one.
    pub(super) fn fillers(&self, later: &[Message]) -> Vec<Message> {
        let is_later = |chunk_stream| later.iter().any(|message| message.chunk_stream == chunk_stream);
        let heads = self.0.iter().filter(|(chunk_stream, _)| !is_later(**chunk_stream));
        heads.filter_map(|(chunk_stream, head)| head.filler(*chunk_stream)).collect()
    }
}

impl Head {
    fn filler(&self, chunk_stream: u32) -> Option<Message> {
        let payload = match (&self.control, self.kind) {
            (Some(control), _) => control.to_message().payload,
            (None, kind::COMMAND_AMF0) => command(self.length)?,
            (None, kind::COMMAND_AMF3) => [vec![0], command(self.length.checked_sub(1)?)?].concat(),
            (None, _) => return None,
        };
        let Self { timestamp, kind, stream, .. } = *self;
        (payload.len() == self.length).then_some(Message { chunk_stream, timestamp, kind, stream, payload })
    }
}

/// A command of `length` bytes; none is so short that its name is empty, which SRS refuses.
fn command(length: usize) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    let nameless = [Value::String(Text::default()), Value::Number(0.0), Value::Null];
    amf0::encode(&nameless, &mut payload);
    let name_length = length.checked_sub(payload.len())?.min(NAME.len());
    let name = Text::from(NAME.get(..name_length).filter(|name| !name.is_empty())?);

    payload.clear();
    amf0::encode(&[Value::String(name), Value::Number(0.0), Value::Null], &mut payload);
    let rest = length.checked_sub(payload.len())?;
    let padding = match rest.checked_sub(3) {
        None => vec![Value::Null; rest],
        Some(text) => vec![Value::String("x".repeat(text.min(amf0::MAX_TEXT)).as_str().into())],
    };
    amf0::encode(&padding, &mut payload);
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtmp::command::Command;

    #[test]
    fn a_filler_has_the_head_of_its_message_and_says_nothing() {
        for kind in [kind::COMMAND_AMF0, kind::COMMAND_AMF3] {
            for length in (15..60).chain([4096, 65_000]) {
                let message = message(3, kind, length);
                let filler = filler(&message).unwrap();
                assert_eq!(
                    Message { payload: Vec::new(), ..filler.clone() },
                    Message { payload: Vec::new(), ..message }
                );
                assert_eq!(filler.payload.len(), length);
                let command = Command::parse(&filler).unwrap();
                assert!(NAME.starts_with(command.name.as_bytes()) && !command.name.is_empty());
                assert!(!command.expects_answer());
            }
        }
    }

    #[test]
    fn what_is_said_of_the_connection_is_said_again() {
        for control in [Control::WindowAcknowledgementSize(5), Control::SetChunkSize(4096)] {
            assert_eq!(filler(&control.to_message()), Some(control.to_message()));
        }
    }

    #[test]
    fn nothing_stands_for_media_or_for_what_is_too_short_to_be_a_command() {
        for (kind, length) in
            [(kind::AUDIO, 40), (kind::DATA_AMF0, 40), (kind::COMMAND_AMF0, 13), (kind::COMMAND_AMF3, 0)]
        {
            assert_eq!(filler(&message(3, kind, length)), None);
        }
        let trailing = Message { payload: vec![0, 0, 1, 0, 9], ..Control::SetChunkSize(256).to_message() };
        assert_eq!(filler(&trailing), None);
    }

    #[test]
    fn chunk_streams_that_are_used_later_need_none_and_only_the_last_message_counts() {
        let mut heads = Heads::default();
        for (chunk_stream, length) in [(3, 20), (3, 30), (8, 40)] {
            heads.note(&message(chunk_stream, kind::COMMAND_AMF0, length));
        }
        let fillers = heads.fillers(&[message(8, kind::COMMAND_AMF0, 50)]);
        assert_eq!(fillers.iter().map(|m| (m.chunk_stream, m.payload.len())).collect::<Vec<_>>(), [(3, 30)]);
    }

    #[test]
    fn a_peer_with_many_chunk_streams_costs_no_more_than_the_limit() {
        let mut heads = Heads::default();
        for chunk_stream in 3..65_000 {
            heads.note(&message(chunk_stream, kind::COMMAND_AMF0, 20));
        }
        assert_eq!(heads.fillers(&[]).len(), MAX_CHUNK_STREAMS);
    }

    fn filler(message: &Message) -> Option<Message> {
        let mut heads = Heads::default();
        heads.note(message);
        heads.fillers(&[]).pop()
    }

    fn message(chunk_stream: u32, kind: u8, length: usize) -> Message {
        Message { chunk_stream, timestamp: 7, kind, stream: 1, payload: vec![0; length] }
    }
}
