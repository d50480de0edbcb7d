//! ICMP errors pass between the legs of a session, whichever path its datagrams take: each end is told of its own
//! datagrams, by the address that it sent them to.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use integration_tests::{
    case::Case,
    in_cases,
    netns::{Direct, Family, Namespace, Routed},
    proxy::{Engine, Proxy, Status},
    raw::{self, Endpoint, RawOrigin, RawSession},
    residue,
};
use proxy_protocol::icmp::{Cause, IcmpError, Quote, Version, ipv6_header};
use proxy_userspace::net::{
    icmp::errors,
    udp::{RecvBatch, Transmit, UdpSocket},
};

in_cases!(xdp, tc, userspace, xdp_v6, tc_v6: {
    a7_a_small_link_behind_the_origins_leg_is_told_to_the_client_and_media_goes_on,
    a7_a_small_link_behind_the_clients_leg_is_told_to_the_origin_and_media_goes_on,
    a7_a_client_is_told_what_fits_the_origins_leg_and_its_datagram_arrives,
    a7_an_origin_is_told_what_fits_the_clients_leg_and_its_datagram_arrives,
    a7_nobody_is_told_that_less_fits_than_media_needs,
    a6_a_client_is_told_that_the_origin_is_not_there_any_more,
    a6_an_origin_is_told_that_the_client_is_not_there_any_more,
    a6_an_error_about_no_session_tells_nobody,
});

const PATIENCE: Duration = Duration::from_secs(15);
/// Hosts send an error a second to one receiver.
const AGAIN: Duration = Duration::from_millis(1500);
const SMALL_MTU: u16 = 1400;
/// An origin that is gone is not found to be.
const SETTINGS: [(&str, &str); 1] = [("PROXY_ORIGIN_PROBE_INTERVAL", "0")];

/// A session between a client and an origin, and what each of them is told.
struct Site<'a> {
    proxy: Proxy<'a>,
    client: Option<Endpoint>,
    origin: Option<RawOrigin>,
    session: RawSession,
    source: SocketAddr,
    at_client: UdpSocket,
    at_origin: UdpSocket,
    version: Version,
    case: Case,
}

/// Where everything is.
struct Plan<'a> {
    client: (&'a Namespace, std::net::Ipv4Addr),
    proxy: (&'a Namespace, std::net::Ipv4Addr, std::net::Ipv4Addr),
    origin: (&'a Namespace, std::net::Ipv4Addr),
}

fn direct(network: &Direct) -> Plan<'_> {
    Plan {
        client: (&network.client, Direct::CLIENT),
        proxy: (&network.proxy, Direct::PROXY, Direct::PROXY_INSIDE),
        origin: (&network.origin, Direct::ORIGIN),
    }
}

fn routed(network: &Routed) -> Plan<'_> {
    Plan {
        client: (&network.client, Routed::CLIENT),
        proxy: (&network.proxy, Routed::PROXY, Routed::PROXY_INSIDE),
        origin: (&network.origin_a, Routed::ORIGIN_A),
    }
}

impl<'a> Site<'a> {
    fn start(plan: &Plan<'a>, case: Case) -> Self {
        let family = case.family;
        let (namespace, outside, inside) = plan.proxy;
        let proxy = Proxy::start(namespace, family.of(outside), case.engine, &SETTINGS).unwrap();
        let url = Proxy::register_url(family.of(inside));
        let origin = plan.origin.0.enter(|| {
            let origin = RawOrigin::start(family.of(plan.origin.1), "raw1").unwrap();
            origin.register(&url).unwrap();
            origin
        });
        proxy.wait_for_origins(1).unwrap();
        let client = plan.client.0.enter(|| Endpoint::bind(family.of(plan.client.1))).unwrap();
        let session = plan.client.0.enter(|| raw::play(&proxy.api(), "s", "clnt")).unwrap();
        client.send(&raw::check(&session.username, true), session.proxy, 0).unwrap();
        let source = origin.media.answer_check().unwrap();
        client.receive().unwrap();
        let offloaded = usize::from(case.expects_kernel());
        proxy.wait(PATIENCE, |status| status.totals.offloaded == offloaded).unwrap();
        let version = Version::of(source.ip());
        let [at_client, at_origin] =
            [plan.client.0, plan.origin.0].map(|namespace| namespace.enter(|| errors(version)).unwrap());
        let (client, origin) = (Some(client), Some(origin));
        Self { proxy, client, origin, session, source, at_client, at_origin, version, case }
    }

