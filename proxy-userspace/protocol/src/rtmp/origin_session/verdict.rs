//! What an answer of an origin comes down to.

use super::{
    OriginStep,
    transaction::{FC_PUBLISH, RELEASE_STREAM},
};
use crate::rtmp::{
    amf0::Text,
    command::{
        Command,
        status::{Status, code},
    },
    request::{Refusal, Role},
};

/// The longest description that is passed on, and the longest address of a redirection.
const MAX_TEXT: usize = 1024;

/// The end of asking an origin.
#[derive(Debug)]
pub(super) enum Verdict {
    Redirect { url: String },
    Refused(Refusal),
}

impl Verdict {
    /// The verdict that a command is at this step, if it is one.
    ///
    /// A stream that has started may still be redirected; an error after that is the client's to hear.
    pub(super) fn of(command: &Command, step: OriginStep) -> Option<Self> {
        let status = Status::of(command);
        if !is_error(command, status.as_ref(), step) {
            return None;
        }
        let redirect = status.as_ref().and_then(Status::redirect).and_then(address);
        match redirect {
            Some(url) => Some(Self::Redirect { url }),
            None if step == OriginStep::Started => None,
            None => Some(Self::Refused(refusal(status.as_ref()))),
        }
    }
}

/// Whether a command is the answer that lets the stream start.
pub(super) fn starts(command: &Command, role: Role) -> bool {
    let start = match role {
        Role::Publisher(_) => code::PUBLISH_START,
        Role::Player => code::PLAY_START,
    };
    let status = Status::of(command);
    command.name == "onStatus" && status.as_ref().and_then(Status::code).is_some_and(|code| *code == start)
}

/// `releaseStream` and `FCPublish` may fail, as they do in Adobe's server when there is nothing to release.
fn is_error(command: &Command, status: Option<&Status<'_>>, step: OriginStep) -> bool {
    match command.name.as_bytes() {
        b"_error" => {
            let may_fail = [RELEASE_STREAM, FC_PUBLISH].contains(&command.transaction);
            step != OriginStep::Started && !may_fail
        }
        b"onStatus" => status.is_some_and(Status::is_error),
        _ => false,
    }
}

fn refusal(status: Option<&Status<'_>>) -> Refusal {
    let text = |text: Option<&Text>| text.filter(|text| text.len() <= MAX_TEXT).cloned();
    Refusal {
        code: text(status.and_then(Status::code)),
        description: text(status.and_then(Status::description)).unwrap_or_else(|| "origin refused".into()),
    }
}

/// An address that may stand in a log.
fn address(url: &Text) -> Option<String> {
    let url = std::str::from_utf8(url.as_bytes()).ok()?;
    let is_fit = url.len() <= MAX_TEXT && !url.is_empty() && !url.chars().any(char::is_control);
    is_fit.then(|| url.to_owned())
}
