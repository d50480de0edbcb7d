//! How a relay begins beside a process that reads the same sockets, and what it makes of what that one left.

use std::collections::BTreeSet;

use super::{
    sockets::tests::{any, shared},
    *,
};
use crate::net::udp::{RecvBatch, Transmit};

const CLIENTS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);

/// Goes on with the sockets of `before`.
fn after(before: &Sockets, workers: usize, placement: Placement) -> Relay {
    let (events, _) = mpsc::channel(8);
    let sockets = Sockets::inherit(&before.webrtc.local, &[], workers, shared(before)).unwrap();
    Relay::placed(sockets, placement, events).unwrap()
}

/// On the sockets of two workers.
fn before() -> Sockets {
    Sockets::bind(&[any()], 2).unwrap()
}

/// Which sockets of `sockets` the datagrams of many clients come to; all of them come.
fn who_hears(sockets: &Sockets) -> BTreeSet<usize> {
    let clients: Vec<_> = (0..CLIENTS).map(|_| UdpSocket::bind(any(), false).unwrap()).collect();
    let datagram =
        Transmit { payload: b"any", peer: sockets.webrtc.local[0], local_ip: None, traffic_class: 0 };
    clients.iter().for_each(|client| client.send(&datagram).unwrap());
    let (mut batch, mut who, mut heard) = (RecvBatch::default(), BTreeSet::new(), 0);
    let end = Instant::now() + PATIENCE;
    while heard < CLIENTS {
        assert!(Instant::now() < end, "{heard} of {CLIENTS}");
        for (index, listener) in sockets.webrtc.by_worker.iter().flatten().enumerate() {
            if listener.receive(&mut batch).is_ok() {
                heard += batch.iter().count();
                who.insert(index);
            }
        }
    }
    who
}

fn media_sockets(relay: &Relay) -> usize {
    relay.share().unwrap().len()
}

/// One after another, as at the end of a take-over.
fn begin_and_pause(relay: &mut Relay) {
    relay.resume().unwrap();
    relay.pause();
}

#[test]
fn a_relay_takes_nothing_from_the_process_before_until_it_begins() {
    let before = before();
    let mut relay = after(&before, 4, Placement::ByHash);
    assert_eq!(media_sockets(&relay), 2);
    assert_eq!(who_hears(&before), [0, 1].into());
    begin_and_pause(&mut relay);
    assert_eq!(media_sockets(&relay), 4);
    assert!(
        relay
            .workers
            .iter()
            .all(|worker| worker.listeners()[0].socket.local_addr() == before.webrtc.local[0])
    );
    begin_and_pause(&mut relay);
    assert_eq!(media_sockets(&relay), 4);
}

#[test]
fn a_relay_says_who_gets_what_when_it_begins() {
    let before = before();
    // All CPUs have the remainder of the first worker.
    let mut relay = after(&before, 1, Placement::ByCpu(vec![vec![0]]));
    assert_eq!(who_hears(&before), [0, 1].into());
    begin_and_pause(&mut relay);
    assert_eq!(who_hears(&before), [0].into());
}

#[test]
fn what_another_process_steered_by_cpu_goes_by_the_hash_again() {
    let before = before();
    before.webrtc.by_worker[0][0].steer_by_cpu(1).unwrap();
    assert_eq!(who_hears(&before), [0].into());
    begin_and_pause(&mut after(&before, 2, Placement::ByHash));
    assert_eq!(who_hears(&before), [0, 1].into());
}