    fn client(&self) -> &Endpoint {
        self.client.as_ref().unwrap()
    }

    fn media(&self) -> &Endpoint {
        &self.origin.as_ref().unwrap().media
    }

    fn too_big(&self) -> Cause {
        Cause::TooBig { mtu: SMALL_MTU.into() }
    }

    /// Nobody listens at that port.
    fn no_port(&self) -> Cause {
        match self.version {
            Version::V4 => Cause::Unreachable { code: 3 },
            Version::V6 => Cause::Unreachable { code: 4 },
        }
    }

    fn finish(self, namespace: &Namespace) {
        self.proxy.stop().unwrap();
        assert_eq!(residue::attached(namespace).unwrap(), [""; 0]);
    }
}

/// What the next error at `socket` says: by whom, what, and about which datagram.
fn next_error(
    socket: &UdpSocket,
    version: Version,
    limit: Duration,
) -> Option<(SocketAddr, Cause, SocketAddr, SocketAddr)> {
    let (end, mut batch) = (Instant::now() + limit, RecvBatch::one());
    while Instant::now() < end {
        if socket.receive(&mut batch).is_err() {
            sleep(Duration::from_millis(2));
            continue;
        }
        let Some((meta, bytes)) = batch.iter().next() else { continue };
        let error = match version {
            Version::V4 => IcmpError::parse_v4(bytes),
            Version::V6 => IcmpError::parse_v6(bytes),
        };
        let IcmpError { cause, quote } = error.unwrap();
        return Some((meta.peer, cause, quote.from(), quote.to()));
    }
    None
}

#[track_caller]
fn is_told(
    socket: &UdpSocket,
    version: Version,
    (by, cause): (SocketAddr, Cause),
    (from, to): (SocketAddr, SocketAddr),
) {
    let told = next_error(socket, version, PATIENCE).expect("an error comes");
    assert_eq!((told.0.ip(), told.1, told.2, told.3), (by.ip(), cause, from, to));
}

/// The same for a datagram that is sent until somebody says something.
#[track_caller]
fn is_told_of_nobody(
    (sender, socket): (&Endpoint, &UdpSocket),
    version: Version,
    (to, cause): (SocketAddr, Cause),
) {
    let told = (0..5).find_map(|_| {
        sender.send(&[0x80, 96, 0, 1], to, 0).unwrap();
        next_error(socket, version, AGAIN)
    });
    let (by, what, from, whom) = told.expect("an error comes");
    assert_eq!((by.ip(), what, from, whom), (to.ip(), cause, sender.address(), to));
}

fn long(case: Case, number: u8) -> Vec<u8> {
    let mut payload = vec![number; case.family.usual_payload()];
    payload[..2].copy_from_slice(&[0x80, 96]);
    payload
}

/// The next datagram is what was sent.
#[track_caller]
fn arrives(receiver: &Endpoint, payload: &[u8]) {
    assert_eq!(receiver.receive().unwrap().1, payload);
}

fn shrink(namespace: &Namespace, interface: &str) {
    namespace.ip(&["link", "set", interface, "mtu", &SMALL_MTU.to_string()]).unwrap();
}

fn a7_a_small_link_behind_the_origins_leg_is_told_to_the_client_and_media_goes_on(case: Case) {
    let network = Routed::new().unwrap();
    shrink(&network.router2, "right_a");
    shrink(&network.origin_a, "eth0");
    let site = Site::start(&routed(&network), case);
    let (client, to) = (site.client(), site.session.proxy);
    client.send(&long(case, 1), to, 0).unwrap();
    if case.expects_kernel() {
        is_told(&site.at_client, site.version, (to, site.too_big()), (client.address(), to));
    } else {
        // The relay forbids no router to fragment, so there is nothing to tell.
        arrives(site.media(), &long(case, 1));
    }
    client.send(&long(case, 2), to, 0).unwrap();
    arrives(site.media(), &long(case, 2));
    site.finish(&network.proxy);
}

