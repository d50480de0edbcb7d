//! Rows that stand for the kernel's, and next hops in them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use proxy_common::verdict::Reason;

use super::*;
use crate::{
    datapath::{
        Arrival, AttachError, Attachment, Engine, Escalation, FlowCounters, FlowId, FlowSpec, Protocol,
    },
    net::route::{Link, Neighbour, Reachability, Table, Update},
};

/// The next-hop table, and devices that take programs or refuse them.
#[derive(Default)]
pub(in crate::datapath) struct Rows {
    pub(in crate::datapath) engines: HashMap<u32, Engine>,
    pub(in crate::datapath) detached: Vec<u32>,
    /// Devices by which frames were sent.
    pub(in crate::datapath) sent: Vec<u32>,
    /// Why none is sent.
    pub(in crate::datapath) refusal: Option<i32>,
    pub(in crate::datapath) lost: Vec<(u32, Option<Engine>)>,
    rows: HashMap<u16, NextHopSpec>,
    next: u16,
}

impl Datapath for Rows {
    fn attach(&mut self, ifindex: u32) -> Result<Attachment, AttachError> {
        let refused = || AttachError { interface: format!("#{ifindex}"), reason: "refused".into() };
        let engine = *self.engines.get(&ifindex).ok_or_else(refused)?;
        Ok(Attachment { ifindex, name: format!("#{ifindex}"), engine, mode: "test", note: None })
    }
    fn detach(&mut self, ifindex: u32) {
        self.detached.push(ifindex);
    }
    fn lost(&mut self) -> Vec<(u32, Option<Engine>)> {
        std::mem::take(&mut self.lost)
    }
    fn attachments(&self) -> Vec<Attachment> {
        Vec::new()
    }
    fn add_next_hop(&mut self, hop: &NextHopSpec) -> Result<NextHopId, InstallError> {
        self.next += 1;
        self.rows.insert(self.next, *hop);
        Ok(NextHopId(self.next))
    }
    fn update_next_hop(&mut self, id: NextHopId, hop: &NextHopSpec) {
        self.rows.insert(id.0, *hop);
    }
    fn remove_next_hop(&mut self, id: NextHopId) {
        self.rows.remove(&id.0);
    }
    fn install(&mut self, _: &FlowSpec) -> Result<FlowId, InstallError> {
        Err(InstallError::Full)
    }
    fn remove(&mut self, _: FlowId) -> FlowCounters {
        FlowCounters::default()
    }
    fn send_by_xdp(&mut self, ifindex: u32, _: &[u8]) -> io::Result<()> {
        match self.refusal {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => {
                self.sent.push(ifindex);
                Ok(())
            }
        }
    }
    fn set_flow_hop(&mut self, _: FlowId, _: Direction, _: NextHopId) {
        unreachable!("next hops know no flow")
    }
    fn escalate(&mut self, _: FlowId, _: Escalation) {}
    fn counters(&self, _: FlowId) -> FlowCounters {
        FlowCounters::default()
    }
    fn reasons(&self) -> Vec<(Engine, Reason, u64)> {
        Vec::new()
    }
    fn arrival(&self, _: SocketAddr) -> Option<Arrival> {
        None
    }
    fn is_published(&self, _: FlowId) -> bool {
        false
    }
    fn begin_grace(&mut self) -> bool {
        false
    }
    fn end_grace(&mut self) {}
    fn lease(&mut self, _: SocketAddr, _: SocketAddr) -> Result<(), InstallError> {
        Ok(())
    }
    fn retire(&mut self, _: SocketAddr, _: SocketAddr) {}
    fn release(&mut self, _: SocketAddr, _: SocketAddr) {}
    fn bind(&mut self, _: SocketAddr, _: SocketAddr, _: Protocol) {}
    fn unbind(&mut self, _: SocketAddr, _: SocketAddr) {}
    fn expect(&mut self, _: IpAddr) {}
    fn unexpect(&mut self, _: IpAddr) {}
    fn keep_alive(&mut self) {}
    fn table_bytes(&self) -> u64 {
        0
    }
    fn spec(&self, _: FlowId) -> Option<FlowSpec> {
        None
    }
    fn inherited_service(&self, _: SocketAddr) -> Option<SocketAddr> {
        None
    }
    fn forget_unclaimed(&mut self) {}
    fn outlives(&self) -> bool {
        false
    }
    fn unpin(&mut self) {}
}

pub(in crate::datapath) const HOP: Hop =
    Hop { ifindex: 2, neighbour: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)) };
