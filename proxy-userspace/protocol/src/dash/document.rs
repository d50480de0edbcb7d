//! Cuts the text of a manifest into pieces.

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use super::{BASE, ManifestError, Piece, Place, REMOTE_ELEMENT, ROOT, URI_ATTRIBUTES, URI_ELEMENTS};

const CDATA: &str = "<![CDATA[";

pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, ManifestError> {
    // The reader passes over a byte order mark without counting it.
    let xml = text.trim_start_matches('\u{FEFF}');
    let mark = text.split_at(text.len() - xml.len()).0;
    let reader = Reader::from_str(xml);
    let mut document = Document { reader, rest: xml, position: 0, depth: 0, pieces: vec![Piece::Text(mark)] };
    while document.step()? {}
    if document.pieces.contains(&Piece::Open) { Ok(document.pieces) } else { Err(ManifestError::Root) }
}

struct Document<'a> {
    reader: Reader<&'a [u8]>,
    /// What was not cut yet, and where it begins.
    rest: &'a str,
    position: u64,
    depth: usize,
    pieces: Vec<Piece<'a>>,
}

impl<'a> Document<'a> {
    /// Takes one event; whether there may be more.
    fn step(&mut self) -> Result<bool, ManifestError> {
        let event = self.reader.read_event().map_err(|_| ManifestError::Malformed)?;
        let raw = self.cut()?;
        match &event {
            Event::Start(tag) => {
                let name = tag.local_name();
                self.begin(tag, raw)?;
                self.depth += 1;
                if URI_ELEMENTS.contains(&name.as_ref()) {
                    self.reader.read_to_end(tag.name()).map_err(|_| ManifestError::Malformed)?;
                    self.uri_element(name.as_ref())?;
                }
            }
            Event::Empty(tag) => {
                self.begin(tag, raw)?;
                self.pieces.push(Piece::Close);
            }
            Event::End(_) => self.end(raw),
            Event::DocType(_) => return Err(ManifestError::Malformed),
            Event::Eof if self.depth == 0 => return Ok(false),
            Event::Eof => return Err(ManifestError::Malformed),
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::GeneralRef(_) => self.pieces.push(Piece::Text(raw)),
        }
        Ok(true)
    }

    /// The text that the reader has passed since the last call.
    fn cut(&mut self) -> Result<&'a str, ManifestError> {
        let position = self.reader.buffer_position();
        let length = usize::try_from(position - self.position).map_err(|_| ManifestError::Malformed)?;
        let (raw, rest) = self.rest.split_at_checked(length).ok_or(ManifestError::Malformed)?;
        (self.rest, self.position) = (rest, position);
        Ok(raw)
    }

    fn begin(&mut self, tag: &BytesStart<'_>, raw: &'a str) -> Result<(), ManifestError> {
        // Markup in a value, which the reader lets pass, would make tags of what is no tag.
        let is_well_formed =
            tag.attributes().all(|attribute| attribute.is_ok_and(|a| !a.value.contains('<')));
        if !is_well_formed {
            return Err(ManifestError::Malformed);
        }
        let name = tag.local_name();
        if self.depth == 0 && name.as_ref() != ROOT {
            return Err(ManifestError::Root);
        }
        self.pieces.push(Piece::Open);
        let attributes = URI_ATTRIBUTES.iter().find(|(element, _)| *element == name.as_ref());
        self.attributes(raw, attributes.map_or(&[], |(_, names)| *names));
        Ok(())
    }

    fn end(&mut self, tag: &'a str) {
        self.depth = self.depth.saturating_sub(1);
        self.pieces.extend([Piece::Text(tag), Piece::Close]);
    }

    /// Cuts a tag around the values of the attributes called one of `names`.
    fn attributes(&mut self, tag: &'a str, names: &[&str]) {
        let mut rest = tag;
        while let Some((name, before, value, after)) = first_attribute(rest) {
            self.pieces.push(Piece::Text(before));
            let is_uri = name == REMOTE_ELEMENT || names.contains(&name);
            self.pieces.push(if is_uri {
                Piece::Uri { raw: value, place: Place::Resource }
            } else {
                Piece::Text(value)
            });
            rest = after;
        }
        self.pieces.push(Piece::Text(rest));
    }

    /// The content of an element whose text is a URI, and its end. A base is one of the element around it.
    fn uri_element(&mut self, name: &str) -> Result<(), ManifestError> {
        let content_and_end = self.cut()?;
        let end = content_and_end.rfind("</").ok_or(ManifestError::Malformed)?;
        let (content, end) = content_and_end.split_at(end);
        self.pieces.push(Piece::Close);
        self.content(content, name == BASE);
        self.pieces.push(Piece::Text(end));
        self.depth -= 1;
        Ok(())
    }

    fn content(&mut self, content: &'a str, is_base: bool) {
        let cdata = content.trim().strip_prefix(CDATA).and_then(|text| text.strip_suffix("]]>"));
        let (uri, start, place) = match (cdata, is_base) {
            (None, false) => (content.trim(), 0, Place::Resource),
            (None, true) => (content.trim(), 0, Place::Base),
            (Some(uri), false) => (uri.trim(), CDATA.len(), Place::RawResource),
            (Some(uri), true) => (uri.trim(), CDATA.len(), Place::RawBase),
        };
        if uri.is_empty() || uri.contains('<') {
            self.pieces.push(Piece::Text(content));
            return;
        }
        let (space, rest) = split_space(content);
        let inner_space = split_space(rest.split_at(start).1).0;
        let (before, rest) = content.split_at(space.len() + start + inner_space.len());
        let (raw, after) = rest.split_at(uri.len());
        self.pieces.extend([Piece::Text(before), Piece::Uri { raw, place }, Piece::Text(after)]);
    }
}

fn split_space(text: &str) -> (&str, &str) {
    text.split_at(text.len() - text.trim_start().len())
}

/// The first attribute of what is left of a tag: its name, what precedes the value, the value, what follows it.
fn first_attribute(tag: &str) -> Option<(&str, &str, &str, &str)> {
    let (name, assigned) = tag.split_once('=')?;
    let name =
        name.split(|c: char| c.is_whitespace() || c == '"' || c == '\'').rfind(|word| !word.is_empty())?;
    let quoted = assigned.trim_start();
    let quote = quoted.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let value = quoted.strip_prefix(quote)?.split_once(quote)?.0;
    let (before, rest) = tag.split_at(tag.len() - quoted.len() + 1);
    let (value, after) = rest.split_at(value.len());
    Some((name, before, value, after))
}
