//! What a proxy keeps of a namespace in the bpf file system.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use proxy_userspace::lifecycle::remains::pins_root;

use crate::netns::Namespace;

/// The directory of a namespace; what a failed test leaves there goes with this.
#[derive(Debug)]
pub struct Pins(PathBuf);

impl Pins {
    /// Those of `namespace`, whether there are any yet or not.
    ///
    /// # Errors
    /// When the kernel does not tell the number of the namespace.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        Ok(Self(namespace.enter(pins_root).context("the namespace has no number")?))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.0.exists()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // A test that went well has left nothing.
        let _absent = remove(&self.0);
        // Other namespaces may keep something.
        let _in_use = self.0.parent().map(fs::remove_dir);
    }
}

/// The bpf file system lets files be removed one by one alone.
fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { remove(&entry.path())? } else { fs::remove_file(entry.path())? }
    }
    fs::remove_dir(directory)
}
