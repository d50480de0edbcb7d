//! The obvious proxy: two tasks' worth of tokio's `copy_bidirectional` for each client, with the buffers it has by default.

use std::{
    net::SocketAddr,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::Result;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::oneshot,
};

/// What the names of its threads begin with.
pub(super) const THREAD: &str = "plain";
/// Where it listens.
pub(super) const PORT: u16 = 9000;

/// Runs until it is dropped.
#[derive(Debug)]
pub(super) struct Plain {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Plain {
    /// Starts it in the calling thread's network namespace, with a thread a CPU, as the proxy has.
    pub(super) fn start(origin: SocketAddr) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
            let runtime = Builder::new_multi_thread().thread_name(THREAD).enable_io().build();
            let runtime = runtime.expect("a runtime needs descriptors alone");
            runtime.block_on(async {
                let listener = TcpListener::bind(SocketAddr::from(([0; 4], PORT))).await;
                let listening = listener.map(|listener| drop(tokio::spawn(serve(listener, origin))));
                // Whoever started it waits for this.
                let _gone = ready.send(listening);
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
            thread.join().expect("the plain proxy does not panic");
        }
    }
}

async fn serve(listener: TcpListener, origin: SocketAddr) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(async move {
            // Both ends see what is wrong with their connection.
            let _ended = relay(client, origin).await;
        });
    }
}

async fn relay(mut client: TcpStream, origin: SocketAddr) -> std::io::Result<()> {
    let mut origin = TcpStream::connect(origin).await?;
    client.set_nodelay(true)?;
    origin.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut origin).await.map(drop)
}
