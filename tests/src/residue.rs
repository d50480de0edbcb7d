//! What tests must not leave behind: namespaces, links, pins and processes that carry the tests' prefix.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use aya::programs::{SchedClassifier, TcAttachType};

use crate::netns::{Namespace, PREFIX};

/// The places to look at; the real ones by default.
#[derive(Debug, Clone)]
pub struct Places {
    /// Where `ip netns` keeps its files.
    pub namespaces: PathBuf,
    /// Where the kernel lists links.
    pub links: PathBuf,
    /// The BPF file system.
    pub pins: PathBuf,
    /// The process table.
    pub processes: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            namespaces: "/run/netns".into(),
            links: "/sys/class/net".into(),
            pins: "/sys/fs/bpf".into(),
            processes: "/proc".into(),
        }
    }
}

/// One thing left over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Residue {
    /// A network namespace.
    Namespace(String),
    /// A link in the current namespace.
    Link(String),
    /// A pinned object or directory.
    Pin(PathBuf),
    /// A process that lives in a namespace of the tests.
    Process {
        /// Its id.
        id: u32,
        /// Its command line.
        command: String,
    },
}

impl fmt::Display for Residue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(formatter, "network namespace {name}"),
            Self::Link(name) => write!(formatter, "link {name}"),
            Self::Pin(path) => write!(formatter, "pin {}", path.display()),
            Self::Process { id, command } => write!(formatter, "process {id} ({command})"),
        }
    }
}

impl Places {
    /// Everything that is left over.
    #[must_use]
    pub fn residue(&self) -> Vec<Residue> {
        let namespaces = prefixed(&self.namespaces);
        let mut found: Vec<_> = self.processes_in(&namespaces).collect();
        found.extend(namespaces.into_iter().map(Residue::Namespace));
        found.extend(prefixed(&self.links).into_iter().map(Residue::Link));
        found.extend(prefixed(&self.pins).into_iter().map(|name| Residue::Pin(self.pins.join(name))));
        found
    }

    /// A process shows its network namespace by the inode that the namespace's file has as well.
    fn processes_in(&self, namespaces: &[String]) -> impl Iterator<Item = Residue> {
        use std::os::unix::fs::MetadataExt as _;
        let inode = |path: PathBuf| fs::metadata(path).ok().map(|file| file.ino());
        let inodes: Vec<_> = namespaces.iter().filter_map(|name| inode(self.namespaces.join(name))).collect();
        let processes = names(&self.processes).into_iter().filter_map(|name| name.parse::<u32>().ok());
        processes.filter_map(move |id| {
            let process = self.processes.join(id.to_string());
            inodes
                .contains(&inode(process.join("ns/net"))?)
                .then(|| Residue::Process { id, command: command(&process) })
        })
    }
}

/// Every program on an interface of `namespace`: what a proxy that ended must not leave there.
///
/// # Errors
/// When `ip` or `tc` fails.
pub fn attached(namespace: &Namespace) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for line in namespace.ip(&["-details", "-oneline", "link", "show"])?.lines() {
        let name = line.split(": ").nth(1).and_then(|name| name.split('@').next()).unwrap_or_default();
        if line.contains("prog/xdp") {
            found.push(format!("XDP on {name}"));
        }
        let filters = namespace.run("tc", &["filter", "show", "dev", name, "ingress"])?;
        if !filters.trim().is_empty() {
            found.push(format!("filter on {name}"));
        }
        let tcx = namespace.enter(|| SchedClassifier::query_tcx(name, TcAttachType::Ingress));
        if tcx.is_ok_and(|(_, programs)| !programs.is_empty()) {
            found.push(format!("tcx on {name}"));
        }
    }
    Ok(found)
}

fn command(process: &Path) -> String {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

fn prefixed(directory: &Path) -> Vec<String> {
    let mut found = names(directory);
    found.retain(|name| name.starts_with(PREFIX));
    found
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::available;

    #[test]
    fn names_a_living_namespace_and_forgets_a_dropped_one() {
        if !available() {
            return;
        }
        let namespace = Namespace::new("residue").unwrap();
        let expected = Residue::Namespace(namespace.name().to_owned());
        assert!(Places::default().residue().contains(&expected));
        drop(namespace);
        assert!(!Places::default().residue().contains(&expected));
    }
}
