//! Loading each layout and putting flows into its tables.

use std::net::SocketAddrV4;

use super::{
    candidate::Installed,
    flows::{self, Flow},
    mapping::Mapping,
    object,
    site::Site,
};
use crate::netns::MTU;
use anyhow::{Context as _, Result};
use aya::{Ebpf, EbpfLoader, maps::HashMap};
use bench_tables::{FlowEntry, FlowKey, Hop, Key, Link, PROBES, Slot, Tuple, Value64, Value72, slot_home};
use proxy_common::{
    flow::{
        Counters, EgressKind, Endpoints, FlowState, FlowV4, Head, NextHop, NextHopFlags, RouteRecord as _,
        RouteV4, ServiceFlags, ServiceKey, Settings,
    },
    maps,
};

/// What a frame costs that the proxy drops unread: all of it is the measurement's own.
pub(super) const FLOOR: &str = "nothing";
/// The candidate that no layout can beat.
pub(super) const LIMIT: &str = "redirect";
/// The candidate that the shipped program must beat: the same program over BPF hashes.
pub(super) const RIVAL: &str = "hash";
/// What programs and tables mix hashes with; a real proxy draws it.
const SEED: u64 = 0x1234_5678_9abc_def0;

/// A filled layout.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) name: &'static str,
    /// Towards the origin, towards the client.
    pub(super) programs: [&'static str; 2],
    pub(super) ebpf: Ebpf,
    pub(super) tables: Tables,
    pub(super) installed: Installed,
}

/// Arrays of a layout that userspace has mapped.
#[derive(Debug, Default)]
pub(super) struct Tables {
    slots: Option<Mapping<Slot>>,
    _shared: Option<(Mapping<NextHop>, Mapping<Settings>)>,
}

impl Tables {
    pub(super) fn bytes(&self) -> u64 {
        self.slots.as_ref().map_or(0, |table| object::charged(table.map()))
    }
}

/// Loads and fills a layout.
pub(super) type Fill = fn(&Site, u32) -> Result<Filled>;

/// The floor and the limit first, then the candidates.
pub(super) const ALL: &[Fill] = &[nothing, redirect, hash, bare_hash, bare_hash8, bare_slot];

const BARE: [&str; 2] = ["to_origin", "to_client"];

fn nothing(site: &Site, flows: u32) -> Result<Filled> {
    Ok(Filled { name: FLOOR, programs: ["nothing"; 2], ..redirect(site, flows)? })
}

fn redirect(site: &Site, flows: u32) -> Result<Filled> {
    let (to_origin, to_client) = (site.to_origin(), site.to_client());
    let ebpf = object::load(object::REDIRECT, |loader: &mut EbpfLoader<'_>| {
        loader.override_global("TO_ORIGIN", &to_origin, true).override_global("TO_CLIENT", &to_client, true);
    })?;
    let installed = installed(flows);
    Ok(Filled { name: LIMIT, programs: BARE, ebpf, tables: Tables::default(), installed })
}

/// The shipped program over hashes, with what the shipped tables have beside records.
fn hash(site: &Site, flows: u32) -> Result<Filled> {
    let mut ebpf = object::load(object::HASH, |loader| {
        loader.map_max_entries("FLOWS_V4", 2 * flows);
    })?;
    let installed = installed(flows);
    let map = ebpf.map_mut("FLOWS_V4").context("no FLOWS_V4")?;
    let mut map = HashMap::<_, FlowKey<flows::Addr>, FlowEntry<FlowV4>>::try_from(map)?;
    for (there, back) in installed.to_origin.iter().zip(&installed.to_client) {
        for ((key, rewrite), next_hop) in [(there, TO_ORIGIN), (back, TO_CLIENT)] {
            let (key, rewrite) = (flows::endpoints(key), flows::endpoints(rewrite));
            map.insert(
                FlowKey::udp(key),
                FlowEntry { record: record(key, rewrite, next_hop), created: 0 },
                0,
            )?;
        }
    }
    let mut hops = Mapping::<NextHop>::of(&mut ebpf, maps::NEXT_HOPS)?;
    hops.rows()[usize::from(TO_ORIGIN)] = next_hop(&site.to_origin());
    hops.rows()[usize::from(TO_CLIENT)] = next_hop(&site.to_client());
    let mut settings = Mapping::<Settings>::of(&mut ebpf, maps::SETTINGS)?;
    settings.rows()[0].ownership.first_port = flows::FIRST_SOURCE_PORT;
    settings.rows()[0].ownership.last_port = u16::MAX;
    let services = ebpf.map_mut(maps::SERVICES).context("no SERVICES")?;
    let mut services = HashMap::<_, ServiceKey, u32>::try_from(services)?;
    services.insert(service(Flow::number(0).service), ServiceFlags::STRICT, 0)?;
    let tables = Tables { _shared: Some((hops, settings)), ..Tables::default() };
    Ok(Filled { name: RIVAL, programs: [maps::FORWARD_XDP; 2], ebpf, tables, installed })
}

