//! Records of either family as rows of words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proxy_common::{
    family::{Address as _, Family, V4, V6},
    flow::{BlockRecord, BlockV4, BlockV6, Counters, Endpoints, Head, RouteRecord as _, Stamp},
    wire::Addr6,
};
use zerocopy::network_endian::U32;

use super::rows::Rows;
pub(super) use proxy_common::family::prefix;

/// What userspace needs of a family.
pub(super) trait Records: Family {
    /// A row of its table of blocks.
    type Block: BlockRecord<Addr = Self::Addr>;
    /// Words of the part that userspace writes.
    const ROUTE_WORDS: usize = size_of::<Self::Route>() / size_of::<u64>();
    /// Reads the part that userspace writes.
    fn load_route(rows: &impl Rows, row: u32) -> Self::Route;
    /// Writes it all but the first word.
    fn store_endpoints(rows: &impl Rows, row: u32, route: Self::Route);
    /// Reads a row of the table of blocks.
    fn load_block(rows: &impl Rows, row: u32) -> Self::Block;
    /// Writes one, its last word last.
    fn store_block(rows: &impl Rows, row: u32, block: Self::Block);
    /// An address of the family.
    fn addr(ip: IpAddr) -> Option<Self::Addr>;

    /// The endpoints of a datagram, if both are of the family.
    fn endpoints(src: SocketAddr, dst: SocketAddr) -> Option<Endpoints<Self::Addr>> {
        let (src_port, dst_port) = (src.port().into(), dst.port().into());
        Some(Endpoints { src: Self::addr(src.ip())?, dst: Self::addr(dst.ip())?, src_port, dst_port })
    }
}

macro_rules! records {
    ($family:ident, $variant:ident, $block:ident, $ip:ident, $octets:expr) => {
        impl Records for $family {
            type Block = $block;

            fn load_route(rows: &impl Rows, row: u32) -> Self::Route {
                Self::Route::from_words(rows.load_words(row, 0))
            }

            fn store_endpoints(rows: &impl Rows, row: u32, route: Self::Route) {
                let words = route.to_words();
                for (word, value) in words.into_iter().enumerate().skip(1) {
                    rows.store(row, word, value);
                }
            }

            fn load_block(rows: &impl Rows, row: u32) -> Self::Block {
                Self::Block::from_words(rows.load_words(row, 0))
            }

            fn store_block(rows: &impl Rows, row: u32, block: Self::Block) {
                rows.store_words(row, 0, block.to_words());
            }

            fn addr(ip: IpAddr) -> Option<Self::Addr> {
                let of: fn($ip) -> Self::Addr = $octets;
                if let IpAddr::$variant(ip) = ip { Some(of(ip)) } else { None }
            }
        }
    };
}

records!(V4, V4, BlockV4, Ipv4Addr, |ip| U32::from_bytes(ip.octets()));
records!(V6, V6, BlockV6, Ipv6Addr, |ip| ip.octets());

/// The head of a record.
pub(super) fn load_head(rows: &impl Rows, row: u32) -> Head {
    Head::from_word(rows.load(row, 0))
}

/// Replaces the head of a record, but for the map, which is not the record's but the row's.
pub(super) fn store_head(rows: &impl Rows, row: u32, head: Head) {
    let homed = load_head(rows, row).homed;
    rows.store(row, 0, Head { homed, ..head }.to_word());
}

/// Says where the records are whose home a row is.
pub(super) fn store_homed(rows: &impl Rows, row: u32, homed: u16) {
    rows.store(row, 0, Head { homed, ..load_head(rows, row) }.to_word());
}

/// The counters of a record.
pub(super) fn load_counters<F: Records>(rows: &impl Rows, row: u32) -> Counters {
    Counters::from_words(rows.load_words(row, F::ROUTE_WORDS))
}

/// Starts the counters of a record that the kernel does not forward by.
pub(super) fn reset_counters<F: Records>(rows: &impl Rows, row: u32, now: Stamp, idle_limit: u32) {
    let none = Counters { packets: 0, bytes: 0, checks: 0, alerts: 0, last_seen: now.0, idle_limit };
    rows.store_words(row, F::ROUTE_WORDS, none.to_words());
}

/// An address in the form that both families share.
pub(super) fn mapped(ip: IpAddr) -> Addr6 {
    match ip {
        IpAddr::V4(ip) => U32::from_bytes(ip.octets()).mapped(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The address of such a form.
pub(super) fn unmapped(addr: Addr6) -> IpAddr {
    let ip = Ipv6Addr::from(addr);
    ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
}
