//! Builds the eBPF object with aya-build and leaves it in `OUT_DIR`, where `datapath/kernel.rs` embeds it.

use std::{env, fs, path::Path, process::Command};

use anyhow::Context as _;
use aya_build::{Package, Toolchain, build_ebpf};

/// A linked rustup toolchain of this name brings a prebuilt `core` for the BPF target (see `cargo xtask setup`);
/// without it nightly with rust-src is used.
const LINKED_TOOLCHAIN: &str = "ebpf";
const OBJECT: &str = "xproxy-bpf";

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=AYA_BUILD_SKIP");
    if env::var_os("AYA_BUILD_SKIP").is_some() {
        // Lint- and doc-only builds need no BPF toolchain: an empty object satisfies the include.
        let out = env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?;
        return fs::write(Path::new(&out).join(OBJECT), []).context("failed to write the empty eBPF object");
    }
    let linked = Command::new("rustup")
        .args(["run", LINKED_TOOLCHAIN, "rustc", "--version"])
        .output()
        .is_ok_and(|out| out.status.success());
    let toolchain = if linked { Toolchain::Custom(LINKED_TOOLCHAIN) } else { Toolchain::Nightly };
    build_ebpf(
        [Package {
            name: "proxy-ebpf",
            root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../proxy-ebpf"),
            ..Default::default()
        }],
        toolchain,
    )
    .context("failed to build the eBPF object: run `cargo xtask setup` once, or set AYA_BUILD_SKIP=1 to build without it")
}
