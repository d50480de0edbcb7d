//! What the kernel counts: datagrams at the ends of the network, and where processor time goes.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{cpu, netns::Namespace};

/// Traffic of an end host. Arrivals are counted below the sockets, so a slow reader is not taken for a loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EndHost {
    /// UDP datagrams that came.
    pub(super) arrived: u64,
    /// UDP datagrams that were sent.
    pub(super) sent: u64,
    /// Of those that came, the ones for which the reader's socket had no room.
    pub(super) no_room: u64,
    /// Bytes in and out on the link.
    pub(super) link_bytes: u64,
}

impl EndHost {
    pub(super) fn read(namespace: &Namespace) -> Result<Self> {
        let read = || -> Result<_> {
            // `/proc/net` is that of the process's first thread, which is in another namespace.
            let protocols = fs::read_to_string("/proc/thread-self/net/snmp")?;
            Ok((protocols, fs::read_to_string("/proc/thread-self/net/dev")?))
        };
        let (protocols, links) =
            namespace.enter(read).context("failed to read the counters of an end host")?;
        Self::parse(&protocols, &links).context("the kernel's counters look unfamiliar")
    }

    fn parse(protocols: &str, links: &str) -> Option<Self> {
        let count = |protocol, name| protocol_counter(protocols, protocol, name);
        let others = count("Tcp", "InSegs")? + count("Icmp", "InMsgs")?;
        Some(Self {
            arrived: count("Ip", "InDelivers")?.saturating_sub(others),
            sent: count("Udp", "OutDatagrams")?,
            no_room: count("Udp", "RcvbufErrors")?,
            link_bytes: link_bytes(links, "eth0")?,
        })
    }
}

impl std::ops::Add for EndHost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            arrived: self.arrived + other.arrived,
            sent: self.sent + other.sent,
            no_room: self.no_room + other.no_room,
            link_bytes: self.link_bytes + other.link_bytes,
        }
    }
}

/// Two lines per protocol: names, then numbers.
fn protocol_counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut rows = text.lines().filter_map(|line| line.split_once(": ")).filter(|(row, _)| *row == protocol);
    let (names, numbers) = (rows.next()?.1, rows.next()?.1);
    let at = names.split_whitespace().position(|column| column == name)?;
    numbers.split_whitespace().nth(at)?.parse().ok()
}

fn link_bytes(text: &str, link: &str) -> Option<u64> {
    let rows = text.lines().filter_map(|line| line.split_once(':'));
    let (_, numbers) = rows.into_iter().find(|(name, _)| name.trim() == link)?;
    let mut numbers = numbers.split_whitespace().map(|number| number.parse::<u64>().ok());
    Some(numbers.next()?? + numbers.nth(7)??)
}

/// Processor time so far, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    /// Of the proxy.
    pub(super) process: u64,
    /// Of the machine, busy or not.
    pub(super) machine: u64,
    /// Of the machine, doing nothing.
    pub(super) idle: u64,
    /// Of the machine, in software interrupts, where the kernel forwards.
    pub(super) softirq: u64,
}

impl CpuTime {
    pub(super) fn read(process: u32) -> Result<Self> {
        let stat = cpu::stat(process)?;
        let machine = fs::read_to_string("/proc/stat").context("failed to read /proc/stat")?;
        Self::parse(&stat, &machine).context("the kernel's processor times look unfamiliar")
    }

    fn parse(process: &str, machine: &str) -> Option<Self> {
        let times = machine.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        // Guests' time, the last two columns, is part of the first two.
        let times: Vec<u64> = times.take(8).filter_map(|time| time.parse().ok()).collect();
        Some(Self {
            process: cpu::ticks(process)?,
            machine: times.iter().sum(),
            idle: times.get(3)? + times.get(4)?,
            softirq: *times.get(6)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_datagrams_below_the_sockets() {
        let protocols = "Ip: Forwarding InDelivers\nIp: 1 100\nIcmp: InMsgs InErrors\nIcmp: 2 0\n\
            Tcp: ActiveOpens InSegs\nTcp: 1 30\nUdp: InDatagrams OutDatagrams RcvbufErrors\nUdp: 60 50 4\n";
        let links = "Inter-| Receive\n  lo: 1 2 3 4 5 6 7 8 9\n  eth0: 1000 9 0 0 0 0 0 0 500 8 0\n";
        let expected = EndHost { arrived: 68, sent: 50, no_room: 4, link_bytes: 1500 };
        assert_eq!(EndHost::parse(protocols, links), Some(expected));
    }

    #[test]
    fn reads_processor_times() {
        let process = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13";
        let machine = "cpu  10 1 20 300 5 0 4 0 9 9\ncpu0 1 2 3\n";
        let expected = CpuTime { process: 23, machine: 340, idle: 305, softirq: 4 };
        assert_eq!(CpuTime::parse(process, machine), Some(expected));
    }

    #[test]
    fn tells_unfamiliar_files() {
        assert_eq!(EndHost::parse("", ""), None);
        assert_eq!(CpuTime::parse("7 (x) S 1", "cpu 1 2"), None);
    }
}
