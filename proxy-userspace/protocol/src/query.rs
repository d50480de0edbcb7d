//! Reads a URL's query without rebuilding it.
//!
//! ICE ufrags hold `+` and `/`, and SRS compares them byte by byte. So a value stays as it was written until somebody
//! asks for its decoded form, and a `+` is a plus sign, not a space.

use std::borrow::Cow;

/// The `name=value` pairs of a query, as written; a name without `=` has an empty value.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The value of the first pair called `name`, as written.
#[must_use]
pub fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    pairs(query).find_map(|(key, value)| (key == name).then_some(value))
}

/// The query without every pair called `name`; what stays is as it was written.
#[must_use]
pub fn without(query: &str, name: &str) -> String {
    let is_other = |pair: &&str| pair.split_once('=').map_or(*pair, |(key, _value)| key) != name;
    query.split('&').filter(is_other).collect::<Vec<_>>().join("&")
}

/// Replaces `%xx` escapes by their bytes.
///
/// A malformed escape stays as it is, and so does a text whose bytes would not be UTF-8.
#[must_use]
pub fn percent_decode(raw: &str) -> Cow<'_, str> {
    if !raw.contains('%') {
        return Cow::Borrowed(raw);
    }
    String::from_utf8(decoded_bytes(raw.as_bytes())).map_or(Cow::Borrowed(raw), Cow::Owned)
}

fn decoded_bytes(mut raw: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    while let Some((&first, rest)) = raw.split_first() {
        let escaped = if first == b'%' { escaped_byte(rest) } else { None };
        let (byte, rest) = escaped.unwrap_or((first, rest));
        decoded.push(byte);
        raw = rest;
    }
    decoded
}

fn escaped_byte(after_percent: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], rest) = after_percent.split_first_chunk()?;
    Some((hex_digit(high)? << 4 | hex_digit(low)?, rest))
}

const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_plus_and_slash_of_a_session() {
        let query = "action=delete&session=a+b/:c%2Bd&eip";
        assert_eq!(value(query, "session"), Some("a+b/:c%2Bd"));
        assert_eq!(value(query, "eip"), Some(""));
        assert_eq!(value(query, "token"), None);
    }

    #[test]
    fn first_of_equal_names_wins_and_values_may_hold_equal_signs() {
        assert_eq!(pairs("a=1&&a=2&b=c=d").collect::<Vec<_>>(), [("a", "1"), ("a", "2"), ("b", "c=d")]);
        assert_eq!(value("a=1&a=2", "a"), Some("1"));
    }

    #[test]
    fn a_removed_pair_leaves_the_rest_as_it_was() {
        for (query, rest) in [
            ("id=1&token=a%2Fb+c", "token=a%2Fb+c"),
            ("a=1&id=1&id=2&&b", "a=1&&b"),
            ("a=1&id", "a=1"),
            ("id=1", ""),
            ("ids=1&b=id=1", "ids=1&b=id=1"),
        ] {
            assert_eq!(without(query, "id"), rest);
        }
    }

    #[test]
    fn decodes_escapes_but_no_plus() {
        assert_eq!(percent_decode("a%2Fb%2fc+d"), "a/b/c+d");
        assert_eq!(percent_decode("%E6%B5%8B"), "测");
    }

    #[test]
    fn leaves_malformed_escapes_and_other_encodings_alone() {
        for text in ["%", "%2", "%zz", "100%", "%B2%E2"] {
            assert_eq!(percent_decode(text), text);
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(text in "\\PC*") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(percent_decode(&encoded), text);
        }

        #[test]
        fn any_text_is_walked(text in ".*") {
            for (name, value) in pairs(&text) {
                prop_assert!(text.contains(name) && text.contains(value));
            }
            let _ = percent_decode(&text);
        }
    }
}
