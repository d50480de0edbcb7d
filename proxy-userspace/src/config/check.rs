//! Raw layers become a [`Config`]: every value is parsed, then values are compared with each other.

use std::{ops::RangeInclusive, thread::available_parallelism};

use super::{
    Balancing, Config, ConfigError, ConfigErrors, Datapath, DefaultBackend, Given, Layers, Lifecycle, Listen,
    LoadBalancer, Origins, Secret, Signalling, Sources, Srt, Streams, ValueError, Webrtc, WebrtcTcp,
    layers::Stack,
    parse,
    settings::{self as s, SETTINGS, Setting},
};

mod redis;

type Parsed<T> = Result<T, ValueError>;

/// Reads every setting once, or tells everything that is wrong.
pub(super) fn config(layers: &Layers) -> Result<Config, ConfigErrors> {
    let mut errors = Vec::new();
    let stack = Stack::new(layers, &mut errors);
    let mut reader = Reader { stack, errors, srs_ports: false };
    reader.srs_ports = reader.required(s::SRS_PORTS, parse::switch);
    let mut config = reader.config();
    if reader.stack.lookup(&s::WEBRTC_TCP_SERVER).is_none() {
        take_media_over_tcp(&mut config);
    }
    if config.load_balancer == LoadBalancer::Redis {
        config.balancing.policy = config.balancing.policy.of_fleet();
    }
    reader.compare(&config);
    if reader.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(reader.errors)) }
}

/// One number for both transports suits firewalls, but what is free for UDP need not be for TCP.
fn take_media_over_tcp(config: &mut Config) {
    let listen = config.webrtc_server;
    let others = [config.rtmp_server, config.http_server, config.system_api];
    let is_taken = others.iter().any(|other| listen.clashes_with(other));
    if is_taken || config.sources.tcp_ports.contains(&listen.port) {
        let (setting, port) = (s::WEBRTC_TCP_SERVER.variable, listen.port);
        config
            .warnings
            .push(format!("no WebRTC media over TCP: port {port} is used otherwise; see {setting}"));
    } else {
        config.webrtc_tcp_server = Some(listen);
    }
}

/// Takes values off the layers and keeps what is wrong with them; in the place of a wrong value stands the default, so
/// that reading goes on.
struct Reader<'a> {
    stack: Stack<'a>,
    errors: Vec<ConfigError>,
    srs_ports: bool,
}

