//! `cargo xtask demo`: builds the demo as the user and runs it as root.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::{privilege, setup, shell};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Arguments of the demo
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Replaces this process, so that signals reach the demo.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::install(&[setup::Part::Build, setup::Part::Test, setup::Part::Demo])?;
    let proxy = shell::release_binary("proxy-userspace", "srs-xproxy", &[])?;
    let demo = shell::release_binary("integration-tests", "demo", &[])?;
    // The one that --fleet starts lies beside the demo.
    shell::release_binary("integration-tests", "test-origin", &[])?;
    let mut command = privilege::as_root(&demo, "network namespaces and kernel programs")?;
    let error = command.args(&args.arguments).env("XPROXY_BIN", proxy).exec();
    Err(error).with_context(|| format!("failed to start {}", shell::shown(&command)))
}
