//! Callers on libsrt that publish numbered packets, and that count them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    PACKET,
    library::{Counts, Flag, Socket},
};

const STEP: Duration = Duration::from_millis(20);
const SILENCE_MS: i32 = 100;

/// Whom to call, and how.
#[derive(Clone, Debug)]
pub struct CallerOptions {
    /// The listener.
    pub to: SocketAddr,
    /// What is wanted of it.
    pub stream_id: String,
    /// How long packets wait for lost ones, in milliseconds.
    pub latency: i32,
    /// The secret of who encrypts, of at least ten bytes.
    pub passphrase: Option<String>,
    /// The port to call from.
    pub from: Option<SocketAddr>,
}

impl CallerOptions {
    /// A call with more latency than usual: tests run on machines that have better things to do.
    #[must_use]
    pub fn new(to: SocketAddr, stream_id: impl Into<String>) -> Self {
        Self { to, stream_id: stream_id.into(), latency: 1000, passphrase: None, from: None }
    }
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub i32);

/// A connection.
#[derive(Debug)]
pub struct Caller(Socket);

impl Caller {
    /// Calls; an inner error is a refusal, or 16 that nobody answered.
    ///
    /// # Errors
    /// When libsrt does not take the options.
    pub fn connect(options: &CallerOptions) -> Result<Result<Self, Refused>> {
        let socket = Socket::new()?;
        socket.set(Flag::Latency, options.latency)?;
        socket.set_text(Flag::StreamId, &options.stream_id)?;
        if let Some(passphrase) = &options.passphrase {
            socket.set_text(Flag::Passphrase, passphrase)?;
        }
        if let Some(from) = options.from {
            socket.bind(from)?;
        }
        // libsrt's own default, said here because tests reckon with it.
        socket.set(Flag::ConnectTimeout, 3000)?;
        Ok(socket.connect(options.to).map(|()| Self(socket)).map_err(Refused))
    }

    /// Calls somebody who does not refuse.
    ///
    /// # Errors
    /// When it does.
    pub fn taken(options: &CallerOptions) -> Result<Self> {
        Self::connect(options)?
            .map_err(|Refused(reason)| anyhow::anyhow!("{} was refused with {reason}", options.stream_id))
    }

    /// Where it calls from.
    ///
    /// # Errors
    /// When libsrt does not tell.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Publishes so many packets a second until it is dropped.
    #[must_use]
    pub fn publish(self, rate: u32) -> Publisher {
        let task = Task::start(self.0, move |socket, stops, count| {
            let (begin, interval) = (Instant::now(), Duration::from_secs(1) / rate);
            let mut packet = [0x47; PACKET];
            while !stops.load(Relaxed) {
                let number = count.load(Relaxed);
                let due = begin + interval * u32::try_from(number).unwrap_or(u32::MAX);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if let Some(place) = packet.first_chunk_mut() {
                    *place = number.to_be_bytes();
                }
                if socket.send(&packet).is_err() {
                    break;
                }
                count.store(number + 1, Relaxed);
            }
        });
        Publisher(task)
    }

    /// Receives and counts until it is dropped.
    ///
    /// # Errors
    /// When libsrt does not take the options.
    pub fn play(self) -> Result<Player> {
        self.0.set(Flag::ReceiveTimeout, SILENCE_MS)?;
        let gaps = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&gaps);
        let task = Task::start(self.0, move |socket, stops, count| {
            let (mut buffer, mut next) = ([0; 1500], None::<u64>);
            while !stops.load(Relaxed) {
                let packet = match socket.receive(&mut buffer) {
                    Ok(Some(packet)) => packet,
                    Ok(None) => continue,
                    Err(_) => break,
                };
                let number = packet.first_chunk().map_or(0, |number| u64::from_be_bytes(*number));
                if next.is_some_and(|next| next != number) {
                    counted.fetch_add(1, Relaxed);
                }
                next = Some(number + 1);
                count.fetch_add(1, Relaxed);
            }
        });
        Ok(Player { task, gaps })
    }
}

/// Somebody who publishes.
#[derive(Debug)]
pub struct Publisher(Task);

impl Publisher {
    /// Packets given to libsrt so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.count.load(Relaxed)
    }

    /// Whether the connection broke.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }

    /// What libsrt counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

/// Somebody who plays.
#[derive(Debug)]
pub struct Player {
    task: Task,
    gaps: Arc<AtomicU64>,
}

/// What a player got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Packets.
    pub packets: u64,
    /// Places where numbers were missing.
    pub gaps: u64,
}

impl Player {
    /// What it got so far.
    #[must_use]
    pub fn received(&self) -> Received {
        Received { packets: self.task.count.load(Relaxed), gaps: self.gaps.load(Relaxed) }
    }

    /// Waits until it has got so many packets more than `before`.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_for(&self, more: u64, before: u64, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while self.received().packets < before + more {
            ensure!(!self.task.is_over(), "the connection broke: {:?}", self.received());
            ensure!(Instant::now() < end, "not {more} packets within {limit:?}: {:?}", self.received());
            thread::sleep(STEP);
        }
        Ok(())
    }

    /// Whether the connection broke.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.task.is_over()
    }

    /// What libsrt counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.task.counts()
    }
}

/// A thread that has a connection; it ends when this is dropped.
#[derive(Debug)]
struct Task {
    socket: Arc<Socket>,
    stops: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Task {
    fn start(socket: Socket, work: impl FnOnce(&Socket, &AtomicBool, &AtomicU64) + Send + 'static) -> Self {
        let socket = Arc::new(socket);
        let (stops, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (socket, stops, count) = (Arc::clone(&socket), Arc::clone(&stops), Arc::clone(&count));
            move || work(&socket, &stops, &count)
        });
        Self { socket, stops, count, thread: Some(thread) }
    }

    fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Of a connection that broke libsrt tells nothing.
    fn counts(&self) -> Counts {
        self.socket.counts().unwrap_or_default()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stops.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
