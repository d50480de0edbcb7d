//! DASH manifests (ISO/IEC 23009-1), with other URIs in them.
//!
//! As with playlists, what is no URI stays byte for byte: the manifest is cut into pieces, and new URIs are put
//! where old ones were. Templates such as `$RepresentationID$-$Number%05d$.m4s` are URIs like any other.

mod document;

use std::borrow::Cow;

use quick_xml::escape::{escape, unescape};
use thiserror::Error;

use crate::uri::is_ours;

/// The attributes that hold URIs, by the elements that have them.
const URI_ATTRIBUTES: [(&str, &[&str]); 5] = [
    ("SegmentTemplate", &["media", "initialization", "index", "bitstreamSwitching"]),
    ("SegmentURL", &["media", "index"]),
    ("Initialization", &["sourceURL"]),
    ("RepresentationIndex", &["sourceURL"]),
    ("BitstreamSwitching", &["sourceURL"]),
];

/// The attribute of whatever element is kept elsewhere.
const REMOTE_ELEMENT: &str = "xlink:href";

/// The elements whose text is a URI.
const URI_ELEMENTS: [&str; 3] = [BASE, "Location", "PatchLocation"];

/// What the URIs within its parent are relative to.
const BASE: &str = "BaseURL";

const ROOT: &str = "MPD";

/// Why a text is no manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// It is not UTF-8.
    #[error("manifest is not utf-8")]
    Encoding,
    /// The outermost element is not `MPD`.
    #[error("not a manifest: no element MPD")]
    Root,
    /// It is not well-formed, cut, or has a document type, which no manifest needs.
    #[error("manifest is malformed")]
    Malformed,
}

/// A manifest as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest<'a> {
    pieces: Vec<Piece<'a>>,
}

/// A part of a manifest; all texts and URIs in their order are the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Uri {
        raw: &'a str,
        place: Place,
    },
    /// An element begins.
    Open,
    /// An element ends.
    Close,
}

/// Where a URI stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is a resource, written with entities.
    Resource,
    /// Others are relative to it, and it is written with entities.
    Base,
    /// It is a resource in a CDATA section.
    RawResource,
    /// Others are relative to it, and it is in a CDATA section.
    RawBase,
}

impl Place {
    const fn is_base(self) -> bool {
        matches!(self, Self::Base | Self::RawBase)
    }

    fn decode(self, raw: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Resource | Self::Base => unescape(raw).ok(),
            Self::RawResource | Self::RawBase => Some(Cow::Borrowed(raw)),
        }
    }

    fn encode(self, uri: &str) -> Cow<'_, str> {
        match self {
            Self::Resource | Self::Base => escape(uri),
            Self::RawResource | Self::RawBase => Cow::Borrowed(uri),
        }
    }
}

impl<'a> Manifest<'a> {
    /// Reads a manifest; the caller bounds its size.
    ///
    /// # Errors
    ///
    /// Fails if the body is something else, or malformed.
    pub fn parse(body: &'a [u8]) -> Result<Self, ManifestError> {
        let text = str::from_utf8(body).map_err(|_| ManifestError::Encoding)?;
        document::pieces(text).map(|pieces| Self { pieces })
    }

    /// Every URI, in the order of the text and without entities.
    pub fn uris(&self) -> impl Iterator<Item = Cow<'a, str>> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Uri { raw, place } => place.decode(raw),
            Piece::Text(_) | Piece::Open | Piece::Close => None,
        })
    }

    /// The manifest with `new_uri` in place of each URI that leads its reader back to one of `hosts` (see [`is_ours`]).
    ///
    /// A base that is a directory stays: nothing is fetched by it, and its query would not reach what is relative to it.
    /// What is relative to another host's base stays too. What `new_uri` returns must be a URI.
    #[must_use]
    pub fn rewrite(&self, hosts: &[&str], mut new_uri: impl FnMut(&str) -> String) -> String {
        let mut scopes = Scopes::default();
        let mut rewritten = String::new();
        for piece in &self.pieces {
            match *piece {
                Piece::Text(text) => rewritten.push_str(text),
                Piece::Open => scopes.open(),
                Piece::Close => scopes.close(),
                Piece::Uri { raw, place } => {
                    let uri = place.decode(raw).filter(|uri| scopes.leads_to_us(uri, place, hosts));
                    let uri = uri.filter(|uri| !(place.is_base() && is_directory(uri)));
                    let new = uri.map(|uri| (new_uri(&uri), uri)).filter(|(new, uri)| new != uri);
                    match new {
                        Some((new, _uri)) => rewritten.push_str(&place.encode(&new)),
                        None => rewritten.push_str(raw),
                    }
                }
            }
        }
        rewritten
    }
}

/// What relative URIs are relative to, for each element that is open.
#[derive(Default)]
struct Scopes(Vec<Scope>);

#[derive(Clone, Copy, Default)]
struct Scope {
    /// What the element inherits is on another host.
    parent_is_elsewhere: bool,
    /// So is what it says itself, if it does.
    own: Option<bool>,
}

impl Scope {
    fn is_elsewhere(self) -> bool {
        self.own.unwrap_or(self.parent_is_elsewhere)
    }
}

impl Scopes {
    fn open(&mut self) {
        let parent_is_elsewhere = self.0.last().is_some_and(|scope| scope.is_elsewhere());
        self.0.push(Scope { parent_is_elsewhere, own: None });
    }

    fn close(&mut self) {
        self.0.pop();
    }

    /// Whether a URI of the innermost element leads to us. A base is remembered; of several, one of ours is enough.
    fn leads_to_us(&mut self, uri: &str, place: Place, hosts: &[&str]) -> bool {
        let is_relative = is_ours(uri, &[]);
        let Some(scope) = self.0.last_mut() else { return false };
        let base_is_elsewhere =
            if place.is_base() { scope.parent_is_elsewhere } else { scope.is_elsewhere() };
        let is_elsewhere = if is_relative { base_is_elsewhere } else { !is_ours(uri, hosts) };
        if place.is_base() {
            scope.own = Some(scope.own.unwrap_or(true) && is_elsewhere);
        }
        !is_elsewhere
    }
}

fn is_directory(uri: &str) -> bool {
    uri.split(['?', '#']).next().is_some_and(|path| path.ends_with('/'))
}

#[cfg(test)]
mod tests;
