//! Which crate may depend on which.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::shell::{self, cargo};

/// Each crate of ours with the crates of ours it may name; `proxy-ebpf` and `bench-ebpf` are build dependencies, for their
/// objects.
const ARROWS: &[(&str, &[&str])] = &[
    ("proxy-common", &[]),
    ("proxy-ebpf", &["proxy-common"]),
    ("proxy-protocol", &["proxy-common"]),
    ("proxy-userspace", &["proxy-common", "proxy-protocol", "proxy-ebpf"]),
    ("bench-tables", &["proxy-common"]),
    ("bench-ebpf", &["bench-tables", "proxy-common"]),
    (
        "integration-tests",
        &["bench-ebpf", "bench-tables", "proxy-common", "proxy-protocol", "proxy-userspace"],
    ),
    ("xtask", &[]),
];

/// Crates whose code must run without an operating system's help.
const PURE: [&str; 2] = ["proxy-common", "proxy-protocol"];
const IMPURE: [&str; 9] =
    ["tokio", "mio", "async-std", "socket2", "rustix", "libc", "rand", "getrandom", "tracing-subscriber"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
    optional: bool,
}

/// Dependencies that no arrow allows.
pub(super) fn broken_arrows() -> Result<Vec<String>> {
    let metadata =
        shell::output(&mut cargo(["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).context("failed to read what cargo metadata says")?;
    Ok(metadata.packages.iter().flat_map(breaches).collect())
}

fn breaches(package: &Package) -> Vec<String> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
        return vec![format!("{} has no arrows: add it to the list", package.name)];
    };
    let refused = package.dependencies.iter().filter(|dependency| !dependency.is_allowed(package, allowed));
    refused.map(|dependency| format!("{} depends on {}", package.name, dependency.name)).collect()
}

impl Dependency {
    fn is_allowed(&self, package: &Package, allowed: &[&str]) -> bool {
        let is_built = self.kind.as_deref() != Some("dev");
        if self.path.is_some() {
            // The programs' crates bring functions that must not replace the host's, such as `memset`.
            let embeds_object = ["proxy-ebpf", "bench-ebpf"].contains(&self.name.as_str());
            return allowed.contains(&self.name.as_str())
                && (!embeds_object || self.kind.as_deref() == Some("build"));
        }
        let pure = PURE.contains(&package.name.as_str()) && is_built;
        !(pure && (IMPURE.contains(&self.name.as_str()) || (self.name == "aya" && !self.optional)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dependency(name: &str, kind: Option<&str>, ours: bool) -> Dependency {
        let path = ours.then(|| format!("../{name}"));
        Dependency { name: name.to_owned(), kind: kind.map(str::to_owned), path, optional: false }
    }

    fn breaches_of(package: &str, dependency: Dependency) -> usize {
        breaches(&Package { name: package.to_owned(), dependencies: vec![dependency] }).len()
    }

    #[test]
    fn only_arrows_are_allowed_between_crates_of_ours() {
        assert_eq!(breaches_of("proxy-userspace", dependency("proxy-common", None, true)), 0);
        assert_eq!(breaches_of("proxy-common", dependency("proxy-userspace", None, true)), 1);
        assert_eq!(breaches_of("xtask", dependency("proxy-common", None, true)), 1);
        assert_eq!(breaches_of("unheard-of", dependency("serde", None, false)), 1);
    }

    #[test]
    fn the_programs_are_embedded_and_never_linked() {
        assert_eq!(breaches_of("proxy-userspace", dependency("proxy-ebpf", Some("build"), true)), 0);
        assert_eq!(breaches_of("proxy-userspace", dependency("proxy-ebpf", None, true)), 1);
        assert_eq!(breaches_of("integration-tests", dependency("bench-ebpf", Some("build"), true)), 0);
        assert_eq!(breaches_of("integration-tests", dependency("bench-ebpf", None, true)), 1);
    }

    #[test]
    fn pure_crates_have_no_runtime_outside_their_tests() {
        assert_eq!(breaches_of("proxy-protocol", dependency("tokio", None, false)), 1);
        assert_eq!(breaches_of("proxy-protocol", dependency("rand", Some("dev"), false)), 0);
        assert_eq!(breaches_of("proxy-common", dependency("aya", None, false)), 1);
    }
}
