//! Processor time by who used it: the two ends, what relays between them, and the threads of the kernel that move packets.
//!
//! Softirqs of virtual links run mostly where the packet is sent from, and count there. Other processes are not counted, so
//! that a machine that does something else too is measured less exactly, and not wrongly.

use std::{collections::HashMap, fs, ops::Sub, time::Duration};

use anyhow::{Context as _, Result};

use super::{plain, worker};

/// Threads of the kernel that poll devices when nobody else does.
const PACKET_THREADS: [&str; 2] = ["ksoftirqd/", "napi/"];

/// Processor time used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) ends: Duration,
    pub(super) relay: Duration,
    pub(super) kernel: Duration,
}

/// Where the time of everybody stands.
#[derive(Debug)]
pub(super) struct Clock {
    proxy: Option<u32>,
    packet_threads: Vec<u32>,
}

impl Clock {
    /// Of this process and, if there is one, of a proxy's.
    pub(super) fn new(proxy: Option<u32>) -> Result<Self> {
        let mut packet_threads = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that has ended since polls nothing.
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            if PACKET_THREADS.iter().any(|prefix| name.starts_with(prefix)) {
                packet_threads.push(process);
            }
        }
        Ok(Self { proxy, packet_threads })
    }

    pub(super) fn read(&self) -> Result<Used> {
        let ours = by_name(std::process::id())?;
        let of = |prefix: &str| {
            ours.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, ran)| *ran).sum::<Duration>()
        };
        let mut used = Used { ends: of(worker::THREAD), relay: of(plain::THREAD), ..Used::default() };
        if let Some(proxy) = self.proxy {
            used.relay += by_name(proxy)?.into_values().sum::<Duration>();
        }
        for thread in &self.packet_threads {
            used.kernel += by_name(*thread)?.into_values().sum::<Duration>();
        }
        Ok(used)
    }
}

impl Used {
    pub(super) fn total(self) -> Duration {
        self.ends + self.relay + self.kernel
    }
}

impl Sub for Used {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            ends: self.ends.saturating_sub(before.ends),
            relay: self.relay.saturating_sub(before.relay),
            kernel: self.kernel.saturating_sub(before.kernel),
        }
    }
}

/// What the threads of a process have run, by their names.
fn by_name(process: u32) -> Result<HashMap<String, Duration>> {
    let mut ran: HashMap<_, Duration> = HashMap::new();
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    for task in tasks.with_context(|| format!("process {process} is gone"))? {
        let path = task?.path();
        // A thread may have ended since.
        let (Ok(name), Ok(times)) =
            (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
        else {
            continue;
        };
        *ran.entry(name.trim_end().to_owned()).or_default() += first_figure(&times)?;
    }
    Ok(ran)
}

fn first_figure(schedstat: &str) -> Result<Duration> {
    let figure = schedstat.split_whitespace().next().context("schedstat has figures")?;
    Ok(Duration::from_nanos(figure.parse().context("schedstat has figures")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_figure_of_schedstat_is_what_a_thread_ran() {
        assert_eq!(first_figure("1500 77 3\n").unwrap(), Duration::from_nanos(1500));
        assert!(first_figure("\n").is_err());
    }

    #[test]
    fn a_thread_that_works_uses_time() {
        let before = by_name(std::process::id()).unwrap().into_values().sum::<Duration>();
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(30) {}
        let after = by_name(std::process::id()).unwrap().into_values().sum::<Duration>();
        assert!(after > before);
    }
}
