//! The proxy under test: the real binary, in a namespace, seen through its own API.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;

use crate::{
    http::{Request, Url},
    netns::{Namespace, PREFIX, Process},
};

/// Where the binary is, if it is not beside the program, or where the tests are built.
pub const BINARY: &str = "XPROXY_BIN";
const START: Duration = Duration::from_secs(20);
const NOBODY: u32 = 65_534;
const STEP: Duration = Duration::from_millis(20);

/// How packets are to be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Whatever suits each interface.
    Auto,
    /// Native XDP.
    Xdp,
    /// TC.
    Tc,
    /// No kernel program.
    Userspace,
    /// No kernel program, and no right to load one: runs as `nobody`.
    Unprivileged,
}

impl Engine {
    /// Every engine that can be asked for by name.
    pub const ALL: [Self; 3] = [Self::Xdp, Self::Tc, Self::Userspace];

    /// The value of `PROXY_DATAPATH`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Userspace | Self::Unprivileged => "userspace",
        }
    }

    /// Whether the kernel forwards.
    #[must_use]
    pub fn is_kernel(self) -> bool {
        !matches!(self, Self::Userspace | Self::Unprivileged)
    }
}

/// A running proxy on its default ports.
#[derive(Debug)]
pub struct Proxy<'a> {
    namespace: &'a Namespace,
    process: Process,
    ip: IpAddr,
    runtime: Arc<Runtime>,
}

/// A runtime directory for proxies that follow each other; it goes with the last of them.
#[derive(Debug)]
pub struct Runtime(PathBuf);

impl Runtime {
    /// A directory that is not there yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-run", std::process::id());
        Arc::new(Self(std::env::temp_dir().join(name)))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Has the proxy that `command` starts use it.
    pub fn apply(&self, command: &mut Command) {
        command.env("PROXY_RUNTIME_DIR", &self.0);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // A proxy that did not start has not made it.
        let _absent = std::fs::remove_dir_all(&self.0);
    }
}

/// `/api/v1/proxy/status`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Totals since the start.
    pub totals: Totals,
    /// What forwards where.
    pub interfaces: Vec<Interface>,
    /// Every session.
    pub sessions: Vec<Session>,
}

/// Totals since the start.
#[derive(Clone, Debug, Deserialize)]
pub struct Totals {
    /// Sessions now.
    pub sessions: usize,
    /// Sessions whose client got an answer, or that were taken over from another proxy.
    pub admitted: u64,
    /// Sessions taken over from an earlier process.
    pub adopted: u64,
    /// Sessions taken over from another proxy, by how they were found.
    pub resumed: std::collections::BTreeMap<String, u64>,
    /// Of these, forwarded in the kernel.
    pub offloaded: usize,
    /// Flows in the kernel whose session is not known.
    pub orphans: usize,
    /// Packets by datapath and direction.
    pub packets: Vec<PathTotals>,
    /// Frames and datagrams by datapath and what became of them.
    pub reasons: Vec<ReasonTotals>,
    /// Flows not installed or removed, by reason.
    pub relayed: std::collections::BTreeMap<String, u64>,
    /// Sessions that were refused, by reason.
    pub refused: std::collections::BTreeMap<String, u64>,
    /// SRT calls, by what became of them.
    pub srt_calls: std::collections::BTreeMap<String, u64>,
    /// Sessions that ended, by reason.
    pub ended: std::collections::BTreeMap<String, u64>,
    /// Return paths moved.
    pub migrations: u64,
    /// Next hops that TC sends to because what XDP redirects does not arrive there.
    pub undelivered_next_hops: usize,
    /// Source ports leased.
    pub ports_leased: usize,
    /// Source ports resting.
    pub ports_resting: usize,
    /// Programs that somebody else detached.
    pub detachments: u64,
}

/// What one datapath did in one direction.
#[derive(Clone, Debug, Deserialize)]
pub struct PathTotals {
    /// `kernel` or `userspace`.
    pub datapath: String,
    /// `to_origin` or `to_client`.
    pub direction: String,
    /// Packets.
    pub packets: u64,
}

