//! What of the kernel's state outlives the process: tables and links, pinned in the bpf file system.
//!
//! Each network namespace has a directory, which one process owns: it holds the lock of the directory. Below it is one
//! for each layout of the tables, `v<ABI version>-<fingerprint>`. A process of another layout does not touch what is in
//! there; it takes it away when it has everything else.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use proxy_common::{flow::ServiceKey, maps};
use rustix::{
    fs::{FlockOperation, flock, statfs},
    mount::{MountFlags, mount},
};

use super::{attach, filter, link::Link};

/// Where the bpf file system is.
const BPF_FS: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Links are in a directory of their own.
const LINKS: &str = "links";
/// A process that was taken over from ends within this time.
const LOCK: Duration = Duration::from_secs(5);
const LOCK_STEP: Duration = Duration::from_millis(10);
const TRIES: usize = 8;

/// What the kernel keeps of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pinning {
    /// Nothing, and nothing is looked for.
    #[default]
    None,
    /// Nothing, but what an earlier process left below this directory is taken over.
    Adopt(PathBuf),
    /// Tables and links, below this directory.
    Keep(PathBuf),
}

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no bpf file system, and we may not mount it.
    #[error("{BPF_FS} is no bpf file system, and mounting it failed: mount -t bpf bpf {BPF_FS}")]
    NoFileSystem(#[source] io::Error),
    /// Somebody else has it.
    #[error("another srs-xproxy keeps its state in {}: `srs-xproxy detach` with its settings takes it away", .0.display())]
    Held(PathBuf),
    /// The directory is not usable.
    #[error("failed to keep state in {} (the bpf file system belongs to root)", path.display())]
    Unusable {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How a link is attached, as its pin says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Xdp,
    Tcx,
    /// No link: the pin is that of the program, and says that there is a filter.
    Clsact,
}

/// The directory of a network namespace, with everything of this layout in it.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    lock: File,
    has_lock: bool,
    keeps: bool,
    /// Nothing of this layout was there, and nothing is to stay unless this process begins to serve.
    is_provisional: bool,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Xdp, Self::Tcx, Self::Clsact];

    fn as_str(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl Pins {
    /// Opens what is there, or makes room for what is to be kept.
    pub(super) fn open(pinning: &Pinning, takes_over: bool) -> Result<Option<Self>, PinError> {
        let (root, keeps) = match pinning {
            Pinning::None => return Ok(None),
            Pinning::Adopt(root) => (root, false),
            Pinning::Keep(root) => (root, true),
        };
        if keeps {
            mount_file_system()?;
        } else if !root.exists() {
            return Ok(None);
        }
        let unusable = |source| PinError::Unusable { path: root.clone(), source };
        let is_provisional = !version_of(root).exists();
        make(&version_of(root).join(LINKS)).map_err(unusable)?;
        let lock = File::open(root).map_err(unusable)?;
        let mut pins = Self { root: root.clone(), lock, has_lock: false, keeps, is_provisional };
        if pins.try_lock() || takes_over { Ok(Some(pins)) } else { Err(PinError::Held(pins.root.clone())) }
    }

    /// Whether what is made from now on is to stay.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Where a table is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        map_of(&self.root, name)
    }

    /// Where a link to a device is to be pinned; what may have been there is of a device that is gone.
    pub(super) fn free_link(&self, ifindex: u32, kind: Kind) -> io::Result<PathBuf> {
        let pin = version_of(&self.root).join(LINKS).join(format!("{ifindex}-{}", kind.as_str()));
        match fs::remove_file(&pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(pin),
        }
    }

    /// Every pinned link.
    pub(super) fn links(&self) -> Vec<(u32, Kind, PathBuf)> {
        links_in(&version_of(&self.root))
    }

    /// Waits for the process before this one to let go, and takes away what other layouts left.
    pub(super) fn own(&mut self) -> Result<(), PinError> {
        let end = Instant::now() + LOCK;
        while !self.try_lock() {
            if Instant::now() > end {
                return Err(PinError::Held(self.root.clone()));
            }
            std::thread::sleep(LOCK_STEP);
        }
        self.is_provisional = false;
        let version = version_of(&self.root);
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.path() != version {
                tracing::warn!(pins = %entry.path().display(), "what another version left is taken away");
                report(clear(&entry.path()));
            }
        }
        Ok(())
    }

    /// Removes every pin; what is open stays for as long as it is.
    pub(super) fn release(&mut self) {
        self.keeps = false;
        report(remove_root(&self.root));
    }

    fn try_lock(&mut self) -> bool {
        self.has_lock = self.has_lock || flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        self.has_lock
    }
}

