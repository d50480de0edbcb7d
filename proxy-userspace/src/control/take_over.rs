//! The loop while another process takes over: it waits for the outcome, and goes on where there is none.

use std::{
    io,
    ops::ControlFlow,
    os::fd::OwnedFd,
    time::{Instant, SystemTime},
};

use tokio::sync::oneshot;

use super::ControlLoop;
use crate::{lifecycle::Estate, net::handover::Role, origin::Known, session::record::Record};

/// The loop while it waits for the outcome of a take-over. It goes on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    /// Second descriptors of the relay's sockets.
    pub sockets: Vec<(Role, OwnedFd)>,
    /// Sessions, ports that rest and the next number; what the registry knows is to be added.
    pub estate: Estate,
    pause: oneshot::Sender<oneshot::Sender<Paused>>,
}

impl Frozen {
    /// Stops the relay; what arrives waits in the sockets.
    pub async fn pause(self) -> Option<Paused> {
        let (reply, paused) = oneshot::channel();
        self.pause.send(reply).ok()?;
        paused.await.ok()
    }
}

/// The loop with its relay stopped. Both go on when this is dropped.
#[derive(Debug)]
pub struct Paused(oneshot::Sender<()>);

impl Paused {
    /// Ends the loop without ending a session.
    pub fn leave(self) {
        // A loop that ended has left already.
        let _ended = self.0.send(());
    }
}

impl ControlLoop {
    /// Waits for the outcome of a take-over; the loop ends if another process has everything.
    pub(super) async fn hand_over(&mut self, reply: oneshot::Sender<io::Result<Frozen>>) -> ControlFlow<()> {
        let (pause, paused) = oneshot::channel::<oneshot::Sender<Paused>>();
        let sockets = self.executor.relay().share();
        let frozen = sockets.map(|sockets| Frozen { sockets, estate: self.estate(), pause });
        if reply.send(frozen).is_err() {
            return ControlFlow::Continue(());
        }
        let Ok(reply) = paused.await else { return ControlFlow::Continue(()) };
        self.executor.relay_mut().pause();
        let (leave, outcome) = oneshot::channel();
        if reply.send(Paused(leave)).is_ok() && outcome.await.is_ok() {
            return ControlFlow::Break(());
        }
        if let Err(error) = self.executor.relay_mut().resume() {
            tracing::error!(%error, "failed to start the relay again");
        }
        ControlFlow::Continue(())
    }

    fn estate(&self) -> Estate {
        let now = (Instant::now(), SystemTime::now());
        let sessions = self.proxy.sessions();
        Estate {
            sessions: sessions.filter_map(|(id, session)| Some((id, Record::of(session, now)?))).collect(),
            rests: self.proxy.rests(now.0).collect(),
            next_session: self.proxy.next_session(),
            known: Known::default(),
            cookies: Some(self.executor.relay().cookie_key()),
        }
    }
}
