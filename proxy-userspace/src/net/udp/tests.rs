use std::{net::Ipv4Addr, net::Ipv6Addr, time::Duration};

use super::*;

const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn bound(ip: IpAddr) -> UdpSocket {
    UdpSocket::bind(SocketAddr::new(ip, 0), false).unwrap()
}

/// Receives until there are `count` datagrams.
fn receive(socket: &UdpSocket, count: usize) -> Vec<(Meta, Vec<u8>)> {
    let mut batch = RecvBatch::default();
    let mut got = vec![];
    for _ in 0..400 {
        match socket.receive(&mut batch) {
            Ok(_) => got.extend(batch.iter().map(|(meta, payload)| (meta, payload.to_vec()))),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => panic!("{e}"),
        }
        if got.len() >= count {
            return got;
        }
    }
    panic!("{} of {count} datagrams", got.len());
}

fn transmit<'a>(payload: &'a [u8], to: &UdpSocket) -> Transmit<'a> {
    Transmit { payload, peer: to.local_addr(), local_ip: None, traffic_class: 0 }
}

/// Sends payloads of `lengths` as bursts of one and returns how many system calls' worth of messages were taken.
fn send_lengths(from: &UdpSocket, to: &UdpSocket, lengths: &[usize], classes: &[u8]) -> Vec<Vec<u8>> {
    let payloads: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(i, len)| vec![i as u8; *len]).collect();
    let bursts = payloads.iter().enumerate().map(|(i, payload)| Burst {
        transmit: Transmit { traffic_class: classes[i % classes.len()], ..transmit(payload, to) },
        segment: payload.len(),
    });
    let (mut taken, mut bytes) = (vec![0; lengths.len()], 0);
    from.send_batch(&mut SendBatch::default(), bursts, |sent| {
        assert!(sent.taken, "{sent:?}");
        taken[sent.burst] += sent.datagrams;
        bytes += sent.bytes;
    });
    assert_eq!(taken, vec![1; lengths.len()]);
    assert_eq!(bytes, lengths.iter().sum::<usize>());
    payloads
}

#[track_caller]
fn keeps_payloads(ip: IpAddr, lengths: &[usize], cuts: bool) {
    let (a, b) = (bound(ip), bound(ip));
    if !cuts {
        a.stop_cutting_runs();
    }
    let sent = send_lengths(&a, &b, lengths, &[0]);
    let got: Vec<_> = receive(&b, lengths.len()).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(got, sent);
}

#[track_caller]
fn carries_address_and_class(ip: IpAddr) {
    let (a, b) = (bound(ip), bound(ip));
    // DSCP 46 (EF), ECT(0).
    a.send(&Transmit { local_ip: Some(ip), traffic_class: 0xba, ..transmit(b"rtp", &b) }).unwrap();
    let (meta, payload) = receive(&b, 1).remove(0);
    assert_eq!(payload, b"rtp");
    assert_eq!((meta.peer, meta.local_ip, meta.traffic_class), (a.local_addr(), Some(ip), 0xba));
    assert_ne!(meta.ifindex, 0);
}

#[test]
fn carries_dscp_ecn_and_local_address_over_ipv4() {
    carries_address_and_class(ANY_V4);
}

#[test]
fn carries_dscp_ecn_and_local_address_over_ipv6() {
    carries_address_and_class(ANY_V6);
}

#[test]
fn sends_from_the_address_asked_for() {
    let any = bound(Ipv4Addr::UNSPECIFIED.into());
    let b = bound(ANY_V4);
    let from = Ipv4Addr::new(127, 0, 0, 7).into();
    any.send(&Transmit { local_ip: Some(from), ..transmit(b"", &b) }).unwrap();
    assert_eq!(receive(&b, 1)[0].0.peer.ip(), from);
}

#[test]
fn takes_a_burst_in_one_call() {
    let (a, b) = (bound(ANY_V4), bound(ANY_V4));
    for i in 0..10u8 {
        a.send(&transmit(&[i], &b)).unwrap();
    }
    let mut batch = RecvBatch::default();
    b.receive(&mut batch).unwrap();
    assert!(batch.iter().map(|(_, p)| p[0]).eq(0..10));
    assert_eq!(b.receive(&mut batch).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(batch.iter().count(), 0, "what was taken before is forgotten");
}

#[test]
fn a_batch_keeps_what_several_sockets_received() {
    let (a, b, c) = (bound(ANY_V4), bound(ANY_V4), bound(ANY_V4));
    a.send(&transmit(b"b", &b)).unwrap();
    a.send(&transmit(b"c", &c)).unwrap();
    let mut batch = RecvBatch::default();
    assert_eq!((b.receive_more(&mut batch).unwrap(), c.receive_more(&mut batch).unwrap()), (1, 1));
    assert_eq!(batch.iter().map(|(_, payload)| payload).collect::<Vec<_>>(), [b"b", b"c"]);
}

#[test]
fn merging_and_cutting_never_moves_the_bounds_of_payloads() {
    for ip in [ANY_V4, ANY_V6] {
        for cuts in [true, false] {
            keeps_payloads(ip, &[], cuts);
            keeps_payloads(ip, &[0], cuts);
            keeps_payloads(ip, &[100; 64], cuts);
            keeps_payloads(ip, &[1200; 150], cuts);
            keeps_payloads(ip, &[1, 1, 1, 2, 2, 1, 0, 0, 1, 5, 5, 4, 5, 5, 9, 3, 3], cuts);
            keeps_payloads(ip, &[20_000, 20_000, 20_000, 20_000, 10, 65_507, 65_507], cuts);
        }
    }
}

#[test]
fn a_run_arrives_merged_and_leaves_as_one_message() {
    let (a, b, c) = (bound(ANY_V4), bound(ANY_V4), bound(ANY_V4));
    assert!(a.cuts_runs(), "every kernel we serve cuts runs on lo");
    let sent = send_lengths(&a, &b, &[700, 700, 700, 700, 33], &[0x2e]);
    let mut batch = RecvBatch::default();
    assert_eq!(b.receive(&mut batch).unwrap(), 1, "one message of five datagrams");
    let arrival = batch.arrivals(0).next().unwrap();
    let mut spans = arrival.datagrams().map(|(_, span)| span);
    let mut whole = spans.next().unwrap();
    assert!(spans.all(|next| whole.extend(&next)));
    let burst = Burst {
        transmit: Transmit { traffic_class: arrival.meta.traffic_class, ..transmit(batch.bytes(&whole), &c) },
        segment: whole.segment,
    };
    let mut reports = vec![];
    b.send_batch(&mut SendBatch::default(), [burst], |sent| reports.push(sent));
    assert_eq!(reports, [Sent { burst: 0, datagrams: 5, bytes: 2833, taken: true }]);
    let got = receive(&c, 5);
    assert!(got.iter().all(|(meta, _)| meta.traffic_class == 0x2e));
    assert_eq!(got.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), sent);
}

