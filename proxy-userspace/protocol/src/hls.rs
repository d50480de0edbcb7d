//! HLS playlists (RFC 8216, and its second edition with low latency), with other URIs in them.
//!
//! A playlist is a list of lines: tags, comments, URIs. A URI stands on a line of its own or in an attribute of one of a
//! few tags; everything else stays byte for byte, line ends included, for SRS, NGINX, FFmpeg and packagers differ in
//! what they write, and players in what they forgive. Nothing is found by looking for `.ts` in the text.

mod attributes;

use thiserror::Error;

use crate::uri::is_ours;

/// The attributes that hold URIs, by the tags that may have them (RFC 8216, section 4.3; draft-pantos-hls-rfc8216bis).
const URI_ATTRIBUTES: [(&str, &[&str]); 12] = [
    ("#EXT-X-KEY", &["URI"]),
    ("#EXT-X-SESSION-KEY", &["URI"]),
    ("#EXT-X-MAP", &["URI"]),
    ("#EXT-X-MEDIA", &["URI"]),
    ("#EXT-X-I-FRAME-STREAM-INF", &["URI"]),
    ("#EXT-X-PART", &["URI"]),
    ("#EXT-X-PRELOAD-HINT", &["URI"]),
    ("#EXT-X-RENDITION-REPORT", &["URI"]),
    ("#EXT-X-SESSION-DATA", &["URI"]),
    ("#EXT-X-IMAGE-STREAM-INF", &["URI"]),
    ("#EXT-X-CONTENT-STEERING", &["SERVER-URI"]),
    ("#EXT-X-DATERANGE", &["X-ASSET-URI", "X-ASSET-LIST"]),
];

/// The tags that only a master playlist has.
const MASTER_TAGS: [&str; 5] = [
    "#EXT-X-STREAM-INF",
    "#EXT-X-MEDIA",
    "#EXT-X-I-FRAME-STREAM-INF",
    "#EXT-X-SESSION-DATA",
    "#EXT-X-SESSION-KEY",
];

/// Why a text is no playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlaylistError {
    /// It is not UTF-8.
    #[error("playlist is not utf-8")]
    Encoding,
    /// Its first line is not `#EXTM3U`.
    #[error("not a playlist: first line is not #EXTM3U")]
    FirstLine,
}

/// What the URIs of a playlist lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlaylistKind {
    /// Other playlists.
    Master,
    /// Segments.
    Media,
}

/// A playlist as it was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Playlist<'a> {
    text: &'a str,
}

impl<'a> Playlist<'a> {
    /// Recognises a playlist; the caller bounds its size.
    ///
    /// # Errors
    ///
    /// Fails if the body is something else, such as a page that says why there is no playlist, or begins with a byte
    /// order mark, which players refuse (RFC 8216, section 4).
    pub fn parse(body: &'a [u8]) -> Result<Self, PlaylistError> {
        let text = str::from_utf8(body).map_err(|_| PlaylistError::Encoding)?;
        let first = lines(text).next().unwrap_or_default();
        if first.trim_end() == "#EXTM3U" { Ok(Self { text }) } else { Err(PlaylistError::FirstLine) }
    }

    /// Whether it lists playlists or segments; without either it is a media playlist that has not begun.
    #[must_use]
    pub fn kind(&self) -> PlaylistKind {
        let mut tags = lines(self.text).map(tag);
        if tags.any(|tag| MASTER_TAGS.contains(&tag)) { PlaylistKind::Master } else { PlaylistKind::Media }
    }

    /// Every URI, in the order of the text.
    pub fn uris(&self) -> impl Iterator<Item = &'a str> {
        lines(self.text).flat_map(pieces).filter_map(|piece| match piece {
            Piece::Uri(uri) => Some(uri),
            Piece::Text(_) => None,
        })
    }

    /// The playlist with `new_uri` in place of each URI that leads its reader back to one of `hosts` (see [`is_ours`]).
    ///
    /// What `new_uri` returns must be a URI: no quote, no white space.
    #[must_use]
    pub fn rewrite(&self, hosts: &[&str], mut new_uri: impl FnMut(&str) -> String) -> String {
        let mut rewritten = String::with_capacity(self.text.len() * 2);
        for piece in lines(self.text).flat_map(pieces) {
            match piece {
                Piece::Uri(uri) if is_ours(uri, hosts) => rewritten.push_str(&new_uri(uri)),
                Piece::Uri(text) | Piece::Text(text) => rewritten.push_str(text),
            }
        }
        rewritten
    }
}

/// A part of a line; all parts in their order are the line.
enum Piece<'a> {
    Text(&'a str),
    Uri(&'a str),
}

/// The lines of a playlist, each with its line end.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
}

fn pieces(line: &str) -> Vec<Piece<'_>> {
    let (before, content, after) = trimmed(line);
    if content.is_empty() {
        return vec![Piece::Text(line)];
    }
    if !content.starts_with('#') {
        return vec![Piece::Text(before), Piece::Uri(content), Piece::Text(after)];
    }
    let tag = tag(line);
    let attributes = URI_ATTRIBUTES.iter().find(|(name, _)| *name == tag);
    attributes.map_or_else(|| vec![Piece::Text(line)], |(_, names)| attributes::pieces(line, names))
}

/// A line as the white space before it, its content, and the white space after it.
fn trimmed(line: &str) -> (&str, &str, &str) {
    let (before, rest) = line.split_at(line.len() - line.trim_start().len());
    let (content, after) = rest.split_at(rest.trim_end().len());
    (before, content, after)
}

/// The name of a tag; a line that is none gives a name that no tag has.
fn tag(line: &str) -> &str {
    line.trim().split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
