//! Measures table layouts against each other: `cargo xtask bench layout`.

use anyhow::Result;
use clap::Parser;

/// Measures table layouts against each other and against a bare redirect
#[derive(Debug, Parser)]
struct Arguments {
    /// Fewer repeats, and only one flow and a million
    #[arg(long)]
    quick: bool,
}

fn main() -> Result<()> {
    integration_tests::layouts::run(Arguments::parse().quick)
}
