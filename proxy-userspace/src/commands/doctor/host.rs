//! The kernel, the rights of the process, and what it may use.

use std::{fs, path::Path};

use proxy_common::{
    flow::{BlockV4, BlockV6, FlowV4, FlowV6},
    maps,
};
use rustix::process::{Resource, getrlimit};

use super::{Findings, Level};
use crate::config::{Config, DatapathMode, OnStop};

/// The oldest kernel with every helper that the XDP program calls; TC alone works before.
const OLDEST: (u32, u32) = (5, 18);
/// Descriptors beside those of source ports: listeners, the connections of signalling, maps and programs.
const OTHER_DESCRIPTORS: u64 = 1024;
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: i64 = 0xcafe_4a11;

pub(super) fn examine(config: &Config, findings: &mut Findings) {
    kernel(fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(), findings);
    let wants_kernel = config.datapath.mode != DatapathMode::Userspace;
    if wants_kernel {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        rights(effective(&status), config.datapath.require_kernel, findings);
        compiler(fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok().as_deref(), findings);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        tables(table_bytes(config), available(&meminfo), findings);
    }
    if wants_kernel && config.lifecycle.on_stop == OnStop::Keep {
        pins(is_bpf_fs(Path::new("/sys/fs/bpf")), findings);
    }
    let addresses = config.sources.addresses.len().max(1);
    let wanted = (config.sources.ports.len() * addresses) as u64 + OTHER_DESCRIPTORS;
    descriptors(getrlimit(Resource::Nofile).maximum, wanted, findings);
}

fn kernel(release: &str, findings: &mut Findings) {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => {
            findings.add(Level::Ok, "kernel", format!("Linux {release}"));
        }
        (Some(_), Some(_)) => {
            let text = format!("Linux {release}: no XDP before {}.{}, TC alone", OLDEST.0, OLDEST.1);
            findings.add(Level::Warning, "kernel", text);
        }
        _ => findings.add(Level::Note, "kernel", format!("Linux {release} has no version as others have")),
    }
}

/// A right the process may have, its number in linux/capability.h, and what goes missing without it.
struct Right {
    name: &'static str,
    bit: u32,
}

const SYS_ADMIN: u32 = 21;
const FOR_PROGRAMS: [Right; 3] = [
    Right { name: "CAP_BPF", bit: 39 },
    Right { name: "CAP_NET_ADMIN", bit: 12 },
    Right { name: "CAP_PERFMON", bit: 38 },
];
const NET_RAW: u32 = 13;

/// `CapEff` of /proc/PID/status.
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok()).unwrap_or(0)
}

fn rights(effective: u64, required: bool, findings: &mut Findings) {
    let has = |bit: u32| effective & 1 << bit != 0;
    // CAP_SYS_ADMIN stands for the two that were split off it, not for CAP_NET_ADMIN.
    let is_missing = |right: &&Right| !(has(right.bit) || right.bit > 31 && has(SYS_ADMIN));
    let missing: Vec<_> = FOR_PROGRAMS.iter().filter(is_missing).map(|right| right.name).collect();
    if missing.is_empty() {
        findings.add(Level::Ok, "rights", "programs can be loaded and attached");
    } else {
        let level = if required { Level::Error } else { Level::Warning };
        findings.add(level, "rights", format!("no {}: media is relayed in userspace", missing.join(", ")));
    }
    if !has(NET_RAW) {
        findings.add(Level::Warning, "rights", "no CAP_NET_RAW: ICMP errors are not passed on");
    }
}

fn compiler(setting: Option<&str>, findings: &mut Findings) {
    if setting.is_some_and(|setting| setting.trim() == "0") {
        let text = "programs are interpreted: sysctl net.core.bpf_jit_enable=1";
        findings.add(Level::Warning, "JIT", text);
    }
}

/// Bytes of the tables of flows, which the kernel allocates at the start.
fn table_bytes(config: &Config) -> u64 {
    let of = |flows: u32, record: usize, block: usize| {
        let back = maps::to_client_rows(flows);
        let records = u64::from(maps::to_origin_rows(flows)) + u64::from(back);
        records * record as u64 + u64::from(maps::block_rows(back)) * block as u64
    };
    of(config.datapath.max_flows, size_of::<FlowV4>(), size_of::<BlockV4>())
        + of(config.datapath.max_flows_v6, size_of::<FlowV6>(), size_of::<BlockV6>())
}

