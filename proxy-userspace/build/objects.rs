//! eBPF objects for a build script to leave in `OUT_DIR`. The one of the tests has this module too.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain, build_ebpf};

/// A linked rustup toolchain of this name brings a prebuilt `core` for the BPF target (see `cargo xtask setup`);
/// without it nightly with rust-src is used.
const LINKED_TOOLCHAIN: &str = "ebpf";

/// Whether to do without: lint- and doc-only builds need no BPF toolchain.
pub(crate) fn are_left_out() -> bool {
    println!("cargo::rerun-if-env-changed=AYA_BUILD_SKIP");
    env::var_os("AYA_BUILD_SKIP").is_some()
}

/// Builds the objects of a package with aya-build.
pub(crate) fn build(package: Package<'_>) -> Result<()> {
    let linked = Command::new("rustup")
        .args(["run", LINKED_TOOLCHAIN, "rustc", "--version"])
        .output()
        .is_ok_and(|out| out.status.success());
    let toolchain = if linked { Toolchain::Custom(LINKED_TOOLCHAIN) } else { Toolchain::Nightly };
    let name = package.name;
    share_dependencies()?;
    build_ebpf([package], toolchain).with_context(|| {
        format!(
            "failed to build the eBPF objects of {name}: run `cargo xtask setup` once, or set AYA_BUILD_SKIP=1 to \
             build without them"
        )
    })
}

/// What the objects of one package are built from, those of the next one are too. aya-build has cargo write to a directory of
/// each package's own, and what lies between sources and programs would lie there as well.
fn share_dependencies() -> Result<()> {
    let out = env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?;
    // `<profile>/build/<package>/out`
    let profile = Path::new(&out).ancestors().nth(3).context("OUT_DIR is not where cargo puts it")?;
    // SAFETY: this is the only thread of the build script.
    unsafe { env::set_var("CARGO_BUILD_BUILD_DIR", profile.join("ebpf")) };
    Ok(())
}

/// Satisfies the includes of objects that are not built.
pub(crate) fn write_empty(objects: &[&str]) -> Result<()> {
    let out = env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?;
    for object in objects {
        fs::write(Path::new(&out).join(object), []).context("failed to write an empty eBPF object")?;
    }
    Ok(())
}
