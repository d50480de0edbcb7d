//! What a server says about a stream or the connection: an object with `level`, `code` and `description`.

use super::Command;
use crate::rtmp::amf0::{Properties, Text, Value};

/// The codes that the proxy reads or writes (RTMP 1.0, section 7.2; the rest is from SRS).
pub mod code {
    /// The connection may be used.
    pub const CONNECT_SUCCESS: &str = "NetConnection.Connect.Success";
    /// The connection may not be used, or another server shall be.
    pub const CONNECT_REJECTED: &str = "NetConnection.Connect.Rejected";
    /// What was sent before belongs to another stream.
    pub const PLAY_RESET: &str = "NetStream.Play.Reset";
    /// The stream is about to come.
    pub const PLAY_START: &str = "NetStream.Play.Start";
    /// The stream will not come.
    pub const PLAY_FAILED: &str = "NetStream.Play.Failed";
    /// The stream may be sent.
    pub const PUBLISH_START: &str = "NetStream.Publish.Start";
    /// The stream may not be sent.
    pub const PUBLISH_BAD_NAME: &str = "NetStream.Publish.BadName";
}

/// How a server says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// So it is.
    Status,
    /// It failed.
    Error,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Error => "error",
        }
    }
}

/// A status as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Status<'a> {
    info: &'a Properties,
}

impl<'a> Status<'a> {
    /// The status that a command says: in its first argument, or, as `_error` of some servers does, in its object.
    #[must_use]
    pub fn of(command: &'a Command) -> Option<Self> {
        let values = command.args.iter().take(1).chain([&command.object]);
        let mut infos = values.filter_map(Value::properties);
        infos.find(|info| info.get("code").is_some()).map(|info| Self { info })
    }

    /// Whether it is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.text("level").is_some_and(|level| *level == "error")
    }

    /// Its code; nothing if it is not text.
    #[must_use]
    pub fn code(&self) -> Option<&'a Text> {
        self.text("code")
    }

    /// What it says to people.
    #[must_use]
    pub fn description(&self) -> Option<&'a Text> {
        self.text("description")
    }

    /// Where the stream is instead, if it is a redirection (`ex.code` 302 and `ex.redirect`, from Adobe's server and
    /// SRS).
    #[must_use]
    pub fn redirect(&self) -> Option<&'a Text> {
        let ex = self.info.get("ex")?;
        let is_redirect = ex.property("code")?.as_number()? == 302.0;
        ex.property("redirect").and_then(Value::as_text).filter(|_| is_redirect)
    }

    fn text(&self, name: &str) -> Option<&'a Text> {
        self.info.get(name)?.as_text()
    }
}

/// The command `onStatus`.
#[must_use]
pub fn on_status(level: Level, code: &str, description: &str, more: &[(&str, &str)]) -> Command {
    let mut info = Properties::from([
        ("level", Value::from(level.as_str())),
        ("code", code.into()),
        ("description", description.into()),
    ]);
    for (name, value) in more {
        info.push((*name).into(), (*value).into());
    }
    Command::new("onStatus", 0.0, vec![info.into()])
}
