//! The task behind a store: it connects, listens, asks whether the connection lives, and connects anew.

use std::time::Duration;

use futures_util::StreamExt as _;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::{
    sync::mpsc,
    time::{self, MissedTickBehavior, sleep, timeout},
};

use super::{
    Health, Notice,
    connection::Shared,
    link::{self, Link, Opened},
    scripts,
};

/// The first pause between attempts to connect, which doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a connection is asked whether it lives when nobody uses it.
const TICK: Duration = Duration::from_secs(1);
/// Of how many ticks one asks the Sentinels too; a master that became a replica tells by itself when it is written to.
const ASK_SENTINELS: u64 = 5;

impl Shared {
    /// Connects, listens, and connects anew, for as long as the future is polled.
    pub(super) async fn attend(&self, notices: mpsc::Sender<Notice>) {
        let mut outbox = Outbox { notices, owed: false };
        let mut pause = FIRST_PAUSE;
        loop {
            match self.connect().await {
                Ok(opened) => {
                    pause = FIRST_PAUSE;
                    self.follow(opened, &mut outbox).await;
                }
                Err(reason) => self.down(&reason),
            }
            sleep(pause.mul_f64(rand::random_range(0.75..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A connection by which a PING was answered within the deadline.
    async fn connect(&self) -> Result<Opened, String> {
        let limit = self.settings.timeout;
        let channel = self.keys.channel();
        let opened = timeout(limit * 4, link::open(&self.settings, &channel));
        let opened = opened.await.map_err(|_| format!("no connection within {:?}", limit * 4))??;
        self.ping(&opened.link).await?;
        Ok(opened)
    }

    /// Serves a connection until it fails.
    async fn follow(&self, opened: Opened, outbox: &mut Outbox) {
        let Opened { link, notices, master } = opened;
        // A fault of the connection before this one.
        let _ = timeout(Duration::ZERO, self.faulty()).await;
        self.up(link.clone());
        self.send(outbox, Notice::Connected);
        let (mut sink, mut messages) = notices.split();
        let reason = tokio::select! {
            reason = self.receive(&mut messages, outbox) => reason,
            reason = self.watch(&link, &mut sink, master.as_ref()) => reason,
            () = self.faulty() => None,
        };
        if let Some(reason) = reason {
            self.down(&reason);
        }
        self.send(outbox, Notice::Lost);
    }

    async fn receive(&self, messages: &mut PubSubStream, outbox: &mut Outbox) -> Option<String> {
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.take(message.get_payload_bytes(), outbox),
                    None => return Some("connection for notices is lost".to_owned()),
                },
                () = outbox.settle(), if outbox.owed => {}
            }
        }
    }

    fn take(&self, message: &[u8], outbox: &mut Outbox) {
        match Notice::read(message, &self.member) {
            Ok(Some(notice)) => self.send(outbox, notice),
            Ok(None) => {}
            Err(reason) => self.poisoned(&self.keys.channel(), &reason),
        }
    }

    fn send(&self, outbox: &mut Outbox, notice: Notice) {
        self.count_notice(outbox.send(notice));
    }

    /// Asks both connections from time to time, and Sentinels whether the master is still theirs.
    async fn watch(
        &self,
        link: &Link,
        sink: &mut PubSubSink,
        master: Option<&(String, u16)>,
    ) -> Option<String> {
        let mut ticks = time::interval_at(time::Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for count in 1_u64.. {
            ticks.tick().await;
            if let Err(reason) = self.ping(link).await {
                return Some(reason);
            }
            match timeout(self.settings.timeout, sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Some(link::describe(&error)),
                Err(_) => return Some("no answer by the connection for notices".to_owned()),
            }
            if master.is_some()
                && count % ASK_SENTINELS == 0
                && let Ok(named) = link::master(&self.settings).await
                && Some(&named) != master
            {
                return Some("the Sentinels name another master".to_owned());
            }
            self.probe().await;
        }
        None
    }

    async fn ping(&self, link: &Link) -> Result<(), String> {
        let mut exists = redis::cmd("EXISTS");
        exists.arg(self.keys.probe());
        // A node of a cluster answers a PING while the cluster is down.
        let commands = [redis::cmd("PING"), exists];
        match timeout(self.settings.timeout, link.run(commands.iter())).await {
            Ok(Ok(replies)) => {
                let unready = replies
                    .iter()
                    .filter_map(|reply| reply.as_ref().err())
                    .find(|answer| answer.is_unready());
                unready.map_or(Ok(()), |answer| Err(answer.to_string()))
            }
            Ok(Err(error)) => Err(link::describe(&error)),
            Err(_) => Err(format!("no answer within {:?}", self.settings.timeout)),
        }
    }

    /// Writes while writes are refused, so that nobody has to try with something that matters.
    async fn probe(&self) {
        if matches!(*self.health().borrow(), Health::Refusing { .. }) {
            let probe = scripts::set(&self.keys.probe(), b"1", TICK);
            // What comes of it is in the health.
            let _ = self.call(&[probe]).await;
        }
    }
}

/// The bounded queue of notices.
struct Outbox {
    notices: mpsc::Sender<Notice>,
    /// Something was dropped, and the receiver does not know yet.
    owed: bool,
}

impl Outbox {
    /// Whether the notice was not dropped. One that nobody will ever take was not.
    fn send(&mut self, notice: Notice) -> bool {
        if self.owed {
            return false;
        }
        self.owed = matches!(self.notices.try_send(notice), Err(mpsc::error::TrySendError::Full(_)));
        !self.owed
    }

    /// Tells of what was dropped once there is room.
    async fn settle(&mut self) {
        if self.notices.send(Notice::Connected).await.is_ok() {
            self.owed = false;
        } else {
            std::future::pending::<()>().await;
        }
    }
}
