//! Memory of idle connections: what the kernel's caches and the proxy's process grow by.

use std::{collections::HashSet, fs, ops::Sub, path::Path};

use anyhow::{Context as _, Result};

use crate::live;

const PAGE: u64 = 4096;
/// A directory for each of the kernel's caches; those that share their memory are links to one.
const CACHES: &str = "/sys/kernel/slab";
/// Those of which connections and their descriptors take something, by the beginnings of their names. Others, as that of file
/// names, grow by what else the machine does; sockets have names too, of 192 bytes each.
const OF_SOCKETS: [&str; 9] =
    ["TCP", "request_sock_", "sock_inode_cache", "filp", "lsm_", "eventpoll_", "skbuff_", "kmalloc-", "pid"];
/// These hold names of files.
const RECLAIMABLE: &str = "kmalloc-rcl-";
const NAME: u64 = 192;

/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) caches: i64,
    /// Pages of sockets' queues.
    pub(super) queues: i64,
    /// Of the proxy, what is in no file.
    pub(super) process: i64,
}

impl Memory {
    /// Of the machine and, if there is one, of a proxy.
    pub(super) fn now(proxy: Option<u32>) -> Result<Self> {
        let caches = caches(Path::new(CACHES))?;
        let queues =
            queues(&fs::read_to_string("/proc/net/sockstat")?).context("no memory of TCP is told")?;
        let process = proxy.map(live::memory).transpose()?.unwrap_or_default();
        let [caches, queues, process] = [caches, queues, process].map(u64::cast_signed);
        Ok(Self { caches, queues, process })
    }

    /// With the names of so many sockets, which cannot be told from other names.
    pub(super) fn with_names(self, sockets: usize) -> Self {
        Self { caches: self.caches + (sockets as u64 * NAME).cast_signed(), ..self }
    }

    pub(super) fn total(self) -> i64 {
        self.caches + self.queues + self.process
    }
}

impl Sub for Memory {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            caches: self.caches - before.caches,
            queues: self.queues - before.queues,
            process: self.process - before.process,
        }
    }
}

/// Pages of the caches, partly used ones included.
fn caches(directory: &Path) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for entry in fs::read_dir(directory).context("the kernel does not tell of its caches")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !OF_SOCKETS.iter().any(|prefix| name.starts_with(prefix)) || name.starts_with(RECLAIMABLE) {
            continue;
        }
        let cache = fs::canonicalize(entry.path())?;
        if seen.insert(cache.clone()) {
            bytes += (figure(&cache.join("slabs"))? << figure(&cache.join("order"))?) * PAGE;
        }
    }
    Ok(bytes)
}

fn figure(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let figure = text.split_whitespace().next().and_then(|word| word.parse().ok());
    figure.with_context(|| format!("{} has no figure", file.display()))
}

fn queues(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    let pages: u64 = line.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()?;
    Some(pages * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_slabs_of_the_caches_of_sockets_are_counted_once() {
        let directory = live::Scratch::new("slab").unwrap();
        let cache = |name: &str, slabs: &str, order: &str| {
            let cache = directory.path().join(name);
            fs::create_dir(&cache).unwrap();
            fs::write(cache.join("slabs"), slabs).unwrap();
            fs::write(cache.join("order"), order).unwrap();
        };
        cache("TCP", "4 N0=4\n", "3\n");
        cache("dentry", "450 N0=450\n", "0\n");
        cache("kmalloc-rcl-64", "7 N0=7\n", "0\n");
        cache(":A-0000064", "2 N0=2\n", "0\n");
        for name in ["eventpoll_pwq", "kmalloc-cg-64"] {
            std::os::unix::fs::symlink(":A-0000064", directory.path().join(name)).unwrap();
        }
        assert_eq!(caches(directory.path()).unwrap(), (4 * 8 + 2) * PAGE);
    }

    #[test]
    fn the_pages_of_queues_are_read() {
        let sockstat = "sockets: used 100\nTCP: inuse 5 orphan 0 tw 0 alloc 6 mem 17\nUDP: inuse 1 mem 2\n";
        assert_eq!(queues(sockstat), Some(17 * PAGE));
        assert_eq!(queues("UDP: inuse 1 mem 2\n"), None);
    }

    #[test]
    fn the_kernel_tells_of_this_machine() {
        let now = Memory::now(Some(std::process::id())).unwrap();
        assert!(now.caches > 0 && now.process > 0);
    }
}
