//! One vhost, stream or client.

use serde_json::value::RawValue;

use super::members::{Members, Object, quoted, text};
use crate::stream_url::{DEFAULT_VHOST, StreamKey};

/// What SRS has lists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/api/v1/vhosts/`
    Vhost,
    /// `/api/v1/streams/`
    Stream,
    /// `/api/v1/clients/`
    Client,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Vhost, Self::Stream, Self::Client];

    /// The name of the list, in paths and in answers.
    #[must_use]
    pub const fn list(self) -> &'static str {
        match self {
            Self::Vhost => "vhosts",
            Self::Stream => "streams",
            Self::Client => "clients",
        }
    }

    /// The member that an answer about one of them has.
    #[must_use]
    pub const fn one(self) -> &'static str {
        match self {
            Self::Vhost => "vhost",
            Self::Stream => "stream",
            Self::Client => "client",
        }
    }

    /// Members that hold an id of the same origin.
    const fn ids(self) -> &'static [&'static str] {
        match self {
            Self::Vhost => &["id"],
            Self::Stream => &["id", "vhost"],
            Self::Client => &["id", "vhost", "stream"],
        }
    }
}

/// An id that means the same to everybody.
#[must_use]
pub fn qualified_id(id: &str, origin: &str) -> String {
    format!("{id}@{origin}")
}

/// An item with the name of its origin, and with ids that name it too.
pub(super) fn qualified(kind: Kind, item: &Members<'_>, origin: &str) -> String {
    let mut object = Object::new();
    for (name, value) in item.iter().filter(|(name, _)| *name != "origin") {
        let changed = match name {
            _ if kind.ids().contains(&name) => qualified_value(value, origin),
            "publish" if kind == Kind::Stream => qualified_publisher(value, origin),
            _ => None,
        };
        object.member(name, changed.as_deref().unwrap_or(value.get()));
    }
    object.text("origin", origin);
    object.finish()
}

/// Whether a stream or client is, or belongs to, this stream. SRS leaves the default vhost out of its `url`.
pub(super) fn is_of(item: &Members<'_>, stream: &StreamKey) -> bool {
    let vhost = if stream.vhost() == DEFAULT_VHOST { "" } else { stream.vhost() };
    item.text("url").is_some_and(|url| url == format!("{vhost}/{}/{}", stream.app(), stream.stream()))
}

/// An id is a string that is not empty; what is not passes as it is.
fn qualified_value(value: &RawValue, origin: &str) -> Option<String> {
    let id = text(value).filter(|id| !id.is_empty())?;
    Some(quoted(&qualified_id(&id, origin)))
}

fn qualified_publisher(publish: &RawValue, origin: &str) -> Option<String> {
    let publish = Members::parse(publish.get())?;
    let mut object = Object::new();
    for (name, value) in publish.iter() {
        let changed = if name == "cid" { qualified_value(value, origin) } else { None };
        object.member(name, changed.as_deref().unwrap_or(value.get()));
    }
    Some(object.finish())
}