fn bare_hash(site: &Site, flows: u32) -> Result<Filled> {
    let mut ebpf = object::load(object::BARE_HASH, |loader| {
        loader.map_max_entries("FLOWS", 2 * flows);
    })?;
    let installed = installed(flows);
    let map = ebpf.map_mut("FLOWS").context("no FLOWS")?;
    let mut map = HashMap::<_, Key, Value72>::try_from(map)?;
    for (tuple, rewrite, Hop { link, ifindex, .. }) in directions(site, &installed) {
        let key = Key { tuple, protocol: 17 };
        map.insert(key, Value72 { rewrite, link, ifindex, ..Value72::default() }, 0)?;
    }
    Ok(Filled { name: "bare hash", programs: BARE, ebpf, tables: Tables::default(), installed })
}

fn bare_hash8(site: &Site, flows: u32) -> Result<Filled> {
    let mut ebpf = object::load(object::BARE_HASH8, |loader| {
        loader.map_max_entries("FLOWS", 2 * flows);
    })?;
    let installed = installed(flows);
    let map = ebpf.map_mut("FLOWS").context("no FLOWS")?;
    let mut map = HashMap::<_, u64, Value64>::try_from(map)?;
    for (tuple, rewrite, Hop { link, ifindex, .. }) in directions(site, &installed) {
        map.insert(tuple.short(), Value64 { rewrite, link, ifindex, ..Value64::default() }, 0)?;
    }
    Ok(Filled { name: "bare hash8", programs: BARE, ebpf, tables: Tables::default(), installed })
}

/// Half of the rows are spare, as in the shipped table.
fn bare_slot(site: &Site, flows: u32) -> Result<Filled> {
    let rows = (2 * flows).next_power_of_two().max(PROBES);
    let mask = rows - 1;
    let mut ebpf = load_slots(site, rows)?;
    let mut slots = Mapping::<Slot>::of(&mut ebpf, "SLOTS")?;
    let mut installed = Installed::default();
    for flow in (0..flows).map(Flow::number) {
        let Tuple { src, src_port, dst_port, .. } = flow.sent();
        let key = u64::from(src) | u64::from(src_port) << 32 | u64::from(dst_port) << 48;
        let home = slot_home(key, SEED, mask);
        let mut way = (0..PROBES).map(|probe| (home + probe) & mask);
        let Some(row) = way.find(|&row| slots.rows()[row as usize].key == 0) else { continue };
        let Link { dst: client_mac, .. } = site.to_client().link;
        slots.rows()[row as usize] = Slot { key, client_mac, ..Slot::default() };
        installed.add(&flow.with_slot(row));
    }
    let tables = Tables { slots: Some(slots), ..Tables::default() };
    Ok(Filled { name: "bare slot", programs: BARE, ebpf, tables, installed })
}

fn load_slots(site: &Site, rows: u32) -> Result<Ebpf> {
    let mask = rows - 1;
    let first = Flow::number(0).with_slot(0);
    let (service, source) = (first.to_client(), first.to_origin());
    let (to_origin, to_client) = (site.to_origin(), site.to_client());
    object::load(object::BARE_SLOT, |loader: &mut EbpfLoader<'_>| {
        loader.override_global("SEED", &SEED, true).override_global("MASK", &mask, true);
        loader.override_global("TO_ORIGIN", &to_origin, true).override_global("TO_CLIENT", &to_client, true);
        loader.override_global("SERVICE_TO_ORIGIN", &service, true);
        loader.override_global("SOURCE_TO_ORIGIN", &source, true).map_max_entries("SLOTS", rows);
    })
}

impl Installed {
    pub(super) fn add(&mut self, flow: &Flow) {
        self.to_origin.push((flow.sent(), flow.to_origin()));
        self.to_client.push((flow.answered(), flow.to_client()));
    }
}

fn installed(flows: u32) -> Installed {
    let mut installed = Installed::default();
    (0..flows).for_each(|number| installed.add(&Flow::number(number)));
    installed
}

/// Every direction: what arrives, what leaves, and how. A flow's directions follow each other, as a proxy installs them.
fn directions(site: &Site, installed: &Installed) -> impl Iterator<Item = (Tuple, Tuple, Hop)> {
    let (origin, client) = (site.to_origin(), site.to_client());
    let to_origin = installed.to_origin.iter().map(move |&(from, to)| (from, to, origin));
    let to_client = installed.to_client.iter().map(move |&(from, to)| (from, to, client));
    to_origin.zip(to_client).flat_map(|(there, back)| [there, back])
}

/// Rows of the next hops.
const TO_ORIGIN: u16 = 0;
const TO_CLIENT: u16 = 1;

fn record(key: flows::Key, rewrite: flows::Key, next_hop: u16) -> FlowV4 {
    let head = Head { state: FlowState::Forward as u8, next_hop, ..Head::FREE };
    let counters = Counters { last_seen: 0, idle_limit: 0, packets: 0, bytes: 0, checks: 0, alerts: 0 };
    FlowV4 { route: RouteV4::new(head, key, rewrite), counters }
}

fn next_hop(hop: &Hop) -> NextHop {
    let [dst_mac, src_mac] = [hop.link.dst, hop.link.src].map(flows::mac);
    let (egress, flags) = (EgressKind::Redirect as u8, NextHopFlags::XDP);
    NextHop { dst_mac, src_mac, egress, flags, mtu: MTU, ifindex: hop.ifindex, reserved: [0; 3] }
}

fn service(address: SocketAddrV4) -> ServiceKey {
    let tuple = Flow { service: address, ..Flow::number(0) }.sent();
    let Endpoints { dst, dst_port, .. } = flows::endpoints(&tuple);
    ServiceKey::of(dst, dst_port)
}
