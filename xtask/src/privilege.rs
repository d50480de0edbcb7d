//! Root where it is needed and nowhere else: builds made as root would leave files that the user cannot replace.

use std::{ffi::OsStr, os::unix::fs::MetadataExt as _, process::Command, sync::Once};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Variables a program under sudo needs; sudo is told their names, so that values are in no process list.
const KEPT: &[&str] =
    &["RUST_BACKTRACE", "RUST_LOG", "GO_PPROF", "CARGO_MANIFEST_DIR", "XPROXY_BIN", "VIRTUAL_ENV"];
const KEPT_PREFIX: &str = "PROXY_";

/// Fails under sudo in somebody else's workspace.
pub(crate) fn refuse_to_build_as_someone_else() -> Result<()> {
    let owner = shell::root().metadata().context("failed to look at the workspace")?.uid();
    if is_root() && owner != 0 && std::env::var_os("SUDO_UID").is_some() {
        bail!(
            "run this without sudo: it asks for root where that is needed, and builds as the owner of the files"
        );
    }
    Ok(())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether [`as_root`] has a chance.
pub(crate) fn can_be_root() -> bool {
    is_root() || shell::succeeds(Command::new("sudo").arg("--version"))
}

/// A program that runs as root in the present directory; `why` is told before sudo asks for a password.
pub(crate) fn as_root(program: impl AsRef<OsStr>, why: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if !can_be_root() {
        bail!("{why} needs root, and there is no sudo");
    }
    static ASKED: Once = Once::new();
    ASKED.call_once(|| shell::say(format!("root is needed: {why}; sudo may ask for a password")));
    let mut command = Command::new("sudo");
    command.arg(format!("--preserve-env={}", kept().join(","))).arg("--").arg(program);
    Ok(command)
}

fn kept() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ours = names.filter(|name| name.starts_with(KEPT_PREFIX));
    ours.chain(KEPT.iter().map(|name| (*name).to_owned())).collect()
}
