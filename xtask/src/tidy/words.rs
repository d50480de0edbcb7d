//! Names that may stand in some files only, and words that may stand in none.

use anyhow::Result;

use super::sources::{self, Source, holds_word};

/// A name and where it belongs.
struct Boundary {
    name: &'static str,
    /// Where it is looked for.
    within: &'static [&'static str],
    /// Beginnings of the paths that may hold it.
    homes: &'static [&'static str],
    /// Longer names that are no breach.
    except: &'static [&'static str],
}

const USERSPACE: &[&str] = &["proxy-userspace/src/"];
const PURE: &[&str] = &["proxy-common/src/", "proxy-userspace/protocol/src/"];
const EVERYWHERE: &[&str] = &["proxy-", "tests/", "xtask/"];
const CONFIG: &[&str] = &["proxy-userspace/src/config"];

const UNSAFE_HOMES: &[&str] = &[
    "proxy-ebpf/src/main.rs",
    "proxy-ebpf/src/xdp.rs",
    "proxy-ebpf/src/tc.rs",
    "proxy-ebpf/src/maps.rs",
    "proxy-ebpf/src/records.rs",
    "proxy-common/src/packet.rs",
    "proxy-common/src/wire.rs",
    "proxy-common/src/flow.rs",
    // The environment of the only thread of a build script.
    "proxy-userspace/build/objects.rs",
    "proxy-userspace/src/datapath/kernel",
    "proxy-userspace/src/net/handover.rs",
    "proxy-userspace/src/net/namespace.rs",
    "proxy-userspace/src/net/udp",
    "tests/bench-ebpf/src",
    "tests/bench-tables/src",
    "tests/src/layouts/mapping.rs",
    // Advice on how memory is mapped.
    "tests/src/layouts/memory.rs",
    // Signals, clocks and priorities of threads, which no crate names.
    "tests/src/layouts/thread.rs",
    // Commands of the bpf system call that no crate has.
    "tests/src/links.rs",
    // A filter of system calls between fork and exec.
    "tests/src/lacking.rs",
    // Socket options of a sender that no crate names.
    "tests/tests/netns_forward.rs",
    // An allocator that counts.
    "tests/tests/allocations.rs",
    // The address and an option of a packet socket.
    "tests/src/impaired.rs",
    // Calls into libsrt.
    "tests/src/srt/library.rs",
    // Frames in batches from a packet socket.
    "tests/src/relay_bench/generator.rs",
];

const BOUNDARIES: &[Boundary] = &[
    boundary("aya::", USERSPACE, &["proxy-userspace/src/datapath/kernel"]),
    boundary("clap", USERSPACE, CONFIG),
    boundary("redis::", USERSPACE, &["proxy-userspace/src/origin/store", "proxy-userspace/src/config"]),
    boundary("std::env", USERSPACE, CONFIG),
    boundary(
        "tokio::net",
        USERSPACE,
        &[
            "proxy-userspace/src/net",
            "proxy-userspace/src/api",
            "proxy-userspace/src/origin/connector.rs",
            "proxy-userspace/src/origin/probe.rs",
            "proxy-userspace/src/rtmp",
            "proxy-userspace/src/live",
            "proxy-userspace/src/ice_tcp",
        ],
    ),
    boundary(
        "libc::",
        USERSPACE,
        &[
            "proxy-userspace/src/net/namespace.rs",
            "proxy-userspace/src/net/udp",
            // membarrier, which no crate names.
            "proxy-userspace/src/datapath/kernel/grace.rs",
            // Commands of the bpf system call that no crate has.
            "proxy-userspace/src/datapath/kernel/link.rs",
        ],
    ),
    boundary("tokio::", PURE, &[]),
    Boundary { name: "aya::", within: PURE, homes: &[], except: &["aya::Pod"] },
    boundary("rand::", PURE, &[]),
    boundary("Instant::now", PURE, &[]),
    boundary("SystemTime", PURE, &[]),
    boundary("std::net::UdpSocket", PURE, &[]),
    boundary("std::net::TcpStream", PURE, &[]),
    boundary("std::net::TcpListener", PURE, &[]),
    boundary("unsafe", EVERYWHERE, UNSAFE_HOMES),
];

const fn boundary(
    name: &'static str,
    within: &'static [&'static str],
    homes: &'static [&'static str],
) -> Boundary {
    Boundary { name, within, homes, except: &[] }
}

