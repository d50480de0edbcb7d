//! What the kernel knows of routes, neighbours and links, by netlink.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAttribute, RouteMessage},
    },
};

mod answers;
mod keeper;
mod message;
mod monitor;

pub use answers::{Answers, Lookups};
pub use keeper::{Care, Keeper};
pub use monitor::{Monitor, Update};

/// `lo` has this index in every network namespace.
pub const LOOPBACK: u32 = 1;
/// A question to the kernel is answered in microseconds, unless somebody holds its lock on the network's configuration.
const DEADLINE: Duration = Duration::from_millis(100);

/// Asks the kernel; the connection's task ends with the runtime.
#[derive(Clone, Debug)]
pub struct Routes {
    handle: Handle,
}

/// A question about a route: policies look at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// Where packets go.
    pub destination: IpAddr,
    /// Where they come from, if that is decided.
    pub source: Option<IpAddr>,
}

/// How packets to one destination leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The device and who takes them there.
    pub hop: Hop,
    /// The MTU of the route, or of the path behind it, if it is known.
    pub mtu: Option<u32>,
}

/// A neighbour: a device and an address on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The device.
    pub ifindex: u32,
    /// The gateway, or the destination itself if it is on the link.
    pub neighbour: IpAddr,
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
    /// It resolves neighbours, by ARP or neighbour discovery.
    pub resolves: bool,
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Device and address.
    pub hop: Hop,
    /// Its link-layer address, while it is usable.
    pub mac: Option<[u8; 6]>,
    /// What the kernel believes of it.
    pub reachability: Reachability,
    /// The kernel keeps it resolved by itself (`NTF_EXT_MANAGED`).
    pub is_managed: bool,
    /// An operator or another program made the entry: it is left alone.
    pub is_foreign: bool,
}

/// What the kernel believes of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// It answered, lately or some time ago.
    Answered,
    /// It is being asked whether it is still there.
    Asked,
    /// It does not answer, or never did.
    Unknown,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Every device.
    pub links: Vec<Link>,
    /// Every neighbour of both families.
    pub neighbours: Vec<Neighbour>,
}

impl Query {
    /// Asks for a destination alone.
    pub fn to(destination: IpAddr) -> Self {
        Self { destination, source: None }
    }

    /// Asks for packets that leave with `source`.
    pub fn between(source: IpAddr, destination: IpAddr) -> Self {
        Self { destination, source: Some(source) }
    }
}

impl Routes {
    /// Opens a netlink socket in this thread's network namespace.
    pub fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Of a kernel that never answers, while what comes with it is kept.
    #[cfg(test)]
    pub(crate) fn of_a_silent_kernel() -> io::Result<(Self, impl Sized)> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok((Self { handle }, connection))
    }

    /// The route, as `ip route get` shows it; an error if the kernel does not answer in time.
    pub async fn find(&self, query: Query) -> io::Result<Option<Route>> {
        let found = tokio::time::timeout(DEADLINE, self.ask(query)).await;
        found.map_err(|_| io::ErrorKind::TimedOut.into())
    }

    async fn ask(&self, query: Query) -> Option<Route> {
        if let Some(route) = self.get(query).await {
            return Some(route);
        }
        // An address that a NAT in front of this host gives us is not ours to ask about.
        query.source?;
        self.get(Query::to(query.destination)).await
    }

    /// `None` also where the kernel refuses: it answers so if there is no route.
    async fn get(&self, query: Query) -> Option<Route> {
        let answer = self.handle.route().get(question(query)).execute().try_next().await;
        answer.ok().flatten().and_then(|route| message::route(&route, query.destination))
    }

    /// Every device and neighbour.
    pub async fn table(&self) -> Result<Table, rtnetlink::Error> {
        let links = self.handle.link().get().execute();
        let links = links.map_ok(|found| message::link(&found)).try_collect().await?;
        let neighbours = self.handle.neighbours().get().execute();
        let neighbours =
            neighbours.try_filter_map(|found| std::future::ready(Ok(message::neighbour(&found))));
        Ok(Table { links, neighbours: neighbours.try_collect().await? })
    }

    /// Default routes of both families: gateways, or unspecified addresses where the link is the gateway.
    pub async fn default_hops(&self) -> Result<Vec<Hop>, rtnetlink::Error> {
        let mut hops = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = RouteMessage::default();
            all.header.address_family = family;
            let routes = self.handle.route().get(all).execute();
            let found: Vec<Vec<Hop>> =
                routes.map_ok(|route| message::default_hops(&route)).try_collect().await?;
            hops.extend(found.into_iter().flatten());
        }
        Ok(hops)
    }
}

fn question(query: Query) -> RouteMessage {
    let mut request = match query.destination {
        IpAddr::V4(ip) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, 32).build(),
        IpAddr::V6(ip) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, 128).build(),
    };
    if let Some(source) = query.source {
        request.header.source_prefix_length = if source.is_ipv4() { 32 } else { 128 };
        request.attributes.push(RouteAttribute::Source(source.into()));
    }
    request
}

/// The address the kernel would send from to `destination`, found without sending anything.
pub fn preferred_source(destination: std::net::SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if destination.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(destination)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_reached_over_lo_in_both_families() {
        let routes = Routes::connect().unwrap();
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let route = routes.find(Query::to(ip)).await.unwrap().unwrap();
            let table = routes.table().await.unwrap();
            let link = table.links.iter().find(|link| link.ifindex == route.hop.ifindex).unwrap();
            assert!(link.is_loopback);
            assert_eq!(link.name, "lo");
        }
    }

    #[tokio::test]
    async fn a_source_that_is_not_ours_does_not_hide_the_route() {
        let routes = Routes::connect().unwrap();
        let query = Query::between([203, 0, 113, 7].into(), Ipv4Addr::LOCALHOST.into());
        assert_eq!(routes.find(query).await.unwrap().unwrap().hop.ifindex, LOOPBACK);
    }

    #[test]
    fn the_source_towards_loopback_is_loopback() {
        let source = preferred_source("127.0.0.1:8000".parse().unwrap()).unwrap();
        assert_eq!(source, IpAddr::from(Ipv4Addr::LOCALHOST));
    }
}