/// `MemAvailable` of /proc/meminfo in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

fn tables(bytes: u64, available: Option<u64>, findings: &mut Findings) {
    let text = format!("{} MiB for tables of flows", bytes >> 20);
    match available {
        Some(available) if bytes > available => {
            let text = format!("{text}, but {} MiB are available: lower PROXY_MAX_FLOWS", available >> 20);
            findings.add(Level::Error, "memory", text);
        }
        Some(_) | None => findings.add(Level::Ok, "memory", text),
    }
}

fn is_bpf_fs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == BPF_FS)
}

fn pins(is_mounted: bool, findings: &mut Findings) {
    if is_mounted {
        findings.add(Level::Ok, "pins", "/sys/fs/bpf is mounted: flows outlive the process");
    } else {
        let text = "no bpf file system on /sys/fs/bpf: mount it where the next process sees it, \
                    or flows end with this one";
        findings.add(Level::Warning, "pins", text);
    }
}

/// `None` is no limit.
fn descriptors(limit: Option<u64>, wanted: u64, findings: &mut Findings) {
    match limit {
        Some(limit) if limit < wanted => {
            let text = format!("the hard limit is {limit}, all source ports in use take {wanted}");
            findings.add(Level::Warning, "open files", text);
        }
        Some(limit) => findings.add(Level::Ok, "open files", format!("{limit} are enough")),
        None => findings.add(Level::Ok, "open files", "no limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(examine: impl Fn(&mut Findings)) -> (Level, String) {
        let mut findings = Findings::default();
        examine(&mut findings);
        let texts: Vec<_> = findings.0.iter().map(|finding| finding.text.as_str()).collect();
        (findings.worst(), texts.join("; "))
    }

    #[test]
    fn old_kernels_have_tc_alone() {
        for (release, level) in [
            ("6.18.44", Level::Ok),
            ("5.18.0-rc1+", Level::Ok),
            ("5.15.0-91-generic", Level::Warning),
            ("4.19", Level::Warning),
            ("weird", Level::Note),
        ] {
            assert_eq!(found(|findings| kernel(release, findings)).0, level, "{release}");
        }
    }

    #[test]
    fn rights_are_read_from_the_status_of_the_process() {
        assert_eq!(effective("Name:\tx\nCapEff:\t0000000000003000\n"), 1 << 12 | 1 << 13);
        assert_eq!(effective("nothing"), 0);
    }

    #[test]
    fn missing_rights_are_named_and_fatal_where_the_kernel_is_required() {
        let all = 1 << 39 | 1 << 12 | 1 << 38 | 1 << 13_u64;
        assert_eq!(found(|findings| rights(all, true, findings)).0, Level::Ok);
        assert_eq!(found(|findings| rights(1 << 21 | 1 << 12 | 1 << 13, true, findings)).0, Level::Ok);
        let (level, text) = found(|findings| rights(all & !(1 << 12), true, findings));
        assert_eq!(level, Level::Error);
        assert!(text.contains("no CAP_NET_ADMIN:"), "{text}");
        assert_eq!(found(|findings| rights(0, false, findings)).0, Level::Warning);
        assert!(found(|findings| rights(all & !(1 << 13), true, findings)).1.contains("ICMP"));
    }

    #[test]
    fn tables_must_fit_into_memory() {
        let meminfo = "MemTotal: 100 kB\nMemAvailable:     2048 kB\n";
        assert_eq!(available(meminfo), Some(2 << 20));
        assert_eq!(available(""), None);
        assert_eq!(found(|findings| tables(3 << 20, Some(2 << 20), findings)).0, Level::Error);
        assert_eq!(found(|findings| tables(1 << 20, Some(2 << 20), findings)).0, Level::Ok);
    }

    #[test]
    fn descriptors_suffice_for_every_source_port() {
        assert_eq!(found(|findings| descriptors(Some(1024), 5560, findings)).0, Level::Warning);
        assert_eq!(found(|findings| descriptors(Some(8192), 5560, findings)).0, Level::Ok);
        assert_eq!(found(|findings| descriptors(None, 5560, findings)).0, Level::Ok);
    }

    #[test]
    fn pins_need_the_bpf_file_system() {
        assert!(!is_bpf_fs(Path::new("/proc")));
        assert_eq!(found(|findings| pins(false, findings)).0, Level::Warning);
        assert_eq!(found(|findings| pins(true, findings)).0, Level::Ok);
    }
}