/// What became of packets in one datapath.
#[derive(Clone, Debug, Deserialize)]
pub struct ReasonTotals {
    /// `xdp`, `tc` or `userspace`.
    pub datapath: String,
    /// The reason.
    pub reason: String,
    /// How many.
    pub packets: u64,
}

/// An interface with programs on it.
#[derive(Clone, Debug, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `xdp` or `tc`.
    pub engine: String,
    /// `native`, `tcx` or `clsact`.
    pub mode: String,
    /// Why not the faster engine.
    pub note: Option<String>,
}

/// An origin as `/api/v1/origins` lists it.
#[derive(Clone, Debug, Deserialize)]
pub struct ListedOrigin {
    /// Its address.
    pub ip: IpAddr,
    /// `probing`, `up`, `draining` or `down`.
    pub state: String,
    /// Streams picked to it.
    pub streams: usize,
    /// Its sessions, of all proxies.
    pub sessions: u64,
}

/// A session.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// Its stream; `-` if the proxy was not told.
    #[serde(deserialize_with = "name_or_dash")]
    pub stream: String,
    /// `webrtc` or `srt`.
    pub protocol: String,
    /// `publisher` or `player`; `-` if the proxy was not told.
    #[serde(deserialize_with = "name_or_dash")]
    pub role: String,
    /// Its origin.
    pub origin: String,
    /// The origin's media endpoint.
    pub media: String,
    /// Where the origin sees it.
    pub source: String,
    /// `waiting`, `tcp`, `userspace` or `kernel`.
    pub state: String,
    /// Why it is not forwarded in the kernel.
    pub reason: Option<String>,
    /// Where the client is.
    pub client: Option<String>,
    /// Where its TCP connections come from.
    pub tcp: Vec<String>,
    /// Seconds since it was offered.
    pub age: f64,
    /// Packets relayed by userspace.
    pub userspace: Directions,
    /// Packets forwarded by the kernel.
    pub kernel: Option<Directions>,
}

/// Packets by direction.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Directions {
    /// Client to origin.
    pub to_origin: u64,
    /// Origin to client.
    pub to_client: u64,
}

impl Directions {
    /// Both directions.
    #[must_use]
    pub fn total(self) -> u64 {
        self.to_origin + self.to_client
    }
}

impl Status {
    /// Sessions of a protocol that the kernel forwards.
    #[must_use]
    pub fn offloaded(&self, protocol: &str) -> usize {
        let is_offloaded = |session: &&Session| session.protocol == protocol && session.state == "kernel";
        self.sessions.iter().filter(is_offloaded).count()
    }

    /// Packets of one datapath in both directions.
    #[must_use]
    pub fn packets(&self, datapath: &str) -> u64 {
        self.totals.packets.iter().filter(|path| path.datapath == datapath).map(|path| path.packets).sum()
    }

    /// Packets of one datapath in one direction.
    #[must_use]
    pub fn packets_of(&self, datapath: &str, direction: &str) -> u64 {
        let is_meant = |path: &&PathTotals| (path.datapath == datapath) && (path.direction == direction);
        self.totals.packets.iter().filter(is_meant).map(|path| path.packets).sum()
    }

    /// Frames or datagrams with one reason, in all datapaths.
    #[must_use]
    pub fn reason(&self, reason: &str) -> u64 {
        self.totals.reasons.iter().filter(|row| row.reason == reason).map(|row| row.packets).sum()
    }

    /// Flows that were not installed or were removed for one reason.
    ///
    /// # Panics
    /// When the proxy has no such reason: it shows those that never happened too.
    #[must_use]
    pub fn relayed(&self, reason: &str) -> u64 {
        *self.totals.relayed.get(reason).unwrap_or_else(|| panic!("no reason {reason}: {self:#?}"))
    }
}

