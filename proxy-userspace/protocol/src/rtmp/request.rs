//! What a client asks for, as it is passed on to an origin.

use thiserror::Error;

use super::{
    amf0::{Text, Value},
    command::Command,
    message::Message,
};
use crate::stream_url::{StreamKey, StreamRules, StreamUrlError};

/// The longest tcUrl and the longest name of a stream. Tokens make them long; a stream's key holds 1024 bytes.
pub const MAX_NAME: usize = 8 * 1024;

/// Why a command asks for nothing that can be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// There is no `tcUrl`, without which SRS refuses too.
    #[error("connect command has no tcUrl")]
    NoTcUrl,
    /// The name of the stream is missing or no text.
    #[error("command names no stream")]
    NoStream,
    /// A name is longer than [`MAX_NAME`].
    #[error("name is too long")]
    TooLong,
    /// An argument is of a type that it cannot have.
    #[error("argument of a command has the wrong type")]
    Argument,
}

/// A connect command that can be passed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Connect {
    command: Command,
    tc_url: Text,
}

impl Connect {
    /// Takes a connect command, all of which is kept.
    ///
    /// # Errors
    ///
    /// Fails if it has no `tcUrl`.
    pub fn new(command: Command) -> Result<Self, RequestError> {
        let tc_url = command.object.property("tcUrl").and_then(Value::as_text);
        let tc_url = checked(tc_url.ok_or(RequestError::NoTcUrl)?)?;
        Ok(Self { command, tc_url })
    }

    /// The command.
    #[must_use]
    pub const fn command(&self) -> &Command {
        &self.command
    }

    /// The address that the client connected to, with the app.
    #[must_use]
    pub const fn tc_url(&self) -> &Text {
        &self.tc_url
    }

    /// A property of the command object if it is text: `app`, `flashVer`, `pageUrl`, `swfUrl`.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&Text> {
        self.command.object.property(name)?.as_text()
    }

    /// How the client wants objects encoded: 0 or 3, and 0 if it says nothing.
    #[must_use]
    pub fn object_encoding(&self) -> f64 {
        self.command.object.property("objectEncoding").and_then(Value::as_number).unwrap_or_default()
    }

    /// The key of the stream that is published or played under `name`.
    ///
    /// # Errors
    ///
    /// Fails if `tcUrl` and `name` name no stream.
    pub fn stream_key(&self, rules: &StreamRules, name: &Text) -> Result<StreamKey, StreamUrlError> {
        rules.rtmp(&self.tc_url.to_url_text(), &name.to_url_text())
    }
}

/// In which order a publisher asks. SRS treats the two differently later on: of a Flash publisher any command ends the
/// stream, of others only `FCUnpublish` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOrder {
    /// `releaseStream` or `FCPublish`, or both, at any time before `publish`: encoders.
    Fmle,
    /// `createStream` and `publish` alone: Flash players.
    Flash,
}

/// A stream to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Its name, with its query.
    pub name: Text,
    /// `live`, `record` or `append`, if the client says.
    pub publish_type: Option<Text>,
    /// How the client came here.
    pub order: PublishOrder,
}

impl Publish {
    /// Reads a publish command.
    pub(super) fn new(command: &Command, order: PublishOrder) -> Result<Self, RequestError> {
        let publish_type = match command.args.get(1) {
            None | Some(Value::Null | Value::Undefined) => None,
            Some(value) => Some(checked(value.as_text().ok_or(RequestError::Argument)?)?),
        };
        Ok(Self { name: stream_name(command)?, publish_type, order })
    }
}

/// A stream to be played.
#[derive(Debug, Clone, PartialEq)]
pub struct Play {
    /// Its name, with its query.
    pub name: Text,
    /// Where to start, in seconds; -2 is live or else recorded, -1 live only.
    pub start: Option<f64>,
    /// For how many seconds; -1 is to the end.
    pub duration: Option<f64>,
    /// Whether what is playing ends first.
    pub reset: Option<bool>,
    /// How many milliseconds the client has said to buffer by then.
    pub buffer: Option<u32>,
}

impl Play {
    /// Reads a play command.
    pub(super) fn new(command: &Command, buffer: Option<u32>) -> Result<Self, RequestError> {
        let number = |at| match command.args.get(at) {
            None | Some(Value::Null | Value::Undefined) => Ok(None),
            Some(value) => value.as_number().map(Some).ok_or(RequestError::Argument),
        };
        let reset = if let Some(Value::Boolean(reset)) = command.args.get(3) {
            Some(*reset)
        } else {
            number(3)?.map(|reset| reset != 0.0)
        };
        Ok(Self { name: stream_name(command)?, start: number(1)?, duration: number(2)?, reset, buffer })
    }
}

/// What a client wants of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// To send it.
    Publish(Publish),
    /// To get it.
    Play(Play),
}

impl Request {
    /// The stream's name, with its query.
    #[must_use]
    pub const fn name(&self) -> &Text {
        match self {
            Self::Publish(publish) => &publish.name,
            Self::Play(play) => &play.name,
        }
    }

    /// Which way the stream goes.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::Publish(publish) => Role::Publisher(publish.order),
            Self::Play(_) => Role::Player,
        }
    }
}

/// A request and what else an origin has to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// What the client wants.
    pub request: Request,
    /// Its command as it came, which the origin gets as it is.
    pub message: Message,
    /// What the origin gets before it in place of the messages that were for the proxy, so that the client's later
    /// chunks mean the same to the origin.
    pub fillers: Vec<Message>,
    /// After how many bytes the client wants an acknowledgement, if it has said so.
    pub window: Option<u32>,
}

/// What a client is to its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It sends it.
    Publisher(PublishOrder),
    /// It gets it.
    Player,
}

/// Why a stream was not given or not taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    /// The origin's code, if it gave one.
    pub code: Option<Text>,
    /// For people.
    pub description: Text,
}

/// A stream's name; it may be empty, since the app may name the stream.
fn stream_name(command: &Command) -> Result<Text, RequestError> {
    checked(command.text(0).ok_or(RequestError::NoStream)?)
}

fn checked(name: &Text) -> Result<Text, RequestError> {
    if name.len() > MAX_NAME { Err(RequestError::TooLong) } else { Ok(name.clone()) }
}

#[cfg(test)]
mod tests;
