//! Builds the eBPF objects of floods and of the benchmark of layouts, and leaves them in `OUT_DIR`, where
//! `src/layouts/object.rs` embeds them.

#[path = "../proxy-userspace/build/objects.rs"]
mod objects;

use std::env;

use aya_build::Package;

const GENERATOR: &str = "generator";
/// Objects of the feature `layouts`, which no test needs.
const LAYOUTS: [&str; 6] = ["sink", "redirect", "hash", "bare_hash", "bare_hash8", "bare_slot"];

fn main() -> anyhow::Result<()> {
    if objects::are_left_out() {
        return objects::write_empty(&[&[GENERATOR], &LAYOUTS[..]].concat());
    }
    let layouts = env::var_os("CARGO_FEATURE_LAYOUTS").is_some();
    if layouts {
        // One of the objects is the shipped program over other tables.
        println!("cargo::rerun-if-changed=../proxy-ebpf/src");
    } else {
        objects::write_empty(&LAYOUTS)?;
    }
    objects::build(Package {
        name: "bench-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/bench-ebpf"),
        features: if layouts { &["layouts"] } else { &[] },
        ..Default::default()
    })
}
