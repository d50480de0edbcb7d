//! An origin of HTTP streams that costs little: one thread, and bytes that lie in the page cache.
//!
//! The name of a stream says how it is sent: `bulk` as fast as possible, `paced` as frames of a live stream, `idle` not at all.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::{
    event::epoll::EventFlags,
    fs::{MemfdFlags, memfd_create, sendfile},
};

use super::{
    poll::{BOTH, Poll, READ, Ready},
    site::HTTP,
    worker::{Stop, Worker},
};
use crate::netns::Namespace;

/// 1 Mbit/s.
const FRAME: usize = 5000;
const PERIOD: Duration = Duration::from_millis(40);
/// The frames of a period are spread over so many moments.
const PHASES: usize = 10;
const TICK: Duration = Duration::from_millis(4);

const LENGTH: usize = 4 << 20;
const AT_ONCE: usize = 256 << 10;
const LONGEST_HEAD: usize = 4096;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\nConnection: close\r\n\r\n";
const LISTENER: u64 = u64::MAX;

/// Runs in its namespace until it is dropped.
#[derive(Debug)]
pub(super) struct Origin {
    _worker: Worker,
}

impl Origin {
    pub(super) fn start(namespace: &Namespace) -> Result<Self> {
        let listener = namespace.enter(|| listen(HTTP))?;
        let worker = Worker::start(namespace, "origin", move |stop| Server::new(listener)?.serve(stop))?;
        Ok(Self { _worker: worker })
    }
}

/// A listener with room for a crowd.
pub(super) fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&std::net::SocketAddr::from(([0; 4], port)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    media: File,
    peers: HashMap<u64, Peer>,
    /// Those that are paced, by the moment of their frames.
    phases: [Vec<u64>; PHASES],
    paced: usize,
}

struct Peer {
    stream: TcpStream,
    sends: Sends,
    /// Bytes sent.
    sent: u64,
}

enum Sends {
    Head(Vec<u8>),
    Bulk,
    Paced { owed: usize },
    Nothing,
}

impl Server {
    fn new(listener: TcpListener) -> Result<Self> {
        let mut media = File::from(memfd_create("media", MemfdFlags::CLOEXEC)?);
        media.write_all(
            &(0..LENGTH).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect::<Vec<_>>(),
        )?;
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER, EventFlags::IN)?;
        Ok(Self { poll, listener, media, peers: HashMap::new(), phases: Default::default(), paced: 0 })
    }

    fn serve(mut self, stop: &Stop) -> Result<()> {
        let (mut phase, mut due) = (0, Instant::now());
        while !stop.is_set() {
            let idle = if self.paced > 0 { due.saturating_duration_since(Instant::now()) } else { PERIOD };
            for ready in self.poll.wait(idle)? {
                if ready.key == LISTENER {
                    self.accept()?;
                } else if self.advance(ready).is_err() {
                    self.peers.remove(&ready.key);
                }
            }
            if Instant::now() >= due {
                // Frames that are late are sent; what is very late is not made up by a flood.
                due = (due + TICK).max(Instant::now() - PERIOD);
                self.send_frames(phase);
                phase = (phase + 1) % PHASES;
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let key = stream.as_raw_fd().unsigned_abs().into();
                    self.poll.add(&stream, key, READ)?;
                    self.peers.insert(key, Peer { stream, sends: Sends::Head(Vec::new()), sent: 0 });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Serves a peer; one that has left is an error.
    fn advance(&mut self, ready: Ready) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(&ready.key) else { return Ok(()) };
        if ready.flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if let Sends::Head(head) = &mut peer.sends {
            let mut some = [0; LONGEST_HEAD];
            let read = peer.stream.read(&mut some)?;
            head.extend_from_slice(&some[..read]);
            let Some(wanted) = wanted(head) else { return Ok(()) };
            peer.stream.write_all(ANSWER)?;
            match wanted {
                Sends::Paced { .. } => {
                    self.phases[self.paced % PHASES].push(ready.key);
                    self.paced += 1;
                }
                Sends::Bulk => self.poll.change(&peer.stream, ready.key, BOTH)?,
                Sends::Head(_) | Sends::Nothing => {}
            }
            peer.sends = wanted;
        }
        if let Sends::Bulk = peer.sends {
            peer.send(&self.media, AT_ONCE)?;
        }
        Ok(())
    }

    fn send_frames(&mut self, phase: usize) {
        let Self { phases, peers, media, paced, .. } = self;
        phases[phase].retain(|key| {
            let Some(peer) = peers.get_mut(key) else {
                *paced -= 1;
                return false;
            };
            if let Sends::Paced { owed } = peer.sends {
                let sent = peer.send(media, owed + FRAME).unwrap_or_default();
                peer.sends = Sends::Paced { owed: owed + FRAME - sent };
            }
            true
        });
    }
}

impl Peer {
    /// Sends so much of the stream, or what the socket takes of it.
    fn send(&mut self, media: &File, bytes: usize) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes {
            let mut at = self.sent % LENGTH as u64;
            let part = (bytes - sent).min(LENGTH - at as usize);
            match sendfile(&self.stream, media, Some(&mut at), part) {
                Ok(moved) => {
                    sent += moved;
                    self.sent += moved as u64;
                    if moved < part {
                        break;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    }
}

/// What a request is for, once it is there.
fn wanted(head: &[u8]) -> Option<Sends> {
    let text = String::from_utf8_lossy(head);
    text.contains("\r\n\r\n").then(|| match text.split('/').nth(2).unwrap_or_default() {
        name if name.starts_with("bulk") => Sends::Bulk,
        name if name.starts_with("paced") => Sends::Paced { owed: 0 },
        _ => Sends::Nothing,
    })
}
