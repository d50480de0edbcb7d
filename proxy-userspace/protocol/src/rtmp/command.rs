//! Commands: a name, a transaction, an object and arguments (RTMP 1.0, section 7.1.1).
//!
//! Kind 20 holds AMF0 values. Kind 17 is sent by clients that connected with `objectEncoding` 3: a format byte, then
//! AMF0 values too, of which some may switch to AMF3. SRS answers with kind 20 whatever it was asked with, and so does
//! everything here.

pub mod status;

use thiserror::Error;

use super::{
    amf0::{self, Amf0Error, Text, Value},
    message::{COMMAND_CHUNK_STREAM, CONTROL_STREAM, Message, kind},
};

/// The longest command that is read. The longest from SRS, its answer to `connect`, names its authors in 2 KB.
pub const MAX_COMMAND: usize = 64 * 1024;

/// Why a message is not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CommandError {
    /// The message is of another kind.
    #[error("message kind {0} is not of a command")]
    Kind(u8),
    /// The message is longer than [`MAX_COMMAND`].
    #[error("command is too long")]
    TooLong,
    /// The format byte of kind 17 is missing.
    #[error("command is empty")]
    Empty,
    /// The values are malformed.
    #[error(transparent)]
    Values(#[from] Amf0Error),
    /// The first value is not a name.
    #[error("command has no name")]
    Name,
    /// The second value is not a number.
    #[error("command has no transaction id")]
    Transaction,
}

/// A command, or the answer to one.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// What to do, or `_result` or `_error`.
    pub name: Text,
    /// Ties an answer to its command; zero where none is expected.
    pub transaction: f64,
    /// The command object, [`Value::Null`] if there is none.
    pub object: Value,
    /// What follows.
    pub args: Vec<Value>,
}

impl Command {
    /// A command without an object.
    #[must_use]
    pub fn new(name: &str, transaction: f64, args: Vec<Value>) -> Self {
        Self { name: name.into(), transaction, object: Value::Null, args }
    }

    /// The answer to a command that went well.
    #[must_use]
    pub fn result(transaction: f64, object: Value, answer: Value) -> Self {
        Self { name: "_result".into(), transaction, object, args: vec![answer] }
    }

    /// Reads a message of either kind.
    ///
    /// # Errors
    ///
    /// Fails if the message is of another kind, exceeds a limit, or is malformed.
    pub fn parse(message: &Message) -> Result<Self, CommandError> {
        let payload = message.payload.as_slice();
        if payload.len() > MAX_COMMAND {
            return Err(CommandError::TooLong);
        }
        let values = match message.kind {
            kind::COMMAND_AMF0 => payload,
            kind::COMMAND_AMF3 => payload.split_first().ok_or(CommandError::Empty)?.1,
            other => return Err(CommandError::Kind(other)),
        };
        let mut values = amf0::decode(values)?.into_iter();
        let Some(Value::String(name)) = values.next() else { return Err(CommandError::Name) };
        let Some(Value::Number(transaction)) = values.next() else { return Err(CommandError::Transaction) };
        Ok(Self { name, transaction, object: values.next().unwrap_or(Value::Null), args: values.collect() })
    }

    /// The message, about the connection.
    #[must_use]
    pub fn to_message(&self) -> Message {
        self.to_message_on(CONTROL_STREAM, COMMAND_CHUNK_STREAM)
    }

    /// The message, on these streams.
    #[must_use]
    pub fn to_message_on(&self, stream: u32, chunk_stream: u32) -> Message {
        let mut payload = Vec::new();
        let head = [Value::from(self.name.clone()), Value::Number(self.transaction), self.object.clone()];
        amf0::encode(&head, &mut payload);
        amf0::encode(&self.args, &mut payload);
        Message { chunk_stream, timestamp: 0, kind: kind::COMMAND_AMF0, stream, payload }
    }

    /// Whether the sender waits for an answer.
    #[must_use]
    pub fn expects_answer(&self) -> bool {
        self.transaction > 0.0
    }

    /// The text at this place among the arguments.
    #[must_use]
    pub fn text(&self, at: usize) -> Option<&Text> {
        self.args.get(at)?.as_text()
    }

    /// The number at this place among the arguments.
    #[must_use]
    pub fn number(&self, at: usize) -> Option<f64> {
        self.args.get(at)?.as_number()
    }
}

#[cfg(test)]
mod tests;
