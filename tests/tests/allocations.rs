//! Relaying allocates nothing. The one test of this binary, because it counts what the whole process allocates.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use integration_tests::relay::admit;
use proxy_userspace::{
    datapath::{
        Protocol,
        userspace::{Placement, Relay},
    },
    session::Tuple,
};
use tokio::sync::mpsc;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system allocator's doing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FLOWS: u16 = 16;
/// Datagrams a round: of every flow some to the origin and back.
const RUN: usize = 4;

struct Loop {
    relay: Relay,
    clients: Vec<UdpSocket>,
    origin: UdpSocket,
    sources: Vec<SocketAddr>,
}

impl Loop {
    fn new() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bind = || {
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket
        };
        let (events, _) = mpsc::channel(1024);
        let relay = Relay::start(&[any], 2, &Placement::ByHash, events).unwrap();
        let (clients, origin): (Vec<_>, _) = ((0..FLOWS).map(|_| bind()).collect(), bind());
        // Ports that were free a moment ago.
        let free: Vec<UdpSocket> = (0..FLOWS).map(|_| bind()).collect();
        let sources: Vec<SocketAddr> = free.iter().map(|socket| socket.local_addr().unwrap()).collect();
        drop(free);
        let local = relay.addresses_of(Protocol::WebRtc).next().unwrap();
        for (flow, client) in clients.iter().enumerate() {
            let tuple = Tuple { client: client.local_addr().unwrap(), local };
            admit(&relay, flow as u16, tuple, sources[flow], origin.local_addr().unwrap()).unwrap();
        }
        Self { relay, clients, origin, sources }
    }

    /// Every flow sends and gets some datagrams.
    fn round(&self, buffer: &mut [u8]) {
        // Workers look twice at datagrams that may not fit somewhere.
        [300, 1400].into_iter().for_each(|length| self.exchange(&[0x80; 1400][..length], buffer));
    }

    fn exchange(&self, media: &[u8], buffer: &mut [u8]) {
        let service = self.relay.addresses_of(Protocol::WebRtc).next().unwrap();
        for client in &self.clients {
            (0..RUN).for_each(|_| assert_eq!(client.send_to(media, service).unwrap(), media.len()));
        }
        (0..self.clients.len() * RUN)
            .for_each(|_| assert_eq!(self.origin.recv(buffer).unwrap(), media.len()));
        for source in &self.sources {
            (0..RUN).for_each(|_| assert_eq!(self.origin.send_to(media, source).unwrap(), media.len()));
        }
        for client in &self.clients {
            (0..RUN).for_each(|_| assert_eq!(client.recv(buffer).unwrap(), media.len()));
        }
    }
}

#[test]
fn relaying_a_datagram_allocates_nothing() {
    const ROUNDS: usize = 100;
    let path = Loop::new();
    let mut buffer = [0; 2048];
    (0..20).for_each(|_| path.round(&mut buffer));
    let (before, relayed) = (ALLOCATIONS.load(Relaxed), path.relay.totals());
    let start = ALLOCATIONS.load(Relaxed);
    assert!(start > before, "the allocator counts: reading the totals allocates");
    (0..ROUNDS).for_each(|_| path.round(&mut buffer));
    let allocations = ALLOCATIONS.load(Relaxed) - start;
    let totals = path.relay.totals();
    let datagrams = totals.to_origin.0 + totals.to_client.0 - relayed.to_origin.0 - relayed.to_client.0;
    assert!(datagrams >= 10_000, "{datagrams} datagrams");
    assert_eq!(allocations, 0, "for {datagrams} datagrams");
}
