//! A path that loses, delays and reorders packets, for kernels without netem: a namespace in the middle whose two interfaces
//! are joined by threads of the test.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    ffi::CString,
    io,
    mem::{MaybeUninit, size_of},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    mailbox::{Mailbox, Sender, mailbox},
    netns::{End, MTU, Namespace, join},
};

/// What a path does to packets.
#[derive(Clone, Copy, Debug)]
pub struct Impairment {
    /// How long each takes, in either direction.
    pub delay: Duration,
    /// How many of a thousand do not arrive.
    pub lost: u32,
    /// How many of a thousand take twice as long, so that others overtake them.
    pub overtaken: u32,
}

#[derive(Debug, Default)]
struct Tally {
    lost: AtomicU64,
    overtaken: AtomicU64,
}

/// `client - middle - proxy - origin`; the middle is the impaired path.
#[derive(Debug)]
pub struct Impaired {
    /// Players and publishers.
    pub client: Namespace,
    /// The proxy under test.
    pub proxy: Namespace,
    /// The origin.
    pub origin: Namespace,
    tally: Arc<Tally>,
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    middle: Namespace,
}

impl Impaired {
    /// The client's address.
    pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 74, 1, 2);
    /// The proxy's address towards clients.
    pub const PROXY: Ipv4Addr = Ipv4Addr::new(10, 74, 1, 1);
    /// The proxy's address towards the origin.
    pub const PROXY_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 74, 2, 1);
    /// The origin's address.
    pub const ORIGIN: Ipv4Addr = Ipv4Addr::new(10, 74, 2, 2);

    /// Builds the network.
    ///
    /// # Errors
    /// When a part of it cannot be made.
    pub fn new(impairment: Impairment) -> Result<Self> {
        let [client, middle, proxy, origin] = ["client", "middle", "proxy", "origin"].map(Namespace::new);
        let (client, middle, proxy, origin) = (client?, middle?, proxy?, origin?);
        let port = |interface| End { namespace: &middle, interface, address: None };
        let end = |namespace, interface, address| End { namespace, interface, address: Some(address) };
        join(end(&client, "eth0", Self::CLIENT), port("left"), MTU)?;
        join(port("right"), end(&proxy, "eth0", Self::PROXY), MTU)?;
        join(end(&proxy, "eth1", Self::PROXY_INSIDE), end(&origin, "eth0", Self::ORIGIN), MTU)?;
        for (namespace, interface) in
            [(&client, "eth0"), (&middle, "left"), (&middle, "right"), (&proxy, "eth0")]
        {
            // What is lost is a packet as it is on a wire, whole and with its checksum.
            let plain = ["-K", interface, "tso", "off", "gso", "off", "gro", "off", "tx", "off"];
            namespace.run("ethtool", &plain)?;
        }
        let mut network = Self {
            client,
            proxy,
            origin,
            tally: Arc::default(),
            stop: Vec::new(),
            threads: Vec::new(),
            middle,
        };
        network.carry("left", "right", impairment)?;
        network.carry("right", "left", impairment)?;
        Ok(network)
    }

    /// How many packets were lost, and how many overtaken, until now.
    #[must_use]
    pub fn tally(&self) -> (u64, u64) {
        (self.tally.lost.load(Ordering::Relaxed), self.tally.overtaken.load(Ordering::Relaxed))
    }

    fn carry(&mut self, from: &'static str, to: &'static str, impairment: Impairment) -> Result<()> {
        let (from, to) = self.middle.enter(|| anyhow::Ok((packets(from)?, packets(to)?)))?;
        let (stop, stopped) = mailbox()?;
        let tally = Arc::clone(&self.tally);
        let mut path = Path {
            from,
            to,
            impairment,
            tally,
            random: StdRng::seed_from_u64(7),
            under_way: BinaryHeap::new(),
            number: 0,
        };
        self.stop.push(stop);
        self.threads.push(thread::spawn(move || path.run(&stopped)));
        Ok(())
    }
}

impl Drop for Impaired {
    fn drop(&mut self) {
        self.stop.iter().for_each(|stop| {
            stop.send(());
        });
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

/// One direction.
struct Path {
    from: Socket,
    to: Socket,
    impairment: Impairment,
    tally: Arc<Tally>,
    random: StdRng,
    /// When each is due, in the order of their coming.
    under_way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    number: u64,
}

impl Path {
    fn run(&mut self, stopped: &Mailbox<()>) {
        const LONGEST: usize = 2048;
        let mut frame = [MaybeUninit::uninit(); LONGEST];
        while stopped.take().is_none() {
            let wait =
                self.under_way.peek().map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
            let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
            let mut ready = [PollFd::new(&self.from, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
            // What is interrupted is tried again.
            let _ready = poll(&mut ready, wait.as_ref());
            while let Ok(length) = self.from.recv(&mut frame) {
                let bytes = frame[..length].iter();
                // SAFETY: the call above has filled so many bytes.
                let bytes = bytes.map(|byte| unsafe { byte.assume_init() }).collect();
                self.take(bytes);
            }
            self.deliver();
        }
    }

    fn take(&mut self, frame: Vec<u8>) {
        let Impairment { delay, lost, overtaken } = self.impairment;
        let mut happens = |of_a_thousand| self.random.random_range(0..1000) < of_a_thousand;
        if happens(lost) {
            self.tally.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut due = Instant::now() + delay;
        if happens(overtaken) {
            self.tally.overtaken.fetch_add(1, Ordering::Relaxed);
            due += delay;
        }
        self.number += 1;
        self.under_way.push(Reverse((due, self.number, frame)));
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.under_way.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, _, frame))) = self.under_way.pop() else { return };
            // A full queue loses it, as one on any path does.
            let _sent = self.to.send(&frame);
        }
    }
}

/// A socket for all frames that come in by an interface of the thread's namespace.
fn packets(interface: &str) -> Result<Socket> {
    const BUFFER: usize = 8 << 20;
    let all = i32::from((libc::ETH_P_ALL as u16).to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all)))?;
    socket.set_nonblocking(true)?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    let name = CString::new(interface)?;
    let one: libc::c_int = 1;
    // SAFETY: the option is a number, whose address and length are given.
    let ignored = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING);
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            level,
            option,
            (&raw const one).cast(),
            length,
        )
    };
    if ignored < 0 {
        return Err(io::Error::last_os_error()).context("frames that go out cannot be left out");
    }
    // SAFETY: sockaddr_ll is plain data that fits the storage, for which zeroes are valid.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            (*address).sll_ifindex = libc::if_nametoindex(name.as_ptr()).cast_signed();
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address)?;
    Ok(socket)
}
