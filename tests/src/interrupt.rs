//! Ctrl-C, SIGTERM and a closed terminal, as an error that unwinds through every guard.

use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// The person at the terminal wants the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Every wait of a program at the terminal goes through it.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signals: mpsc::Receiver<()>,
}

impl Interrupt {
    pub(crate) fn watch() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (sender, signals) = mpsc::channel();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let sender = sender.clone();
            let mut arrivals = {
                let _context = runtime.enter();
                signal(kind).context("failed to watch for signals")?
            };
            runtime.spawn(async move { while arrivals.recv().await.is_some() && sender.send(()).is_ok() {} });
        }
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Ok(Self { signals })
    }

    /// Sleeps, or fails with [`Interrupted`].
    pub(crate) fn sleep(&self, duration: Duration) -> Result<()> {
        match self.signals.recv_timeout(duration) {
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => Err(Interrupted.into()),
        }
    }
}
