//! The runtime directory and the one process that owns it.
//!
//! The owner holds a lock on a file that says who it is. The lock is that of an open file, so it goes over to the next
//! process with the descriptor and is free as soon as nobody has it open, however its holder ended.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::net::namespace;

/// Where runtime directories are made unless one is named, each for one network namespace.
const RUN: &str = "/run/srs-xproxy";

/// Why this process owns nothing.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// Another process does.
    #[error(
        "another srs-xproxy ({0}) owns {path}: stop it, take over from it with PROXY_TAKE_OVER=on, or give this one a \
         directory of its own with PROXY_RUNTIME_DIR",
        path = .1.display()
    )]
    Held(Holder, PathBuf),
    /// The directory or its lock cannot be used.
    #[error("failed to use the runtime directory {path}", path = .path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Who holds the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id; 0 while it has not said so.
    pub pid: u32,
    /// Its system API, once it listens.
    pub system_api: Option<SocketAddr>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.pid == 0 { f.write_str("still starting") } else { write!(f, "process {}", self.pid) }
    }
}

/// A directory for what a process leaves to the next one.
#[derive(Clone, Debug)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// The directory that was named, or the one of this network namespace.
    pub fn locate(named: Option<&Path>) -> io::Result<Self> {
        match named {
            Some(path) => Ok(Self(path.to_owned())),
            None => Ok(Self(Path::new(RUN).join(namespace::name()?))),
        }
    }

    /// Makes it if it is not there; one that others may write to is refused, because descriptors are handed out in it.
    pub fn create(&self) -> Result<(), OwnerError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.and_then(|()| self.check()).map_err(|source| self.unusable(source))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The socket on which a new process announces itself.
    pub fn doorbell(&self) -> PathBuf {
        self.0.join("handover.sock")
    }

    /// The records of sessions.
    pub fn records(&self) -> PathBuf {
        self.0.join("sessions")
    }

    /// How often processes died right after their start.
    pub fn starts(&self) -> PathBuf {
        self.0.join("starts")
    }

    /// Whoever owns it, if anybody does.
    pub fn holder(&self) -> Result<Option<Holder>, OwnerError> {
        let opened = OpenOptions::new().read(true).open(self.lock());
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(Errno::WOULDBLOCK) => Ok(Some(read(&mut file))),
            Err(error) => Err(self.unusable(error.into())),
        }
    }

    fn check(&self) -> io::Result<()> {
        let about = std::fs::metadata(&self.0)?;
        let me = rustix::process::geteuid().as_raw();
        if about.mode() & 0o022 != 0 || ![0, me].contains(&about.uid()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others may write to it"));
        }
        Ok(())
    }

    fn lock(&self) -> PathBuf {
        self.0.join("owner")
    }

    fn unusable(&self, source: io::Error) -> OwnerError {
        OwnerError::Unusable { path: self.0.clone(), source }
    }
}

/// The lock of a runtime directory: whoever has it owns what is in the directory and in the kernel.
#[derive(Debug)]
pub struct Owner(File);

impl Owner {
    /// Takes the lock if nobody has it.
    pub fn acquire(dir: &RuntimeDir) -> Result<Self, OwnerError> {
        dir.create()?;
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.lock());
        let mut file = opened.map_err(|error| dir.unusable(error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(OwnerError::Held(read(&mut file), dir.0.clone())),
            Err(error) => return Err(dir.unusable(error.into())),
        }
        let mut owner = Self(file);
        owner.sign(None).map_err(|error| dir.unusable(error))?;
        Ok(owner)
    }

    /// Goes on with the lock of an earlier process.
    pub fn inherit(lock: OwnedFd) -> Self {
        Self(lock.into())
    }

    /// Writes down that this process holds the lock, and where it can be asked.
    pub fn sign(&mut self, system_api: Option<SocketAddr>) -> io::Result<()> {
        let holder = Holder { pid: std::process::id(), system_api };
        let text = serde_json::to_vec(&holder)?;
        self.0.rewind()?;
        self.0.set_len(0)?;
        self.0.write_all(&text)
    }

    /// A second descriptor of the same lock.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }
}

/// What cannot be read is a holder that has not signed yet.
fn read(file: &mut File) -> Holder {
    let mut text = String::new();
    match file.rewind().and_then(|()| file.take(4096).read_to_string(&mut text)) {
        Ok(_) => serde_json::from_str(&text).unwrap_or_default(),
        Err(_) => Holder::default(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A directory of one test, gone with it.
    #[derive(Debug)]
    pub(crate) struct TestDir(pub(crate) RuntimeDir);

    impl TestDir {
        pub(crate) fn new(name: &str) -> Self {
            let path = Path::new("/tmp").join(format!("srs-xproxy-{name}-{}", std::process::id()));
            Self(RuntimeDir(path))
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0.path());
        }
    }

    #[test]
    fn the_second_process_is_told_who_the_first_is() {
        let dir = TestDir::new("second");
        let mut first = Owner::acquire(&dir.0).unwrap();
        first.sign(Some("127.0.0.1:12025".parse().unwrap())).unwrap();
        let holder = Holder { pid: std::process::id(), system_api: Some("127.0.0.1:12025".parse().unwrap()) };
        assert_eq!(dir.0.holder().unwrap(), Some(holder));
        let error = Owner::acquire(&dir.0).unwrap_err();
        assert!(matches!(error, OwnerError::Held(found, _) if found == holder));
        for part in [&format!("process {}", std::process::id()), "PROXY_TAKE_OVER", "PROXY_RUNTIME_DIR"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn the_lock_is_free_when_its_holder_is_gone_and_not_before_its_heir_is() {
        let dir = TestDir::new("heir");
        let first = Owner::acquire(&dir.0).unwrap();
        let heir = Owner::inherit(first.share().unwrap());
        drop(first);
        assert!(matches!(Owner::acquire(&dir.0), Err(OwnerError::Held(..))));
        drop(heir);
        assert_eq!(dir.0.holder().unwrap(), None);
        Owner::acquire(&dir.0).unwrap();
    }

    #[test]
    fn nobody_holds_a_directory_that_is_not_there() {
        assert_eq!(TestDir::new("absent").0.holder().unwrap(), None);
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let dir = TestDir::new("open");
        dir.0.create().unwrap();
        std::fs::set_permissions(dir.0.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Owner::acquire(&dir.0), Err(OwnerError::Unusable { .. })));
    }

    #[test]
    fn each_network_namespace_has_a_directory_of_its_own() {
        let default = RuntimeDir::locate(None).unwrap();
        assert_eq!(default.path(), Path::new(RUN).join(namespace::name().unwrap()));
        assert_eq!(RuntimeDir::locate(Some(Path::new("/x"))).unwrap().path(), Path::new("/x"));
    }
}
