//! What the process has of the system: signals and limits.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end the process.
pub(super) struct Signals {
    pub(super) interrupt: Signal,
    pub(super) terminate: Signal,
}

impl Signals {
    /// From now on signals are told here and end nothing by themselves.
    pub(super) fn watch() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("failed to watch for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("failed to watch for SIGTERM")?,
        })
    }
}

/// The process ends then, whatever is left.
pub(super) fn quit_by_force_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        tracing::error!("stopped by force: PROXY_FORCE_QUIT_TIMEOUT is over");
        std::process::exit(1);
    });
}

/// Each source port in use is a descriptor, and each TCP stream has two.
pub(super) fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
}