/// Names outside their homes.
pub(super) fn misplaced() -> Result<Vec<String>> {
    let sources = sources::rust(EVERYWHERE)?;
    let pairs = BOUNDARIES.iter().flat_map(|boundary| sources.iter().map(move |source| (boundary, source)));
    Ok(pairs.flat_map(|(boundary, source)| boundary.breaches(source)).collect())
}

impl Boundary {
    fn breaches(&self, source: &Source) -> Vec<String> {
        let begins =
            |beginnings: &[&str]| beginnings.iter().any(|beginning| source.path.starts_with(beginning));
        if !begins(self.within) || begins(self.homes) {
            return Vec::new();
        }
        let lines =
            source.lines_naming(self.name).into_iter().filter(|line| !self.is_excepted(source, *line));
        lines.map(|line| format!("{}:{line}: {} does not belong here", source.path, self.name)).collect()
    }

    fn is_excepted(&self, source: &Source, line: usize) -> bool {
        let text = source.text.lines().nth(line - 1).unwrap_or_default();
        self.except.iter().any(|except| holds_word(text, except))
    }
}

/// Code that says it is not done.
pub(super) fn unfinished() -> Result<Vec<String>> {
    let words = ["todo!", "unimplemented!", "dbg!"];
    let mut breaches = Vec::new();
    for source in sources::rust(EVERYWHERE)? {
        for word in words {
            let lines = source.lines_naming(word);
            breaches.extend(lines.iter().map(|line| format!("{}:{line}: {word}", source.path)));
        }
    }
    Ok(breaches)
}

/// Modules whose name is their directory's.
pub(super) fn mod_files() -> Result<Vec<String>> {
    let sources = sources::rust(EVERYWHERE)?;
    Ok(sources.into_iter().map(|source| source.path).filter(|path| path.ends_with("/mod.rs")).collect())
}

/// Paths that exist on one machine only. They are put together here so that this file does not hold them.
pub(super) fn machine_paths() -> Result<Vec<String>> {
    let words = [concat!("/wo", "rk/"), concat!("/tmp/", "xp"), concat!("/ho", "me/")];
    let mut breaches = Vec::new();
    for source in sources::all()? {
        for (at, line) in source.text.lines().enumerate() {
            let found = words.iter().filter(|word| line.contains(*word));
            breaches.extend(found.map(|word| format!("{}:{}: {word}", source.path, at + 1)));
        }
    }
    Ok(breaches)
}

/// Settings that the documentation does not name; that it agrees word for word is a test of the crate they are in.
pub(super) fn undocumented_settings() -> Result<Vec<String>> {
    let sources = sources::all()?;
    let text =
        |path: &str| sources.iter().find(|source| source.path == path).map_or("", Source::without_tests);
    let documentation = text("docs/configuration.md");
    let variables =
        text("proxy-userspace/src/config/settings.rs").split('"').filter(|word| is_variable(word));
    let undocumented = variables.filter(|variable| !documentation.contains(&format!("`{variable}`")));
    Ok(undocumented.map(|variable| format!("{variable} is not in docs/configuration.md")).collect())
}

fn is_variable(word: &str) -> bool {
    let upper = |b: u8| b.is_ascii_uppercase() || b == b'_';
    word.len() > "PROXY_".len() && word.starts_with("PROXY_") && word.bytes().all(upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outside_its_home_is_a_breach() {
        let text = "use tokio::{net::UdpSocket, time};\n".to_owned();
        let breaches = |path: &str| {
            let source = Source { path: path.to_owned(), text: text.clone() };
            BOUNDARIES.iter().flat_map(|boundary| boundary.breaches(&source)).collect::<Vec<_>>()
        };
        assert_eq!(breaches("proxy-userspace/src/net/udp.rs"), [""; 0]);
        assert_eq!(breaches("tests/src/client.rs"), [""; 0]);
        assert_eq!(
            breaches("proxy-userspace/src/proxy.rs"),
            ["proxy-userspace/src/proxy.rs:1: tokio::net does not belong here"]
        );
        assert_eq!(breaches("proxy-common/src/flow.rs").len(), 1);
    }

    #[test]
    fn an_exception_is_no_breach() {
        let source =
            |text: &str| Source { path: "proxy-common/src/flow.rs".to_owned(), text: text.to_owned() };
        let aya = BOUNDARIES.iter().find(|boundary| !boundary.except.is_empty()).expect("there is one");
        assert_eq!(aya.breaches(&source("unsafe impl aya::Pod for Flow {}")), [""; 0]);
        assert_eq!(aya.breaches(&source("use aya::maps::Array;")).len(), 1);
    }
}