/// What other layouts keep is not this process's own before [`Pins::own`].
impl Drop for Pins {
    fn drop(&mut self) {
        if self.is_provisional {
            report(remove(&version_of(&self.root)));
            remove_empty(&self.root);
        }
    }
}

/// Takes programs and tables away that are pinned below `root`, and names what there was.
pub fn clear(root: &Path) -> io::Result<Vec<PathBuf>> {
    let versions = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for version in versions.chain([root.to_owned()]) {
        for (ifindex, kind, pin) in links_in(&version) {
            match kind {
                // Without its pin a link goes too, but a moment later.
                Kind::Xdp | Kind::Tcx => Link::open(&pin).iter().for_each(Link::detach),
                Kind::Clsact => {
                    attach::interface_name(ifindex)
                        .iter()
                        .for_each(|name| filter::detach((ifindex, name), &pin));
                }
            }
        }
    }
    remove_root(root)
}

/// Takes away what an earlier process left below `root`, unless another one owns it; true if there was anything.
pub fn abandon(root: &Path) -> Result<bool, PinError> {
    let Some(mut pins) = Pins::open(&Pinning::Adopt(root.to_owned()), true)? else { return Ok(false) };
    pins.own()?;
    report(clear(root));
    Ok(true)
}

/// Lets everything up that an earlier process has the programs drop.
pub fn stop_policing(root: &Path) {
    let services = MapData::from_pin(map_of(root, maps::SERVICES)).map(Map::HashMap);
    let Ok(Ok(mut services)) = services.map(HashMap::<MapData, ServiceKey, u32>::try_from) else { return };
    let keys: Vec<ServiceKey> = services.keys().filter_map(Result::ok).collect();
    for key in keys {
        // It may be gone already.
        let _missing = services.remove(&key);
    }
}

/// Where a table is pinned below `root`.
pub(super) fn map_of(root: &Path, name: &str) -> PathBuf {
    version_of(root).join(name)
}

fn version_of(root: &Path) -> PathBuf {
    root.join(format!("v{}-{:016x}", maps::ABI_VERSION, maps::LAYOUT_FINGERPRINT))
}

fn links_in(version: &Path) -> Vec<(u32, Kind, PathBuf)> {
    let entries = fs::read_dir(version.join(LINKS)).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (ifindex, kind) = name.split_once('-')?;
            let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
            Some((ifindex.parse().ok()?, kind, entry.path()))
        })
        .collect()
}

fn mount_file_system() -> Result<(), PinError> {
    if statfs(BPF_FS).is_ok_and(|found| found.f_type == BPF_FS_MAGIC) {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", BPF_FS, "bpf", flags, Some(c"mode=700"))
        .map_err(|error| PinError::NoFileSystem(error.into()))?;
    // A container, or `ip netns exec`, may have mounts of its own, and no other process would find the pins there.
    tracing::warn!(
        "mounted the bpf file system at {BPF_FS}: what is kept in it goes with this mount namespace"
    );
    Ok(())
}

/// What another namespace's process removes at this very moment is made again.
fn make(directory: &Path) -> io::Result<()> {
    let make = || DirBuilder::new().recursive(true).mode(0o700).create(directory);
    for _ in 0..TRIES {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    make()
}

/// Removes the directory of a namespace, and the one of all namespaces if it was the last.
fn remove_root(root: &Path) -> io::Result<Vec<PathBuf>> {
    let removed = remove(root)?;
    remove_empty(root);
    Ok(removed)
}

/// Removes the directory of a namespace, and the one of all namespaces, if nothing is in them.
fn remove_empty(root: &Path) {
    for directory in root.ancestors().take(2) {
        // Something is kept, or it is gone already.
        let _in_use = fs::remove_dir(directory);
    }
}

/// Depth first; names what were no directories.
fn remove(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            removed.extend(remove(&entry.path())?);
        } else {
            fs::remove_file(entry.path())?;
            removed.push(entry.path());
        }
    }
    fs::remove_dir(path)?;
    Ok(removed)
}

fn report<T>(result: io::Result<T>) {
    if let Err(error) = result {
        tracing::warn!(%error, "failed to remove what is pinned");
    }
}

#[cfg(test)]
mod tests;
