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

/// Removes the pins below `root` and names them. A pinned link that nobody has open is detached by that.
pub fn remove_pins(root: &Path) -> anyhow::Result<Vec<String>> {
    let removed = pins::clear(root).with_context(|| format!("failed to remove {}", root.display()))?;
    Ok(removed.into_iter().map(|path| format!("pin {}", path.display())).collect())
}

/// Removes the records of sessions, and says how many there were: a process that is not there cannot end them.
pub fn remove_records(dir: &RuntimeDir) -> anyhow::Result<Option<String>> {
    let failed = || format!("failed to remove what is in {}", dir.path().display());
    let records = fs::read_dir(dir.records()).map_or(0, Iterator::count);
    absent_is_fine(fs::remove_dir_all(dir.records())).with_context(failed)?;
    for path in [dir.doorbell(), dir.starts()] {
        absent_is_fine(fs::remove_file(path)).with_context(failed)?;
    }
    Ok((records > 0).then(|| format!("{records} records of sessions in {}", dir.records().display())))
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
        let mut removed = remove_pins(&root).unwrap();
        removed.sort_unstable();
        let expected = ["v1/FLOWS", "v1/links/eth0"].map(|name| format!("pin {}", root.join(name).display()));
        assert_eq!(removed, expected);
        assert!(!root.exists());
        assert_eq!(remove_pins(&root).unwrap(), [""; 0], "a second time there is nothing");
    }

    #[test]
    fn what_a_link_leads_to_stays() {
        let dir = TestDir::new("symlink");
        let (root, elsewhere) = (dir.0.path().join("pins"), dir.0.path().join("elsewhere"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join("link")).unwrap();
        remove_pins(&root).unwrap();
        assert!(elsewhere.join("kept").exists() && !root.exists());
    }

    #[test]
    fn records_of_sessions_are_removed_and_counted() {
        let dir = TestDir::new("forgotten");
        fs::create_dir_all(dir.0.records()).unwrap();
        for id in ["1", "2"] {
            fs::write(dir.0.records().join(id), "").unwrap();
        }
        let removed = remove_records(&dir.0).unwrap();
        assert_eq!(removed, Some(format!("2 records of sessions in {}", dir.0.records().display())));
        assert!(!dir.0.records().exists());
        assert_eq!(remove_records(&dir.0).unwrap(), None);
    }
}
