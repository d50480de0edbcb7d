//! SIGTERM: whoever is here may finish, and nobody else comes.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{App, End, process::Signals, servers::Stops};
use crate::{config::OnStop, connections::Connections, control::Control};

impl App {
    /// Takes no new sessions, waits for those there are, then leaves them to the next process or ends them.
    pub(super) async fn terminate(mut self, stops: &Stops, serving: JoinSet<()>) {
        let how = self.end_at_term();
        let grace = self.config.grace_quit_timeout;
        // `/readyz` says so from here on, and connections are refused.
        stops.public.send_replace(true);
        self.servers.close_public();
        if matches!(how, End::Drain) {
            self.control.drain().await;
            wait_for_the_last(&self.control, &self.connections, grace, &mut self.signals).await;
        }
        stops.system.send_replace(true);
        self.end(how, serving).await;
    }

    /// Only what is written down can be left to another process.
    fn end_at_term(&self) -> End {
        match self.config.lifecycle.on_stop {
            OnStop::Keep if self.keeps_records => End::Keep,
            OnStop::Keep | OnStop::Drain => End::Drain,
        }
    }
}

/// Waits until every session and stream has ended, at most for `grace`; a second signal ends the wait.
async fn wait_for_the_last(
    control: &Control,
    connections: &Connections,
    grace: Duration,
    signals: &mut Signals,
) {
    let deadline = Instant::now() + grace;
    tracing::info!(grace = grace.as_secs_f64(), "stopping: waiting for sessions to end");
    let all_ended = async {
        control.none_left().await;
        connections.none_left().await;
    };
    let cut_short = tokio::select! {
        ended = timeout_at(deadline, all_ended) => ended.is_err().then_some("PROXY_GRACE_QUIT_TIMEOUT is over"),
        _ = signals.terminate.recv() => Some("SIGTERM"),
        _ = signals.interrupt.recv() => Some("SIGINT"),
    };
    match cut_short {
        Some(why) => tracing::warn!(why, "stopping although not every session has ended"),
        None => tracing::info!("every session has ended"),
    }
}
