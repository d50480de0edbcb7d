//! `cargo xtask tidy`: rules of the code base that no compiler checks, each a function from the sources to what breaks
//! it. Every rule is also a test of this crate.

use anyhow::{Result, bail};

use crate::shell::{self, cargo};

mod invariants;
mod manifests;
mod sizes;
mod sources;
mod words;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write anew what is made from sources: docs/configuration.md
    #[arg(long)]
    update: bool,
}

/// A rule: what breaks it, one line each.
type Rule = fn() -> Result<Vec<String>>;

const RULES: &[(&str, Rule)] = &[
    ("crates depend along the arrows", manifests::broken_arrows),
    ("names stay where they belong", words::misplaced),
    ("nothing is unfinished", words::unfinished),
    ("modules are files of their own name", words::mod_files),
    ("no text names one machine", words::machine_paths),
    ("every invariant has its test", invariants::untested),
    ("every setting is documented", words::undocumented_settings),
    ("sizes stay within their bands", sizes::outside_bands),
];

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.update {
        let mut documents =
            cargo(["test", "--quiet", "--package", "proxy-userspace", "--lib", "config::docs"]);
        shell::check(documents.env("UPDATE_DOCS", "1"))?;
    }
    check()
}

/// Checks every rule and tells every breach.
pub(crate) fn check() -> Result<()> {
    shell::say(sizes::summary()?);
    let mut breaches = 0;
    for (name, rule) in RULES {
        let found = rule()?;
        shell::say(format!("{} {name}", if found.is_empty() { "ok    " } else { "BROKEN" }));
        found.iter().for_each(|breach| shell::say(format!("         {breach}")));
        breaches += found.len();
    }
    if breaches > 0 {
        bail!("{breaches} breaches of the rules");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn holds(rule: Rule) {
        assert_eq!(rule().expect("the workspace can be read"), Vec::<String>::new());
    }

    #[test]
    fn crates_depend_along_the_arrows() {
        holds(manifests::broken_arrows);
    }

    #[test]
    fn names_stay_where_they_belong() {
        holds(words::misplaced);
    }

    #[test]
    fn nothing_is_unfinished() {
        holds(words::unfinished);
    }

    #[test]
    fn modules_are_files_of_their_own_name() {
        holds(words::mod_files);
    }

    #[test]
    fn no_text_names_one_machine() {
        holds(words::machine_paths);
    }

    #[test]
    fn every_invariant_has_its_test() {
        holds(invariants::untested);
    }

    #[test]
    fn every_setting_is_documented() {
        holds(words::undocumented_settings);
    }

    #[test]
    fn sizes_stay_within_their_bands() {
        holds(sizes::outside_bands);
    }
}
