//! The only reader of `PROXY_*` variables, flags, `.env` and the TOML file: settings as typed become a checked [`Config`].
//!
//! Names, defaults and explanations are in one table, `config/settings.rs`; `docs/configuration.md` is made from it.

use std::{env, fmt, fs, net::IpAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use ipnet::IpNet;
use proxy_protocol::{backend_id::BackendKey, routed_ufrag::FleetKey, stream_url::StreamRules};

pub use self::{
    args::Command,
    balancing::Balancing,
    error::{ConfigError, ConfigErrors},
    layers::{File, Layer, Layers, Values},
    parse::ValueError,
    redis::{Redis, RedisNode, RedisServers, RedisTls},
    values::{DatapathMode, Listen, LoadBalancer, LogFormat, OnStop, Secret, TcpJoin, WebrtcTcp},
};

mod args;
mod balancing;
mod check;
#[cfg(test)]
mod docs;
mod env_file;
mod error;
mod layers;
mod parse;
mod redis;
mod settings;
mod values;

/// Reads arguments, environment, `.env` and the TOML file they name; `--help` and `--version` end the process here.
pub fn read() -> Result<(Command, Config), ConfigErrors> {
    let (command, flags) = args::parse(env::args_os()).map_err(|error| ConfigErrors(vec![error]))?;
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let mut layers = Layers {
        flags,
        environment: env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect(),
        env_file: fs::read(".env")
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default(),
        file: None,
    };
    let mut errors = Vec::new();
    layers.file =
        layers.file_path().and_then(|path| read_file(path).map_err(|error| errors.push(error)).ok());
    match Config::from_layers(&layers) {
        Ok(config) if errors.is_empty() => return Ok((command, config)),
        Ok(_) => {}
        Err(ConfigErrors(others)) => errors.extend(others),
    }
    Err(ConfigErrors(errors))
}

fn read_file(path: PathBuf) -> Result<File, ConfigError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(File { path, text }),
        Err(error) => Err(ConfigError::File { path, reason: error.to_string() }),
    }
}

/// Everything the proxy was told, checked; plain data from here on.
#[derive(Clone, Debug)]
pub struct Config {
    /// `PROXY_RTMP_SERVER`, TCP.
    pub rtmp_server: Listen,
    /// `PROXY_HTTP_SERVER`, TCP: HTTP-FLV/TS, HLS, static files.
    pub http_server: Listen,
    /// `PROXY_HTTP_API`, TCP: WHIP, WHEP and the legacy RTC API.
    pub http_api: Listen,
    /// `PROXY_WEBRTC_SERVER`, UDP.
    pub webrtc_server: Listen,
    /// `PROXY_WEBRTC_TCP_SERVER`; see [`Self::webrtc_tcp`].
    pub webrtc_tcp_server: Option<Listen>,
    /// `PROXY_SRT_SERVER`, UDP.
    pub srt_server: Listen,
    /// `PROXY_SYSTEM_API`, TCP: registration of origins, metrics.
    pub system_api: Listen,
    /// `PROXY_STATIC_FILES`.
    pub static_files: PathBuf,
    /// `PROXY_LOAD_BALANCER_TYPE`.
    pub load_balancer: LoadBalancer,
    /// `PROXY_REDIS_*`; read and checked, used when the load balancer is `redis`.
    pub redis: Redis,
    /// `PROXY_DEFAULT_BACKEND_*`, when enabled.
    pub default_backend: Option<DefaultBackend>,
    /// `PROXY_FORCE_QUIT_TIMEOUT`: the process exits this long after the first signal, whatever is left.
    pub force_quit_timeout: Duration,
    /// `PROXY_GRACE_QUIT_TIMEOUT`: how long a graceful stop may take.
    pub grace_quit_timeout: Duration,
    /// `GO_PPROF` is accepted for compatibility and ignored.
    pub go_pprof: Option<String>,
    /// Bearer token the registration API demands (`PROXY_HTTP_API_AUTH_*`).
    pub registration_token: Option<Secret>,
    /// `PROXY_API_TOKEN`: any of them opens the HTTP API of the origins; without one it is off.
    pub api_tokens: Vec<Secret>,
    /// `PROXY_ORIGIN_API_AUTH`: `user:password` for origins that protect their HTTP API.
    pub origin_api_auth: Option<Secret>,
    /// How origins are watched.
    pub origins: Origins,
    /// How new streams get their origins.
    pub balancing: Balancing,
    /// How stream keys are formed.
    pub streams: Streams,
    /// `PROXY_FLEET_KEY`: what the proxies of a fleet share; see [`Self::fleet_key`].
    pub fleet_key: Option<Secret>,
    /// `PROXY_HLS_KEY`: what names origins in playlists; see [`Self::backend_key`].
    pub hls_key: Option<Secret>,
    /// `PROXY_TRUSTED_PROXIES`: peers whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Signalling limits.
    pub signalling: Signalling,
    /// WebRTC media.
    pub webrtc: Webrtc,
    /// SRT.
    pub srt: Srt,
    /// Source ports towards origins.
    pub sources: Sources,
    /// How packets are forwarded.
    pub datapath: Datapath,
    /// What one process leaves to the next.
    pub lifecycle: Lifecycle,
    /// `PROXY_LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `PROXY_LOG_LEVEL`: a `tracing` filter, default `info`.
    pub log_level: String,
    /// The settings that are not left to their defaults.
    pub given: Vec<Given>,
    /// What should be logged once logging works.
    pub warnings: Vec<String>,
}