fn a7_a_small_link_behind_the_clients_leg_is_told_to_the_origin_and_media_goes_on(case: Case) {
    let network = Routed::new().unwrap();
    shrink(&network.router1, "left");
    shrink(&network.client, "eth0");
    let site = Site::start(&routed(&network), case);
    let (media, to) = (site.media(), site.source);
    media.send(&long(case, 1), to, 0).unwrap();
    if case.expects_kernel() {
        is_told(&site.at_origin, site.version, (to, site.too_big()), (media.address(), to));
    } else {
        // As above.
        arrives(site.client(), &long(case, 1));
    }
    media.send(&long(case, 2), to, 0).unwrap();
    arrives(site.client(), &long(case, 2));
    site.finish(&network.proxy);
}

fn a7_a_client_is_told_what_fits_the_origins_leg_and_its_datagram_arrives(case: Case) {
    let network = Direct::with_origin_mtu(SMALL_MTU).unwrap();
    let site = Site::start(&direct(&network), case);
    let (client, to) = (site.client(), site.session.proxy);
    is_told_what_fits(&site, (client, &site.at_client), to, site.media());
    client.send(&long(case, 2), to, 0).unwrap();
    arrives(site.media(), &long(case, 2));
    goes_on(&site, client, to, site.media());
    site.finish(&network.proxy);
}

fn a7_an_origin_is_told_what_fits_the_clients_leg_and_its_datagram_arrives(case: Case) {
    let network = Direct::new().unwrap();
    shrink(&network.client, "eth0");
    shrink(&network.proxy, "eth0");
    let site = Site::start(&direct(&network), case);
    let (media, to) = (site.media(), site.source);
    is_told_what_fits(&site, (media, &site.at_origin), to, site.client());
    media.send(&long(case, 2), to, 0).unwrap();
    arrives(site.client(), &long(case, 2));
    goes_on(&site, media, to, site.client());
    site.finish(&network.proxy);
}

/// Datagrams are looked at as they come after one did not fit: the first arrives, and a later one is told of, too.
#[track_caller]
fn is_told_what_fits(
    site: &Site<'_>,
    (sender, socket): (&Endpoint, &UdpSocket),
    to: SocketAddr,
    receiver: &Endpoint,
) {
    let told = (1..30).find_map(|number| {
        sender.send(&long(site.case, number), to, 0).unwrap();
        arrives(receiver, &long(site.case, number));
        next_error(socket, site.version, Duration::from_millis(100))
    });
    let (by, cause, from, whom) = told.expect("an error comes");
    assert_eq!((by.ip(), cause, from, whom), (to.ip(), site.too_big(), sender.address(), to));
}

/// Watching costs every UDP datagram of the host.
#[test]
fn a7_datagrams_are_watched_only_while_some_do_not_fit() {
    let case = Case { engine: Engine::Userspace, family: Family::V6 };
    const SHORT: usize = 1200;
    let network = Direct::with_origin_mtu(SMALL_MTU).unwrap();
    let site = Site::start(&direct(&network), case);
    let (client, to) = (site.client(), site.session.proxy);
    let what_fits = &long(case, 1)[..case.family.largest_payload(SMALL_MTU)];
    for _ in 0..5 {
        client.send(what_fits, to, 0).unwrap();
        arrives(site.media(), what_fits);
        // One message to the relay, of datagrams that all fit.
        client.send_run(&[0x80; 8 * SHORT], SHORT, to).unwrap();
        (0..8).for_each(|_| arrives(site.media(), &[0x80; SHORT]));
        sleep(Duration::from_millis(50));
        assert_eq!(watching(&network.proxy), 0);
    }
    is_told_what_fits(&site, (client, &site.at_client), to, site.media());
    assert_eq!(watching(&network.proxy), 2, "of either version");
    let end = Instant::now() + Duration::from_secs(60);
    while watching(&network.proxy) > 0 {
        assert!(Instant::now() < end, "watched for more than a minute");
        sleep(AGAIN);
    }
    site.finish(&network.proxy);
}