impl<'a> Proxy<'a> {
    /// Starts the binary in `namespace`, reachable at `ip`, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started or does not become ready.
    pub fn start(
        namespace: &'a Namespace,
        ip: impl Into<IpAddr>,
        engine: Engine,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = Self::command(engine)?;
        command.envs(settings.iter().copied());
        Self::spawn(namespace, ip, command)
    }

    /// The command that [`Proxy::start`] runs, for tests that change it.
    ///
    /// # Errors
    /// When the binary is not found.
    pub fn command(engine: Engine) -> Result<Command> {
        let mut command = match engine {
            Engine::Auto | Engine::Xdp | Engine::Tc | Engine::Userspace => Command::new(binary()?),
            Engine::Unprivileged => as_nobody(&binary()?)?,
        };
        command.env("PROXY_DATAPATH", engine.as_str());
        command.env("PROXY_REQUIRE_KERNEL", if engine.is_kernel() { "on" } else { "off" });
        command.stdout(Stdio::null()).current_dir("/");
        Ok(command)
    }

    /// Starts `command` and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started or does not become ready.
    pub fn spawn(namespace: &'a Namespace, ip: impl Into<IpAddr>, command: Command) -> Result<Self> {
        Self::spawn_in(namespace, ip, command, Runtime::new())
    }

    /// As [`Proxy::spawn`], after other proxies that used `runtime`.
    ///
    /// # Errors
    /// When it cannot be started or does not become ready.
    pub fn spawn_in(
        namespace: &'a Namespace,
        ip: impl Into<IpAddr>,
        mut command: Command,
        runtime: Arc<Runtime>,
    ) -> Result<Self> {
        runtime.apply(&mut command);
        let process = namespace.spawn(command)?;
        let mut proxy = Self { namespace, process, ip: ip.into(), runtime };
        let end = Instant::now() + START;
        while proxy.get("/readyz").is_err() {
            ensure!(Instant::now() < end, "the proxy is not ready after {START:?}");
            if let Some(status) = proxy.process.child().try_wait()? {
                bail!("the proxy ended with {status}");
            }
            std::thread::sleep(STEP);
        }
        Ok(proxy)
    }

    /// Where clients signal.
    #[must_use]
    pub fn api(&self) -> String {
        api_at(self.ip)
    }

    /// Where origins whose route to the proxy leads to `ip` register.
    #[must_use]
    pub fn register_url(ip: impl Into<IpAddr>) -> String {
        format!("http://{}/api/v1/srs/register", SocketAddr::new(ip.into(), 12025))
    }

    /// WHIP of a stream.
    #[must_use]
    pub fn whip(&self, stream: &str) -> String {
        Self::whip_at(self.ip, stream)
    }

    /// The same at another address of a proxy.
    #[must_use]
    pub fn whip_at(ip: impl Into<IpAddr>, stream: &str) -> String {
        format!("{}/rtc/v1/whip/?app=live&stream={stream}", api_at(ip.into()))
    }

    /// WHEP of a stream.
    #[must_use]
    pub fn whep(&self, stream: &str) -> String {
        Self::whep_at(self.ip, stream)
    }

    /// The same at another address of a proxy.
    #[must_use]
    pub fn whep_at(ip: impl Into<IpAddr>, stream: &str) -> String {
        format!("{}/rtc/v1/whep/?app=live&stream={stream}", api_at(ip.into()))
    }

    /// Has an origin get no new streams (`POST`), or gives it some again (`DELETE`).
    ///
    /// # Errors
    /// When the proxy does not know the origin.
    pub fn drain(&self, method: &'static str, origin: impl Into<IpAddr>) -> Result<()> {
        let url = format!("http://127.0.0.1:12025/api/v1/origins/drain?origin={}", origin.into());
        let url = Url::parse(&url)?;
        let response = self.namespace.enter(|| Request::new(method, url).send())?;
        ensure!(response.status == 200, "{method} of a drain answered {}", response.status);
        Ok(())
    }