impl Reader<'_> {
    /// The value of a setting, or its default.
    fn required<T>(&mut self, setting: Setting, parse: impl Fn(&str) -> Parsed<T>) -> T {
        let given = self.optional_given(setting, &parse);
        given.unwrap_or_else(|| {
            parse(self.default(&setting)).expect("defaults are valid: a test reads them all")
        })
    }

    /// The value of a setting, or its default, if there is either.
    fn optional<T>(&mut self, setting: Setting, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        match setting.default {
            "" => self.optional_given(setting, parse),
            _ => Some(self.required(setting, parse)),
        }
    }

    fn list<T>(&mut self, setting: Setting, item: impl Fn(&str) -> Parsed<T>) -> Vec<T> {
        self.optional(setting, |value| parse::list(value, &item)).unwrap_or_default()
    }

    fn optional_given<T>(&mut self, setting: Setting, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let (value, layer) = self.stack.lookup(&setting)?;
        let refused = |reason| {
            let value = setting.shown(value);
            self.errors.push(ConfigError::Value { setting: setting.variable, value, layer, reason });
        };
        parse(value).map_err(refused).ok()
    }

    fn default(&self, setting: &Setting) -> &'static str {
        let preset =
            s::SRS_DEFAULTS.iter().find(|(variable, _)| self.srs_ports && *variable == setting.variable);
        preset.map_or(setting.default, |(_, port)| port)
    }

    fn config(&mut self) -> Config {
        Config {
            rtmp_server: self.required(s::RTMP_SERVER, parse::listen),
            http_server: self.required(s::HTTP_SERVER, parse::listen),
            http_api: self.required(s::HTTP_API, parse::listen),
            webrtc_server: self.required(s::WEBRTC_SERVER, parse::listen),
            webrtc_tcp_server: self.optional_given(s::WEBRTC_TCP_SERVER, parse::listen_or_off).flatten(),
            srt_server: self.required(s::SRT_SERVER, parse::listen),
            system_api: self.required(s::SYSTEM_API, parse::listen),
            static_files: self.required(s::STATIC_FILES, parse::text).into(),
            trusted_proxies: self.list(s::TRUSTED_PROXIES, parse::net),
            load_balancer: self.load_balancer(),
            origins: self.origins(),
            balancing: self.balancing(),
            default_backend: self.default_backend(),
            redis: self.redis(),
            registration_token: self.registration_token(),
            api_tokens: self.optional(s::API_TOKEN, parse::tokens).unwrap_or_default(),
            origin_api_auth: self.optional(s::ORIGIN_API_AUTH, parse::credentials),
            streams: self.streams(),
            fleet_key: self.optional(s::FLEET_KEY, parse::fleet_key),
            hls_key: self.optional(s::HLS_KEY, parse::text).map(Secret::new),
            signalling: self.signalling(),
            webrtc: self.webrtc(),
            srt: self.srt(),
            sources: self.sources(),
            datapath: self.datapath(),
            lifecycle: self.lifecycle(),
            grace_quit_timeout: self.required(s::GRACE_QUIT_TIMEOUT, parse::duration),
            force_quit_timeout: self.required(s::FORCE_QUIT_TIMEOUT, parse::duration),
            log_format: self.required(s::LOG_FORMAT, parse::log_format),
            log_level: self.required(s::LOG_LEVEL, parse::log_filter),
            go_pprof: self.optional(s::GO_PPROF, parse::text),
            given: self.given(),
            warnings: self.warnings(),
        }
    }

    fn load_balancer(&mut self) -> LoadBalancer {
        self.required(s::LOAD_BALANCER_TYPE, parse::load_balancer)
    }

    fn origins(&mut self) -> Origins {
        Origins {
            ttl: self.required(s::ORIGIN_SERVER_TTL, parse::positive),
            probe_interval: self.required(s::ORIGIN_PROBE_INTERVAL, parse::duration),
            probe_timeout: self.required(s::ORIGIN_PROBE_TIMEOUT, parse::positive),
            probe_failures: self.required(s::ORIGIN_PROBE_FAILURES, parse::number(1..=1000)),
            pick_ttl: self.required(s::PICK_TTL, parse::positive),
        }
    }

    fn balancing(&mut self) -> Balancing {
        Balancing {
            policy: self.required(s::BALANCING, parse::policy),
            weights: self.list(s::ORIGIN_WEIGHTS, parse::share),
            capacities: self.list(s::ORIGIN_CAPACITIES, parse::share),
        }
    }

    /// Endpoints are looked at only when they are used, as in the Go proxy.
    fn default_backend(&mut self) -> Option<DefaultBackend> {
        let enabled = self.required(s::DEFAULT_BACKEND_ENABLED, parse::switch);
        enabled.then(|| DefaultBackend {
            ip: self.required(s::DEFAULT_BACKEND_IP, parse::host),
            rtmp: self.required(s::DEFAULT_BACKEND_RTMP, parse::endpoint),
            http: self.optional(s::DEFAULT_BACKEND_HTTP, parse::endpoint),
            api: self.optional(s::DEFAULT_BACKEND_API, parse::endpoint),
            rtc: self.optional(s::DEFAULT_BACKEND_RTC, parse::endpoint),
            srt: self.optional(s::DEFAULT_BACKEND_SRT, parse::endpoint),
        })
    }

    fn registration_token(&mut self) -> Option<Secret> {
        if !self.required(s::HTTP_API_AUTH_ENABLED, parse::switch) {
            return None;
        }
        match self.needed_for_auth(s::HTTP_API_AUTH_TYPE) {
            Some(kind) if kind != "bearer" => {
                self.errors
                    .push(ConfigError::AuthType { setting: s::HTTP_API_AUTH_TYPE.variable, value: kind });
            }
            Some(_) | None => {}
        }
        self.needed_for_auth(s::HTTP_API_AUTH_TOKEN).map(Secret::new)
    }

    fn needed_for_auth(&mut self, setting: Setting) -> Option<String> {
        let value = self.optional(setting, parse::text);
        if value.is_none() {
            let because = "PROXY_HTTP_API_AUTH_ENABLED is on";
            self.errors.push(ConfigError::Missing { setting: setting.variable, because });
        }
        value
    }

    fn streams(&mut self) -> Streams {
        Streams {
            vhosts: self.list(s::VHOSTS, parse::host),
            go_compatible: self.optional(s::KEY_COMPAT, parse::key_compat).unwrap_or(false),
            rtmp_real_ip: self.required(s::RTMP_REAL_IP, parse::switch),
        }
    }

    fn signalling(&mut self) -> Signalling {
        Signalling {
            body_limit: self.required(s::API_BODY_LIMIT, parse::number(1024..=64 << 20)),
            origin_timeout: self.required(s::API_ORIGIN_TIMEOUT, parse::positive),
            client_timeout: self.required(s::API_CLIENT_TIMEOUT, parse::positive),
            new_sessions_per_source: self.required(s::NEW_SESSIONS_PER_SOURCE, parse::number(1..=1_000_000)),
            new_sessions_in_all: self.required(s::NEW_SESSIONS_IN_ALL, parse::number(1..=1_000_000)),
        }
    }

    fn webrtc(&mut self) -> Webrtc {
        Webrtc {
            candidates: self.list(s::WEBRTC_CANDIDATE, parse::host),
            candidate_hosts: self.list(s::WEBRTC_CANDIDATE_HOSTS, parse::host),
            idle_timeout: self.required(s::WEBRTC_IDLE_TIMEOUT, parse::positive),
            connect_timeout: self.required(s::WEBRTC_CONNECT_TIMEOUT, parse::positive),
            max_sessions: self.required(s::MAX_SESSIONS, parse::number(1..=10_000_000)),
        }
    }

    fn srt(&mut self) -> Srt {
        Srt { idle_timeout: self.required(s::SRT_IDLE_TIMEOUT, parse::positive) }
    }

    fn sources(&mut self) -> Sources {
        Sources {
            ports: self.required(s::SOURCE_PORTS, parse::source_ports),
            tcp_ports: self.required(s::TCP_SOURCE_PORTS, parse::source_ports),
            addresses: self.list(s::SOURCE_ADDRESSES, parse::ip),
            rest: self.required(s::SOURCE_PORT_REST, parse::duration),
        }
    }

    fn datapath(&mut self) -> Datapath {
        let cpus = || available_parallelism().map_or(1, |cpus| cpus.get().min(8));
        Datapath {
            mode: self.required(s::DATAPATH, parse::datapath_mode),
            require_kernel: self.required(s::REQUIRE_KERNEL, parse::switch),
            interfaces: self.list(s::INTERFACES, parse::interface),
            max_flows: self.required(s::MAX_FLOWS, parse::number(1..=16 << 20)),
            max_flows_v6: self.required(s::MAX_FLOWS_V6, parse::number(1..=16 << 20)),
            misses_per_source: self.required(s::MISSES_PER_SOURCE, parse::number(1..=1_000_000)),
            misses_in_all: self.required(s::MISSES_IN_ALL, parse::number(1..=1_000_000)),
            tcp_join: self.required(s::TCP_JOIN, parse::tcp_join),
            relay_workers: self.optional(s::RELAY_WORKERS, parse::number(1..=256)).unwrap_or_else(cpus),
        }
    }

    fn lifecycle(&mut self) -> Lifecycle {
        Lifecycle {
            on_stop: self.required(s::ON_STOP, parse::on_stop),
            orphan_timeout: self.required(s::ORPHAN_TIMEOUT, parse::positive),
            runtime_dir: self.optional(s::RUNTIME_DIR, parse::text).map(Into::into),
            take_over: self.required(s::TAKE_OVER, parse::switch),
        }
    }

    fn given(&self) -> Vec<Given> {
        let given = |setting: &Setting| {
            let (value, layer) = self.stack.lookup(setting)?;
            Some(Given { variable: setting.variable, value: setting.shown(value), layer })
        };
        SETTINGS.iter().filter_map(given).collect()
    }

    fn warnings(&mut self) -> Vec<String> {
        let mut warnings = self.stack.unknown_variables();
        let is_given = |setting: Setting| self.stack.lookup(&setting).is_some();
        if is_given(s::GO_PPROF) {
            warnings.push("GO_PPROF is ignored: there is no Go run time to profile".to_owned());
        }
        if is_given(s::HTTP_API_AUTH_TOKEN) && !is_given(s::HTTP_API_AUTH_ENABLED) {
            let (token, switch) = (s::HTTP_API_AUTH_TOKEN.variable, s::HTTP_API_AUTH_ENABLED.variable);
            warnings.push(format!("{token} has no effect: {switch} is not set, registration is open"));
        }
        warnings
    }

    fn compare(&mut self, config: &Config) {
        let mut tcp = vec![
            (s::RTMP_SERVER, config.rtmp_server),
            (s::HTTP_SERVER, config.http_server),
            (s::HTTP_API, config.http_api),
            (s::SYSTEM_API, config.system_api),
        ];
        if let WebrtcTcp::Own(listen) = config.webrtc_tcp() {
            tcp.push((s::WEBRTC_TCP_SERVER, listen));
        }
        let udp = [(s::WEBRTC_SERVER, config.webrtc_server), (s::SRT_SERVER, config.srt_server)];
        if config.grace_quit_timeout >= config.force_quit_timeout {
            self.errors.push(ConfigError::NoGrace);
        }
        self.find_port_clashes("TCP", &tcp);
        self.find_port_clashes("UDP", &udp);
        self.find_source_port_clashes(&udp, s::SOURCE_PORTS, &config.sources.ports);
        self.find_source_port_clashes(&tcp, s::TCP_SOURCE_PORTS, &config.sources.tcp_ports);
    }

    fn find_port_clashes(&mut self, protocol: &'static str, listeners: &[(Setting, Listen)]) {
        for (at, (first, a)) in listeners.iter().enumerate() {
            for (second, b) in &listeners[at + 1..] {
                if a.clashes_with(b) && self.is_read(first) && self.is_read(second) {
                    let (first, second) = (first.variable, second.variable);
                    self.errors.push(ConfigError::PortClash { first, second, protocol, port: a.port });
                }
            }
        }
    }

    fn find_source_port_clashes(
        &mut self,
        listeners: &[(Setting, Listen)],
        source_ports: Setting,
        range: &RangeInclusive<u16>,
    ) {
        for (setting, listen) in listeners {
            let clashes = range.contains(&listen.port);
            if clashes && self.is_read(setting) && self.is_read(&source_ports) {
                let (setting, ports) = (setting.variable, source_ports.variable);
                self.errors.push(ConfigError::SourcePortClash { setting, port: listen.port, ports });
            }
        }
    }

    /// Whether a setting has the value it was given, not the default in the place of a wrong one.
    fn is_read(&self, wanted: &Setting) -> bool {
        let refused =
            |e: &ConfigError| matches!(e, ConfigError::Value { setting, .. } if *setting == wanted.variable);
        !self.errors.iter().any(refused)
    }
}

#[cfg(test)]
mod tests;
