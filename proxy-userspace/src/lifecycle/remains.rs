//! What is left in the kernel and in the file system when no process runs, and its removal.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::RuntimeDir;
use crate::{datapath::kernel::pins, net::namespace};

/// Where directories of pins are, one for each network namespace: the file system is the same in all of them.
const PINS: &str = "/sys/fs/bpf/srs-xproxy";

/// Where programs, links and maps of this network namespace are pinned, in a directory for each layout of the maps.
///
/// `None` where the kernel does not number namespaces (before 5.14): nothing is pinned there, by any process.
pub fn pins_root() -> Option<PathBuf> {
    let name = namespace::name();
    let name = name.inspect_err(|error| tracing::debug!(%error, "the network namespace has no number"));
    Some(Path::new(PINS).join(name.ok()?))
}

/// Something of ours that outlives the process.
pub trait Remains {
    /// Removes it and names what there was, one line a thing.
    fn remove(&self) -> anyhow::Result<Vec<String>>;
}

/// A directory of pins. A pinned link that nobody has open is detached by removing its pin.
#[derive(Clone, Debug)]
pub struct Pins(PathBuf);

impl Pins {
    /// The pins below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }
}

impl Remains for Pins {
    fn remove(&self) -> anyhow::Result<Vec<String>> {
        let removed =
            pins::clear(&self.0).with_context(|| format!("failed to remove {}", self.0.display()))?;
        Ok(removed.into_iter().map(|path| format!("pin {}", path.display())).collect())
    }
}

/// Records of sessions: a process that is not there cannot end them.
impl Remains for RuntimeDir {
    fn remove(&self) -> anyhow::Result<Vec<String>> {
        let mut records = Vec::new();
        let failed = || format!("failed to remove what is in {}", self.path().display());
        remove_below(&self.records(), &mut records).with_context(failed)?;
        for path in [self.doorbell(), self.starts()] {
            absent_is_fine(fs::remove_file(path)).with_context(failed)?;
        }
        let line = format!("{} records of sessions in {}", records.len(), self.records().display());
        Ok((!records.is_empty()).then_some(line).into_iter().collect())
    }
}

/// Depth first, links to elsewhere are not followed.
fn remove_below(directory: &Path, removed: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path(), removed)?;
        } else {
            absent_is_fine(fs::remove_file(entry.path()))?;
            removed.push(entry.path());
        }
    }
    absent_is_fine(fs::remove_dir(directory))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::owner::tests::TestDir;

    #[test]
    fn everything_below_is_removed_and_named() {
        let dir = TestDir::new("pins");
        let root = dir.0.path().join("pins");
        fs::create_dir_all(root.join("v1/links")).unwrap();
        for name in ["v1/FLOWS", "v1/links/eth0"] {
            fs::write(root.join(name), "").unwrap();
        }
        let mut removed = Pins::below(&root).remove().unwrap();
        removed.sort_unstable();
        let expected = ["v1/FLOWS", "v1/links/eth0"].map(|name| format!("pin {}", root.join(name).display()));
        assert_eq!(removed, expected);
        assert!(!root.exists());
        assert_eq!(Pins::below(&root).remove().unwrap(), [""; 0], "a second time there is nothing");
    }

    #[test]
    fn what_a_link_leads_to_stays() {
        let dir = TestDir::new("symlink");
        let (root, elsewhere) = (dir.0.path().join("pins"), dir.0.path().join("elsewhere"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join("link")).unwrap();
        Pins::below(&root).remove().unwrap();
        assert!(elsewhere.join("kept").exists() && !root.exists());
    }

    #[test]
    fn records_of_sessions_are_removed_and_counted() {
        let dir = TestDir::new("forgotten");
        fs::create_dir_all(dir.0.records()).unwrap();
        for id in ["1", "2"] {
            fs::write(dir.0.records().join(id), "").unwrap();
        }
        let removed = dir.0.remove().unwrap();
        assert_eq!(removed, [format!("2 records of sessions in {}", dir.0.records().display())]);
        assert_eq!(dir.0.remove().unwrap(), [""; 0]);
    }
}