pub(super) const HOP_V6: Hop =
    Hop { ifindex: 2, neighbour: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)) };
pub(super) const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FIRST: User = (SessionId(1), Direction::ToOrigin);
const SECOND: User = (SessionId(2), Direction::ToOrigin);

pub(in crate::datapath) fn neighbour(mac: [u8; 6]) -> Neighbour {
    let reachability = Reachability::Answered;
    Neighbour { hop: HOP, mac: Some(mac), reachability, is_managed: false, is_foreign: false }
}

fn link(is_up: bool) -> Link {
    Link {
        ifindex: 2,
        name: "eth0".into(),
        mac: Some(OURS),
        mtu: 1500,
        is_up,
        is_loopback: false,
        resolves: true,
    }
}

pub(in crate::datapath) fn view(mac: Option<[u8; 6]>, is_up: bool) -> View {
    let v6 = mac.map(|mac| Neighbour { hop: HOP_V6, ..neighbour(mac) });
    let neighbours = mac.map(neighbour).into_iter().chain(v6).collect();
    let table = Table { links: vec![link(is_up)], neighbours };
    let mut view = View::default();
    view.apply(Update { table: Some(table), ..Update::default() });
    view.set_xdp_transmit(2, Some(true));
    view
}

fn key(hop: Hop, manner: Manner) -> Key {
    Key::new(Route { hop, mtu: None }, manner)
}

fn everything() -> Changed {
    Changed { links: HashSet::from([2]), hops: HashSet::from([HOP]) }
}

fn taken(manner: Manner, mac: Option<[u8; 6]>) -> (NextHops, Rows, NextHopId) {
    let (mut hops, mut rows) = (NextHops::default(), Rows::default());
    let id = hops.take(FIRST, key(HOP, manner), &view(mac, true), &mut rows).unwrap();
    (hops, rows, id)
}

fn redirect(dst_mac: [u8; 6]) -> Egress {
    Egress::Redirect { dst_mac, src_mac: OURS, xdp: true }
}

#[test]
fn xdp_redirects_to_a_known_neighbour_and_leaves_an_unknown_one_to_tc() {
    let (_, rows, id) = taken(Manner::Xdp, Some([9; 6]));
    assert_eq!(rows.rows[&id.0].egress, redirect([9; 6]));
    let (_, rows, id) = taken(Manner::Xdp, None);
    assert_eq!(rows.rows[&id.0].egress, Egress::Neighbour);
}

#[test]
fn neighbours_of_both_families_are_next_hops_alike() {
    let (mut hops, mut rows, v4) = taken(Manner::Xdp, Some([9; 6]));
    let v6 = hops.take(SECOND, key(HOP_V6, Manner::Xdp), &view(Some([9; 6]), true), &mut rows).unwrap();
    assert_ne!(v4, v6);
    assert_eq!(rows.rows[&v6.0].egress, redirect([9; 6]));
}

#[test]
fn sessions_behind_one_neighbour_share_a_row_until_the_last_one_ends() {
    let (mut hops, mut rows, id) = taken(Manner::Tc, None);
    let shared = key(HOP, Manner::Tc);
    assert_eq!(hops.take(SECOND, shared, &view(None, true), &mut rows), Ok(id));
    assert_eq!(hops.news(), (vec![HOP], vec![]));
    hops.release(FIRST, shared, &mut rows);
    assert_eq!((rows.rows.len(), hops.news()), (1, (vec![], vec![])));
    hops.release(SECOND, shared, &mut rows);
    assert_eq!((rows.rows.len(), hops.news()), (0, (vec![], vec![HOP])));
}

#[test]
fn a_changed_address_re_points_the_row_and_loses_nobody() {
    let (mut hops, mut rows, id) = taken(Manner::Xdp, Some([9; 6]));
    let moved = Changed { links: HashSet::new(), hops: HashSet::from([HOP]) };
    assert_eq!(hops.refresh(&moved, &view(Some([7; 6]), true), &mut rows), []);
    assert_eq!(rows.rows[&id.0].egress, redirect([7; 6]));
}

#[test]
fn a_device_that_goes_down_names_the_sessions_that_used_it() {
    let (mut hops, mut rows, id) = taken(Manner::Xdp, Some([9; 6]));
    assert_eq!(hops.refresh(&everything(), &view(Some([9; 6]), false), &mut rows), [SessionId(1)]);
    assert_eq!(rows.rows[&id.0].egress, Egress::Unusable);
    assert_eq!(hops.refresh(&everything(), &view(Some([9; 6]), false), &mut rows), []);
}
