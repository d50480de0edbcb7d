//! Compares the userspace relay with a plain tokio relay; run it as root, built for release.

use anyhow::{Result, ensure};
use clap::Parser;
use integration_tests::relay_bench::{Buffers, Plan, run};

/// Compares the userspace relay with a plain tokio relay
#[derive(Debug, Parser)]
struct Arguments {
    /// Turns of each relay in each case
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// One turn of each relay in each case
    #[arg(long, conflicts_with = "repeats")]
    quick: bool,
    /// Give the plain relay's sockets as much room as ours have; nothing is demanded then
    #[arg(long)]
    same_buffers: bool,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what the program is for")]
fn main() -> Result<()> {
    let Arguments { repeats, quick, same_buffers } = Arguments::parse();
    let plan = Plan {
        repeats: if quick { 1 } else { repeats },
        buffers: if same_buffers { Buffers::LikeOurs } else { Buffers::OfTheHost },
    };
    let (table, reached) = run(plan, |row| eprintln!("{row}"))?;
    print!("{table}");
    ensure!(reached, "a case is below its target");
    Ok(())
}
