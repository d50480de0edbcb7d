//! Keeps what connection tracking knows of sessions that the kernel forwards.
//!
//! Their packets pass before it sees them, so its entries would expire after half a minute. Then a packet of the origin
//! that comes up is the first of a flow to it, and a host firewall that lets established flows in alone drops it; and
//! what we send to a client of a translated address leaves untranslated. Entries are prolonged for as long as a flow
//! stands, and ours are made again if they were flushed.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    net::SocketAddr,
    time::Duration,
};

use bytes::BytesMut;
use rtnetlink::sys::{Socket, protocols::NETLINK_NETFILTER};
use rustix::io::Errno;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

mod message;

use message::Missing;

/// How often some are prolonged.
const TURN: Duration = Duration::from_millis(250);
/// Packets pass the stack until a flow stands, and each sets the kernel's own time again.
const FRESH: Duration = Duration::from_secs(1);
/// An entry lives this long after it was prolonged; what a process that was killed leaves behind is gone by then.
const LIFE: Duration = Duration::from_secs(60);
/// Each is prolonged this often, or twice in the kernel's own time if that is shorter: a packet that comes up sets it.
const ROUND: Duration = Duration::from_secs(15);
const SHORTEST_ROUND: Duration = Duration::from_millis(500);
/// Messages in one datagram.
const BATCH: usize = 64;
const ANSWER: usize = 16 << 10;

/// The kernel's own time for UDP. It is there if connection tracking is.
const KERNELS_TIME: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";

/// Who sent the first packet, and to whom, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conversation {
    /// The sender.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
}

/// Whose conversation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// We began it: its entry is as we know it, and can be made again.
    Us,
    /// A client did: only the kernel knows how its packets are translated.
    Client,
}

/// A handle on the task that prolongs entries.
#[derive(Debug)]
pub struct Conntrack {
    changes: mpsc::UnboundedSender<Change>,
}

#[derive(Debug)]
enum Change {
    Hold(Conversation, Opener),
    LetGo(Conversation),
}

impl Conntrack {
    /// Starts the task, for the network namespace of the calling thread.
    pub fn start() -> Self {
        let (changes, queue) = mpsc::unbounded_channel();
        match open() {
            Ok(socket) => drop(tokio::spawn(Task::new(socket).run(queue))),
            Err(error) => give_up(&error),
        }
        Self { changes }
    }

    /// Prolongs the entry of a conversation, if it has one, until it is let go.
    pub fn hold(&self, conversation: Conversation, opener: Opener) {
        self.tell(Change::Hold(conversation, opener));
    }

    /// Leaves an entry to the kernel.
    pub fn let_go(&self, conversation: Conversation) {
        self.tell(Change::LetGo(conversation));
    }

