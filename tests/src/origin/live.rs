//! Streams over TCP as SRS serves them: published by RTMP, played by RTMP, HTTP-FLV, HTTP-TS and HLS. Nothing is
//! transcoded: H.264 and AAC go from the one form into the other.
//!
//! Each connection is a task. What waits for one is bounded, and one that takes nothing is left behind.

mod aac;
mod avc;
mod backlog;
mod flv;
mod frame;
mod hls;
mod http;
mod hub;
mod peer;
mod queue;
mod request;
mod rtmp;
mod ts;

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::sleep,
};

pub use hls::HlsSettings;
use hub::Hub;

use super::stats::LiveStats;

/// How long connections have to be dropped at the end.
const END: Duration = Duration::from_secs(2);

/// The running servers; they end when dropped, and all their connections with them.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) rtmp: Option<SocketAddr>,
    pub(super) http: Option<SocketAddr>,
    hub: Hub,
    runtime: Option<Runtime>,
}

impl Live {
    /// Listens in the calling thread's network namespace.
    pub(super) fn start(
        rtmp: Option<SocketAddr>,
        http: Option<SocketAddr>,
        hls: HlsSettings,
    ) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let hub = Hub::new(hls);
        let rtmp = rtmp.map(|address| serve(&runtime, address, &hub, rtmp::serve)).transpose();
        let http = http.map(|address| serve(&runtime, address, &hub, http::serve)).transpose();
        Ok(Self { rtmp: rtmp?, http: http?, hub, runtime: Some(runtime) })
    }

    pub(super) fn stats(&self) -> Vec<LiveStats> {
        self.hub.stats()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(END);
        }
    }
}

/// Serves every connection to `address` in a task of its own.
fn serve<F>(
    runtime: &Runtime,
    address: SocketAddr,
    hub: &Hub,
    connection: impl Fn(TcpStream, Hub) -> F + Send + 'static,
) -> Result<SocketAddr>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let listener =
        TcpListener::bind(address).with_context(|| format!("failed to listen on tcp {address}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let hub = hub.clone();
    let _context = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(async move {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => drop(tokio::spawn(connection(socket, hub.clone()))),
                // There may be too many descriptors for a while.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    Ok(address)
}
