//! Keeps a connection, and tells who calls at once when there is none: no call waits for a connection that is dead.

use std::{
    collections::HashSet,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    Health, MemberId, StoreCounts, StoreError,
    keys::Keys,
    link::{self, Answer, Link, Reply},
    scripts::Call,
};
use crate::config;

/// Keys whose values could not be read, remembered so that each is logged once.
const MAX_POISONED: usize = 1024;

/// What the store and its task share.
pub(super) struct Shared {
    pub(super) settings: config::Redis,
    pub(super) keys: Keys,
    pub(super) member: MemberId,
    link: Mutex<Current>,
    health: watch::Sender<Health>,
    fault: Notify,
    poisoned: Mutex<HashSet<String>>,
    counters: Counters,
}

/// The connection, and a number that tells it from earlier ones.
#[derive(Default)]
struct Current {
    generation: u64,
    link: Option<Link>,
}

#[derive(Default)]
struct Counters {
    round_trips: AtomicU64,
    failures: AtomicU64,
    poisoned: AtomicU64,
    notices: AtomicU64,
    notices_dropped: AtomicU64,
}

impl Shared {
    pub(super) fn new(settings: config::Redis, member: MemberId) -> Self {
        let down = Health::Down { since: Instant::now(), reason: "not connected yet".into() };
        Self {
            keys: Keys::new(&settings.key_prefix),
            settings,
            member,
            link: Mutex::default(),
            health: watch::Sender::new(down),
            fault: Notify::new(),
            poisoned: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// How Redis is, now and from now on.
    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(super) fn counts(&self) -> StoreCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreCounts {
            round_trips: read(&self.counters.round_trips),
            failures: read(&self.counters.failures),
            poisoned: read(&self.counters.poisoned),
            notices: read(&self.counters.notices),
            notices_dropped: read(&self.counters.notices_dropped),
        }
    }

    /// Sends the calls in one round trip, and those whose script Redis lacks in a second one.
    pub(super) async fn call(&self, calls: &[Call]) -> Result<Vec<Reply>, StoreError> {
        let (generation, link) = self.link()?;
        let reason = match timeout(self.settings.timeout, self.exchange(&link, calls)).await {
            Ok(Ok(replies)) => {
                self.judge(generation, calls, &replies);
                return Ok(replies);
            }
            Ok(Err(error)) => link::describe(&error),
            Err(_) => format!("no answer within {:?}", self.settings.timeout),
        };
        self.fail(generation, &reason);
        Err(StoreError::Down(reason))
    }

    /// Counts a value that is not what its key should hold, and logs it once.
    pub(super) fn poisoned(&self, key: &str, reason: &dyn fmt::Display) {
        self.counters.poisoned.fetch_add(1, Ordering::Relaxed);
        let mut known = self.poisoned.lock();
        if known.len() >= MAX_POISONED {
            known.clear();
        }
        if known.insert(key.to_owned()) {
            warn!(key, %reason, "a value in Redis is not what it should be; it is ignored");
        }
    }

    fn link(&self) -> Result<(u64, Link), StoreError> {
        let current = self.link.lock();
        match &current.link {
            Some(link) => Ok((current.generation, link.clone())),
            None => match &*self.health.borrow() {
                Health::Down { reason, .. } => Err(StoreError::Down(reason.clone())),
                Health::Up | Health::Refusing { .. } => Err(StoreError::Down("connection is lost".into())),
            },
        }
    }

    async fn exchange(&self, link: &Link, calls: &[Call]) -> Result<Vec<Reply>, redis::RedisError> {
        self.counters.round_trips.fetch_add(1, Ordering::Relaxed);
        let mut replies = link.run(calls.iter().map(|call| &call.command)).await?;
        let is_unknown = |reply: &Reply| matches!(reply, Err(answer) if answer.code == "NOSCRIPT");
        let unknown: Vec<usize> = (0..calls.len()).filter(|at| is_unknown(&replies[*at])).collect();
        if !unknown.is_empty() {
            self.counters.round_trips.fetch_add(1, Ordering::Relaxed);
            let whole = unknown.iter().filter_map(|at| calls[*at].whole.as_ref());
            for (at, reply) in unknown.iter().zip(link.run(whole).await?) {
                replies[*at] = reply;
            }
        }
        Ok(replies)
    }

    /// Draws conclusions from what Redis answered: whether it takes writes, and whether it is the right server.
    fn judge(&self, generation: u64, calls: &[Call], replies: &[Reply]) {
        let answers = || replies.iter().filter_map(|reply| reply.as_ref().err());
        if let Some(answer) = answers().find(|answer| answer.is_unready()) {
            return self.fail(generation, &answer.to_string());
        }
        let refusal = answers().find_map(Answer::refusal);
        match refusal {
            Some(reason) if self.follows_master() && reason.starts_with("READONLY") => {
                self.fail(generation, &reason)
            }
            Some(reason) => self.refuse(generation, &reason),
            None if calls.iter().any(|call| call.writes) => self.accept(),
            None => {}
        }
    }

    fn follows_master(&self) -> bool {
        matches!(self.settings.servers, config::RedisServers::Sentinel { .. })
    }

    fn refuse(&self, generation: u64, reason: &str) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        if self.link.lock().generation != generation {
            return;
        }
        self.health.send_if_modified(|health| match health {
            // The rest of the text may name a script.
            Health::Refusing { reason: known, .. } if first_word(known) == first_word(reason) => false,
            Health::Up | Health::Refusing { .. } => {
                warn!(%reason, "Redis refuses what it is asked for");
                *health = Health::Refusing { since: Instant::now(), reason: reason.into() };
                true
            }
            Health::Down { .. } => false,
        });
    }

    fn accept(&self) {
        self.health.send_if_modified(|health| match health {
            Health::Refusing { .. } => {
                info!("Redis takes writes again");
                *health = Health::Up;
                true
            }
            Health::Up | Health::Down { .. } => false,
        });
    }

    /// Ends a connection that failed, unless a newer one has taken its place.
    fn fail(&self, generation: u64, reason: &str) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        let mut current = self.link.lock();
        if current.generation == generation && current.link.take().is_some() {
            drop(current);
            self.down(reason);
            self.fault.notify_one();
        }
    }

    /// Has calls fail, for this reason.
    pub(super) fn down(&self, reason: &str) {
        self.link.lock().link = None;
        self.health.send_if_modified(|health| {
            let since = match health {
                Health::Down { reason: known, .. } if known == reason => return false,
                Health::Down { since, .. } => *since,
                Health::Up | Health::Refusing { .. } => Instant::now(),
            };
            warn!(%reason, "Redis is not available");
            *health = Health::Down { since, reason: reason.into() };
            true
        });
    }

    /// Has calls use a new connection. Its state is told before a call can find that it fails.
    pub(super) fn up(&self, link: Link) {
        let mut current = self.link.lock();
        current.generation += 1;
        current.link = Some(link);
        info!("Redis is available");
        self.health.send_replace(Health::Up);
    }

    /// Waits until a call has found that the connection fails.
    pub(super) async fn faulty(&self) {
        self.fault.notified().await;
    }

    /// Counts a notice that was passed on, or dropped.
    pub(super) fn count_notice(&self, is_taken: bool) {
        let counter = if is_taken { &self.counters.notices } else { &self.counters.notices_dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}
