//! `cargo xtask run`: the release binary, built as the user and run as root.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::{privilege, setup, shell};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Arguments of srs-xproxy
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Replaces this process, so that signals reach the proxy.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::install(&[setup::Part::Build])?;
    let binary = shell::release_binary("proxy-userspace", "srs-xproxy", &[])?;
    let mut command = privilege::as_root(&binary, "loading kernel programs")?;
    let error = command.args(&args.arguments).exec();
    Err(error).with_context(|| format!("failed to start {}", shell::shown(&command)))
}
