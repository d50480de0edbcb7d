//! The embedded object is what the loader expects. Needs no privilege.

use aya_obj::Object;
use proxy_common::{
    flow::{Arrival, ArrivalKey, BlockV4, BlockV6, FlowV4, FlowV6, MissCount, NextHop, ServiceKey, Settings},
    maps,
    verdict::Engine,
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
    let (index, word) = (size_of::<u32>(), size_of::<u32>());
    let (to_origin, to_client) =
        (maps::to_origin_rows(maps::DEFAULT_FLOWS), maps::to_client_rows(maps::DEFAULT_FLOWS));
    let (blocks, engines) = (maps::block_rows(to_client), Engine::ALL.len() as u32);
    let rows = [
        (maps::TO_ORIGIN_V4, index, size_of::<FlowV4>(), to_origin),
        (maps::TO_ORIGIN_V6, index, size_of::<FlowV6>(), to_origin),
        (maps::TO_CLIENT_V4, index, size_of::<FlowV4>(), to_client),
        (maps::TO_CLIENT_V6, index, size_of::<FlowV6>(), to_client),
        (maps::BLOCKS_V4, index, size_of::<BlockV4>(), blocks),
        (maps::BLOCKS_V6, index, size_of::<BlockV6>(), blocks),
        (maps::NEXT_HOPS, index, size_of::<NextHop>(), maps::NEXT_HOP_ROWS),
        (maps::SETTINGS, index, size_of::<Settings>(), 1),
        (maps::SERVICES, size_of::<ServiceKey>(), word, maps::SERVICE_ROWS),
        (maps::EXPECTED, size_of::<u64>(), size_of::<MissCount>(), maps::EXPECTED_ROWS),
        (maps::MISSES, index, size_of::<MissCount>(), maps::MISS_ROWS * engines),
        (maps::MISSES_IN_ALL, index, size_of::<MissCount>(), engines),
        (maps::REASONS, index, size_of::<u64>(), maps::REASON_SLOTS),
        (maps::ARRIVALS, size_of::<ArrivalKey>(), size_of::<Arrival>(), maps::ARRIVAL_ROWS),
        (maps::SESSIONS, size_of::<u64>(), maps::SESSION_BYTES, maps::SESSION_ROWS),
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
