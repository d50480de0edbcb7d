//! The start of a process: what it owns, and what it finds of the one before.

use std::{
    collections::HashSet,
    io,
    os::fd::OwnedFd,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Estate, Ledger, Owner, OwnerError, RecordFiles, RuntimeDir,
    starts::{self, Starts},
};
use crate::{
    config,
    net::handover::{Channel, Doorbell, HandoverError, Parcel, Role},
    session::record::RecordStore as _,
};

/// The old process finishes requests before it gives anything.
const TAKE: Duration = Duration::from_secs(60);
/// A visitor says at once what it wants.
const GREETING: Duration = Duration::from_secs(2);
/// How long nobody is let in after the system refused a visitor, which is mostly a lack of descriptors.
const REST: Duration = Duration::from_millis(100);

/// A process that has not begun to serve.
#[derive(Debug)]
pub struct Startup {
    home: Option<Home>,
    before: Option<Before>,
    /// What was inherited and has not been used.
    pub sockets: Inherited,
    deaths: u32,
}

/// A directory that this process owns; `None` of it means that nothing outlives the process.
#[derive(Debug)]
pub struct Home {
    dir: RuntimeDir,
    owner: Owner,
    doorbell: AsyncFd<Doorbell>,
    starts: Starts,
}

/// Sockets of an earlier process.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(Role, OwnedFd)>);

/// The process that is taken over from. It serves until [`Startup::commit`].
#[derive(Debug)]
struct Before {
    channel: Channel,
    estate: Estate,
}

impl Startup {
    /// Becomes the owner of the runtime directory, or gets everything from the process that is.
    pub fn begin(settings: &config::Lifecycle) -> anyhow::Result<Self> {
        let named = settings.runtime_dir.as_deref();
        let begun = RuntimeDir::locate(named).context("failed to tell the network namespace").and_then(
            |dir| match dir.holder()? {
                Some(holder) if settings.take_over => Self::take_over(dir)
                    .with_context(|| format!("failed to take over from {holder}, which goes on")),
                Some(_) | None => Self::own(dir),
            },
        );
        match begun {
            Err(error) if named.is_none() && may_go_without(&error) => {
                tracing::warn!("sessions will not outlive this process: {error:#}");
                Ok(Self { home: None, before: None, sockets: Inherited::default(), deaths: 0 })
            }
            begun => begun,
        }
    }

    /// The processes before this one died within seconds of their start.
    pub fn is_crash_loop(&self) -> bool {
        starts::is_crash_loop(self.deaths)
    }

    /// Another process runs until [`Startup::commit`].
    pub fn takes_over(&self) -> bool {
        self.before.is_some()
    }

    /// Where records of sessions are kept if the kernel does not keep them.
    pub fn record_files(&self) -> anyhow::Result<Option<RecordFiles>> {
        let open = |home: &Home| RecordFiles::open(home.dir.records());
        self.home.as_ref().map(open).transpose().context("failed to open the records of sessions")
    }

    /// Makes everything that was left this process's own, and `records` with it; they tell of sessions if no process does.
    ///
    /// From here on the process before this one does nothing any more.
    pub async fn commit(self, records: Option<&mut Ledger>) -> anyhow::Result<(Option<Home>, Estate)> {
        let is_crash_loop = self.is_crash_loop();
        let taken = match self.before {
            Some(before) => Some(before.claim().await.context("failed to take over")?),
            None => None,
        };
        let Some(records) = records else { return Ok((self.home, taken.unwrap_or_default())) };
        records.move_in().context("failed to move the records of sessions")?;
        let estate = match taken {
            Some(estate) => estate,
            None => read_records(records, is_crash_loop)?,
        };
        Ok((self.home, estate))
    }

    fn own(dir: RuntimeDir) -> anyhow::Result<Self> {
        let owner = Owner::acquire(&dir)?;
        let unusable = || format!("failed to use the runtime directory {}", dir.path().display());
        let starts = Starts::new(dir.starts());
        let deaths = starts.note(SystemTime::now()).with_context(unusable)?;
        if starts::is_crash_loop(deaths) {
            tracing::error!(
                deaths,
                "processes before this one died right after their start: this one takes over no session and attaches \
                 to no interface"
            );
        }
        let doorbell = Doorbell::bind(&dir.doorbell()).with_context(unusable)?;
        let doorbell = doorbell.watch().context("failed to watch the hand-over socket")?;
        let home = Home { dir, owner, doorbell, starts };
        Ok(Self { home: Some(home), before: None, sockets: Inherited::default(), deaths })
    }

