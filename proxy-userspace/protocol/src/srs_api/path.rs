//! What a path of the API is about: one of the things that are known here, or nothing.
//!
//! The path that an origin gets is made anew from what was understood, so that no way of writing one reaches what is not
//! passed on. That is most of all `raw`, which changes the configuration of SRS.

use thiserror::Error;

use super::item::Kind;
use crate::query;

/// What is asked of an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The origins themselves, which the proxy knows.
    Origins,
    /// All items.
    List(Kind),
    /// One item.
    One(Kind, ItemId),
    /// Something of which an origin has one.
    Single(&'static str),
}

/// What there is one of in each origin.
const SINGLE: [&str; 8] = [
    "summaries",
    "rusages",
    "self_proc_stats",
    "system_proc_stats",
    "meminfos",
    "authors",
    "features",
    "requests",
];

const PREFIX: &str = "/api/v1/";
const MAX_ID_LEN: usize = 64;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathError {
    /// It would change what an origin does.
    #[error("the raw API of origins is never passed on")]
    Raw,
    /// Nothing is known by this name.
    #[error(
        "there is /api/v1/ with versions, origins, summaries, vhosts, streams, clients, rusages, self_proc_stats, \
         system_proc_stats, meminfos, authors, features and requests"
    )]
    Unknown,
    /// SRS gives no such ids.
    #[error(
        "an id has up to 64 letters, digits, `-`, `_` and `.`, and may be followed by `@` and its origin"
    )]
    Id,
}

/// The id of an item, as somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemId {
    /// What its origin calls it.
    pub id: String,
    /// The origin, if it was named.
    pub origin: Option<String>,
}

impl Target {
    /// Reads the path of a request, as it was written.
    ///
    /// # Errors
    ///
    /// Fails if it is about nothing that is passed on.
    pub fn of_path(path: &str) -> Result<Self, PathError> {
        let unknown = || if is_raw(path) { PathError::Raw } else { PathError::Unknown };
        let name = path.strip_prefix(PREFIX).ok_or_else(unknown)?;
        let (name, below) = name.split_once('/').unwrap_or((name, ""));
        match Kind::ALL.into_iter().find(|kind| kind.list() == name) {
            Some(kind) if below.is_empty() => return Ok(Self::List(kind)),
            Some(_) if below.contains('/') => return Err(unknown()),
            Some(kind) => return ItemId::parse(below).map(|id| Self::One(kind, id)),
            None => {}
        }
        let single = SINGLE.into_iter().find(|single| *single == name);
        match single {
            Some(single) if below.is_empty() => Ok(Self::Single(single)),
            None if name == "origins" && below.is_empty() => Ok(Self::Origins),
            Some(_) | None => Err(unknown()),
        }
    }

    /// The path that an origin is asked for.
    #[must_use]
    pub fn to_path(&self) -> String {
        match self {
            Self::Origins => format!("{PREFIX}origins"),
            // SRS redirects who leaves the last slash out.
            Self::List(kind) => format!("{PREFIX}{}/", kind.list()),
            Self::One(kind, id) => format!("{PREFIX}{}/{}", kind.list(), id.id),
            Self::Single(name) => format!("{PREFIX}{name}"),
        }
    }
}

impl ItemId {
    fn parse(segment: &str) -> Result<Self, PathError> {
        let text = query::percent_decode(segment);
        let (id, origin) = match text.split_once('@') {
            Some((id, origin)) => (id, Some(origin.to_owned())),
            None => (&*text, None),
        };
        let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let is_dots = id.bytes().all(|byte| byte == b'.');
        if id.len() > MAX_ID_LEN || !is_plain || is_dots {
            return Err(PathError::Id);
        }
        Ok(Self { id: id.to_owned(), origin })
    }
}

/// However it is written; only the words of the refusal depend on it.
fn is_raw(path: &str) -> bool {
    let path = query::percent_decode(path).to_ascii_lowercase();
    path.split('/').any(|segment| segment.trim_matches(['.', ' ']) == "raw")
}
