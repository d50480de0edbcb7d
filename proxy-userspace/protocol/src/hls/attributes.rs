//! The attribute list of a tag (RFC 8216, section 4.2): `NAME=value`, joined by commas that may also stand in quotes.

use super::Piece;

/// A tag's line, cut around the quoted values of the attributes called one of `names`.
///
/// What is malformed ends the search: the rest of the line stays.
pub(super) fn pieces<'a>(line: &'a str, names: &[&str]) -> Vec<Piece<'a>> {
    let (tag, mut rest) = line.split_at(line.find(':').map_or(line.len(), |colon| colon + 1));
    let mut pieces = vec![Piece::Text(tag)];
    while let Some(attribute) = Attribute::first(rest) {
        let is_uri = attribute.is_quoted && names.contains(&attribute.name);
        pieces.push(Piece::Text(attribute.before));
        pieces.push(if is_uri { Piece::Uri(attribute.value) } else { Piece::Text(attribute.value) });
        rest = attribute.after;
    }
    pieces.push(Piece::Text(rest));
    pieces
}

struct Attribute<'a> {
    name: &'a str,
    is_quoted: bool,
    /// Everything up to the value, with the quote.
    before: &'a str,
    value: &'a str,
    /// Everything from the quote or the comma that ends the value.
    after: &'a str,
}

impl<'a> Attribute<'a> {
    fn first(list: &'a str) -> Option<Self> {
        let (name, assigned) = list.split_once('=')?;
        let name = name.trim_matches(['"', ',', ' ', '\t']);
        let (value, is_quoted) = match assigned.strip_prefix('"') {
            Some(quoted) => (quoted.split_once('"')?.0, true),
            None => (assigned.split(',').next()?, false),
        };
        let (before, rest) = list.split_at(list.len() - assigned.len() + usize::from(is_quoted));
        let (value, after) = rest.split_at(value.len());
        Some(Self { name, is_quoted, before, value, after })
    }
}