    fn tell(&self, change: Change) {
        // A task that gave up has said so.
        let _given_up = self.changes.send(change);
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    // An answer need not repeat the message.
    socket.set_cap_ack(true)?;
    Ok(socket)
}

fn give_up(error: &io::Error) {
    tracing::warn!(
        %error,
        "connection tracking cannot be told of sessions in the kernel: behind a firewall that accepts established flows \
         alone, one that returns to userspace waits for its client's next packet (needs nf_conntrack_netlink)"
    );
}

/// What is held of a conversation.
struct Held {
    opener: Opener,
    since: Instant,
}

/// A conversation, and since when it is held: one that was let go and is held again has another.
type Hold = (Conversation, Instant);

struct Task {
    socket: Socket,
    held: HashMap<Conversation, Held>,
    /// Prolonged at every turn.
    fresh: Vec<Hold>,
    /// In the order in which they are prolonged.
    ring: VecDeque<Hold>,
    /// An entry was there once: packets of ours are tracked.
    is_tracking: bool,
    sequence: u32,
}

impl Task {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            held: HashMap::new(),
            fresh: Vec::new(),
            ring: VecDeque::new(),
            is_tracking: false,
            sequence: 0,
        }
    }

    async fn run(mut self, mut changes: mpsc::UnboundedReceiver<Change>) {
        let mut turn = interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.note(change, Instant::now()),
                    None => return,
                },
                now = turn.tick() => if let Err(error) = self.turn(now).await {
                    return give_up(&error);
                },
            }
        }
    }

    fn note(&mut self, change: Change, now: Instant) {
        match change {
            Change::Hold(conversation, opener) => {
                self.held.insert(conversation, Held { opener, since: now });
                self.fresh.push((conversation, now));
            }
            Change::LetGo(conversation) => {
                self.held.remove(&conversation);
            }
        }
    }

    async fn turn(&mut self, now: Instant) -> io::Result<()> {
        let round = self.round_time();
        let due = self.due(now, round.unwrap_or(ROUND));
        if round.is_none() {
            return Ok(());
        }
        for batch in due.chunks(BATCH) {
            self.prolong(batch)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// How often each is prolonged; nothing where no connection is tracked.
    fn round_time(&self) -> Option<Duration> {
        if self.held.is_empty() {
            return None;
        }
        let seconds = fs::read_to_string(KERNELS_TIME).ok()?.trim().parse().ok()?;
        Some((Duration::from_secs(seconds) / 2).clamp(SHORTEST_ROUND, ROUND))
    }

    /// Those whose turn it is, and all that are fresh. What was let go is forgotten on the way, without a turn.
    fn due(&mut self, now: Instant, round: Duration) -> Vec<Conversation> {
        let stands = |(conversation, since): &Hold| {
            self.held.get(conversation).is_some_and(|held| held.since == *since)
        };
        self.fresh.retain(stands);
        let settled = self.held.len().saturating_sub(self.fresh.len());
        let share = settled as f64 * TURN.as_secs_f64() / round.as_secs_f64();
        let turns = (share.ceil() as usize).max(1);
        let front = std::iter::from_fn(|| self.ring.pop_front());
        let next: Vec<_> = front.filter(stands).take(turns).collect();
        let has_turn = next.iter().filter(|_| self.is_tracking);
        let due = self.fresh.iter().chain(has_turn).map(|(conversation, _)| *conversation).collect();
        self.ring.extend(next);
        self.ring
            .extend(self.fresh.extract_if(.., |(_, since)| now.saturating_duration_since(*since) >= FRESH));
        due
    }

    fn prolong(&mut self, batch: &[Conversation]) -> io::Result<()> {
        let mut datagram = Vec::with_capacity(batch.len() * 256);
        let mut asked = 0;
        for conversation in batch {
            let Some(held) = self.held.get(conversation) else { continue };
            let missing = match held.opener {
                Opener::Us if self.is_tracking => Missing::Create,
                Opener::Us | Opener::Client => Missing::Refuse,
            };
            self.sequence = self.sequence.wrapping_add(1);
            message::prolong(&mut datagram, self.sequence, conversation, LIFE, missing);
            asked += 1;
        }
        if asked > 0 {
            self.socket.send(&datagram, 0)?;
            let refused = self.refused()?;
            if asked > refused && !self.is_tracking {
                tracing::info!(
                    "connections are tracked here: entries of sessions in the kernel are kept alive"
                );
                self.is_tracking = true;
            }
        }
        Ok(())
    }

    /// How many were refused: the kernel has answered by the time that sending returns.
    fn refused(&self) -> io::Result<usize> {
        let mut refused = 0;
        let mut buffer = BytesMut::with_capacity(ANSWER);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(refused),
                Err(error) => return Err(error),
            }
            for (_, errno) in message::refusals(&buffer) {
                let error = Errno::from_raw_os_error(errno);
                match error {
                    Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP => return Err(error.into()),
                    _ => refused += 1,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(2);

    fn conversation(port: u16) -> Conversation {
        Conversation { from: ([10, 0, 0, 1], port).into(), to: ([10, 0, 0, 2], 8000).into() }
    }

    fn holding(count: u16) -> (Task, Instant) {
        let (mut task, now) = (Task::new(open().unwrap()), Instant::now());
        (0..count).for_each(|port| task.note(Change::Hold(conversation(port), Opener::Us), now));
        (task, now)
    }

    #[tokio::test]
    async fn a_fresh_conversation_has_every_turn_and_then_one_in_a_round() {
        let (mut task, now) = holding(120);
        task.is_tracking = true;
        assert_eq!(task.due(now, ROUND).len(), 120);
        assert_eq!(task.due(now + STEP, ROUND).len(), 120);
        let turns = (ROUND.as_secs_f64() / TURN.as_secs_f64()) as usize;
        let round: Vec<_> = (0..turns).flat_map(|_| task.due(now + STEP, ROUND)).collect();
        let each: std::collections::HashSet<_> = round.iter().collect();
        assert_eq!((round.len(), each.len()), (120, 120));
    }

    #[tokio::test]
    async fn where_nothing_is_tracked_only_fresh_conversations_are_tried() {
        let (mut task, now) = holding(3);
        assert_eq!(task.due(now + STEP, ROUND).len(), 3);
        assert_eq!(task.due(now + STEP, ROUND), []);
    }

    #[tokio::test]
    async fn what_settled_before_tracking_was_found_has_its_turn_afterwards() {
        let (mut task, now) = holding(3);
        (0..100).for_each(|_| drop(task.due(now + STEP, ROUND)));
        task.is_tracking = true;
        let turns: Vec<_> = (0..3).flat_map(|_| task.due(now + STEP, ROUND)).collect();
        assert_eq!(turns, [0, 1, 2].map(conversation));
    }

    #[tokio::test]
    async fn one_that_is_held_again_has_one_turn_in_a_round() {
        let (mut task, now) = holding(120);
        task.is_tracking = true;
        assert_eq!(task.due(now + STEP, ROUND).len(), 120);
        for port in 0..120 {
            task.note(Change::LetGo(conversation(port)), now + STEP);
            task.note(Change::Hold(conversation(port), Opener::Us), now + STEP);
        }
        assert_eq!(task.due(now + 2 * STEP, ROUND).len(), 120);
        let turns = (ROUND.as_secs_f64() / TURN.as_secs_f64()) as usize;
        let round: Vec<_> = (0..turns).flat_map(|_| task.due(now + 2 * STEP, ROUND)).collect();
        let each: std::collections::HashSet<_> = round.iter().collect();
        assert_eq!((round.len(), each.len()), (120, 120));
    }

    #[tokio::test]
    async fn what_comes_and_goes_leaves_nothing_whether_or_not_it_is_tracked() {
        for is_tracking in [false, true] {
            let (mut task, mut now) = holding(1);
            task.is_tracking = is_tracking;
            for port in 1..1000 {
                task.note(Change::Hold(conversation(port), Opener::Us), now);
                now += STEP;
                task.due(now, ROUND);
                task.note(Change::LetGo(conversation(port)), now);
            }
            task.due(now, ROUND);
            assert!(task.fresh.is_empty() && task.ring.len() <= 2, "{} of 1", task.ring.len());
        }
    }

    /// Connections are not tracked where nothing has loaded what does.
    #[tokio::test]
    async fn turns_without_a_conversation_forget_what_was_let_go() {
        let (mut task, now) = holding(120);
        (0..120).for_each(|port| task.note(Change::LetGo(conversation(port)), now));
        task.turn(now).await.unwrap();
        assert!(task.fresh.is_empty() && task.ring.is_empty());
    }

    #[tokio::test]
    async fn what_was_let_go_is_forgotten() {
        let (mut task, now) = holding(2);
        task.is_tracking = true;
        task.note(Change::LetGo(conversation(0)), now);
        assert_eq!(task.due(now + STEP, ROUND), [conversation(1)]);
        task.note(Change::LetGo(conversation(1)), now);
        assert_eq!(task.due(now + STEP, ROUND), []);
        assert!(task.ring.is_empty() && task.fresh.is_empty() && task.round_time().is_none());
    }
}
