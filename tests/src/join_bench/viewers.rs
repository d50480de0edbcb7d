//! Viewers of HTTP streams that cost little: one thread for all of them, and what they get is not even copied.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use socket2::{Domain, SockRef, Socket, Type};

use super::{
    poll::{BOTH, Poll, READ},
    worker::{Stop, Worker},
};
use crate::netns::Namespace;

/// Viewers of one stream; they leave when dropped.
#[derive(Debug)]
pub(super) struct Viewers {
    count: usize,
    shared: Arc<Shared>,
    _worker: Worker,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes received, heads included.
    bytes: AtomicU64,
    /// How many have got something.
    served: AtomicUsize,
    /// How many were left.
    lost: AtomicUsize,
    /// Nobody reads.
    stalls: AtomicBool,
}

/// How many connect at once.
const BEGINNING: usize = 64;
const AT_ONCE: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(20);

impl Viewers {
    /// So many viewers in `namespace`, once each of them is served.
    pub(super) fn start(namespace: &Namespace, to: SocketAddr, stream: &str, count: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let head = format!("GET /live/{stream}.flv HTTP/1.1\r\nHost: {to}\r\n\r\n");
        let crowd = Crowd { poll: Poll::new()?, peers: Vec::new(), head, to, shared: Arc::clone(&shared) };
        let worker = Worker::start(namespace, "viewers", move |stop| crowd.view(count, stop))?;
        let viewers = Self { count, shared, _worker: worker };
        viewers.wait()?;
        Ok(viewers)
    }

    fn wait(&self) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while self.shared.served.load(Relaxed) < self.count {
            self.check()?;
            let served = self.shared.served.load(Relaxed);
            ensure!(Instant::now() < end, "{served} of {} viewers are served after {LIMIT:?}", self.count);
            sleep(STEP);
        }
        Ok(())
    }

    /// What they have received.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Relaxed)
    }

    /// Has them read nothing any more.
    pub(super) fn stall(&self) {
        self.shared.stalls.store(true, Relaxed);
    }

    /// Fails if one of them has lost its stream.
    pub(super) fn check(&self) -> Result<()> {
        let lost = self.shared.lost.load(Relaxed);
        ensure!(lost == 0, "{lost} of {} viewers lost their stream", self.count);
        Ok(())
    }
}

struct Crowd {
    poll: Poll,
    peers: Vec<Peer>,
    head: String,
    to: SocketAddr,
    shared: Arc<Shared>,
}

struct Peer {
    socket: TcpStream,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Asking,
    Served,
    Lost,
}

impl Crowd {
    fn view(mut self, count: usize, stop: &Stop) -> Result<()> {
        let mut buffer = vec![0; AT_ONCE];
        let mut stalled = false;
        while !stop.is_set() {
            let settled = self.shared.served.load(Relaxed) + self.shared.lost.load(Relaxed);
            while self.peers.len() < count && self.peers.len() < settled + BEGINNING {
                self.begin()?;
            }
            if self.shared.stalls.load(Relaxed) && !stalled {
                self.peers.iter().try_for_each(|peer| self.poll.forget(&peer.socket))?;
                stalled = true;
            }
            for ready in self.poll.wait(STEP)? {
                self.advance(usize::try_from(ready.key)?, &mut buffer)?;
            }
        }
        // A reset leaves no port at rest, however many turns there are.
        self.peers
            .iter()
            .try_for_each(|peer| SockRef::from(&peer.socket).set_linger(Some(Duration::ZERO)))?;
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.to.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => {
                return Err(error).with_context(|| format!("failed to connect to {}", self.to));
            }
            Ok(()) | Err(_) => {}
        }
        self.poll.add(&socket, self.peers.len() as u64, BOTH)?;
        self.peers.push(Peer { socket: socket.into(), state: State::Connecting });
        Ok(())
    }

    fn advance(&mut self, at: usize, buffer: &mut [u8]) -> Result<()> {
        let Some(peer) = self.peers.get_mut(at) else { return Ok(()) };
        if peer.state == State::Connecting && peer.socket.take_error()?.is_none() {
            // The socket is writable, and its buffer empty.
            if peer.socket.write_all(self.head.as_bytes()).is_ok() {
                peer.state = State::Asking;
                self.poll.change(&peer.socket, at as u64, READ)?;
                return Ok(());
            }
        }
        match receive(&peer.socket, buffer) {
            Ok(0) => self.lose(at)?,
            Ok(bytes) => {
                self.shared.bytes.fetch_add(bytes as u64, Relaxed);
                if peer.state == State::Asking {
                    peer.state = State::Served;
                    self.shared.served.fetch_add(1, Relaxed);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.lose(at)?,
        }
        Ok(())
    }

    fn lose(&mut self, at: usize) -> Result<()> {
        let Some(peer) = self.peers.get_mut(at) else { return Ok(()) };
        if peer.state != State::Lost {
            peer.state = State::Lost;
            self.shared.lost.fetch_add(1, Relaxed);
            self.poll.forget(&peer.socket)?;
        }
        Ok(())
    }
}

/// Takes what has come without looking at it.
fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let (bytes, _) = recv(socket, buffer, RecvFlags::TRUNC)?;
    Ok(bytes)
}
