//! What the kernel knows of routes, neighbours and links, by netlink.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_route::{
        link::{LinkAttribute, LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};

/// Asks the kernel; the connection's task ends with the runtime.
#[derive(Clone, Debug)]
pub struct Routes {
    handle: Handle,
}

/// Where packets to one destination go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The device.
    pub ifindex: u32,
    /// The gateway, or the destination itself if it is on the link.
    pub neighbour: Ipv4Addr,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Its MTU.
    pub mtu: u32,
    /// It is up and has a carrier.
    pub is_up: bool,
    /// It is `lo`.
    pub is_loopback: bool,
}

/// A usable entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Device and address.
    pub hop: Hop,
    /// Its link-layer address.
    pub mac: [u8; 6],
}

impl Routes {
    /// Opens a netlink socket in this thread's network namespace.
    pub fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The route to `destination`, as `ip route get` shows it.
    pub async fn hop(&self, destination: Ipv4Addr) -> Result<Option<Hop>, rtnetlink::Error> {
        let request = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(destination, 32).build();
        let route = self.handle.route().get(request).execute().try_next().await?;
        Ok(route.and_then(|route| hop_of(&route, destination)))
    }

    /// Every device.
    pub async fn links(&self) -> Result<Vec<Link>, rtnetlink::Error> {
        self.handle.link().get().execute().map_ok(|message| link_of(&message)).try_collect().await
    }

    /// Every IPv4 neighbour whose link-layer address is usable.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, rtnetlink::Error> {
        let dump = self.handle.neighbours().get().set_family(IpVersion::V4).execute();
        dump.try_filter_map(|message| std::future::ready(Ok(neighbour_of(&message)))).try_collect().await
    }

    /// The devices of default routes.
    pub async fn default_devices(&self) -> Result<Vec<u32>, rtnetlink::Error> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = self.handle.route().get(all).execute().try_collect().await?;
        let is_default = |route: &&RouteMessage| route.header.destination_prefix_length == 0;
        Ok(routes.iter().filter(is_default).filter_map(device_of).collect())
    }
}

/// The address the kernel would send from to `destination`, found without sending anything.
pub fn preferred_source(destination: std::net::SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if destination.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(destination)?;
    Ok(socket.local_addr()?.ip())
}

fn device_of(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None })
}

fn hop_of(route: &RouteMessage, destination: Ipv4Addr) -> Option<Hop> {
    let gateway = route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Gateway(RouteAddress::Inet(ip)) = attribute { Some(*ip) } else { None }
    });
    Some(Hop { ifindex: device_of(route)?, neighbour: gateway.unwrap_or(destination) })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel has dozens of attributes that say nothing to us"
)]
fn link_of(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        is_up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        is_loopback: flags.contains(LinkFlags::Loopback),
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

#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel has more attributes that say nothing to us")]
fn neighbour_of(message: &NeighbourMessage) -> Option<Neighbour> {
    let unusable = [NeighbourState::Incomplete, NeighbourState::Failed, NeighbourState::None];
    if unusable.contains(&message.header.state) {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(*ip),
            NeighbourAttribute::LinkLocalAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour { hop: Hop { ifindex: message.header.ifindex, neighbour: address? }, mac: mac? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_reached_over_lo() {
        let routes = Routes::connect().unwrap();
        let hop = routes.hop(Ipv4Addr::LOCALHOST).await.unwrap().unwrap();
        let links = routes.links().await.unwrap();
        let link = links.iter().find(|link| link.ifindex == hop.ifindex).unwrap();
        assert!(link.is_loopback);
        assert_eq!(link.name, "lo");
    }

    #[test]
    fn the_source_towards_loopback_is_loopback() {
        let source = preferred_source("127.0.0.1:8000".parse().unwrap()).unwrap();
        assert_eq!(source, IpAddr::from(Ipv4Addr::LOCALHOST));
    }
}
