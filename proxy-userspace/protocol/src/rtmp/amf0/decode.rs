//! Bytes to values.

use super::{Amf0Error, MAX_DEPTH, MAX_TEXT, MAX_VALUES, Properties, Text, Value, marker};
use crate::reader::Reader;

/// Reads the values that fill `input`.
///
/// # Errors
///
/// Fails if the input is cut, holds a marker of no value, or exceeds a limit.
pub fn decode(input: &[u8]) -> Result<Vec<Value>, Amf0Error> {
    let mut decoder = Decoder { reader: Reader::new(input), values_left: MAX_VALUES };
    let mut values = Vec::new();
    while !decoder.reader.is_empty() {
        values.push(decoder.outermost()?);
    }
    Ok(values)
}

struct Decoder<'a> {
    reader: Reader<'a>,
    values_left: usize,
}

impl Decoder<'_> {
    fn outermost(&mut self) -> Result<Value, Amf0Error> {
        if self.reader.remaining().first() == Some(&marker::AMF3) {
            self.reader.u8()?;
            let rest = self.reader.remaining().len();
            return Ok(Value::Amf3(self.reader.bytes(rest)?.to_vec()));
        }
        self.value(MAX_DEPTH)
    }

    /// A value that may hold others `depth - 1` levels deep.
    fn value(&mut self, depth: usize) -> Result<Value, Amf0Error> {
        let depth = depth.checked_sub(1).ok_or(Amf0Error::TooDeep)?;
        self.values_left = self.values_left.checked_sub(1).ok_or(Amf0Error::TooMany)?;
        match self.reader.u8()? {
            marker::NUMBER => Ok(Value::Number(self.number()?)),
            marker::BOOLEAN => Ok(Value::Boolean(self.reader.u8()? != 0)),
            marker::STRING => Ok(Value::String(self.text()?)),
            marker::OBJECT => Ok(Value::Object(self.properties(depth)?)),
            marker::NULL => Ok(Value::Null),
            marker::UNDEFINED => Ok(Value::Undefined),
            marker::REFERENCE => Ok(Value::Reference(self.reader.u16()?)),
            marker::ECMA_ARRAY => {
                Ok(Value::EcmaArray { count: self.reader.u32()?, properties: self.properties(depth)? })
            }
            marker::STRICT_ARRAY => Ok(Value::StrictArray(self.array(depth)?)),
            marker::DATE => Ok(Value::Date { milliseconds: self.number()?, zone: self.zone()? }),
            marker::LONG_STRING => Ok(Value::LongString(self.long_text()?)),
            marker::UNSUPPORTED => Ok(Value::Unsupported),
            marker::XML => Ok(Value::Xml(self.long_text()?)),
            marker::TYPED_OBJECT => {
                Ok(Value::TypedObject { class: self.text()?, properties: self.properties(depth)? })
            }
            marker::AMF3 => Err(Amf0Error::Amf3Inside),
            other => Err(Amf0Error::Marker(other)),
        }
    }

    /// Names and values up to the end mark; a name may be empty, since only the mark makes it an end.
    fn properties(&mut self, depth: usize) -> Result<Properties, Amf0Error> {
        let mut properties = Properties::default();
        loop {
            let name = self.text()?;
            if name.is_empty() && self.reader.remaining().first() == Some(&marker::OBJECT_END) {
                self.reader.u8()?;
                return Ok(properties);
            }
            properties.push(name, self.value(depth)?);
        }
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Value>, Amf0Error> {
        let count = self.reader.u32()?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(depth)?);
        }
        Ok(values)
    }

    fn number(&mut self) -> Result<f64, Amf0Error> {
        Ok(f64::from_be_bytes(self.reader.array()?))
    }

    fn zone(&mut self) -> Result<i16, Amf0Error> {
        Ok(i16::from_be_bytes(self.reader.array()?))
    }

    fn text(&mut self) -> Result<Text, Amf0Error> {
        let length = usize::from(self.reader.u16()?);
        Ok(Text::from(self.reader.bytes(length)?))
    }

    fn long_text(&mut self) -> Result<Text, Amf0Error> {
        let length = usize::try_from(self.reader.u32()?).map_err(|_| Amf0Error::TooLong)?;
        if length > MAX_TEXT {
            return Err(Amf0Error::TooLong);
        }
        Ok(Text::from(self.reader.bytes(length)?))
    }
}
