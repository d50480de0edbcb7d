//! The grammar of `.env`: what every Go proxy reads (`KEY=value` and whole-line comments), and what newer ones add
//! (`export`, quotes, escapes, inline comments). A value that the newer grammar cannot read, such as one with an
//! unclosed quote, is taken literally, as the older one does.

use std::collections::BTreeMap;

/// Reads the text of a `.env` file; of a repeated key the last line counts.
pub(super) fn parse(text: &str) -> BTreeMap<String, String> {
    text.trim_start_matches('\u{feff}').lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    let key = without_export(key.trim());
    (!key.is_empty()).then(|| (key.to_owned(), parse_value(value)))
}

fn without_export(key: &str) -> &str {
    match key.strip_prefix("export") {
        Some(name) if name.starts_with(char::is_whitespace) => name.trim_start(),
        Some(_) | None => key,
    }
}

fn parse_value(raw: &str) -> String {
    let text = raw.trim();
    let quoted = match text.chars().next() {
        Some('\'') => single_quoted(&text[1..]),
        Some('"') => double_quoted(&text[1..]),
        Some(_) | None => return without_comment(raw).trim().to_owned(),
    };
    quoted.unwrap_or_else(|| text.to_owned())
}

/// A `#` starts a comment only after white space: passwords and colours hold it too.
fn without_comment(text: &str) -> &str {
    let comment = text.match_indices('#').find(|(at, _)| text[..*at].ends_with(char::is_whitespace));
    comment.map_or(text, |(at, _)| &text[..at])
}

fn single_quoted(text: &str) -> Option<String> {
    let (value, rest) = text.split_once('\'')?;
    ends(rest).then(|| value.to_owned())
}

fn double_quoted(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return ends(chars.as_str()).then_some(value),
            '\\' => unescape(chars.next()?, &mut value),
            c => value.push(c),
        }
    }
}

fn unescape(c: char, value: &mut String) {
    match c {
        'n' => value.push('\n'),
        'r' => value.push('\r'),
        't' => value.push('\t'),
        '"' | '\\' | '$' | '\'' => value.push(c),
        other => value.extend(['\\', other]),
    }
}

/// Whether nothing but a comment follows a closing quote.
fn ends(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_grammar_of_every_go_proxy() {
        check("plain", "A=1", &[("A", "1")]);
        check("trimmed", "  A =  1 2 \t", &[("A", "1 2")]);
        check("first equals sign splits", "A=b=c", &[("A", "b=c")]);
        check("crlf", "A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]);
        check("comment lines", "# A=1\n   # B=2\nC=3", &[("C", "3")]);
        check("no key", "=1\nnothing\n", &[]);
        check("empty value", "A=\n", &[("A", "")]);
        check("hash inside a word", "A=pass#word\nB=#fff", &[("A", "pass#word"), ("B", "#fff")]);
        check("last one counts", "A=1\nA=2", &[("A", "2")]);
    }

    #[test]
    fn reads_the_additions_of_newer_go_proxies() {
        check("export", "export A=1\nexport\tB=2", &[("A", "1"), ("B", "2")]);
        check("a name that starts like export", "exported=1", &[("exported", "1")]);
        check("inline comment", "A=1 # one\nB=2\t#two", &[("A", "1"), ("B", "2")]);
        check("only a comment", "A= # nothing", &[("A", "")]);
        check("single quotes", r"A='x # \n y' # c", &[("A", r"x # \n y")]);
        check("double quotes", r#"A="x # y" # c"#, &[("A", "x # y")]);
        check("escapes", r#"A="a\"b\\c\n\t\$d\q""#, &[("A", "a\"b\\c\n\t$d\\q")]);
        check("quoted empty", "A=\"\"\nB=''", &[("A", ""), ("B", "")]);
        check("byte order mark", "\u{feff}A=1", &[("A", "1")]);
    }

    #[test]
    fn takes_literally_what_only_the_older_grammar_reads() {
        check("unclosed", "A=\"x\nB='y", &[("A", "\"x"), ("B", "'y")]);
        check("text after the quote", r#"A="x"y"#, &[("A", "\"x\"y")]);
        check("quote inside", "A=it's", &[("A", "it's")]);
        check("ends in a backslash", r#"A="x\"#, &[("A", r#""x\"#)]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "(?s).{0,200}") {
            parse(&text);
        }

        #[test]
        fn double_quotes_round_trip(value in "[^\n\r]{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(parse(&format!("A=\"{quoted}\"")).remove("A"), Some(value));
        }
    }

    #[track_caller]
    fn check(name: &str, text: &str, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(parse(text), expected, "{name}");
    }
}