#[test]
fn datagrams_of_other_classes_are_not_merged() {
    let (a, b) = (bound(ANY_V4), bound(ANY_V4));
    let classes = [0x00, 0x00, 0xb8, 0xb8, 0xba, 0x03];
    send_lengths(&a, &b, &[300; 24], &classes);
    let got: Vec<u8> = receive(&b, 24).iter().map(|(meta, _)| meta.traffic_class).collect();
    assert_eq!(got, classes.repeat(4));
}

#[test]
fn what_the_kernel_does_not_cut_leaves_datagram_by_datagram() {
    let (a, b) = (bound(ANY_V4), bound(ANY_V4));
    // Without checksums the kernel refuses to cut: EINVAL, and in older kernels EIO.
    options::send_without_checksums(&a).unwrap();
    let sent = send_lengths_in_one_burst(&a, &b, 400, 9);
    let got: Vec<_> = receive(&b, 9).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(got, sent);
}

fn send_lengths_in_one_burst(from: &UdpSocket, to: &UdpSocket, len: usize, count: u8) -> Vec<Vec<u8>> {
    let payloads: Vec<Vec<u8>> = (0..count).map(|i| vec![i; len]).collect();
    let whole = payloads.concat();
    let (mut calls, mut datagrams) = (0, 0);
    let burst = Burst { transmit: transmit(&whole, to), segment: len };
    from.send_batch(&mut SendBatch::default(), [burst], |sent| {
        assert!(sent.taken, "{sent:?}");
        calls += 1;
        datagrams += sent.datagrams;
    });
    assert_eq!((calls, datagrams), (usize::from(count), usize::from(count)), "each was sent by itself");
    payloads
}

#[test]
fn an_icmp_error_costs_no_datagram_after_it() {
    let (a, b) = (bound(ANY_V4), bound(ANY_V4));
    let closed = bound(ANY_V4).local_addr();
    // Only a connected socket is told of errors; a socket of the relay is not, but must survive if a kernel tells it.
    rustix::net::connect(&a.fd, &closed).unwrap();
    let lost = Transmit { peer: closed, ..transmit(b"lost", &b) };
    a.send(&lost).unwrap();
    a.send(&transmit(b"one", &b)).unwrap();
    a.send(&lost).unwrap();
    let burst = Burst { transmit: transmit(b"two", &b), segment: 3 };
    a.send_batch(&mut SendBatch::default(), [burst], |sent| assert!(sent.taken));
    let got: Vec<_> = receive(&b, 2).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(got, [b"one", b"two"]);
}

#[test]
fn a_refused_datagram_is_reported_and_the_others_are_sent() {
    let (a, b) = (bound(ANY_V4), bound(ANY_V4));
    let too_long = vec![0; 65_508];
    let payloads: [&[u8]; 3] = [b"first", &too_long, b"third"];
    let bursts = payloads.map(|payload| Burst { transmit: transmit(payload, &b), segment: payload.len() });
    let mut taken = vec![];
    a.send_batch(&mut SendBatch::default(), bursts, |sent| taken.push((sent.burst, sent.taken)));
    assert_eq!(taken, [(0, true), (1, false), (2, true)]);
    assert_eq!(receive(&b, 2).len(), 2);
}

#[test]
fn the_receiving_cpu_chooses_the_socket() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let first = UdpSocket::bind(SocketAddr::new(ANY_V4, 0), true).unwrap();
    let second = UdpSocket::bind(first.local_addr(), true).unwrap();
    first.steer_by_cpu(2).unwrap();
    let sockets = [first, second];
    let allowed = sched_getaffinity(None).unwrap();
    for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut alone = CpuSet::new();
                alone.set(cpu);
                sched_setaffinity(None, &alone).unwrap();
                // On lo, the CPU that sends receives. Other ports would lead to other sockets without steering.
                for _ in 0..16 {
                    bound(ANY_V4).send(&transmit(b"x", &sockets[0])).unwrap();
                }
            });
        });
        assert_eq!(receive(&sockets[cpu % 2], 16).len(), 16, "CPU {cpu}");
    }
}
