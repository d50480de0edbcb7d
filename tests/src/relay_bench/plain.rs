//! The obvious relay: one task per socket, `recv_from` and `send_to`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::Result;
use proxy_userspace::net::udp::enlarge_buffers;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::Buffers;
use super::stage::{FLOWS, ORIGIN, SERVICE, client, source};

/// Runs until it is dropped.
#[derive(Debug)]
pub(super) struct Plain {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the names of its threads begin with.
pub(super) const THREAD: &str = "plain";

impl Plain {
    /// Starts it in the calling thread's network namespace, with a thread a CPU.
    pub(super) fn start(buffers: Buffers) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().thread_name(THREAD).enable_io().build();
            let runtime = runtime.expect("a runtime needs descriptors alone");
            runtime.block_on(async {
                // Whoever started it waits for this.
                let _gone = ready.send(relay(buffers).await);
                // Dropping the other end stops it too.
                let _dropped = stopped.await;
            });
        })?;
        started.recv()??;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the plain relay does not panic");
        }
    }
}

async fn relay(buffers: Buffers) -> Result<()> {
    let listener = Arc::new(bind(SERVICE.into(), buffers).await?);
    let mut upstreams = HashMap::new();
    for flow in 0..FLOWS {
        let upstream = Arc::new(bind(source(flow), buffers).await?);
        tokio::spawn(to_client(Arc::clone(&upstream), Arc::clone(&listener), client(flow)));
        upstreams.insert(client(flow), upstream);
    }
    tokio::spawn(to_origin(listener, upstreams));
    Ok(())
}

async fn bind(address: SocketAddr, buffers: Buffers) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await?;
    match buffers {
        Buffers::OfTheHost => {}
        Buffers::LikeOurs => enlarge_buffers(&socket)?,
    }
    Ok(socket)
}

async fn to_client(upstream: Arc<UdpSocket>, listener: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = vec![0; 65_535];
    while let Ok((length, _)) = upstream.recv_from(&mut buffer).await {
        // What cannot be sent is lost, which is what the far end counts.
        let _lost = listener.send_to(&buffer[..length], client).await;
    }
}

async fn to_origin(listener: Arc<UdpSocket>, upstreams: HashMap<SocketAddr, Arc<UdpSocket>>) {
    let mut buffer = vec![0; 65_535];
    while let Ok((length, from)) = listener.recv_from(&mut buffer).await {
        if let Some(upstream) = upstreams.get(&from) {
            // As above.
            let _lost = upstream.send_to(&buffer[..length], ORIGIN).await;
        }
    }
}
