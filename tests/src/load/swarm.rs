//! The one thread that drives any number of sessions: one epoll over their sockets, one heap of deadlines.

use std::collections::HashMap;
use std::fmt;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::peer::Peer;
use super::stats::ClientStats;
use crate::deadlines::Deadlines;
use crate::mailbox::{Mailbox, Sender, mailbox};

/// A session within its swarm.
pub(super) type PeerId = u64;

const MAILBOX: u64 = u64::MAX;
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What other threads ask of the swarm's thread.
#[derive(Debug)]
pub(super) enum Command {
    Add { peer: Box<Peer>, reply: mpsc::Sender<PeerId> },
    Stats { id: PeerId, reply: mpsc::Sender<Option<ClientStats>> },
    Migrate { id: PeerId, socket: UdpSocket },
    Close { id: PeerId },
    Abandon { id: PeerId },
    Stop,
}

/// A media thread for many clients; sessions are silently abandoned when it is dropped.
pub struct Swarm {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Swarm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Swarm").finish_non_exhaustive()
    }
}

impl Swarm {
    /// Starts the thread. Which network namespace it is in does not matter: sockets come with their sessions.
    ///
    /// # Errors
    /// When the system gives no epoll or eventfd.
    pub fn start() -> Result<Self> {
        let (commands, mailbox) = mailbox()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("failed to create an epoll")?;
        epoll::add(&epoll, &mailbox, epoll::EventData::new_u64(MAILBOX), epoll::EventFlags::IN)?;
        let reactor =
            Loop { epoll, mailbox, peers: HashMap::new(), deadlines: Deadlines::default(), newest: 0 };
        Ok(Self { commands, thread: Some(thread::spawn(move || reactor.run())) })
    }

    pub(super) fn commands(&self) -> &Sender<Command> {
        &self.commands
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Loop {
    epoll: OwnedFd,
    mailbox: Mailbox<Command>,
    peers: HashMap<PeerId, Box<Peer>>,
    deadlines: Deadlines<PeerId>,
    newest: PeerId,
}

impl Loop {
    fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        loop {
            let timeout = Timespec::try_from(self.time_left()).ok();
            let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref());
            for event in events.drain(..) {
                self.receive(event.data.u64());
            }
            self.tick_due();
            self.mailbox.acknowledge();
            while let Some(command) = self.mailbox.take() {
                if matches!(command, Command::Stop) {
                    return;
                }
                self.obey(command);
            }
        }
    }

    fn time_left(&self) -> Duration {
        let next = self.deadlines.next().map(|next| next.saturating_duration_since(Instant::now()));
        next.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
    }

    fn receive(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.receive();
            self.deadlines.set(id, peer.drain(Instant::now()));
        }
    }

    fn tick_due(&mut self) {
        let now = Instant::now();
        while let Some(id) = self.deadlines.pop_due(now) {
            if let Some(peer) = self.peers.get_mut(&id) {
                // The stack may ask for "now" again; a millisecond on keeps one session from holding the thread.
                let next = peer.tick(now).max(now + Duration::from_millis(1));
                self.deadlines.set(id, next);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add { peer, reply } => drop(reply.send(self.add(peer))),
            Command::Stats { id, reply } => drop(reply.send(self.peers.get(&id).map(|peer| peer.stats()))),
            Command::Migrate { id, socket } => self.migrate(id, socket),
            Command::Close { id } => {
                if let Some(mut peer) = self.remove(id) {
                    peer.close();
                }
            }
            Command::Abandon { id } => drop(self.remove(id)),
            Command::Stop => {}
        }
    }

    fn add(&mut self, peer: Box<Peer>) -> PeerId {
        self.newest += 1;
        self.watch(self.newest, &peer);
        self.peers.insert(self.newest, peer);
        self.deadlines.set(self.newest, Instant::now());
        self.newest
    }

    fn migrate(&mut self, id: PeerId, socket: UdpSocket) {
        let Some(mut peer) = self.remove(id) else { return };
        let _ = peer.migrate(socket);
        self.watch(id, &peer);
        self.peers.insert(id, peer);
        self.deadlines.set(id, Instant::now());
    }

    fn watch(&self, id: PeerId, peer: &Peer) {
        // Only a full table of watches could fail here; the session would then show no packets.
        let Some(descriptor) = peer.descriptor() else { return };
        let _ = epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(id), epoll::EventFlags::IN);
    }

    fn remove(&mut self, id: PeerId) -> Option<Box<Peer>> {
        let peer = self.peers.remove(&id)?;
        if let Some(descriptor) = peer.descriptor() {
            let _ = epoll::delete(&self.epoll, descriptor);
        }
        self.deadlines.remove(id);
        Some(peer)
    }
}
