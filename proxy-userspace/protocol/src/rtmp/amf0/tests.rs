use proptest::{collection::vec, prelude::*};

use super::*;

/// The values of each marker, from their sections of AMF 0.
const EVERY_TYPE: &[(&str, &[u8])] = &[
    ("number", &[0, 0x40, 0x59, 0, 0, 0, 0, 0, 0]),
    ("boolean", &[1, 1]),
    ("string", &[2, 0, 3, b'a', b'p', b'p']),
    ("object", &[3, 0, 1, b'k', 5, 0, 0, 9]),
    ("null", &[5]),
    ("undefined", &[6]),
    ("reference", &[7, 0, 1]),
    ("ecma array", &[8, 0, 0, 0, 1, 0, 1, b'k', 1, 0, 0, 0, 9]),
    ("strict array", &[10, 0, 0, 0, 2, 5, 6]),
    ("date", &[11, 0x42, 0x77, 0, 0, 0, 0, 0, 0, 0xFF, 0xC4]),
    ("long string", &[12, 0, 0, 0, 2, b'h', b'i']),
    ("unsupported", &[13]),
    ("xml", &[15, 0, 0, 0, 4, b'<', b'a', b'/', b'>']),
    ("typed object", &[16, 0, 1, b'C', 0, 1, b'k', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]),
    ("amf3", &[17, 10, 11, 1]),
];

#[test]
fn reads_a_value_of_every_type() {
    let properties = |value| Properties::from([("k", value)]);
    let expected = [
        Value::Number(100.0),
        Value::Boolean(true),
        Value::String("app".into()),
        Value::Object(properties(Value::Null)),
        Value::Null,
        Value::Undefined,
        Value::Reference(1),
        Value::EcmaArray { count: 1, properties: properties(Value::Boolean(false)) },
        Value::StrictArray(vec![Value::Null, Value::Undefined]),
        Value::Date { milliseconds: f64::from_bits(0x4277_0000_0000_0000), zone: -60 },
        Value::LongString("hi".into()),
        Value::Unsupported,
        Value::Xml("<a/>".into()),
        Value::TypedObject { class: "C".into(), properties: properties(Value::Number(0.0)) },
        Value::Amf3(vec![10, 11, 1]),
    ];
    for ((name, bytes), expected) in EVERY_TYPE.iter().zip(expected) {
        assert_eq!(decode(bytes), Ok(vec![expected.clone()]), "{name}");
        assert_eq!(encoded(&[expected]), *bytes, "{name}");
    }
}

#[test]
fn every_truncation_of_a_value_is_refused() {
    let closed = EVERY_TYPE.iter().filter(|(name, _)| *name != "amf3");
    for (name, bytes) in closed {
        for end in 1..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Err(Amf0Error::Truncated), "{name} cut at {end}");
        }
    }
}

#[test]
fn properties_keep_their_order_and_a_later_one_of_a_name_counts() {
    let bytes = [3, 0, 1, b'b', 1, 0, 0, 1, b'a', 5, 0, 1, b'b', 1, 1, 0, 0, 9];
    let values = decode(&bytes).unwrap();
    let properties = values[0].properties().unwrap();
    let names: Vec<_> = properties.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["b", "a", "b"]);
    assert_eq!(properties.get("b"), Some(&Value::Boolean(true)));
    assert_eq!(encoded(&values), bytes);
}

#[test]
fn an_empty_name_does_not_end_an_object() {
    let bytes = [3, 0, 0, 2, 0, 1, b'x', 0, 0, 9];
    let values = decode(&bytes).unwrap();
    assert_eq!(values[0].property(""), Some(&"x".into()));
    assert_eq!(encoded(&values), bytes);
}

#[test]
fn an_array_ends_at_its_mark_whatever_it_counts() {
    for count in [0, 1, 7, u32::MAX] {
        let mut bytes = vec![8];
        bytes.extend(count.to_be_bytes());
        bytes.extend([0, 1, b'k', 5, 0, 0, 9]);
        let values = decode(&bytes).unwrap();
        assert_eq!(values[0].properties().map(Properties::len), Some(1));
        assert_eq!(encoded(&values), bytes);
    }
}

