//! Bands for the size of functions and files. They are not laws: a run fails only when the whole gets worse than the
//! baseline below, which is lowered when it can be.

use anyhow::Result;

use super::sources::{self, Source, code};

/// The worst that is accepted.
const BASELINE: Sizes = Sizes {
    functions: 0,
    function_median: 7,
    function_p90: 35,
    functions_above_60: 0,
    files: 0,
    files_above_350: 6,
    files_above_600: 0,
    inline_comment_percent: 8,
    documentation_percent: 0,
};

/// Crates that are measured; tests are not.
const MEASURED: &[&str] = &["proxy-common/src/", "proxy-ebpf/src/", "proxy-userspace/", "xtask/src/"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sizes {
    functions: usize,
    function_median: usize,
    function_p90: usize,
    functions_above_60: usize,
    files: usize,
    files_above_350: usize,
    files_above_600: usize,
    inline_comment_percent: usize,
    documentation_percent: usize,
}

/// The figures, for people.
pub(super) fn summary() -> Result<String> {
    let s = measure(&measured()?);
    Ok(format!(
        "{} functions: median {}, nine of ten within {}, {} above 60 lines\n\
         {} files: {} above 350 lines, {} above 600; inline comments {} %, documentation {} %",
        s.functions,
        s.function_median,
        s.function_p90,
        s.functions_above_60,
        s.files,
        s.files_above_350,
        s.files_above_600,
        s.inline_comment_percent,
        s.documentation_percent,
    ))
}

/// Figures above the baseline, with the functions and files that make them so.
pub(super) fn outside_bands() -> Result<Vec<String>> {
    let sources = measured()?;
    let (now, then) = (measure(&sources), BASELINE);
    let figures = [
        ("median of function lengths", now.function_median, then.function_median),
        ("function length that nine of ten keep", now.function_p90, then.function_p90),
        ("functions above 60 lines", now.functions_above_60, then.functions_above_60),
        ("files above 350 lines", now.files_above_350, then.files_above_350),
        ("files above 600 lines", now.files_above_600, then.files_above_600),
        ("percent of inline comments", now.inline_comment_percent, then.inline_comment_percent),
    ];
    let worse = figures.iter().filter(|(_, now, then)| now > then);
    let mut breaches: Vec<_> = worse.map(|(name, now, then)| format!("{name}: {now}, was {then}")).collect();
    if !breaches.is_empty() {
        breaches.extend(largest(&sources));
    }
    Ok(breaches)
}

fn largest(sources: &[Source]) -> Vec<String> {
    let files = sources.iter().map(|source| (source.without_tests().lines().count(), &source.path));
    let files = files.filter(|(lines, _)| *lines > 350).map(|(lines, path)| format!("{path}: {lines} lines"));
    let functions =
        sources.iter().flat_map(|source| functions(source).into_iter().map(move |f| (f, &source.path)));
    let functions = functions.filter(|((_, lines), _)| *lines > 60);
    files.chain(functions.map(|((name, lines), path)| format!("{path}: fn {name}: {lines} lines"))).collect()
}

fn measured() -> Result<Vec<Source>> {
    let is_test = |source: &Source| source.path.ends_with("tests.rs") || source.path.contains("/tests/");
    Ok(sources::rust(MEASURED)?.into_iter().filter(|source| !is_test(source)).collect())
}

fn measure(sources: &[Source]) -> Sizes {
    let mut lengths: Vec<usize> = sources.iter().flat_map(functions).map(|(_, lines)| lines).collect();
    lengths.sort_unstable();
    let share =
        |percent: usize| lengths.get((lengths.len() * percent / 100).min(lengths.len().max(1) - 1)).copied();
    let files: Vec<usize> = sources.iter().map(|source| source.without_tests().lines().count()).collect();
    let above = |numbers: &[usize], limit: usize| numbers.iter().filter(|number| **number > limit).count();
    Sizes {
        functions: lengths.len(),
        function_median: share(50).unwrap_or(0),
        function_p90: share(90).unwrap_or(0),
        functions_above_60: above(&lengths, 60),
        files: sources.len(),
        files_above_350: above(&files, 350),
        files_above_600: above(&files, 600),
        inline_comment_percent: percent_of_lines(sources, is_inline_comment),
        documentation_percent: percent_of_lines(sources, is_documentation),
    }
}

fn percent_of_lines(sources: &[Source], is_counted: impl Fn(&str) -> bool) -> usize {
    let lines = || sources.iter().flat_map(|source| source.without_tests().lines());
    lines().filter(|line| is_counted(line.trim_start())).count() * 100 / lines().count().max(1)
}

fn is_documentation(line: &str) -> bool {
    line.starts_with("///") || line.starts_with("//!")
}

fn is_inline_comment(line: &str) -> bool {
    line.starts_with("//") && !is_documentation(line)
}

/// Names and lengths of the bodies of a file's functions. It relies on rustfmt: a body ends at the first brace that is
/// indented as its `fn` is.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let code = code(source.without_tests());
    let lines: Vec<&str> = code.lines().collect();
    (0..lines.len()).filter_map(|at| function(&lines[at..])).collect()
}

fn function(lines: &[&str]) -> Option<(String, usize)> {
    let first = lines.first()?;
    let (before, rest) = first.split_once("fn ")?;
    let is_head =
        before.split_whitespace().all(|word| QUALIFIERS.iter().any(|qualifier| word.starts_with(qualifier)));
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if !is_head || name.is_empty() {
        return None;
    }
    let opens = lines.iter().position(|line| line.ends_with(['{', '}', ';']))?;
    if !lines[opens].ends_with('{') {
        return lines[opens].ends_with('}').then_some((name, 1));
    }
    let end = format!("{}}}", &first[..first.len() - first.trim_start().len()]);
    let length = lines[opens + 1..].iter().position(|line| *line == end)?;
    Some((name, length))
}

const QUALIFIERS: [&str; 6] = ["pub", "const", "async", "unsafe", "extern", "crate)"];

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
fn one() {}

impl A {
    pub(super) async fn two(
        &self,
    ) -> bool {
        if a {
            b()
        }
    }
}

trait T {
    fn declared(&self);
}

#[cfg(test)]
mod tests {
    fn not_measured() {
        a();
    }
}
";

    fn source() -> Source {
        Source { path: "a.rs".to_owned(), text: TEXT.to_owned() }
    }

    #[test]
    fn measures_bodies() {
        assert_eq!(functions(&source()), [("one".to_owned(), 1), ("two".to_owned(), 3)]);
    }

    #[test]
    fn sums_up() {
        let sizes = measure(&[source()]);
        assert_eq!((sizes.functions, sizes.function_median, sizes.files), (2, 3, 1));
        assert_eq!(measure(&[]), Sizes::default());
    }
}
