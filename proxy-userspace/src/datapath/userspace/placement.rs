//! Which CPUs a worker runs on, and which of the workers' sockets a datagram goes to.
//!
//! Where the host spreads the receiving of packets over its CPUs, a worker belongs to some of them and gets what they
//! received: the datagram is in that CPU's cache, no other CPU is woken, and no queue is shared. Where one CPU
//! receives everything, that would leave all the work to it, so the kernel's hash of addresses and ports chooses the
//! socket and the scheduler the CPU.

use std::{fs, io, path::Path};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How workers share what arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// By a hash; workers run anywhere.
    ByHash,
    /// By the CPU that received; the n-th worker runs on the n-th set alone.
    ByCpu(Vec<Vec<usize>>),
}

impl Placement {
    /// What suits this host.
    pub fn of_host(workers: usize) -> Self {
        if spreads_receiving(&receive_queues(Path::new("/sys/class/net")), workers) {
            Self::by_cpu(workers, &allowed())
        } else {
            Self::ByHash
        }
    }

    /// By CPU if every worker can have one of the `allowed`, else by hash.
    pub fn by_cpu(workers: usize, allowed: &[usize]) -> Self {
        // The kernel's choice is the remainder of the CPU's number, see `UdpSocket::steer_by_cpu`.
        let cpus = |worker| allowed.iter().copied().filter(|cpu| cpu % workers == worker).collect();
        let sets: Vec<Vec<usize>> = (0..workers).map(cpus).collect();
        let fits = workers > 1 && sets.iter().all(|cpus| !cpus.is_empty());
        if fits { Self::ByCpu(sets) } else { Self::ByHash }
    }

    /// Moves the calling thread, which is the n-th worker, to where it belongs.
    pub(super) fn settle(&self, worker: usize) -> io::Result<()> {
        let Self::ByCpu(sets) = self else { return Ok(()) };
        let mut set = CpuSet::new();
        sets.get(worker).into_iter().flatten().for_each(|cpu| set.set(*cpu));
        Ok(sched_setaffinity(None, &set)?)
    }
}

/// The CPUs this process may run on.
fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// The receive queues of one device: for each, the mask of CPUs that packets are handed on to (RPS).
type Queues = Vec<String>;

/// Whether some device has a receive queue for each worker, or hands packets on.
fn spreads_receiving(devices: &[Queues], workers: usize) -> bool {
    let hands_on = |mask: &String| mask.chars().any(|digit| digit.is_ascii_hexdigit() && digit != '0');
    devices.iter().any(|queues| queues.len() >= workers || queues.iter().any(hands_on))
}

fn receive_queues(devices: &Path) -> Vec<Queues> {
    let names = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let begins =
        |path: &Path, with| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(with));
    let queues = |device: &Path| {
        let queues = names(&device.join("queues")).filter(|queue| begins(queue, "rx-"));
        queues.map(|queue| fs::read_to_string(queue.join("rps_cpus")).unwrap_or_default()).collect()
    };
    // Each packet to ourselves is received by the CPU that sent it, so `lo` tells nothing.
    names(devices).filter(|device| !device.ends_with("lo")).map(|device| queues(&device)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_gets_the_cpus_whose_datagrams_it_gets() {
        assert_eq!(Placement::by_cpu(2, &[0, 1]), Placement::ByCpu(vec![vec![0], vec![1]]));
        let eight: Vec<usize> = (0..8).collect();
        assert_eq!(
            Placement::by_cpu(3, &eight),
            Placement::ByCpu(vec![vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]])
        );
    }

    #[test]
    fn a_worker_without_a_cpu_leaves_the_choice_to_the_hash() {
        for (workers, allowed) in
            [(1, [0, 1].as_slice()), (3, &[0, 1]), (2, &[0, 2]), (2, &[]), (4, &[0, 1, 2])]
        {
            assert_eq!(Placement::by_cpu(workers, allowed), Placement::ByHash, "{workers} on {allowed:?}");
        }
    }

    #[test]
    fn a_worker_runs_where_it_belongs() {
        let Some(&cpu) = allowed().last() else { panic!("this test runs somewhere") };
        let placement = Placement::ByCpu(vec![vec![cpu]]);
        std::thread::spawn(move || {
            placement.settle(0).unwrap();
            assert_eq!(allowed(), [cpu]);
        })
        .join()
        .unwrap();
    }

    #[track_caller]
    fn spreads(devices: &[&[&str]], workers: usize) -> bool {
        let queues = |masks: &&[&str]| masks.iter().map(|mask| (*mask).to_owned()).collect();
        spreads_receiving(&devices.iter().map(queues).collect::<Vec<Queues>>(), workers)
    }

    #[test]
    fn a_host_that_receives_on_one_cpu_is_told_apart() {
        assert!(!spreads(&[], 2));
        assert!(!spreads(&[&["00\n"], &["0,00000000\n"]], 2));
        assert!(spreads(&[&["0\n"], &["0\n", "0\n"]], 2));
        assert!(!spreads(&[&["0\n", "0\n"]], 3));
        assert!(spreads(&[&["0000,00000003\n"]], 2));
    }

    #[test]
    fn every_device_of_this_host_has_queues() {
        let devices = receive_queues(Path::new("/sys/class/net"));
        assert!(devices.iter().all(|queues| !queues.is_empty()), "{devices:?}");
        assert!(receive_queues(Path::new("/nonexistent")).is_empty());
    }
}
