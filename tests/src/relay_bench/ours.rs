//! The relay of this crate with sessions that no signalling made.

use std::thread::available_parallelism;

use anyhow::Result;
use proxy_userspace::datapath::userspace::{Placement, Relay};
use proxy_userspace::proxy::Event;
use proxy_userspace::session::Tuple;
use tokio::sync::mpsc;

use super::stage::{FLOWS, ORIGIN, SERVICE, client, source};
use crate::relay::admit;

/// Runs until it is dropped.
#[derive(Debug)]
pub(super) struct Ours {
    _relay: Relay,
    /// What the relay tells a control plane that is not there.
    _events: mpsc::Receiver<Event>,
}

/// What the names of its threads begin with.
pub(super) const THREAD: &str = "relay-";

impl Ours {
    /// Starts it in the calling thread's network namespace, with a worker a CPU.
    pub(super) fn start() -> Result<Self> {
        let (events, received) = mpsc::channel(1024);
        let workers = available_parallelism()?.get();
        // One generator sends from one CPU, as a network card with one queue receives on one.
        let relay = Relay::start(&[SERVICE.into()], workers, &Placement::ByHash, events)?;
        for flow in 0..FLOWS {
            let tuple = Tuple { client: client(flow), local: SERVICE.into() };
            admit(&relay, flow, tuple, source(flow), ORIGIN.into())?;
        }
        Ok(Self { _relay: relay, _events: received })
    }
}
