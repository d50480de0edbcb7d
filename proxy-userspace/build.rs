//! Builds the eBPF object and leaves it in `OUT_DIR`, where `datapath/kernel.rs` embeds it.

#[path = "build/objects.rs"]
mod objects;

use aya_build::Package;

fn main() -> anyhow::Result<()> {
    if objects::are_left_out() {
        return objects::write_empty(&["xproxy-bpf"]);
    }
    objects::build(Package {
        name: "proxy-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../proxy-ebpf"),
        ..Default::default()
    })
}