/// Raw sockets that see UDP.
fn watching(namespace: &Namespace) -> usize {
    let sockets = |file| namespace.run("cat", &[format!("/proc/thread-self/net/{file}")]).unwrap();
    let of_udp = |line: &&str| {
        line.split_ascii_whitespace().nth(1).is_some_and(|protocol| protocol.ends_with(":0011"))
    };
    ["raw", "raw6"].into_iter().map(|file| sockets(file).lines().filter(of_udp).count()).sum()
}

/// What fits stays where the case puts it.
#[track_caller]
fn goes_on(site: &Site<'_>, sender: &Endpoint, to: SocketAddr, receiver: &Endpoint) {
    let before = site.proxy.status().unwrap();
    for length in [100, site.case.family.largest_payload(SMALL_MTU)] {
        let payload = &long(site.case, 3)[..length];
        sender.send(payload, to, 0).unwrap();
        arrives(receiver, payload);
    }
    let path = site.case.path();
    let moved = |status: &Status| status.packets(path) - before.packets(path);
    site.proxy.wait(PATIENCE, |status| moved(status) >= 2).unwrap();
}

fn a6_a_client_is_told_that_the_origin_is_not_there_any_more(case: Case) {
    let network = Direct::new().unwrap();
    let mut site = Site::start(&direct(&network), case);
    site.origin = None;
    let told = (site.session.proxy, site.no_port());
    is_told_of_nobody((site.client(), &site.at_client), site.version, told);
    site.finish(&network.proxy);
}

fn a6_an_origin_is_told_that_the_client_is_not_there_any_more(case: Case) {
    let network = Direct::new().unwrap();
    let mut site = Site::start(&direct(&network), case);
    site.client = None;
    is_told_of_nobody((site.media(), &site.at_origin), site.version, (site.source, site.no_port()));
    site.finish(&network.proxy);
}

/// What one viewer says of its path, the origin believes of the paths to all.
fn a7_nobody_is_told_that_less_fits_than_media_needs(case: Case) {
    let network = Direct::new().unwrap();
    let site = Site::start(&direct(&network), case);
    complain(&site, site.client().address());
    let told = (site.source, Cause::TooBig { mtu: 1280 });
    is_told(&site.at_origin, site.version, told, (site.media().address(), site.source));
    site.finish(&network.proxy);
}

fn a6_an_error_about_no_session_tells_nobody(case: Case) {
    let network = Direct::new().unwrap();
    let site = Site::start(&direct(&network), case);
    complain(&site, SocketAddr::new(site.client().address().ip(), 9));
    site.proxy.wait(PATIENCE, |status| status.reason("no_session") == 1).unwrap();
    let silence = Duration::from_millis(200);
    assert_eq!(next_error(&site.at_origin, site.version, silence), None);
    assert_eq!(next_error(&site.at_client, site.version, silence), None);
    site.finish(&network.proxy);
}

/// The client says that next to nothing fits of what the proxy sends to `to`.
fn complain(site: &Site<'_>, to: SocketAddr) {
    let forged = forged(site.session.proxy, to);
    let quote = Quote::parse(site.version, &forged).unwrap();
    let (payload, peer) = (quote.too_big(600), SocketAddr::new(site.session.proxy.ip(), 0));
    site.at_client.send(&Transmit { payload: &payload, peer, local_ip: None, traffic_class: 0 }).unwrap();
}

/// A datagram that nobody sent.
fn forged(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let [a, b] = [from.port().to_be_bytes(), to.port().to_be_bytes()];
    let udp = [a[0], a[1], b[0], b[1], 0, 8, 0, 0];
    let header = match (from.ip(), to.ip()) {
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => ipv6_header(from, to, &udp),
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
            [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0], &from.octets()[..], &to.octets()].concat()
        }
        _ => unreachable!("both are of the family of the case"),
    };
    [header, udp.to_vec()].concat()
}