    /// Allows the kernel path, or returns every session to userspace.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub fn switch_offload(&self, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let url = Url::parse(&format!("http://127.0.0.1:12025/api/v1/proxy/offload/{state}"))?;
        let response = self.namespace.enter(|| Request::new("POST", url).send())?;
        ensure!(response.status == 200, "switching the kernel path {state} was answered {}", response.status);
        Ok(())
    }

    /// The directory in which it leaves what the next proxy needs.
    #[must_use]
    pub fn runtime(&self) -> Arc<Runtime> {
        Arc::clone(&self.runtime)
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(START).map(drop)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it as Ctrl-C does.
    ///
    /// # Errors
    /// When it does not end with success.
    pub fn interrupt(self) -> Result<()> {
        self.process.signal(Signal::INT)?;
        self.wait_for_end()
    }

    /// Waits until it ends by itself, with success.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_for_end(mut self) -> Result<()> {
        let status = self.process.wait(START)?;
        ensure!(status.success(), "the proxy ended with {status}");
        Ok(())
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        let body = self.get("/api/v1/proxy/status")?;
        serde_json::from_str(&body).context("the status is not what the harness knows")
    }

    /// The status once it satisfies `wanted`.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait(&self, limit: Duration, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let end = Instant::now() + limit;
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(status);
            }
            ensure!(Instant::now() < end, "not within {limit:?}: {status:#?}");
            std::thread::sleep(STEP);
        }
    }

    /// Waits until `count` origins are up.
    ///
    /// # Errors
    /// When they are not within ten seconds.
    pub fn wait_for_origins(&self, count: usize) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let origins = self.origins()?;
            let up = origins.iter().filter(|origin| origin.state == "up").count();
            if up == count {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{up} of {count} origins are up: {origins:#?}");
            std::thread::sleep(STEP);
        }
    }

    /// The origins that it knows.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn origins(&self) -> Result<Vec<ListedOrigin>> {
        #[derive(Deserialize)]
        struct Listed {
            origins: Vec<ListedOrigin>,
        }
        let listed: Listed = serde_json::from_str(&self.get("/api/v1/origins")?)?;
        Ok(listed.origins)
    }

    /// The value of a metric, with its labels as they stand in `/metrics`.
    ///
    /// # Errors
    /// When the proxy does not answer or has no such metric.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let text = self.get("/metrics")?;
        let row = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(row.with_context(|| format!("no metric {name} in {text}"))?.parse()?)
    }

    /// Fetches from the system API.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub fn get(&self, path: &str) -> Result<String> {
        let url = Url::parse(&format!("http://127.0.0.1:12025{path}"))?;
        let response = self.namespace.enter(|| Request::new("GET", url).send())?;
        ensure!(response.status == 200, "{path} answered {}", response.status);
        Ok(response.body)
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// When it does not end with success.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.stop()?;
        ensure!(status.success(), "the proxy ended with {status}");
        Ok(())
    }
}

fn api_at(ip: IpAddr) -> String {
    format!("http://{}", SocketAddr::new(ip, 11985))
}

fn name_or_dash<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_else(|| "-".to_owned()))
}

/// Executes `binary` as `nobody`, by descriptor: the directories above it may be closed to others.
fn as_nobody(binary: &Path) -> Result<Command> {
    static BINARY: OnceLock<File> = OnceLock::new();
    let opened = File::open(binary).with_context(|| format!("failed to open {}", binary.display()))?;
    let binary = BINARY.get_or_init(|| opened);
    rustix::io::fcntl_setfd(binary, rustix::io::FdFlags::empty())?;
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command.uid(NOBODY).gid(NOBODY);
    Ok(command)
}

fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        return Ok(path.into());
    }
    let program = std::env::current_exe().context("the program has no path")?;
    // Tests lie one directory deeper than programs.
    let mut places = program.ancestors().skip(1).take(2).map(|place| place.join("srs-xproxy"));
    let found = places.find(|binary| binary.exists());
    found.with_context(|| format!("no srs-xproxy is built: run `cargo xtask test`, or set {BINARY}"))
}
