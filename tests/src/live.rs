//! Live streams over TCP between programs that are not ours: nginx with its RTMP module or node-media-server is the origin;
//! FFmpeg, rtmpdump, curl, GStreamer and Chromium are the clients. And between bare sockets, where a test says every byte.

mod held;
mod nginx;
mod programs;
mod scratch;
mod sockets;
mod web;

use std::{
    fs,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::json;

pub use self::{
    held::Held,
    nginx::{Cache, Nginx, sockets},
    programs::{Finished, ffmpeg, finish, frames_in, play, publish, start},
    scratch::{Clip, Scratch},
    sockets::{BareOrigin, Between, Ends},
    web::{NodeMediaServer, Watched, watch},
};
use crate::{
    http::{Request, Url},
    netns::{Direct, Namespace},
    proxy::{Engine, Proxy},
};

/// Long enough for programs that load their codecs on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The proxy's port for RTMP.
pub const RTMP_PORT: u16 = 11935;
/// The proxy's port for HTTP streams.
pub const HTTP_PORT: u16 = 18080;

const STEP: Duration = Duration::from_millis(20);

/// A TCP connection of a client as the proxy lists it.
#[derive(Clone, Debug, Deserialize)]
pub struct Connection {
    /// `rtmp` or `http`.
    pub protocol: String,
    /// The stream, once it is known.
    pub stream: Option<String>,
    /// The origin that has it.
    pub origin: Option<String>,
    /// Bytes carried towards the origin.
    pub to_origin: u64,
    /// Bytes carried towards the client.
    pub to_client: u64,
    /// `copy` or `splice`, once the proxy reads nothing of it any more.
    pub joined: Option<String>,
}

/// A proxy that relays nothing in the kernel, between clients and nginx, which has registered.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The proxy under test.
    pub proxy: Proxy<'a>,
    /// The origin.
    pub nginx: Nginx,
    /// Where both connections begin and end.
    pub network: &'a Direct,
}

impl<'a> Stage<'a> {
    /// Starts proxy and origin and waits until the proxy has found the origin.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(network: &'a Direct, settings: &[(&str, &str)]) -> Result<Self> {
        let nginx = Nginx::start(&network.origin, Direct::ORIGIN)?;
        let proxy = Proxy::start(&network.proxy, Direct::PROXY, Engine::Userspace, settings)?;
        register(&network.proxy, Direct::ORIGIN, Nginx::RTMP_PORT, Nginx::HTTP_PORT)?;
        proxy.wait_for_origins(1)?;
        Ok(Self { proxy, nginx, network })
    }

    /// Where clients publish and play by RTMP.
    #[must_use]
    pub fn rtmp(&self, stream: &str) -> String {
        rtmp_url(Direct::PROXY, stream)
    }

    /// Where clients play by HTTP; `file` is the stream with its extension.
    #[must_use]
    pub fn http(&self, file: &str) -> String {
        format!("http://{}/live/{file}", SocketAddr::from((Direct::PROXY, HTTP_PORT)))
    }
}

/// A stream at a proxy.
#[must_use]
pub fn rtmp_url(proxy: Ipv4Addr, stream: &str) -> String {
    format!("rtmp://{}/live/{stream}", SocketAddr::from((proxy, RTMP_PORT)))
}

/// Registers an origin with the proxy in `namespace`, as SRS does for itself.
///
/// # Errors
/// When the proxy refuses it.
pub fn register(namespace: &Namespace, origin: Ipv4Addr, rtmp: u16, http: u16) -> Result<()> {
    register_as(namespace, "vid-live", origin, rtmp, http)
}

/// The same under the name of a server.
///
/// # Errors
/// When the proxy refuses it.
pub fn register_as(
    namespace: &Namespace,
    server: &str,
    origin: impl Into<IpAddr>,
    rtmp: u16,
    http: u16,
) -> Result<()> {
    let origin = origin.into();
    let heartbeat = json!({
        "ip": origin.to_string(), "server": server, "service": "first", "pid": "1", "device_id": "live",
        "rtmp": [rtmp.to_string()], "http": [http.to_string()],
    });
    let url = Url::parse(&Proxy::register_url(Ipv4Addr::LOCALHOST))?;
    let request = Request::new("POST", url).body("application/json", heartbeat.to_string());
    let response = namespace.enter(|| request.send())?;
    ensure!(response.status == 200, "registering was answered {}: {}", response.status, response.body);
    Ok(())
}

/// The TCP connections that the proxy carries.
///
/// # Errors
/// When it does not answer.
pub fn connections(proxy: &Proxy<'_>) -> Result<Vec<Connection>> {
    #[derive(Deserialize)]
    struct Listed {
        connections: Vec<Connection>,
    }
    let listed: Listed = serde_json::from_str(&proxy.get("/api/v1/proxy/connections")?)?;
    Ok(listed.connections)
}

/// The connections once they satisfy `wanted`.
///
/// # Errors
/// When they do not within `limit`.
pub fn wait_for_connections(
    proxy: &Proxy<'_>,
    limit: Duration,
    wanted: impl Fn(&[Connection]) -> bool,
) -> Result<Vec<Connection>> {
    let end = Instant::now() + limit;
    loop {
        let listed = connections(proxy)?;
        if wanted(&listed) {
            return Ok(listed);
        }
        ensure!(Instant::now() < end, "not within {limit:?}: {listed:#?}");
        sleep(STEP);
    }
}

/// How many descriptors a process has open, not counting pipes: threads of the proxy keep some for the next stream.
///
/// # Errors
/// When it has ended.
pub fn descriptors(process: u32) -> Result<usize> {
    let open = fs::read_dir(format!("/proc/{process}/fd"));
    let open = open.with_context(|| format!("process {process} has ended"))?.flatten();
    // One that is gone by the time it is looked at is not open.
    let targets = open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    Ok(targets.filter(|target| !target.to_string_lossy().starts_with("pipe:")).count())
}

/// Memory of a process that is not in files, in bytes.
///
/// # Errors
/// When it has ended.
pub fn memory(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    Ok(kilobytes.context("the kernel does not tell")? << 10)
}

/// Reads once, through signals: they interrupt a read that has a time-out, whatever they are for.
///
/// # Errors
/// Those of the read.
pub fn read_once(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Waits until `holds`.
///
/// # Errors
/// When it does not within `limit`.
pub fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    while !holds()? {
        ensure!(Instant::now() < end, "not within {limit:?}: {what}");
        sleep(STEP);
    }
    Ok(())
}
