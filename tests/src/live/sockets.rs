//! A proxy between bare sockets: the test is the client, and an origin that does what the test has it do.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{HTTP_PORT, PATIENCE, RTMP_PORT, register_as};
use crate::{
    netns::{Direct, Namespace},
    proxy::{Engine, Proxy},
    rtmp::{Peer, play, publish},
};

const STEP: Duration = Duration::from_millis(2);

/// A listener of a test that takes connections of the proxy, those for RTMP and those for HTTP.
#[derive(Debug)]
pub struct BareOrigin {
    listener: Option<TcpListener>,
    address: SocketAddr,
}

impl BareOrigin {
    /// Listens in `namespace` and registers with the proxy in `proxy` under the name of a server.
    ///
    /// # Errors
    /// When it cannot listen, or the proxy refuses it.
    pub fn start(
        namespace: &Namespace,
        ip: impl Into<IpAddr>,
        proxy: &Namespace,
        server: &str,
    ) -> Result<Self> {
        let ip = ip.into();
        let listener = namespace.enter(|| TcpListener::bind((ip, 0)))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        register_as(proxy, server, ip, address.port(), address.port())?;
        Ok(Self { listener: Some(listener), address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens no longer.
    pub fn stop(&mut self) {
        self.listener = None;
    }

    /// The next connection by which something was sent: probes send nothing.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn accept(&self) -> Result<TcpStream> {
        let (end, listener) = (Instant::now() + PATIENCE, self.listener.as_ref().context("it was stopped")?);
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    if matches!(stream.peek(&mut [0]), Ok(1)) {
                        return Ok(stream);
                    }
                }
                Err(_) => std::thread::sleep(STEP),
            }
            ensure!(Instant::now() < end, "nobody came to {} within {PATIENCE:?}", self.address);
        }
    }

    /// The next request by HTTP, with its head.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn request(&self) -> Result<(TcpStream, String)> {
        let mut stream = self.accept()?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        Ok((stream, String::from_utf8_lossy(&head).into_owned()))
    }
}

/// Two ends of a stream.
#[derive(Debug)]
pub struct Ends<T> {
    /// The client's.
    pub client: T,
    /// The origin's.
    pub origin: T,
}

/// A proxy between clients of the test and an origin of the test.
#[derive(Debug)]
pub struct Between<'a> {
    /// The proxy under test.
    pub proxy: Proxy<'a>,
    /// The origin.
    pub origin: BareOrigin,
    client: &'a Namespace,
    ip: IpAddr,
}

impl<'a> Between<'a> {
    /// Starts both and waits until they know each other.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(network: &'a Direct, settings: &[(&str, &str)]) -> Result<Self> {
        let Direct { client, proxy, origin } = network;
        let running = Proxy::start(proxy, Direct::PROXY, Engine::Userspace, settings)?;
        let origin = BareOrigin::start(origin, Direct::ORIGIN, proxy, "vid-live")?;
        Self::of(running, origin, client, Direct::PROXY)
    }

    /// Takes what runs already and waits until it knows each other.
    ///
    /// # Errors
    /// When it does not.
    pub fn of(
        proxy: Proxy<'a>,
        origin: BareOrigin,
        client: &'a Namespace,
        ip: impl Into<IpAddr>,
    ) -> Result<Self> {
        proxy.wait_for_origins(1)?;
        Ok(Self { proxy, origin, client, ip: ip.into() })
    }

    /// The proxy's port for RTMP.
    #[must_use]
    pub fn rtmp(&self) -> SocketAddr {
        SocketAddr::from((self.ip, RTMP_PORT))
    }

    /// A connection to the proxy's port for RTMP.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn connect_rtmp(&self) -> Result<TcpStream> {
        connect(self.client, self.rtmp())
    }

    /// A connection to the proxy's port for HTTP streams.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn connect_http(&self) -> Result<TcpStream> {
        connect(self.client, SocketAddr::from((self.ip, HTTP_PORT)))
    }

    /// A client that has shaken hands, connected, and created its stream.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub fn client(&self) -> Result<Peer> {
        self.client.enter(|| Peer::client(self.rtmp()))
    }

    /// A stream that its client publishes.
    ///
    /// # Errors
    /// When it does not start.
    pub fn published(&self, name: &str) -> Result<Ends<Peer>> {
        let mut client = self.client()?;
        client.send(&publish(name))?;
        let origin = Peer::serve(self.origin.accept()?)?;
        client.status("NetStream.Publish.Start")?;
        Ok(Ends { client, origin })
    }

    /// A stream that its client plays.
    ///
    /// # Errors
    /// When it does not start.
    pub fn played(&self, name: &str) -> Result<Ends<Peer>> {
        let mut client = self.client()?;
        client.send(&play(name))?;
        let origin = Peer::serve(self.origin.accept()?)?;
        client.status("NetStream.Play.Start")?;
        Ok(Ends { client, origin })
    }

    /// A stream over HTTP whose head the client has got.
    ///
    /// # Errors
    /// When it does not start.
    pub fn fetched(&self, file: &str) -> Result<Ends<TcpStream>> {
        self.joined(file, "Connection: close\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    }

    /// A stream by WebSocket: bytes go both ways.
    ///
    /// # Errors
    /// When it does not start.
    pub fn websocket(&self, file: &str) -> Result<Ends<TcpStream>> {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n";
        self.joined(file, upgrade, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
    }

    fn joined(&self, file: &str, fields: &str, answer: &str) -> Result<Ends<TcpStream>> {
        let mut client = self.connect_http()?;
        client.write_all(format!("GET /live/{file} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes())?;
        let (mut origin, _) = self.origin.request()?;
        origin.write_all(answer.as_bytes())?;
        let mut got = vec![0; answer.len()];
        client.read_exact(&mut got)?;
        ensure!(got == answer.as_bytes(), "{}", String::from_utf8_lossy(&got));
        Ok(Ends { client, origin })
    }
}

fn connect(namespace: &Namespace, to: SocketAddr) -> Result<TcpStream> {
    let stream = namespace.enter(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
