//! An origin of RTMP streams that costs little: one thread, which answers as SRS does and sends each player frames of audio.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use parking_lot::Mutex;
use proxy_protocol::rtmp::{
    client_session::{ClientEffect, ClientSession, ServerName},
    handshake::{RANDOM_LEN, Server as Handshake},
};
use rustix::event::epoll::EventFlags;

use super::{
    line::{Line, frame},
    origin::listen,
    poll::{Poll, READ},
    site::RTMP,
    worker::{Stop, Worker},
};
use crate::netns::Namespace;

/// The frames of a period are spread over so many moments.
const PHASES: u32 = 25;
const IDLE: Duration = Duration::from_millis(50);
const LISTENER: u64 = u64::MAX;

/// Runs in its namespace until it is dropped.
#[derive(Debug)]
pub(super) struct RtmpOrigin {
    players: Arc<Mutex<Vec<SocketAddr>>>,
    _worker: Worker,
}

impl RtmpOrigin {
    /// Sends each player a frame at once, and one in each period if there is one.
    pub(super) fn start(namespace: &Namespace, period: Option<Duration>) -> Result<Self> {
        let listener = namespace.enter(|| listen(RTMP))?;
        let players = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&players);
        let worker = Worker::start(namespace, "origin", move |stop| {
            Server::new(listener, period, shared)?.serve(stop)
        })?;
        Ok(Self { players, _worker: worker })
    }

    /// Where each player so far came from.
    pub(super) fn players(&self) -> Vec<SocketAddr> {
        self.players.lock().clone()
    }
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    peers: HashMap<u64, Peer>,
    period: Option<Duration>,
    players: Arc<Mutex<Vec<SocketAddr>>>,
    /// Of those that play, by the moment of their frames.
    phases: Vec<Vec<u64>>,
    begin: Instant,
}

struct Peer {
    line: Line,
    from: SocketAddr,
    state: State,
}

enum State {
    Shaking(Box<Handshake>),
    Talking(Option<ClientSession>),
    Playing { next: u32 },
}

impl Server {
    fn new(
        listener: TcpListener,
        period: Option<Duration>,
        players: Arc<Mutex<Vec<SocketAddr>>>,
    ) -> Result<Self> {
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER, EventFlags::IN)?;
        let phases = (0..PHASES).map(|_| Vec::new()).collect();
        Ok(Self { poll, listener, peers: HashMap::new(), period, players, phases, begin: Instant::now() })
    }

    fn serve(mut self, stop: &Stop) -> Result<()> {
        let tick = self.period.map_or(IDLE, |period| period / PHASES);
        let (mut phase, mut due) = (0, Instant::now());
        let mut buffer = vec![0; 64 << 10];
        while !stop.is_set() {
            for ready in self.poll.wait(due.saturating_duration_since(Instant::now()))? {
                if ready.key == LISTENER {
                    self.accept()?;
                } else if self.advance(ready.key, &mut buffer).is_err() {
                    self.peers.remove(&ready.key);
                }
            }
            if Instant::now() >= due {
                due = (due + tick).max(Instant::now());
                if self.period.is_some() {
                    self.send_frames(phase)?;
                    phase = (phase + 1) % self.phases.len();
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, from)) => {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let key = stream.as_raw_fd().unsigned_abs().into();
                    self.poll.add(&stream, key, READ)?;
                    let state = State::Shaking(Box::new(Handshake::new([7; RANDOM_LEN])));
                    self.peers.insert(key, Peer { line: Line::new(stream), from, state });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn advance(&mut self, key: u64, buffer: &mut [u8]) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        peer.line.receive(buffer)?;
        if peer.talk()? {
            self.players.lock().push(peer.from);
            peer.send_frame(self.begin)?;
            self.phases[key as usize % PHASES as usize].push(key);
        }
        Ok(peer.line.flush()?)
    }

    fn send_frames(&mut self, phase: usize) -> Result<()> {
        let Self { phases, peers, begin, .. } = self;
        for key in &phases[phase] {
            if let Some(peer) = peers.get_mut(key) {
                peer.send_frame(*begin)?;
                // Who has left is noticed where it is read.
                let _left = peer.line.flush();
            }
        }
        phases[phase].retain(|key| peers.contains_key(key));
        Ok(())
    }
}

impl Peer {
    /// Answers what has come; whether it plays from now on.
    fn talk(&mut self) -> Result<bool> {
        if let State::Shaking(handshake) = &mut self.state {
            if !self.line.shake_hands(|input, output| handshake.read(input, output))? {
                return Ok(false);
            }
            self.state = State::Talking(Some(ClientSession::new(name())));
        }
        while let Some(message) = self.line.message()? {
            let State::Talking(session) = &mut self.state else { continue };
            let Some(talking) = session else { bail!("a session goes on until its stream is accepted") };
            for effect in talking.apply(message)? {
                match effect {
                    ClientEffect::Send(message) => self.line.send(&message)?,
                    ClientEffect::Connected(_) => {}
                    ClientEffect::Requested(_) => {
                        let accepted = session.take().map(|session| session.accepted(Vec::new()));
                        for message in accepted.unwrap_or_default().to_client {
                            self.line.send(&message)?;
                        }
                        self.state = State::Playing { next: 0 };
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    fn send_frame(&mut self, begin: Instant) -> Result<()> {
        if let State::Playing { next } = &mut self.state {
            self.line.send(&frame::make(*next, begin.elapsed().as_millis() as u32))?;
            *next += 1;
        }
        Ok(())
    }
}

fn name() -> ServerName {
    let [signature, version, connection] = ["origin", "1", "1"].map(str::to_owned);
    ServerName { signature, version, connection }
}
