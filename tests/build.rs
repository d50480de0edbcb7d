//! Builds the benchmark's eBPF objects with aya-build and leaves them in `OUT_DIR`, where `src/layouts/object.rs` embeds
//! them. The toolchain is chosen as for the proxy's own object.

use std::{env, fs, path::Path, process::Command};

use anyhow::Context as _;
use aya_build::{Package, Toolchain, build_ebpf};

/// A linked rustup toolchain of this name brings a prebuilt `core` for the BPF target (see `cargo xtask setup`);
/// without it nightly with rust-src is used.
const LINKED_TOOLCHAIN: &str = "ebpf";
const OBJECTS: [&str; 7] = ["generator", "sink", "redirect", "hash", "bare_hash", "bare_hash8", "bare_slot"];

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=AYA_BUILD_SKIP");
    // One of the objects is the shipped program over other tables.
    println!("cargo::rerun-if-changed=../proxy-ebpf/src");
    if env::var_os("AYA_BUILD_SKIP").is_some() {
        return write_empty_objects();
    }
    let linked = Command::new("rustup")
        .args(["run", LINKED_TOOLCHAIN, "rustc", "--version"])
        .output()
        .is_ok_and(|out| out.status.success());
    let toolchain = if linked { Toolchain::Custom(LINKED_TOOLCHAIN) } else { Toolchain::Nightly };
    build_ebpf(
        [Package {
            name: "bench-ebpf",
            root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/bench-ebpf"),
            ..Default::default()
        }],
        toolchain,
    )
    .context(
        "failed to build the benchmark's eBPF objects: run `cargo xtask setup` once, or set AYA_BUILD_SKIP=1",
    )
}

/// Lint- and doc-only builds need no BPF toolchain: empty objects satisfy the includes.
fn write_empty_objects() -> anyhow::Result<()> {
    let out = env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?;
    for object in OBJECTS {
        fs::write(Path::new(&out).join(object), []).context("failed to write an empty eBPF object")?;
    }
    Ok(())
}
