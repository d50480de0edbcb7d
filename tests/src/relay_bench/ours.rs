//! The relay of this crate with sessions that no signalling made.

use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
use proxy_protocol::ice::UfragPair;
use proxy_userspace::datapath::userspace::{Placement, Relay};
use proxy_userspace::proxy::Event;
use proxy_userspace::session::{SessionId, Tuple};
use tokio::sync::mpsc;

use super::stage::{FLOWS, ORIGIN, SERVICE, client, source};

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
            let session = SessionId(u64::from(flow));
            let ufrags: UfragPair = format!("orig{flow:04}:clnt").parse().context("a valid name")?;
            let pwd = "0123456789abcdef0123456789abcdef".parse().context("a valid password")?;
            relay.admit(session, &ufrags, &pwd, ORIGIN.into(), source(flow))?;
            let tuple = Tuple { client: client(flow), local: SERVICE.into() };
            relay.bind(session, tuple);
            relay.activate(session, tuple);
        }
        Ok(Self { _relay: relay, _events: received })
    }
}
