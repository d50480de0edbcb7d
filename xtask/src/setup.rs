//! `cargo xtask setup`: installs what is missing. Every step is preceded by a test of the thing itself, so a second run
//! does nothing, and followed by the same test, so that success is never assumed.

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;

pub(crate) use self::steps::{BpfToolchain, bpf_toolchain};
use self::steps::{STEPS, Step};
use crate::{packages, shell};

mod steps;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to set up; everything if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
}

/// What a machine is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Building the proxy and its tests
    Build,
    /// Running the kernel and end-to-end tests
    Test,
    /// Running the benchmarks
    Bench,
    /// The demo
    Demo,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    install(if args.parts.is_empty() { Part::value_variants() } else { &args.parts })
}

/// Makes sure that `parts` are there.
pub(crate) fn install(parts: &[Part]) -> Result<()> {
    let missing: Vec<&Step> = STEPS.iter().filter(|step| step.is_for(parts) && !(step.is_there)()).collect();
    if missing.is_empty() {
        shell::announce("set-up: everything is there, nothing to do");
        return Ok(());
    }
    for step in &missing {
        shell::announce(format!("missing: {} (download about {})", step.what, step.download));
    }
    install_packages(&missing)?;
    for (at, step) in missing.iter().enumerate() {
        shell::announce(format!("set-up {} of {}: {}", at + 1, missing.len(), step.what));
        step.finish()?;
    }
    shell::announce("set-up: everything is there");
    Ok(())
}

fn install_packages(missing: &[&Step]) -> Result<()> {
    let wanted: Vec<&str> = missing.iter().flat_map(|step| step.packages).copied().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let affected = missing.iter().filter(|step| !step.packages.is_empty());
    let by_hand: Vec<_> = affected.map(|step| format!("  {}: {}", step.what, step.by_hand())).collect();
    let advice =
        format!("packages cannot be installed; do this by hand and try again:\n{}", by_hand.join("\n"));
    if !packages::can_install() {
        bail!("{advice}");
    }
    packages::install(&wanted).context(advice)
}

impl Step {
    fn is_for(&self, parts: &[Part]) -> bool {
        self.parts.iter().any(|part| parts.contains(part))
    }

    fn finish(&self) -> Result<()> {
        for command in self.commands {
            shell::check(&mut shell::typed(command))
                .with_context(|| format!("by hand: {}", self.by_hand()))?;
        }
        if !(self.is_there)() {
            bail!("{} was installed and does not work; by hand: {}", self.what, self.by_hand());
        }
        Ok(())
    }

    fn by_hand(&self) -> String {
        if self.otherwise.is_empty() { self.commands.join(" && ") } else { self.otherwise.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_installs_something_and_says_how_to_do_it_by_hand() {
        for step in STEPS {
            assert!(!step.packages.is_empty() || !step.commands.is_empty(), "{}", step.what);
            assert!(!step.by_hand().is_empty(), "{}", step.what);
        }
    }

    #[test]
    fn every_part_has_a_step() {
        for part in Part::value_variants() {
            assert!(STEPS.iter().any(|step| step.is_for(&[*part])), "{part:?}");
        }
    }
}
