//! Files under `target/`, which stay those of the workspace's owner although the demo runs as root.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::workspace;

/// Makes sure that a directory exists.
pub(super) fn prepare(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("failed to create {}", directory.display()))?;
    give_to_owner(directory)
}

/// Starts a log.
pub(super) fn create(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    give_to_owner(path)?;
    Ok(file)
}

/// Writes a whole file and, if need be, the directory it is to be in.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    give_to_owner(path)
}

fn give_to_owner(path: &Path) -> Result<()> {
    let owner = fs::metadata(workspace()).context("failed to look at the workspace")?;
    chown(path, Some(owner.uid()), Some(owner.gid()))
        .with_context(|| format!("failed to change the owner of {}", path.display()))
}