#[test]
fn text_that_is_not_utf8_is_kept_and_named_as_in_a_url() {
    let bytes = [2, 0, 5, b's', 0xB2, 0xE2, b'%', b'1'];
    let values = decode(&bytes).unwrap();
    let text = values[0].as_text().unwrap();
    assert_eq!(text.to_url_text(), "s%B2%E2%1");
    assert_eq!(text.as_bytes(), &bytes[3..]);
    assert_eq!(encoded(&values), bytes);
}

#[test]
fn a_text_forges_no_line_of_a_log() {
    assert_eq!(Text::from("s1\r\n2026 \u{1b}[31m测").to_string(), "s1\\r\\n2026 \\u{1b}[31m测");
}

#[test]
fn a_text_beyond_a_short_length_is_a_long_string() {
    let text = "x".repeat(65_536);
    assert_eq!(Value::from(&text[..65_535]), Value::String(text[..65_535].into()));
    assert_eq!(Value::from(text.as_str()), Value::LongString(text.as_str().into()));
}

#[test]
fn limits_hold() {
    check_error(&nested(MAX_DEPTH), None);
    check_error(&nested(MAX_DEPTH + 1), Some(Amf0Error::TooDeep));
    check_error(&[5; MAX_VALUES], None);
    check_error(&[5; MAX_VALUES + 1], Some(Amf0Error::TooMany));
    check_error(&long_string(MAX_TEXT), None);
    check_error(&long_string(MAX_TEXT + 1), Some(Amf0Error::TooLong));
}

#[test]
fn a_count_reserves_nothing() {
    check_error(&[10, 0xFF, 0xFF, 0xFF, 0xFF], Some(Amf0Error::Truncated));
    check_error(&[12, 0xFF, 0xFF, 0xFF, 0xFF], Some(Amf0Error::TooLong));
}

#[test]
fn markers_of_no_value_are_refused() {
    for marker in [4, 9, 14, 18, 0xFF] {
        check_error(&[marker], Some(Amf0Error::Marker(marker)));
    }
    check_error(&[3, 0, 1, b'k', 17, 1], Some(Amf0Error::Amf3Inside));
}

proptest! {
    #[test]
    fn what_is_written_is_read(values in vec(value(), 0..6)) {
        let bytes = encoded(&values);
        let read = decode(&bytes).unwrap();
        prop_assert_eq!(encoded(&read), bytes);
        prop_assert_eq!(read, values);
    }

    #[test]
    fn any_bytes_are_values_or_refused(bytes in vec(prop_oneof![0_u8..18, any::<u8>()], 0..200)) {
        if let Ok(values) = decode(&bytes) {
            let written = encoded(&values);
            prop_assert_eq!(decode(&written).map(|values| encoded(&values)), Ok(written));
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    let text = vec(any::<u8>(), 0..9).prop_map(|bytes| Text::from(bytes.as_slice())).boxed();
    let leaf = prop_oneof![
        (-1e9..1e9).prop_map(Value::Number),
        any::<bool>().prop_map(Value::Boolean),
        text.clone().prop_map(Value::String),
        text.clone().prop_map(Value::LongString),
        text.clone().prop_map(Value::Xml),
        Just(Value::Null),
        Just(Value::Undefined),
        Just(Value::Unsupported),
        any::<u16>().prop_map(Value::Reference),
        ((0.0..1e13), any::<i16>()).prop_map(|(milliseconds, zone)| Value::Date { milliseconds, zone }),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        let properties = vec((text.clone(), inner.clone()), 0..4).prop_map(Properties).boxed();
        prop_oneof![
            properties.clone().prop_map(Value::Object),
            (any::<u32>(), properties.clone())
                .prop_map(|(count, properties)| Value::EcmaArray { count, properties }),
            (text.clone(), properties)
                .prop_map(|(class, properties)| Value::TypedObject { class, properties }),
            vec(inner, 0..4).prop_map(Value::StrictArray),
        ]
    })
}

fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = [10, 0, 0, 0, 1].repeat(depth - 1);
    bytes.push(5);
    bytes
}

fn long_string(length: usize) -> Vec<u8> {
    encoded(&[Value::LongString("x".repeat(length).as_str().into())])
}

fn encoded(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(values, &mut bytes);
    bytes
}

#[track_caller]
fn check_error(bytes: &[u8], expected: Option<Amf0Error>) {
    assert_eq!(decode(bytes).err(), expected);
}
