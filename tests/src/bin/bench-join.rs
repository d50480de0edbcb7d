//! Measures what joining TCP connections costs, against a router and against tokio; run it as root, built for release.

use anyhow::Result;
use clap::Parser;
use integration_tests::join_bench::{Part, run};

/// Measures what joining TCP connections costs, against a router and against tokio
#[derive(Debug, Parser)]
struct Arguments {
    /// One short turn of each
    #[arg(long)]
    quick: bool,
    /// What is measured; everything if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
}

fn main() -> Result<()> {
    let Arguments { quick, parts } = Arguments::parse();
    run(quick, &parts)
}
