//! The files of the repository, and Rust code as text: comments and strings aside, imports spelt out.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::shell;

/// A text file.
pub(super) struct Source {
    /// Relative to the workspace.
    pub(super) path: String,
    pub(super) text: String,
}

/// Every text file that is, or could be, under version control.
pub(super) fn all() -> Result<Vec<Source>> {
    let mut list = shell::program("git");
    let names = shell::output(list.args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let sources = names.lines().map(read);
    Ok(sources.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Every Rust file under one of `directories`.
pub(super) fn rust(directories: &[&str]) -> Result<Vec<Source>> {
    let wanted = |source: &Source| {
        source.path.ends_with(".rs") && directories.iter().any(|directory| source.path.starts_with(directory))
    };
    Ok(all()?.into_iter().filter(wanted).collect())
}

/// Nothing if the file is gone or holds no text.
fn read(name: &str) -> Result<Option<Source>> {
    let path: &Path = &shell::root().join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).with_context(|| format!("failed to read {name}"))?;
    Ok(String::from_utf8(bytes).ok().map(|text| Source { path: name.to_owned(), text }))
}

impl Source {
    /// The part before the tests at the file's bottom.
    pub(super) fn without_tests(&self) -> &str {
        let tests = self.text.find("\n#[cfg(test)]\nmod tests {");
        tests.map_or(self.text.as_str(), |at| &self.text[..at])
    }

    /// Whether a line of code holds `path`, or an import means it; the lines, counted from one.
    pub(super) fn lines_naming(&self, path: &str) -> Vec<usize> {
        let code = code(&self.text);
        let lines = code.lines().enumerate().filter(|(_, line)| holds_word(line, path)).map(|(at, _)| at + 1);
        let imports =
            imports(&code).into_iter().filter(|(_, import)| holds_word(import, path)).map(|(at, _)| at);
        let mut found: Vec<usize> = lines.chain(imports).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Whether `word` stands in `text` on its own, not as part of a longer identifier.
pub(super) fn holds_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        let open_end = word.ends_with(is_part) && after.starts_with(is_part);
        !before.ends_with(is_part) && !open_end
    })
}

/// Rust code with comments and the insides of strings made blank, line for line.
pub(super) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let (kept, length) = token(rest);
        if kept {
            code.push_str(&rest[..length]);
        } else {
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
        }
        rest = &rest[length.max(next.len_utf8())..];
    }
    code
}

/// Whether what stands at the front is code, and how long it is.
fn token(text: &str) -> (bool, usize) {
    if text.starts_with("//") {
        return (false, text.find('\n').unwrap_or(text.len()));
    }
    if let Some(length) = raw_string(text).or_else(|| string(text)) {
        return (false, length);
    }
    let character = if text.starts_with("'\"'") { 3 } else { text.chars().next().map_or(0, char::len_utf8) };
    (true, character)
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?.find(|c| c != '#')?;
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&end)? + end.len())
}

fn string(text: &str) -> Option<usize> {
    let body = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = body.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(end? + 2)
}

/// Each path that a `use` brings in, in full, with its line.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let starts_item = code[..at].trim_end_matches(' ').ends_with(['\n', ')'])
            || at == 0
            || code[..at].ends_with("pub ");
        let Some(end) = code[at..].find(';') else { continue };
        if starts_item {
            let line = code[..at].matches('\n').count() + 1;
            spell_out("", &code[at + 4..at + end], &mut |path| found.push((line, path)));
        }
    }
    found
}

/// Calls `found` with every path of a tree such as `a::{b, c::{self, d}}`.
fn spell_out(prefix: &str, tree: &str, found: &mut impl FnMut(String)) {
    let tree = tree.trim();
    let Some((head, branches)) = tree.split_once('{') else {
        return found(format!("{prefix}{tree}"));
    };
    let prefix = format!("{prefix}{}", head.trim());
    let branches = branches.trim_end().strip_suffix('}').unwrap_or(branches);
    for branch in split_at_commas(branches) {
        spell_out(&prefix, branch, found);
    }
}

/// Splits at commas outside of braces.
fn split_at_commas(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = text.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "a.rs".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn finds_names_in_code_and_nowhere_else() {
        let text = "// tokio::net\nlet a = \"tokio::net\";\nlet b = tokio::net::lookup();\nlet c = r#\"tokio::net\"#;";
        assert_eq!(source(text).lines_naming("tokio::net"), [3]);
    }

    #[test]
    fn sees_through_grouped_imports() {
        let text = "use std::{\n    env,\n    fs,\n};\n\nuse tokio::{net::{TcpStream, UdpSocket}, time};\n";
        assert_eq!(source(text).lines_naming("std::env"), [1]);
        assert_eq!(source(text).lines_naming("tokio::net"), [6]);
        assert_eq!(source(text).lines_naming("std::net"), [0; 0]);
    }

    #[test]
    fn a_longer_identifier_is_another_word() {
        assert!(holds_word("unsafe {", "unsafe"));
        assert!(!holds_word("unsafe_code", "unsafe"));
        assert!(!holds_word("mylibc::x", "libc::"));
        assert!(holds_word("(libc::x", "libc::"));
    }

    #[test]
    fn strings_with_quotes_and_escapes_end_where_they_end() {
        assert_eq!(code(r#"a("x\"y\\"); b('"'); c"#), "a(); b('\"'); c");
        assert_eq!(code("a(\"x\ny\"); // z\nb"), "a(\n); \nb");
    }
}
