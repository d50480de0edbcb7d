//! A thread of an endpoint: it runs in a namespace, under a name that its processor time is found by, until it is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;

use crate::netns::Namespace;

/// What the names of all of them begin with.
pub(super) const THREAD: &str = "endpoint-";

/// A running thread.
#[derive(Debug)]
pub(super) struct Worker {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// Whether it is to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Worker {
    /// Runs `work`, which looks at its argument often, in a thread inside the namespace.
    pub(super) fn start(
        namespace: &Namespace,
        role: &str,
        work: impl FnOnce(&Stop) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let stop = Stop::default();
        let (stopping, name) = (stop.clone(), format!("{THREAD}{role}"));
        let thread = namespace.enter(|| {
            thread::Builder::new().name(name.clone()).spawn(move || {
                if let Err(error) = work(&stopping) {
                    complain(&name, &error);
                }
            })
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has said why, if it panicked.
            let _panicked = thread.join();
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "whoever waits for the thread's work learns only that it does not come"
)]
fn complain(name: &str, error: &anyhow::Error) {
    eprintln!("{name} ended: {error:#}");
}
