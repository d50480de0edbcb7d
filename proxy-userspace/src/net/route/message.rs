//! Netlink messages as the values we use of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::{
    AddressFamily,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::{Hop, LOOPBACK, Link, Neighbour, Reachability, Route, keeper::OURS};

/// The route of a message that answers a question about `destination`.
#[expect(clippy::wildcard_enum_match_arm, reason = "no packet leaves by the other kinds of route")]
pub(super) fn route(message: &RouteMessage, destination: IpAddr) -> Option<Route> {
    let ifindex = match message.header.kind {
        // A local IPv6 route names the device that has the address; the packets go through `lo` all the same.
        RouteType::Local => LOOPBACK,
        RouteType::Unicast => find(message, oif)?,
        _ => return None,
    };
    let neighbour = find(message, gateway).unwrap_or(destination);
    Some(Route { hop: Hop { ifindex, neighbour }, mtu: find(message, mtu) })
}

/// Where a default route of the main table leads; nothing for other routes.
pub(super) fn default_hops(message: &RouteMessage) -> Vec<Hop> {
    let header = &message.header;
    if header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return Vec::new();
    }
    let any = if header.address_family == AddressFamily::Inet {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let several = message.attributes.iter().filter_map(paths).flatten();
    let single = find(message, oif).map(|ifindex| (ifindex, find(message, gateway)));
    let hop = |(ifindex, gateway): (u32, Option<IpAddr>)| Hop { ifindex, neighbour: gateway.unwrap_or(any) };
    several.chain(single).map(hop).collect()
}

/// A device.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel has dozens of attributes that say nothing to us"
)]
pub(super) fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        is_up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        is_loopback: flags.contains(LinkFlags::Loopback),
        resolves: !flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}

/// A neighbour of either family; nothing for entries of bridges.
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel has more attributes that say nothing to us")]
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut address, mut mac) = (None, None);
    let (mut is_managed, mut is_marked) = (false, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLocalAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::ExtFlags(flags) => is_managed = flags.contains(NeighbourExtFlags::Managed),
            NeighbourAttribute::Protocol(protocol) => is_marked = *protocol == OURS,
            _ => {}
        }
    }
    let state = message.header.state;
    let reachability = reachability(state);
    let fixed = matches!(state, NeighbourState::Permanent | NeighbourState::Noarp);
    Some(Neighbour {
        hop: Hop { ifindex: message.header.ifindex, neighbour: address? },
        mac: mac.filter(|_| reachability != Reachability::Unknown),
        reachability,
        is_managed,
        is_foreign: fixed
            || message.header.flags.contains(NeighbourFlags::ExtLearned)
            || (is_managed && !is_marked),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other state has no usable address")]
fn reachability(state: NeighbourState) -> Reachability {
    match state {
        NeighbourState::Permanent
        | NeighbourState::Noarp
        | NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay => Reachability::Answered,
        NeighbourState::Probe => Reachability::Asked,
        _ => Reachability::Unknown,
    }
}

fn find<T>(message: &RouteMessage, pick: impl Fn(&RouteAttribute) -> Option<T>) -> Option<T> {
    message.attributes.iter().find_map(pick)
}

fn oif(attribute: &RouteAttribute) -> Option<u32> {
    if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel has more attributes that say nothing to us")]
fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) | RouteAttribute::Via(RouteVia::Inet(ip)) => {
            Some(IpAddr::V4(*ip))
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) | RouteAttribute::Via(RouteVia::Inet6(ip)) => {
            Some(IpAddr::V6(*ip))
        }
        _ => None,
    }
}

fn mtu(attribute: &RouteAttribute) -> Option<u32> {
    let RouteAttribute::Metrics(metrics) = attribute else { return None };
    metrics.iter().find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None })
}

fn paths(attribute: &RouteAttribute) -> Option<Vec<(u32, Option<IpAddr>)>> {
    let RouteAttribute::MultiPath(paths) = attribute else { return None };
    let path = |path: &rtnetlink::packet_route::route::RouteNextHop| {
        (path.interface_index, path.attributes.iter().find_map(gateway))
    };
    Some(paths.iter().map(path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

    fn message(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes = attributes;
        message
    }

    #[test]
    fn reads_gateways_of_either_family_and_the_mtu_of_the_route() {
        let v6: Ipv6Addr = "fe80::1".parse().unwrap();
        let metrics = RouteAttribute::Metrics(vec![RouteMetric::Advmss(1000), RouteMetric::Mtu(1400)]);
        let rows = [
            ("on the link", vec![RouteAttribute::Oif(7)], ORIGIN, None),
            (
                "a gateway and an mtu",
                vec![
                    RouteAttribute::Oif(7),
                    RouteAttribute::Gateway(Ipv4Addr::new(10, 0, 0, 1).into()),
                    metrics,
                ],
                Ipv4Addr::new(10, 0, 0, 1).into(),
                Some(1400),
            ),
            (
                "an ipv4 route over an ipv6 gateway",
                vec![RouteAttribute::Oif(7), RouteAttribute::Via(v6.into())],
                v6.into(),
                None,
            ),
        ];
        for (name, attributes, neighbour, mtu) in rows {
            let expected = Route { hop: Hop { ifindex: 7, neighbour }, mtu };
            assert_eq!(route(&message(RouteType::Unicast, attributes), ORIGIN), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_local_address_is_reached_over_lo_and_a_black_hole_not_at_all() {
        let attributes = vec![RouteAttribute::Oif(7)];
        let local = route(&message(RouteType::Local, attributes.clone()), ORIGIN).unwrap();
        assert_eq!(local.hop.ifindex, LOOPBACK);
        assert_eq!(route(&message(RouteType::BlackHole, attributes), ORIGIN), None);
    }

    #[test]
    fn finds_every_path_of_a_default_route_and_of_no_other() {
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        let default = message(
            RouteType::Unicast,
            vec![RouteAttribute::Oif(7), RouteAttribute::Gateway(gateway.into())],
        );
        assert_eq!(default_hops(&default), [Hop { ifindex: 7, neighbour: gateway.into() }]);
        let mut other = default;
        other.header.destination_prefix_length = 8;
        assert_eq!(default_hops(&other), []);
    }

    fn entry(state: NeighbourState, more: Vec<NeighbourAttribute>) -> Neighbour {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 7;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(Ipv4Addr::new(10, 0, 0, 1).into()),
            NeighbourAttribute::LinkLocalAddress(vec![2; 6]),
        ];
        message.attributes.extend(more);
        neighbour(&message).unwrap()
    }

    #[test]
    fn an_address_counts_while_the_neighbour_answers_or_is_being_asked() {
        for (state, usable) in [
            (NeighbourState::Reachable, true),
            (NeighbourState::Stale, true),
            (NeighbourState::Probe, true),
            (NeighbourState::Permanent, true),
            (NeighbourState::Failed, false),
            (NeighbourState::Incomplete, false),
        ] {
            assert_eq!(entry(state, vec![]).mac.is_some(), usable, "{state}");
        }
    }

    #[test]
    fn entries_that_others_made_are_told_from_ours_and_learnt_ones() {
        let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        let ours = NeighbourAttribute::Protocol(OURS);
        assert!(entry(NeighbourState::Permanent, vec![]).is_foreign);
        assert!(entry(NeighbourState::Reachable, vec![managed.clone()]).is_foreign);
        assert!(!entry(NeighbourState::Reachable, vec![managed, ours]).is_foreign);
        assert!(!entry(NeighbourState::Stale, vec![]).is_foreign);
    }
}