/// A setting somebody made, fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The variable's name.
    pub variable: &'static str,
    /// The value, `***` for a secret.
    pub value: String,
    /// Where it was said.
    pub layer: Layer,
}

impl Config {
    /// What names origins in playlists: equal on every proxy that was told the same, and after a restart.
    pub fn backend_key(&self) -> BackendKey {
        /// Not secret: playlists of proxies that were told nothing work on each of them all the same.
        const KNOWN_TO_ALL: &str = "srs-xproxy";
        if let (None, Some(fleet)) = (&self.hls_key, self.fleet_key()) {
            return BackendKey::new(&fleet.derive("backend ids"));
        }
        let secret = self.hls_key.as_ref().or(self.registration_token.as_ref());
        BackendKey::new(secret.map_or(KNOWN_TO_ALL, Secret::expose).as_bytes())
    }

    /// What makes the ICE credentials of sessions that any proxy of the fleet can go on with.
    pub fn fleet_key(&self) -> Option<FleetKey> {
        self.fleet_key.as_ref().map(|secret| FleetKey::new(secret.expose().as_bytes()))
    }

    /// Whether somebody named a directory of static files.
    pub fn has_static_files(&self) -> bool {
        self.given.iter().any(|given| given.variable == settings::STATIC_FILES.variable)
    }

    /// Where WebRTC media over TCP is taken: on the port of the API if that is the same, for it takes such media anyway.
    pub fn webrtc_tcp(&self) -> WebrtcTcp {
        match self.webrtc_tcp_server {
            None => WebrtcTcp::Off,
            Some(listen) if listen.clashes_with(&self.http_api) => WebrtcTcp::HttpApi,
            Some(listen) => WebrtcTcp::Own(listen),
        }
    }

    /// Checks everything and reports everything that is wrong at once; reads nothing but `layers`.
    pub fn from_layers(layers: &Layers) -> Result<Self, ConfigErrors> {
        check::config(layers)
    }

    /// The configuration of an environment that holds these variables alone.
    pub fn from_variables<'a>(
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ConfigErrors> {
        let environment =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self::from_layers(&Layers { environment, ..Layers::default() })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::from_variables([]).expect("defaults are valid: a test reads them all")
    }
}

impl fmt::Display for Config {
    /// One line on where we listen, then one for each setting that somebody made.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rtmp {}, http {}, api {}", self.rtmp_server, self.http_server, self.http_api)?;
        write!(
            f,
            ", webrtc {}, srt {}, system api {}",
            self.webrtc_server, self.srt_server, self.system_api
        )?;
        self.given.iter().try_for_each(|given| write!(f, "\n{given}"))
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} ({})", self.variable, self.value, self.layer)
    }
}

/// `PROXY_DEFAULT_BACKEND_*`: a static origin; endpoints are in the forms a registration may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultBackend {
    /// `PROXY_DEFAULT_BACKEND_IP`.
    pub ip: String,
    /// `PROXY_DEFAULT_BACKEND_RTMP`.
    pub rtmp: String,
    /// `PROXY_DEFAULT_BACKEND_HTTP`.
    pub http: Option<String>,
    /// `PROXY_DEFAULT_BACKEND_API`.
    pub api: Option<String>,
    /// `PROXY_DEFAULT_BACKEND_RTC`.
    pub rtc: Option<String>,
    /// `PROXY_DEFAULT_BACKEND_SRT`.
    pub srt: Option<String>,
}

/// How origins are watched.
#[derive(Clone, Copy, Debug)]
pub struct Origins {
    /// `PROXY_ORIGIN_SERVER_TTL`: life of a registration without a heartbeat, default 300 s.
    pub ttl: Duration,
    /// `PROXY_ORIGIN_PROBE_INTERVAL`: time between active probes, default 2 s; zero turns probing off.
    pub probe_interval: Duration,
    /// `PROXY_ORIGIN_PROBE_TIMEOUT`: deadline of one probe, default 1 s.
    pub probe_timeout: Duration,
    /// `PROXY_ORIGIN_PROBE_FAILURES`: failures in a row that make an origin down, default 2.
    pub probe_failures: u32,
    /// `PROXY_PICK_TTL`: how long an idle stream keeps its origin, default 120 s.
    pub pick_ttl: Duration,
}

