//! AMF0 ("Action Message Format -- AMF 0", 2007): the values that commands are made of.
//!
//! A value is kept as it was sent: the order of properties, names that occur twice, the count that an array claims
//! and text that is not UTF-8, so that what a client says reaches the origin unchanged. Where the sender switches to
//! AMF3 the rest of the message is AMF3 too; it stays opaque in [`Value::Amf3`].
//!
//! What is read costs memory in proportion to its length: a value takes [`MAX_VALUES`] others at most, nested
//! [`MAX_DEPTH`] deep, and no count in the input reserves anything.

mod decode;
mod encode;
mod text;

use thiserror::Error;

pub use self::{decode::decode, encode::encode, text::Text};
use crate::reader::UnexpectedEnd;

/// How many values one message may hold.
pub const MAX_VALUES: usize = 4096;
/// How deep values may be nested. SRS and its clients use four levels.
pub const MAX_DEPTH: usize = 16;
/// The longest text, of short and of long strings.
pub const MAX_TEXT: usize = 65_535;

/// Type markers (AMF 0, section 2.1). 4 and 14 are reserved and never sent.
mod marker {
    pub(super) const NUMBER: u8 = 0;
    pub(super) const BOOLEAN: u8 = 1;
    pub(super) const STRING: u8 = 2;
    pub(super) const OBJECT: u8 = 3;
    pub(super) const NULL: u8 = 5;
    pub(super) const UNDEFINED: u8 = 6;
    pub(super) const REFERENCE: u8 = 7;
    pub(super) const ECMA_ARRAY: u8 = 8;
    pub(super) const OBJECT_END: u8 = 9;
    pub(super) const STRICT_ARRAY: u8 = 10;
    pub(super) const DATE: u8 = 11;
    pub(super) const LONG_STRING: u8 = 12;
    pub(super) const UNSUPPORTED: u8 = 13;
    pub(super) const XML: u8 = 15;
    pub(super) const TYPED_OBJECT: u8 = 16;
    pub(super) const AMF3: u8 = 17;
}

/// Why bytes are no AMF0 values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Amf0Error {
    /// The input ends within a value.
    #[error("amf0 value is truncated")]
    Truncated,
    /// No value has this marker.
    #[error("amf0 marker {0} is not of a value")]
    Marker(u8),
    /// Values are nested deeper than [`MAX_DEPTH`].
    #[error("amf0 values are nested too deeply")]
    TooDeep,
    /// There are more values than [`MAX_VALUES`].
    #[error("amf0 values are too many")]
    TooMany,
    /// A text is longer than [`MAX_TEXT`].
    #[error("amf0 text is too long")]
    TooLong,
    /// AMF3 begins inside another value, whose end could not be found.
    #[error("amf3 begins inside an amf0 value")]
    Amf3Inside,
}

impl From<UnexpectedEnd> for Amf0Error {
    fn from(UnexpectedEnd: UnexpectedEnd) -> Self {
        Self::Truncated
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A double, which is also how integers are sent.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// Text with a 16-bit length.
    String(Text),
    /// Named values.
    Object(Properties),
    /// Null.
    Null,
    /// Undefined.
    Undefined,
    /// The index of an object that came before.
    Reference(u16),
    /// Named values that call themselves an array.
    EcmaArray {
        /// How many there are, says the sender; some always say 0.
        count: u32,
        /// What there is.
        properties: Properties,
    },
    /// Values without names.
    StrictArray(Vec<Value>),
    /// A time.
    Date {
        /// Since 1970, UTC.
        milliseconds: f64,
        /// Reserved, and zero if the sender keeps to it.
        zone: i16,
    },
    /// Text with a 32-bit length.
    LongString(Text),
    /// A value that the sender could not write.
    Unsupported,
    /// An XML document as text with a 32-bit length.
    Xml(Text),
    /// Named values of a class.
    TypedObject {
        /// The name of the class.
        class: Text,
        /// What it holds.
        properties: Properties,
    },
    /// The rest of the message, in AMF3.
    Amf3(Vec<u8>),
}

impl Value {
    /// The text of either kind of string.
    #[must_use]
    pub const fn as_text(&self) -> Option<&Text> {
        match self {
            Self::String(text) | Self::LongString(text) => Some(text),
            Self::Number(_)
            | Self::Boolean(_)
            | Self::Object(_)
            | Self::Null
            | Self::Undefined
            | Self::Reference(_)
            | Self::EcmaArray { .. }
            | Self::StrictArray(_)
            | Self::Date { .. }
            | Self::Unsupported
            | Self::Xml(_)
            | Self::TypedObject { .. }
            | Self::Amf3(_) => None,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub const fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// What has a name in an object of either kind, or in an array with names.
    #[must_use]
    pub const fn properties(&self) -> Option<&Properties> {
        match self {
            Self::Object(properties)
            | Self::EcmaArray { properties, .. }
            | Self::TypedObject { properties, .. } => Some(properties),
            Self::Number(_)
            | Self::Boolean(_)
            | Self::String(_)
            | Self::Null
            | Self::Undefined
            | Self::Reference(_)
            | Self::StrictArray(_)
            | Self::Date { .. }
            | Self::LongString(_)
            | Self::Unsupported
            | Self::Xml(_)
            | Self::Amf3(_) => None,
        }
    }

    /// The property of that name, if there are properties.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Value> {
        self.properties()?.get(name)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(boolean: bool) -> Self {
        Self::Boolean(boolean)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::from(Text::from(text))
    }
}

impl From<Text> for Value {
    fn from(text: Text) -> Self {
        if u16::try_from(text.len()).is_ok() { Self::String(text) } else { Self::LongString(text) }
    }
}

impl From<Properties> for Value {
    fn from(properties: Properties) -> Self {
        Self::Object(properties)
    }
}

/// Named values in the order in which they were sent. A name may occur twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Properties(Vec<(Text, Value)>);

impl Properties {
    /// The value of the last property of that name: a later one overwrites an earlier one in a Flash server.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter().rev().find_map(|(key, value)| (*key == name).then_some(value))
    }

    /// Every property.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Text, &Value)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a property after the others. A name longer than a 16-bit length can say is cut when it is written.
    pub fn push(&mut self, name: Text, value: Value) {
        self.0.push((name, value));
    }
}

impl<const N: usize> From<[(&str, Value); N]> for Properties {
    fn from(properties: [(&str, Value); N]) -> Self {
        Self(properties.into_iter().map(|(name, value)| (Text::from(name), value)).collect())
    }
}

#[cfg(test)]
mod tests;