    fn take_over(dir: RuntimeDir) -> anyhow::Result<Self> {
        let channel = Channel::connect(&dir.doorbell(), TAKE).context("failed to reach it")?;
        let (pid, Parcel { sockets, state }) = channel.take()?;
        let estate = Estate::decode(&state).context("what it knows cannot be read")?;
        tracing::info!(
            pid,
            sockets = sockets.len(),
            sessions = estate.sessions.len(),
            "taking over from a running process"
        );
        let mut sockets = Inherited(sockets);
        let (Some(lock), Some(doorbell)) = (
            sockets.take(|role| matches!(role, Role::Lock)).pop(),
            sockets.take(|role| matches!(role, Role::Doorbell)).pop(),
        ) else {
            bail!("it gave no lock")
        };
        let doorbell = Doorbell::inherit(doorbell.1).watch()?;
        let starts = Starts::new(dir.starts());
        let home = Home { dir, owner: Owner::inherit(lock.1), doorbell, starts };
        Ok(Self { home: Some(home), before: Some(Before { channel, estate }), sockets, deaths: 0 })
    }
}

/// A process may run without a directory of its own, but not beside an owner.
fn may_go_without(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<OwnerError>() {
        Some(OwnerError::Held(..)) => false,
        Some(OwnerError::Unusable { .. }) => true,
        None => error.downcast_ref::<HandoverError>().is_none() && error.root_cause().is::<io::Error>(),
    }
}

fn read_records(records: &mut Ledger, is_crash_loop: bool) -> anyhow::Result<Estate> {
    let found = records.load().context("failed to read the records of sessions")?;
    let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
    // What killed the processes before this one may be in the records.
    let estate = if is_crash_loop { Estate::default() } else { Estate::from_records(found) };
    let kept: HashSet<_> = estate.sessions.iter().map(|(id, _)| *id).collect();
    for id in ids.into_iter().filter(|id| !kept.contains(id)) {
        records.delete(id).context("failed to delete the record of a session")?;
    }
    Ok(estate)
}

impl Before {
    async fn claim(self) -> Result<Estate, HandoverError> {
        let Self { mut channel, estate } = self;
        channel.extend(TAKE);
        let claimed = tokio::task::spawn_blocking(move || channel.claim()).await;
        claimed.map_err(io::Error::other)??;
        Ok(estate)
    }
}

impl Inherited {
    /// Takes the sockets of some roles.
    pub fn take(&mut self, which: impl Fn(&Role) -> bool) -> Vec<(Role, OwnedFd)> {
        self.0.extract_if(.., |(role, _)| which(role)).collect()
    }
}

impl Home {
    /// Writes down who owns the directory and where its status is found.
    pub fn sign(&mut self, system_api: std::net::SocketAddr) {
        if let Err(error) = self.owner.sign(Some(system_api)) {
            tracing::warn!(%error, "failed to write down who runs here");
        }
    }

    /// Notes a good start once this process has lived for long enough.
    pub fn settle_later(&self) {
        let starts = self.starts.clone();
        tokio::spawn(async move {
            tokio::time::sleep(starts::SETTLED).await;
            starts.settle();
        });
    }

    /// The next process that wants to take over.
    pub async fn visitor(&self) -> Channel {
        loop {
            match self.answer().await {
                Ok(channel) => return channel,
                Err(error) => {
                    tracing::warn!(%error, "a visitor at the hand-over socket is sent away");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    async fn answer(&self) -> Result<Channel, HandoverError> {
        let answer = |doorbell: &Doorbell| doorbell.answer(GREETING);
        let channel = self.doorbell.async_io(Interest::READABLE, answer).await?;
        let greeted = tokio::task::spawn_blocking(move || channel.greet().map(|pid| (channel, pid))).await;
        let (channel, pid) = greeted.map_err(io::Error::other)??;
        tracing::info!(pid, "another process takes over");
        Ok(channel)
    }

    /// Second descriptors of what makes an owner.
    pub fn share(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        Ok(vec![(Role::Lock, self.owner.share()?), (Role::Doorbell, self.doorbell.get_ref().share()?)])
    }

    /// Ends the ownership in order. Records of sessions stay: a drained proxy has none.
    pub fn leave(self) {
        // What is not there need not be removed.
        let _absent = std::fs::remove_file(self.dir.doorbell());
        // A directory with records in it stays.
        let _not_empty = std::fs::remove_dir(self.dir.records());
    }
}

/// A process that ends with an error has not crashed: what it held was given back.
impl Drop for Home {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.starts.settle();
        }
    }
}

#[cfg(test)]
mod tests;
