//! The header lines of a head, in their order.

use super::HeadError;

/// One header line. The value has no white space around it and need not be UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// As it was written.
    pub name: &'a str,
    /// As it was written.
    pub value: &'a [u8],
}

impl Header<'_> {
    /// Whether this is the header `name`, whatever the case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    pub(super) fn write_to(&self, head: &mut Vec<u8>) {
        for part in [self.name.as_bytes(), b": ", self.value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
}

/// All header lines of a head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers<'a>(Vec<Header<'a>>);

impl<'a> Headers<'a> {
    pub(super) fn new(parsed: &[httparse::Header<'a>]) -> Self {
        Self(parsed.iter().map(|header| Header { name: header.name, value: header.value }).collect())
    }

    /// In the order of the head.
    pub fn iter(&self) -> impl Iterator<Item = Header<'a>> {
        self.0.iter().copied()
    }

    /// The values of every header `name`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |header| header.is(name)).map(|header| header.value)
    }

    /// The value of the first header `name`, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.all(name).find_map(|value| str::from_utf8(value).ok())
    }

    /// The items of a header that is a list of words, over all its lines.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .filter_map(|value| str::from_utf8(value).ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|word| !word.is_empty())
    }

    /// The value of a header that may be there once.
    pub(super) fn single(&self, name: &str, several: HeadError) -> Result<Option<&'a [u8]>, HeadError> {
        let mut values = self.all(name);
        let value = values.next();
        if values.next().is_some() { Err(several) } else { Ok(value) }
    }
}
