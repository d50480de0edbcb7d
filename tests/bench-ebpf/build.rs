//! Tells bpf-linker what the target can do.

use std::env;

fn main() {
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        // Headers lie at odd places of a frame: without this, every field is loaded byte by byte.
        println!("cargo::rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
