//! Real forwarding between namespaces: over veth by native XDP and by TC, and on `lo`. Needs root, `ip` and `ethtool`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
};

use integration_tests::{
    kernel::load,
    netns::Namespace,
    veths::{ORIGIN_PORT, SERVICE, SERVICE_PORT, SOURCE_PORT, Veths, device, receive, socket},
};
use proxy_userspace::datapath::{
    Datapath as _, Egress, Engine, FlowSpec, NextHopSpec, Protocol,
    kernel::{EngineChoice, features::xdp_features},
};

#[test]
fn xdp_forwards_both_ways_between_veths() {
    let network = Veths::new(EngineChoice::Xdp);
    assert_eq!(network.engines(), [Engine::Xdp, Engine::Xdp]);
    let counters = network.echo_every_size();
    assert_eq!(network.forwarded(Engine::Xdp), counters.to_origin.packets + counters.to_client.packets);
    assert_eq!(network.forwarded(Engine::Tc), 0);
}

#[test]
fn tc_forwards_both_ways_between_veths() {
    let network = Veths::new(EngineChoice::Tc);
    assert_eq!(network.engines(), [Engine::Tc, Engine::Tc]);
    let counters = network.echo_every_size();
    assert_eq!(network.forwarded(Engine::Tc), counters.to_origin.packets + counters.to_client.packets);
}

#[test]
fn tc_resolves_neighbours_that_it_is_not_told() {
    let mut network = Veths::new(EngineChoice::Tc);
    network.set_egress(|_| Egress::Neighbour);
    network.echo_every_size();
}

#[test]
fn tc_forwards_what_xdp_cannot() {
    let mut network = Veths::new(EngineChoice::Xdp);
    network.set_egress(|egress| match egress {
        Egress::Redirect { dst_mac, src_mac, .. } => Egress::Redirect { dst_mac, src_mac, xdp: false },
        other @ (Egress::Unusable | Egress::Neighbour | Egress::Stack) => other,
    });
    network.echo_every_size();
    assert_eq!(network.forwarded(Engine::Xdp), 0);
}

#[test]
fn every_engine_keeps_segmented_bursts_whole() {
    for choice in [EngineChoice::Xdp, EngineChoice::Tc] {
        let network = Veths::new(choice);
        let client = network.client();
        set_option(&client, libc::SOL_UDP, libc::UDP_SEGMENT, 1200);
        let burst: Vec<u8> = (0..8_u8).flat_map(|n| [n; 1200]).collect();
        let answers = network.serve(8, || {
            client.send_to(&burst, SERVICE).expect("the namespace has a route");
            (0..8).map(|_| receive(&client)).collect::<Vec<_>>()
        });
        let expected: Vec<_> = (0..8_u8).map(|n| vec![n; 1200]).collect();
        assert_eq!(answers, expected, "{choice:?}");
        let counters = network.kernel.counters(network.flow);
        assert_eq!((counters.to_origin.packets, counters.to_origin.bytes), (8, 8 * 1228), "{choice:?}");
    }
}

#[test]
fn every_engine_forwards_datagrams_without_checksum() {
    for choice in [EngineChoice::Xdp, EngineChoice::Tc] {
        let network = Veths::new(choice);
        let client = network.client();
        set_option(&client, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
        network.echo(&client, 333);
    }
}

#[test]
fn xdp_and_tc_share_an_interface_with_jumbo_frames() {
    let network = Veths::with_mtu(EngineChoice::Xdp, 9000);
    assert_eq!(network.engines(), [Engine::Xdp, Engine::Xdp]);
    let client = network.client();
    for size in [100, 1472, 4000, 8000, 8972] {
        network.echo(&client, size);
    }
    assert!(network.forwarded(Engine::Xdp) > 0, "short frames are XDP's");
    assert!(network.forwarded(Engine::Tc) > 0, "frames in several buffers are TC's");
}

#[test]
fn a_removed_flow_falls_back_to_the_socket() {
    for choice in [EngineChoice::Xdp, EngineChoice::Tc] {
        let mut network = Veths::new(choice);
        let client = network.client();
        let service = network.proxy_socket(SERVICE);
        network.echo(&client, 100);
        network.kernel.remove(network.flow);
        client.send_to(b"still here", SERVICE).expect("the namespace has a route");
        assert_eq!(receive(&service), b"still here", "{choice:?}");
    }
}

#[test]
fn an_oversize_datagram_goes_to_the_socket() {
    let mut network = Veths::new(EngineChoice::Xdp);
    network.set_mtu(1400);
    let (client, service) = (network.client(), network.proxy_socket(SERVICE));
    network.echo(&client, 1372);
    client.send_to(&[7; 1373], SERVICE).expect("the namespace has a route");
    assert_eq!(receive(&service).len(), 1373);
}

#[test]
fn detaching_leaves_every_packet_to_the_sockets() {
    let mut network = Veths::new(EngineChoice::Xdp);
    let (client, service) = (network.client(), network.proxy_socket(SERVICE));
    network.echo(&client, 100);
    for attachment in network.kernel.attachments() {
        network.kernel.detach(attachment.ifindex);
    }
    client.send_to(b"up", SERVICE).expect("the namespace has a route");
    assert_eq!(receive(&service), b"up");
}

#[test]
fn a_veth_tells_that_it_takes_xdp_frames_while_its_peer_does() {
    let network = Veths::new(EngineChoice::Tc);
    let features =
        network.namespaces.proxy.enter(|| xdp_features(device("eth1"))).expect("kernels since 6.3 tell");
    assert!(features.has_basic() && features.has_redirect() && features.has_ndo_xmit());
}

#[test]
fn tc_forwards_on_the_loopback_device() {
    let host = Namespace::new("lo").expect("kernel tests need root: run them with `cargo xtask test`");
    host.enter(|| {
        let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut kernel = load(16, EngineChoice::Auto);
        let lo = device("lo");
        let attachment = kernel.attach(lo).expect("lo takes TC programs");
        assert_eq!((attachment.engine, attachment.mode), (Engine::Tc, "tcx"));
        let hop = kernel.add_next_hop(&NextHopSpec { ifindex: lo, mtu: u16::MAX, egress: Egress::Stack });
        let hop = hop.expect("the table is empty");
        let (client, origin) = (socket(local(0)), socket(local(ORIGIN_PORT)));
        let flow = FlowSpec {
            protocol: Protocol::WebRtc,
            client: client.local_addr().expect("it is bound"),
            service: local(SERVICE_PORT).into(),
            source: local(SOURCE_PORT).into(),
            origin: local(ORIGIN_PORT).into(),
            to_origin: hop,
            to_client: hop,
        };
        let flow = kernel.install(&flow).expect("the table is empty");
        kernel.settle();
        for size in [0, 1, 200, 1472, 20_000] {
            client.send_to(&vec![9; size], local(SERVICE_PORT)).expect("lo is up");
            let mut datagram = vec![0; 65536];
            let (length, from) = origin.recv_from(&mut datagram).expect("the datagram was rewritten");
            assert_eq!((length, from), (size, local(SOURCE_PORT).into()));
            origin.send_to(&datagram[..length], from).expect("lo is up");
            let (length, from) = client.recv_from(&mut datagram).expect("the answer was rewritten");
            assert_eq!((length, from), (size, local(SERVICE_PORT).into()));
        }
        assert_eq!(kernel.remove(flow).to_client.packets, 5);
    });
}

fn set_option(socket: &UdpSocket, level: i32, option: i32, value: i32) {
    let length = u32::try_from(size_of::<i32>()).expect("4 fits");
    // SAFETY: the descriptor is open, and the value is as long as it is said to be.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}