/// How stream keys are formed.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// `PROXY_VHOSTS`: real vhosts; every other host folds to `__defaultVhost__`.
    pub vhosts: Vec<String>,
    /// `PROXY_KEY_COMPAT=go`: form keys as the Go proxy does, for a mixed fleet.
    pub go_compatible: bool,
    /// `PROXY_RTMP_REAL_IP`: tell origins who an RTMP client is.
    pub rtmp_real_ip: bool,
}

impl Streams {
    /// The rules that name streams.
    pub fn rules(&self) -> StreamRules {
        StreamRules { vhosts: self.vhosts.clone(), go_compatible: self.go_compatible }
    }
}

/// Signalling limits.
#[derive(Clone, Copy, Debug)]
pub struct Signalling {
    /// `PROXY_API_BODY_LIMIT`: largest request or answer body in bytes, default 64 KiB.
    pub body_limit: usize,
    /// `PROXY_API_ORIGIN_TIMEOUT`: deadline of one exchange with an origin, default 5 s.
    pub origin_timeout: Duration,
    /// `PROXY_API_CLIENT_TIMEOUT`: deadline for a client to send its request, default 10 s.
    pub client_timeout: Duration,
    /// `PROXY_NEW_SESSIONS_PER_SOURCE`: sessions that a /24 or /56 may begin in a second, default 100.
    pub new_sessions_per_source: u32,
    /// `PROXY_NEW_SESSIONS_IN_ALL`: the same of all clients together, default 1000.
    pub new_sessions_in_all: u32,
}

/// WebRTC media.
#[derive(Clone, Debug)]
pub struct Webrtc {
    /// `PROXY_WEBRTC_CANDIDATE`: addresses or names put into answers, instead of what the request's Host tells.
    pub candidates: Vec<String>,
    /// `PROXY_WEBRTC_CANDIDATE_HOSTS`: names a Host header may hold and be resolved, beside our own addresses.
    pub candidate_hosts: Vec<String>,
    /// `PROXY_WEBRTC_IDLE_TIMEOUT`: a session without a packet for this long ends, default 30 s.
    pub idle_timeout: Duration,
    /// `PROXY_WEBRTC_CONNECT_TIMEOUT`: a session without its first STUN request for this long ends, default 30 s.
    pub connect_timeout: Duration,
    /// `PROXY_MAX_SESSIONS`, default 100000.
    pub max_sessions: usize,
}

/// SRT.
#[derive(Clone, Copy, Debug)]
pub struct Srt {
    /// `PROXY_SRT_IDLE_TIMEOUT`: a session without a packet of its client for this long ends, default 15 s.
    pub idle_timeout: Duration,
}

/// Source ports towards origins.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `PROXY_SOURCE_PORTS`, default `61000-65535`.
    pub ports: RangeInclusive<u16>,
    /// `PROXY_TCP_SOURCE_PORTS`, default `20000-29999`.
    pub tcp_ports: RangeInclusive<u16>,
    /// `PROXY_SOURCE_ADDRESSES`: addresses to send from; empty means the one the route to the origin prefers.
    pub addresses: Vec<IpAddr>,
    /// `PROXY_SOURCE_PORT_REST`: how long a freed port rests, default 45 s.
    pub rest: Duration,
}

/// How packets are forwarded.
#[derive(Clone, Debug)]
pub struct Datapath {
    /// `PROXY_DATAPATH`.
    pub mode: DatapathMode,
    /// `PROXY_REQUIRE_KERNEL`: refuse to start without a kernel engine.
    pub require_kernel: bool,
    /// `PROXY_INTERFACES`: attach to these alone; empty means the ones clients and origins are found on.
    pub interfaces: Vec<String>,
    /// `PROXY_MAX_FLOWS`: IPv4 flows the kernel tables are for, default 65536.
    pub max_flows: u32,
    /// `PROXY_MAX_FLOWS_V6`: IPv6 flows the kernel tables are for, default 16384.
    pub max_flows_v6: u32,
    /// `PROXY_MISSES_PER_SOURCE`: packets without a flow a second from a network that no session is awaited from, default 64.
    pub misses_per_source: u32,
    /// `PROXY_MISSES_IN_ALL`: the same from all such networks, on one CPU, default 2048.
    pub misses_in_all: u32,
    /// `PROXY_TCP_JOIN`.
    pub tcp_join: TcpJoin,
    /// `PROXY_RELAY_WORKERS`: userspace relay threads, default the number of CPUs, at most 8.
    pub relay_workers: usize,
}

/// What one process leaves to the next.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    /// `PROXY_ON_STOP`.
    pub on_stop: OnStop,
    /// `PROXY_ORPHAN_TIMEOUT`: how long the kernel forwards without a process, default 10 min.
    pub orphan_timeout: Duration,
    /// `PROXY_RUNTIME_DIR`: `None` means the one of the network namespace.
    pub runtime_dir: Option<PathBuf>,
    /// `PROXY_TAKE_OVER`: take over from the process that runs.
    pub take_over: bool,
}
