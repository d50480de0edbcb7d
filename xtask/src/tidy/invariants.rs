//! ARCHITECTURE.md lists invariants in tables `| Invariant | Test |`; every test named there must exist.

use anyhow::Result;

use super::sources::{self, Source};

/// Rows that name no test, or one that does not exist.
pub(super) fn untested() -> Result<Vec<String>> {
    let sources = sources::all()?;
    let Some(document) = sources.iter().find(|source| source.path == "ARCHITECTURE.md") else {
        return Ok(Vec::new());
    };
    let rows = rows(&document.text);
    if rows.is_empty() {
        return Ok(vec!["ARCHITECTURE.md has no table of invariants and tests".to_owned()]);
    }
    Ok(rows.iter().flat_map(|row| row.breaches(&sources)).collect())
}

struct Row<'a> {
    invariant: &'a str,
    tests: Vec<&'a str>,
}

impl Row<'_> {
    fn breaches(&self, sources: &[Source]) -> Vec<String> {
        if self.tests.is_empty() {
            return vec![format!("no test is named for: {}", self.invariant)];
        }
        let missing = self.tests.iter().filter(|test| !exists(test, sources));
        missing.map(|test| format!("no test {test} for: {}", self.invariant)).collect()
    }
}

fn exists(test: &str, sources: &[Source]) -> bool {
    let name = test.rsplit("::").next().unwrap_or(test);
    let definition = format!("fn {name}(");
    sources.iter().any(|source| source.path.ends_with(".rs") && source.text.contains(&definition))
}

fn rows(document: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut columns = None;
    for line in document.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        columns = match columns {
            _ if !line.trim_start().starts_with('|') => None,
            None => find_columns(&cells),
            Some((invariant, test)) => {
                rows.extend(row(&cells, invariant, test));
                Some((invariant, test))
            }
        };
    }
    rows
}

fn find_columns(cells: &[&str]) -> Option<(usize, usize)> {
    let column = |name: &str| cells.iter().position(|cell| cell.eq_ignore_ascii_case(name));
    Some((column("invariant")?, column("test").or_else(|| column("tests"))?))
}

/// Nothing for the line between head and body.
fn row<'a>(cells: &[&'a str], invariant: usize, test: usize) -> Option<Row<'a>> {
    let (invariant, tests) = (*cells.get(invariant)?, cells.get(test)?);
    let is_rule = invariant.chars().all(|c| c == '-' || c == ':');
    (!is_rule).then(|| Row { invariant, tests: tests.split('`').skip(1).step_by(2).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
text
| # | Invariant | Test |
|---|---|---|
| 1 | one | `module::holds_one` |
| 2 | two | `holds_one`, `holds_two` |
| 3 | three | none yet |

| other | table |
|---|---|
| a | `b` |
";

    #[test]
    fn tells_invariants_without_an_existing_test() {
        let sources = [Source { path: "a.rs".to_owned(), text: "#[test]\nfn holds_one() {}".to_owned() }];
        let breaches: Vec<_> = rows(DOCUMENT).iter().flat_map(|row| row.breaches(&sources)).collect();
        assert_eq!(breaches, ["no test holds_two for: two", "no test is named for: three"]);
    }
}
