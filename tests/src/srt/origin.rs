//! An SRT origin in the shape of SRS's.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

use super::library::{Flag, Socket};

/// Who wants a stream with this in its name is refused with `SRT_REJX_FORBIDDEN` (1403).
pub const FORBIDDEN: &str = "forbidden";

const BACKLOG: i32 = 1024;
/// Between two looks for callers.
const LOOK: Duration = Duration::from_millis(2);
/// A publisher that is silent is looked at again, in case the origin stops.
const SILENCE_MS: i32 = 100;

/// Somebody who was accepted.
#[derive(Clone, Debug)]
pub struct SrtSession {
    /// What it sent as its stream id.
    pub stream_id: String,
    /// Where it seems to be.
    pub peer: SocketAddr,
    /// Whether it has gone.
    pub has_ended: bool,
    /// Packets received of it.
    pub packets: u64,
}

/// A running origin; it stops when dropped, and its callers are told.
#[derive(Debug)]
pub struct SrtOrigin {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stops: AtomicBool,
    players: Mutex<HashMap<String, Players>>,
    sessions: Mutex<Vec<Arc<Served>>>,
    publishers: Mutex<Vec<JoinHandle<()>>>,
}

/// Of one stream.
type Players = Vec<(Socket, Arc<Served>)>;

#[derive(Debug)]
struct Served {
    stream_id: String,
    peer: SocketAddr,
    packets: AtomicU64,
    has_ended: AtomicBool,
}

/// What a stream id asks for, read by other code than the proxy's.
struct Wish {
    stream: String,
    publishes: bool,
}

impl Wish {
    fn of(id: &str) -> Self {
        let Some(pairs) = id.strip_prefix("#!::") else {
            let stream = if id.contains('/') { id.to_owned() } else { format!("live/{id}") };
            return Self { stream, publishes: false };
        };
        let value = |wanted: &str| pairs.split(',').find_map(|pair| pair.strip_prefix(wanted));
        let stream = value("r=").or(value("h=")).unwrap_or("live/livestream");
        Self { stream: stream.to_owned(), publishes: value("m=") == Some("publish") }
    }
}

impl SrtOrigin {
    /// Listens; port 0 picks one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(address: SocketAddr) -> Result<Self> {
        let listener = Socket::new()?;
        listener.set(Flag::ReceiveWaits, 0)?;
        listener.bind(address).with_context(|| format!("failed to bind SRT to {address}"))?;
        listener.listen(BACKLOG)?;
        let (address, shared) = (listener.local_addr()?, Arc::new(Shared::default()));
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everybody who was accepted.
    #[must_use]
    pub fn sessions(&self) -> Vec<SrtSession> {
        let sessions = self.shared.sessions.lock();
        sessions.iter().map(|served| served.seen()).collect()
    }
}

impl Drop for SrtOrigin {
    fn drop(&mut self) {
        self.shared.stops.store(true, Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for publisher in std::mem::take(&mut *self.shared.publishers.lock()) {
            let _ = publisher.join();
        }
        self.shared.players.lock().clear();
    }
}

impl Served {
    fn seen(&self) -> SrtSession {
        SrtSession {
            stream_id: self.stream_id.clone(),
            peer: self.peer,
            has_ended: self.has_ended.load(Relaxed),
            packets: self.packets.load(Relaxed),
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &Socket) {
        while !self.stops.load(Relaxed) {
            match listener.accept() {
                // A caller that is gone already is nobody's.
                Ok(Some((socket, peer))) => drop(self.serve(socket, peer)),
                Ok(None) | Err(_) => thread::sleep(LOOK),
            }
        }
    }

    fn serve(self: &Arc<Self>, socket: Socket, peer: SocketAddr) -> Result<()> {
        let stream_id = socket.stream_id()?;
        let wish = Wish::of(&stream_id);
        let (packets, has_ended) = (AtomicU64::new(0), AtomicBool::new(false));
        let served = Arc::new(Served { stream_id, peer, packets, has_ended });
        self.sessions.lock().push(Arc::clone(&served));
        if wish.publishes {
            socket.set(Flag::ReceiveWaits, 1)?;
            socket.set(Flag::ReceiveTimeout, SILENCE_MS)?;
            let shared = Arc::clone(self);
            let publisher = thread::spawn(move || shared.publish(&socket, &wish.stream, &served));
            self.publishers.lock().push(publisher);
        } else {
            socket.set(Flag::SendWaits, 0)?;
            self.players.lock().entry(wish.stream).or_default().push((socket, served));
        }
        Ok(())
    }

    fn publish(&self, socket: &Socket, stream: &str, served: &Served) {
        let mut buffer = [0; 1500];
        while !self.stops.load(Relaxed) {
            match socket.receive(&mut buffer) {
                Ok(Some(packet)) => {
                    served.packets.fetch_add(1, Relaxed);
                    self.play(stream, packet);
                }
                Ok(None) => {}
                Err(_) => break,
            }
        }
        served.has_ended.store(true, Relaxed);
    }

    fn play(&self, stream: &str, packet: &[u8]) {
        if let Some(players) = self.players.lock().get_mut(stream) {
            players.retain(|(socket, served)| {
                let is_there = socket.send(packet).is_ok();
                served.has_ended.store(!is_there, Relaxed);
                is_there
            });
        }
    }
}
