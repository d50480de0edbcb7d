//! Documents that list what holds in tables `| Invariant | Test |` and `| Defect | Test |`; every test named there must exist.

use anyhow::Result;

use super::sources::{self, Source};

/// Each document with the column that says what holds.
const DOCUMENTS: [(&str, &str); 2] = [("ARCHITECTURE.md", "invariant"), ("docs/defects.md", "defect")];

/// Rows that name no test, or one that does not exist.
pub(super) fn untested() -> Result<Vec<String>> {
    let sources = sources::all()?;
    Ok(DOCUMENTS.iter().flat_map(|(path, column)| breaches(path, column, &sources)).collect())
}

fn breaches(path: &str, column: &str, sources: &[Source]) -> Vec<String> {
    let document = sources.iter().find(|source| source.path == path);
    let rows = document.map_or_else(Vec::new, |document| rows(&document.text, column));
    if rows.is_empty() {
        return vec![format!("{path} has no table with the columns {column} and test")];
    }
    rows.iter().flat_map(|row| row.breaches(sources)).collect()
}

struct Row<'a> {
    statement: &'a str,
    tests: Vec<&'a str>,
}

impl Row<'_> {
    fn breaches(&self, sources: &[Source]) -> Vec<String> {
        if self.tests.is_empty() {
            return vec![format!("no test is named for: {}", self.statement)];
        }
        let missing = self.tests.iter().filter(|test| !exists(test, sources));
        missing.map(|test| format!("no test {test} for: {}", self.statement)).collect()
    }
}

fn exists(test: &str, sources: &[Source]) -> bool {
    let name = test.rsplit("::").next().unwrap_or(test);
    let definition = format!("fn {name}(");
    sources.iter().any(|source| source.path.ends_with(".rs") && source.text.contains(&definition))
}

fn rows<'a>(document: &'a str, column: &str) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    let mut columns = None;
    for line in document.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        columns = match columns {
            _ if !line.trim_start().starts_with('|') => None,
            None => find_columns(&cells, column),
            Some((statement, test)) => {
                rows.extend(row(&cells, statement, test));
                Some((statement, test))
            }
        };
    }
    rows
}

fn find_columns(cells: &[&str], statement: &str) -> Option<(usize, usize)> {
    let column = |name: &str| cells.iter().position(|cell| cell.eq_ignore_ascii_case(name));
    Some((column(statement)?, column("test").or_else(|| column("tests"))?))
}

/// Nothing for the line between head and body.
fn row<'a>(cells: &[&'a str], statement: usize, test: usize) -> Option<Row<'a>> {
    let (statement, tests) = (*cells.get(statement)?, cells.get(test)?);
    let is_rule = statement.chars().all(|c| c == '-' || c == ':');
    (!is_rule).then(|| Row { statement, tests: tests.split('`').skip(1).step_by(2).collect() })
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
        let breaches: Vec<_> =
            rows(DOCUMENT, "invariant").iter().flat_map(|row| row.breaches(&sources)).collect();
        assert_eq!(breaches, ["no test holds_two for: two", "no test is named for: three"]);
    }
}
