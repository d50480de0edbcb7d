//! Values to bytes.

use super::{Properties, Text, Value, marker};

/// Writes `values` after what `out` holds already.
///
/// What [`decode`](super::decode) has read is written as it was. Of a text that its length field cannot count, what it
/// can count is written.
pub fn encode(values: &[Value], out: &mut Vec<u8>) {
    for value in values {
        write(value, out);
    }
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Number(number) => marked(marker::NUMBER, &number.to_be_bytes(), out),
        Value::Boolean(boolean) => marked(marker::BOOLEAN, &[u8::from(*boolean)], out),
        Value::String(text) => {
            out.push(marker::STRING);
            write_text(text, out);
        }
        Value::Object(properties) => {
            out.push(marker::OBJECT);
            write_properties(properties, out);
        }
        Value::Null => out.push(marker::NULL),
        Value::Undefined => out.push(marker::UNDEFINED),
        Value::Reference(index) => marked(marker::REFERENCE, &index.to_be_bytes(), out),
        Value::EcmaArray { count, properties } => {
            marked(marker::ECMA_ARRAY, &count.to_be_bytes(), out);
            write_properties(properties, out);
        }
        Value::StrictArray(values) => write_array(values, out),
        Value::Date { milliseconds, zone } => {
            marked(marker::DATE, &milliseconds.to_be_bytes(), out);
            out.extend(zone.to_be_bytes());
        }
        Value::LongString(text) => write_long_text(marker::LONG_STRING, text, out),
        Value::Unsupported => out.push(marker::UNSUPPORTED),
        Value::Xml(text) => write_long_text(marker::XML, text, out),
        Value::TypedObject { class, properties } => {
            out.push(marker::TYPED_OBJECT);
            write_text(class, out);
            write_properties(properties, out);
        }
        Value::Amf3(rest) => marked(marker::AMF3, rest, out),
    }
}

fn marked(marker: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(marker);
    out.extend(bytes);
}

fn write_properties(properties: &Properties, out: &mut Vec<u8>) {
    for (name, value) in properties.iter() {
        write_text(name, out);
        write(value, out);
    }
    out.extend([0, 0, marker::OBJECT_END]);
}

fn write_array(values: &[Value], out: &mut Vec<u8>) {
    let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
    marked(marker::STRICT_ARRAY, &count.to_be_bytes(), out);
    encode(values, out);
}

fn write_text(text: &Text, out: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(text.as_bytes().iter().take(usize::from(length)));
}

fn write_long_text(marker: u8, text: &Text, out: &mut Vec<u8>) {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    marked(marker, &length.to_be_bytes(), out);
    out.extend(text.as_bytes());
}
