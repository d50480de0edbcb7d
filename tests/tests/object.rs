//! The embedded object is what the loader expects. Needs no privilege.

use aya_obj::Object;
use proxy_common::{
    flow::{Arrival, ArrivalKey, Flow, FlowKey, NextHop},
    maps,
};
use proxy_userspace::datapath::kernel::OBJECT;

#[test]
fn the_object_has_the_programs_the_loader_opens() {
    let object = parse();
    for name in [maps::FORWARD_XDP, maps::FORWARD_TC] {
        assert!(object.programs.contains_key(name), "{name}");
        assert!(name.len() < 16, "the kernel cuts {name} short");
    }
}

#[test]
fn the_object_has_the_maps_the_loader_opens() {
    let object = parse();
    let rows = [
        (maps::FLOW_INDEX, size_of::<FlowKey>(), size_of::<u32>(), maps::DEFAULT_RECORDS),
        (maps::FLOWS, size_of::<u32>(), size_of::<Flow>(), maps::DEFAULT_RECORDS),
        (maps::NEXT_HOPS, size_of::<u32>(), size_of::<NextHop>(), maps::NEXT_HOP_ROWS),
        (maps::REASONS, size_of::<u32>(), size_of::<u64>(), maps::REASON_SLOTS),
        (maps::ARRIVALS, size_of::<ArrivalKey>(), size_of::<Arrival>(), maps::ARRIVAL_ROWS),
    ];
    assert_eq!(rows.map(|(name, ..)| name), maps::ALL);
    for (name, key, value, entries) in rows {
        let map = object.maps.get(name).unwrap_or_else(|| panic!("no map {name}"));
        let found = (map.key_size() as usize, map.value_size() as usize, map.max_entries());
        assert_eq!(found, (key, value, entries), "{name}");
    }
}

#[test]
fn the_object_was_built_with_the_layout_of_this_build() {
    let object = parse();
    let constants = object.maps.iter().filter(|(name, _)| name.starts_with(".rodata"));
    let fingerprint = maps::LAYOUT_FINGERPRINT.to_ne_bytes();
    let found = constants.into_iter().any(|(_, map)| map.data().windows(8).any(|word| word == fingerprint));
    assert!(found, "rebuild the eBPF object");
}

fn parse() -> Object {
    Object::parse(OBJECT).expect("the build embeds an object unless AYA_BUILD_SKIP is set")
}
