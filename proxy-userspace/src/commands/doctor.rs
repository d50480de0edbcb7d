//! `srs-xproxy doctor`: whether this host, with this configuration, can do what is asked of the proxy. It changes nothing.

use std::fmt;

use serde::Serialize;

use super::{print, status};
use crate::config::Config;

mod candidates;
mod capacity;
mod host;
mod interfaces;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, worse than it could.
    Warning,
    /// It does not work as configured.
    Error,
}

/// What was looked at and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    subject: String,
    text: String,
}

/// Findings of one part of the examination.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, subject: impl Into<String>, text: impl Into<String>) {
        self.0.push(Finding { level, subject: subject.into(), text: text.into() });
    }

    fn worst(&self) -> Level {
        self.0.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

/// Prints everything that was found.
///
/// # Errors
/// If something does not work as configured.
pub async fn doctor(config: &Config, json: bool) -> anyhow::Result<()> {
    let mut findings = Findings::default();
    host::examine(config, &mut findings);
    interfaces::examine(config, &mut findings).await;
    capacity::examine(config, &mut findings);
    capacity::of_the_running(status::read(config).await.ok().as_ref(), &mut findings);
    candidates::examine(config, &mut findings);
    let text = if json { format!("{}\n", serde_json::to_string(&findings.0)?) } else { findings.to_string() };
    print(&text)?;
    anyhow::ensure!(findings.worst() < Level::Error, "something does not work as configured");
    Ok(())
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
        for Finding { level, subject, text } in &self.0 {
            writeln!(f, "{level:<7}  {subject:width$}  {text}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "ERROR",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_finding_and_knows_the_worst() {
        let mut findings = Findings::default();
        assert_eq!(findings.worst(), Level::Ok);
        findings.add(Level::Error, "kernel", "too old");
        findings.add(Level::Ok, "open files", "enough");
        assert_eq!(findings.to_string(), "ERROR    kernel      too old\nok       open files  enough\n");
        assert_eq!(findings.worst(), Level::Error);
    }
}
