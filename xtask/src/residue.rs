//! What a run must not leave behind: namespaces, pins, links, programs, processes.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{privilege, shell};

/// Prefix of everything the tests name.
const TEST_PREFIX: &str = "xp-";
const PIN_PREFIX: &str = "srs-xproxy";
const PROGRAMS: [&str; 2] = ["forward_xdp", "forward_tc"];
const PROCESSES: [&str; 4] = ["srs-xproxy", "test-origin", "webrtc-load", "demo"];

/// How long things may take to go after their owner has ended.
const SETTLING: Duration = Duration::from_secs(5);

/// What is there and was not `before`, after a moment to let owners finish.
pub(crate) fn left_since(before: &BTreeSet<String>) -> Vec<String> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let left: Vec<String> = find().difference(before).cloned().collect();
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        thread::sleep(SETTLING / 10);
    }
}

/// Everything of ours that is on this machine at present, each in words.
pub(crate) fn find() -> BTreeSet<String> {
    let namespaces = names_in("/run/netns", TEST_PREFIX).map(|name| format!("network namespace {name}"));
    let pins = pins().into_iter().map(|name| format!("pin /sys/fs/bpf/{name}"));
    let links = names_in("/sys/class/net", TEST_PREFIX).map(|name| format!("network device {name}"));
    namespaces.chain(pins).chain(links).chain(programs()).chain(processes()).collect()
}

/// The directory is readable by root alone on most machines.
fn pins() -> Vec<String> {
    let names = as_root_output("ls", &["/sys/fs/bpf"]).unwrap_or_default();
    names.lines().filter(|name| name.starts_with(PIN_PREFIX)).map(str::to_owned).collect()
}

fn names_in(directory: &str, prefix: &'static str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(move |name| name.starts_with(prefix))
}

/// Programs that outlive their process because they hang on a device without a link.
fn programs() -> Vec<String> {
    let devices: Vec<String> = names_in("/sys/class/net", "").collect();
    let on_tc = devices.iter().flat_map(|device| ["ingress", "egress"].map(|hook| tc_programs(device, hook)));
    on_tc.flatten().chain(xdp_programs()).collect()
}

fn tc_programs(device: &str, hook: &str) -> Vec<String> {
    let Some(filters) = as_root_output("tc", &["filter", "show", "dev", device, hook]) else {
        return Vec::new();
    };
    let found = PROGRAMS.iter().filter(|program| filters.contains(*program));
    found.map(|program| format!("{program} on tc {hook} of {device}")).collect()
}

fn xdp_programs() -> Vec<String> {
    let links = as_root_output("ip", &["-details", "-json", "link", "show"]).unwrap_or_default();
    let links: Vec<Value> = serde_json::from_str(&links).unwrap_or_default();
    links.iter().filter_map(xdp_program).collect()
}

fn xdp_program(link: &Value) -> Option<String> {
    let name = link.pointer("/xdp/prog/name")?.as_str()?;
    let device = link.get("ifname")?.as_str()?;
    PROGRAMS.contains(&name).then(|| format!("{name} on XDP of {device}"))
}

fn as_root_output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = privilege::as_root(program, "looking for programs left on devices").ok()?;
    shell::quiet_output(command.args(arguments))
}

/// Processes of ours by name; the path tells them from other programs called the same.
fn processes() -> Vec<String> {
    let pids = names_in("/proc", "").filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    pids.filter_map(|pid| Some(format!("process {pid}: {}", our_binary(&pid)?.display()))).collect()
}

fn our_binary(pid: &str) -> Option<PathBuf> {
    let path = fs::read_link(Path::new("/proc").join(pid).join("exe")).ok().or_else(|| exe_as_root(pid))?;
    let name = path.file_name()?.to_str()?.trim_end_matches(" (deleted)").to_owned();
    let is_built_here =
        path.components().any(|part| ["debug", "release"].iter().any(|p| part.as_os_str() == *p));
    (is_built_here && PROCESSES.contains(&name.as_str())).then_some(path)
}

/// Only of processes whose short name is one of ours, since each costs a call of sudo.
fn exe_as_root(pid: &str) -> Option<PathBuf> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if !PROCESSES.contains(&name.trim_end()) {
        return None;
    }
    let path = as_root_output("readlink", &[&format!("/proc/{pid}/exe")])?;
    Some(path.trim_end().into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn knows_our_xdp_program_in_what_ip_prints() {
        let ours = json!({"ifname": "eth0", "xdp": {"mode": 1, "prog": {"id": 7, "name": "forward_xdp"}}});
        assert_eq!(xdp_program(&ours), Some("forward_xdp on XDP of eth0".to_owned()));
        let foreign = json!({"ifname": "eth0", "xdp": {"mode": 1, "prog": {"id": 7, "name": "other"}}});
        assert_eq!(xdp_program(&foreign), None);
        assert_eq!(xdp_program(&json!({"ifname": "lo"})), None);
    }

    #[test]
    fn programs_are_called_as_in_the_object() {
        let path = shell::root().join("proxy-ebpf/src/main.rs");
        let source = fs::read_to_string(path).expect("the programs have a source");
        for program in PROGRAMS {
            assert!(source.contains(&format!("fn {program}(")), "{program}");
        }
    }

    #[test]
    fn a_process_of_another_name_is_not_ours() {
        assert_eq!(our_binary(&std::process::id().to_string()), None);
    }
}
