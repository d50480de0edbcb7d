//! Players of an RTMP stream: one thread for all of them, each with a handshake, commands and chunks of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use parking_lot::Mutex;
use proxy_protocol::rtmp::{
    Message,
    amf0::{Properties, Value},
    client_session::STREAM,
    command::Command,
    handshake::{Client as Handshake, RANDOM_LEN},
    message::kind,
};
use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};

use super::{
    line::{Line, frame},
    poll::{BOTH, Poll, READ},
    worker::{Stop, Worker},
};
use crate::netns::Namespace;

/// How many begin at once.
const BEGINNING: usize = 64;
const LIMIT: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(20);
/// The chunk stream on which a player speaks about its stream.
const CHUNK_STREAM: u32 = 8;

/// Players that have a stream; they leave when dropped.
#[derive(Debug)]
pub(super) struct Players {
    count: usize,
    shared: Arc<Shared>,
    _worker: Worker,
}

#[derive(Debug, Default)]
struct Shared {
    /// How many have got as many frames as are wanted.
    served: AtomicUsize,
    frames: AtomicU64,
    /// Why players have ended.
    lost: Mutex<Vec<String>>,
}

impl Players {
    /// So many players in `namespace`, once each has got so many frames in their order.
    pub(super) fn start(namespace: &Namespace, to: SocketAddr, count: usize, frames: u32) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let crowd = Crowd {
            poll: Poll::new()?,
            peers: Vec::new(),
            to,
            wanted: frames,
            ended: 0,
            began: 0,
            shared: Arc::clone(&shared),
        };
        let worker = Worker::start(namespace, "players", move |stop| crowd.play(count, stop))?;
        let players = Self { count, shared, _worker: worker };
        let end = Instant::now() + LIMIT;
        while players.served() < count {
            players.check()?;
            let served = players.served();
            ensure!(Instant::now() < end, "{served} of {count} players have {frames} frames after {LIMIT:?}");
            sleep(STEP);
        }
        Ok(players)
    }

    /// Frames that all have got.
    pub(super) fn frames(&self) -> u64 {
        self.shared.frames.load(Relaxed)
    }

    /// Fails if one of them has lost its stream.
    pub(super) fn check(&self) -> Result<()> {
        let lost = self.shared.lost.lock();
        ensure!(lost.is_empty(), "{} of {} players lost their stream: {}", lost.len(), self.count, lost[0]);
        Ok(())
    }

    fn served(&self) -> usize {
        self.shared.served.load(Relaxed)
    }
}

struct Crowd {
    poll: Poll,
    peers: Vec<Player>,
    to: SocketAddr,
    wanted: u32,
    ended: usize,
    /// How many have got something.
    began: usize,
    shared: Arc<Shared>,
}

struct Player {
    line: Line,
    state: State,
}

enum State {
    Connecting,
    Shaking(Handshake),
    /// `connect` was sent.
    Greeting,
    /// `createStream` was sent.
    Creating,
    Playing {
        next: u32,
    },
    Ended,
}

impl Crowd {
    fn play(mut self, count: usize, stop: &Stop) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while !stop.is_set() {
            while self.peers.len() < count && self.peers.len() < self.began + self.ended + BEGINNING {
                self.begin()?;
            }
            for ready in self.poll.wait(STEP)? {
                let at = usize::try_from(ready.key)?;
                if let Err(error) = self.advance(at, &mut buffer) {
                    self.lose(at, &error)?;
                }
            }
        }
        for player in &self.peers {
            SockRef::from(&player.line.stream).set_linger(Some(Duration::ZERO))?;
        }
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
        self.peers.push(Player { line: Line::new(socket.into()), state: State::Connecting });
        Ok(())
    }

    fn advance(&mut self, at: usize, buffer: &mut [u8]) -> Result<()> {
        let Some(player) = self.peers.get_mut(at) else { return Ok(()) };
        match &player.state {
            State::Ended => return Ok(()),
            State::Connecting => {
                if let Some(error) = player.line.stream.take_error()? {
                    return Err(error.into());
                }
                self.poll.change(&player.line.stream, at as u64, READ)?;
                let handshake = Handshake::start(&[9; RANDOM_LEN], None, &mut player.line.output);
                player.state = State::Shaking(handshake);
            }
            State::Shaking(_) | State::Greeting | State::Creating | State::Playing { .. } => {
                player.line.receive(buffer)?;
                let frames = player.take(self.to)?;
                self.shared.frames.fetch_add(frames.len() as u64, Relaxed);
                self.began += usize::from(frames.contains(&0));
                self.shared.served.fetch_add(usize::from(frames.contains(&(self.wanted - 1))), Relaxed);
            }
        }
        Ok(player.line.flush()?)
    }

    fn lose(&mut self, at: usize, error: &anyhow::Error) -> Result<()> {
        self.ended += 1;
        self.shared.lost.lock().push(format!("{error:#}"));
        let Some(player) = self.peers.get_mut(at) else { return Ok(()) };
        player.state = State::Ended;
        Ok(self.poll.forget(&player.line.stream)?)
    }
}

impl Player {
    /// Goes on with what has come; the numbers of the frames in it.
    fn take(&mut self, to: SocketAddr) -> Result<Vec<u32>> {
        if let State::Shaking(handshake) = &mut self.state {
            if !self.line.shake_hands(|input, output| handshake.read(input, output))? {
                return Ok(Vec::new());
            }
            self.state = State::Greeting;
            self.line.send(&connect(to))?;
        }
        let mut frames = Vec::new();
        while let Some(message) = self.line.message()? {
            match &mut self.state {
                State::Playing { next } if message.kind == kind::AUDIO => {
                    let number = frame::number(&message).context("a frame is damaged")?;
                    ensure!(number == *next, "frame {number} came in place of {next}");
                    *next += 1;
                    frames.push(number);
                }
                State::Greeting | State::Creating if message.kind == kind::COMMAND_AMF0 => {
                    self.answered(&message)?
                }
                State::Connecting
                | State::Shaking(_)
                | State::Greeting
                | State::Creating
                | State::Playing { .. }
                | State::Ended => {}
            }
        }
        Ok(frames)
    }

    fn answered(&mut self, message: &Message) -> Result<()> {
        let command = Command::parse(message)?;
        if command.name == "_error" {
            bail!("the request was answered with an error");
        }
        if command.name != "_result" {
            return Ok(());
        }
        if let State::Greeting = self.state {
            self.state = State::Creating;
            return self.line.send(&Command::new("createStream", 2.0, Vec::new()).to_message());
        }
        self.state = State::Playing { next: 0 };
        let play = Command::new("play", 0.0, vec!["crowd".into()]);
        self.line.send(&play.to_message_on(STREAM, CHUNK_STREAM))
    }
}

fn connect(to: SocketAddr) -> Message {
    let url = format!("rtmp://{to}/live");
    let object = Properties::from([("app", "live".into()), ("tcUrl", Value::from(url.as_str()))]);
    Command { name: "connect".into(), transaction: 1.0, object: object.into(), args: Vec::new() }.to_message()
}
