//! The one table of settings: every name, default and explanation is said here and nowhere else.

/// One setting and its names in each layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) heading: Heading,
    pub(super) kind: Kind,
    pub(super) variable: &'static str,
    pub(super) flag: &'static str,
    /// The key in the TOML file; empty for what cannot be said there.
    pub(super) key: &'static str,
    /// Empty where the absence of a value means something of its own.
    pub(super) default: &'static str,
    pub(super) help: &'static str,
}

impl Setting {
    pub(super) fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }

    /// What may be shown of a value.
    pub(super) fn shown(&self, value: &str) -> String {
        if self.is_secret() { "***".to_owned() } else { value.to_owned() }
    }
}

/// Sections of the help text and of the documentation, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heading {
    Listeners,
    Origins,
    Fleet,
    Redis,
    Registration,
    Api,
    Streams,
    Signalling,
    Webrtc,
    Datapath,
    Process,
}

impl Heading {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Listeners => "Listeners",
            Self::Origins => "Origins",
            Self::Fleet => "Fleet",
            Self::Redis => "Redis",
            Self::Registration => "Registration",
            Self::Api => "HTTP API of the origins",
            Self::Streams => "Streams",
            Self::Signalling => "Signalling",
            Self::Webrtc => "WebRTC",
            Self::Datapath => "Datapath",
            Self::Process => "Process",
        }
    }
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Listen,
    Duration,
    Switch,
    Number,
    Range,
    List,
    Text,
    Secret,
}

impl Kind {
    pub(super) fn placeholder(self) -> &'static str {
        match self {
            Self::Listen => "LISTEN",
            Self::Duration => "DURATION",
            Self::Switch => "on|off",
            Self::Number => "NUMBER",
            Self::Range => "FIRST-LAST",
            Self::List => "LIST",
            Self::Text => "TEXT",
            Self::Secret => "SECRET",
        }
    }
}

macro_rules! settings {
    ($($heading:ident {
        $($name:ident: $kind:ident, $variable:literal, $flag:literal, $key:literal, $default:literal, $help:literal;)*
    })*) => {
        $($(pub(super) const $name: Setting = Setting {
            heading: Heading::$heading,
            kind: Kind::$kind,
            variable: $variable,
            flag: $flag,
            key: $key,
            default: $default,
            help: $help,
        };)*)*

        /// Every setting, in the order of the documentation.
        pub(super) const SETTINGS: &[Setting] = &[$($($name,)*)*];
    };
}

settings! {
    Listeners {
        RTMP_SERVER: Listen, "PROXY_RTMP_SERVER", "rtmp-server", "rtmp_server", "11935",
            "RTMP (TCP)";
        HTTP_SERVER: Listen, "PROXY_HTTP_SERVER", "http-server", "http_server", "18080",
            "HTTP-FLV, HTTP-TS, HLS and static files (TCP)";
        HTTP_API: Listen, "PROXY_HTTP_API", "http-api", "http_api", "11985",
            "WHIP, WHEP and the legacy RTC API (TCP)";
        WEBRTC_SERVER: Listen, "PROXY_WEBRTC_SERVER", "webrtc-server", "webrtc_server", "18000",
            "WebRTC media (UDP)";
        WEBRTC_TCP_SERVER: Listen, "PROXY_WEBRTC_TCP_SERVER", "webrtc-tcp-server", "webrtc_tcp_server", "",
            "WebRTC media over TCP, or `off`; without it the port of `PROXY_WEBRTC_SERVER`, unless TCP has another use for that; \
             it may be the port of `PROXY_HTTP_API`, which takes such media as well";
        SRT_SERVER: Listen, "PROXY_SRT_SERVER", "srt-server", "srt_server", "20080",
            "SRT (UDP)";
        SYSTEM_API: Listen, "PROXY_SYSTEM_API", "system-api", "system_api", "12025",
            "registration of origins, status and metrics (TCP); keep it away from the public";
        SRS_PORTS: Switch, "PROXY_SRS_PORTS", "srs-ports", "srs_ports", "off",
            "listen where a single SRS does: 1935, 8080, 1985, 8000 and 10080 instead of the defaults above";
        STATIC_FILES: Text, "PROXY_STATIC_FILES", "static-files", "static_files", "../trunk/research",
            "directory served by the HTTP server; it need not exist";
        TRUSTED_PROXIES: List, "PROXY_TRUSTED_PROXIES", "trusted-proxies", "trusted_proxies", "",
            "networks or addresses whose X-Forwarded-For is believed; from others it is replaced";
    }
    Origins {
        LOAD_BALANCER_TYPE: Text, "PROXY_LOAD_BALANCER_TYPE", "load-balancer-type", "load_balancer_type", "memory",
            "where origins and picks are kept: `memory` (one proxy) or `redis` (a fleet)";
        ORIGIN_SERVER_TTL: Duration, "PROXY_ORIGIN_SERVER_TTL", "origin-server-ttl", "origin_server_ttl", "300s",
            "life of a registration without a heartbeat; in a fleet it does not pass while Redis does not answer";
        ORIGIN_PROBE_INTERVAL: Duration,
            "PROXY_ORIGIN_PROBE_INTERVAL", "origin-probe-interval", "origin_probe_interval", "2s",
            "time between active probes of an origin; `0` turns probing off";
        ORIGIN_PROBE_TIMEOUT: Duration,
            "PROXY_ORIGIN_PROBE_TIMEOUT", "origin-probe-timeout", "origin_probe_timeout", "1s",
            "deadline of one probe";
        ORIGIN_PROBE_FAILURES: Number,
            "PROXY_ORIGIN_PROBE_FAILURES", "origin-probe-failures", "origin_probe_failures", "2",
            "failed probes in a row that make an origin down";
        BALANCING: Text, "PROXY_BALANCING", "balancing", "balancing", "least-sessions",
            "how a new stream gets its origin: `least-sessions`, `random`, `weighted` or `rendezvous` (by the name of the stream)";
        ORIGIN_WEIGHTS: List, "PROXY_ORIGIN_WEIGHTS", "origin-weights", "origin_weights", "",
            "shares of origins among all, such as `origin1=3,*=1`, by server id or device id; without it what they register \
             with, which is 1";
        ORIGIN_CAPACITIES: List, "PROXY_ORIGIN_CAPACITIES", "origin-capacities", "origin_capacities", "",
            "sessions and streams from which on origins get no new stream, such as `origin1=500,*=300`";
        PICK_TTL: Duration, "PROXY_PICK_TTL", "pick-ttl", "pick_ttl", "120s",
            "how long an idle stream keeps its origin";
        DEFAULT_BACKEND_ENABLED: Switch,
            "PROXY_DEFAULT_BACKEND_ENABLED", "default-backend-enabled", "default_backend_enabled", "off",
            "register one static origin, for debugging";
        DEFAULT_BACKEND_IP: Text, "PROXY_DEFAULT_BACKEND_IP", "default-backend-ip", "default_backend_ip", "127.0.0.1",
            "address of the static origin";
        DEFAULT_BACKEND_RTMP: Text,
            "PROXY_DEFAULT_BACKEND_RTMP", "default-backend-rtmp", "default_backend_rtmp", "1935",
            "its RTMP endpoint";
        DEFAULT_BACKEND_HTTP: Text, "PROXY_DEFAULT_BACKEND_HTTP", "default-backend-http", "default_backend_http", "",
            "its HTTP stream endpoint; without it the static origin has no HTTP-FLV and HLS";
        DEFAULT_BACKEND_API: Text, "PROXY_DEFAULT_BACKEND_API", "default-backend-api", "default_backend_api", "1985",
            "its HTTP API endpoint";
        DEFAULT_BACKEND_RTC: Text, "PROXY_DEFAULT_BACKEND_RTC", "default-backend-rtc", "default_backend_rtc", "8000",
            "its WebRTC endpoint (UDP)";
        DEFAULT_BACKEND_SRT: Text, "PROXY_DEFAULT_BACKEND_SRT", "default-backend-srt", "default_backend_srt", "10080",
            "its SRT endpoint (UDP)";
    }
    Fleet {
        FLEET_KEY: Secret, "PROXY_FLEET_KEY", "fleet-key", "fleet_key", "",
            "what the proxies of a fleet share, the same on each, of 16 characters or more, best drawn at random: with it the \
             proxy chooses the ICE credentials of WHIP and WHEP sessions so that each of them can go on with any such session; \
             without it the origin chooses them";
    }
    Redis {
        REDIS_URL: Secret, "PROXY_REDIS_URL", "redis-url", "redis_url", "",
            "`redis://[[user]:password@]host[:port][/db]`, or `rediss://` with TLS; several, with commas between them, name Sentinels, \
             whose user and password they hold then, or nodes of a cluster; without it `PROXY_REDIS_HOST` and `PROXY_REDIS_PORT`";
        REDIS_MODE: Text, "PROXY_REDIS_MODE", "redis-mode", "redis_mode", "",
            "what the URLs are of: `standalone`, one server; `sentinel`; or `cluster`; without it `sentinel` if \
             `PROXY_REDIS_SENTINEL_MASTER` is set, else `standalone`";
        REDIS_SENTINEL_MASTER: Text, "PROXY_REDIS_SENTINEL_MASTER", "redis-sentinel-master", "redis_sentinel_master", "",
            "name of the master that Sentinels are asked for";
        REDIS_CA: Text, "PROXY_REDIS_CA", "redis-ca", "redis_ca", "",
            "PEM file with the authorities that `rediss://` trusts; without it those of the system";
        REDIS_TIMEOUT: Duration, "PROXY_REDIS_TIMEOUT", "redis-timeout", "redis_timeout", "500ms",
            "deadline of each call; one that misses it shuts Redis off until it answers again";
        REDIS_HOST: Text, "PROXY_REDIS_HOST", "redis-host", "redis_host", "127.0.0.1",
            "name or address of the Redis server";
        REDIS_PORT: Number, "PROXY_REDIS_PORT", "redis-port", "redis_port", "6379",
            "its port";
        REDIS_USERNAME: Text, "PROXY_REDIS_USERNAME", "redis-username", "redis_username", "",
            "user of its access control list; without it the default user";
        REDIS_PASSWORD: Secret, "PROXY_REDIS_PASSWORD", "redis-password", "redis_password", "",
            "its password; a flag is visible in the process list, a variable is not";
        REDIS_DB: Number, "PROXY_REDIS_DB", "redis-db", "redis_db", "0",
            "number of the database";
        REDIS_KEY_PREFIX: Text, "PROXY_REDIS_KEY_PREFIX", "redis-key-prefix", "redis_key_prefix", "",
            "every key becomes `<prefix>:<key>`";
    }
    Registration {
        HTTP_API_AUTH_ENABLED: Switch,
            "PROXY_HTTP_API_AUTH_ENABLED", "http-api-auth-enabled", "http_api_auth_enabled", "off",
            "demand a token from origins that register";
        HTTP_API_AUTH_TYPE: Text, "PROXY_HTTP_API_AUTH_TYPE", "http-api-auth-type", "http_api_auth_type", "",
            "how the token is sent; `bearer` is the only way";
        HTTP_API_AUTH_TOKEN: Secret, "PROXY_HTTP_API_AUTH_TOKEN", "http-api-auth-token", "http_api_auth_token", "",
            "the token; a flag is visible in the process list, a variable is not";
    }
    Api {
        API_TOKEN: Secret, "PROXY_API_TOKEN", "api-token", "api_token", "",
            "tokens with commas between them, each of which opens `/api/v1/*` of all origins on `PROXY_HTTP_API`, to list and \
             to kick; without one it is off; a flag is visible in the process list, a variable is not";
        ORIGIN_API_AUTH: Secret, "PROXY_ORIGIN_API_AUTH", "origin-api-auth", "origin_api_auth", "",
            "`user:password` for origins whose own HTTP API demands them (`http_api.auth` of SRS)";
    }
    Streams {
        VHOSTS: List, "PROXY_VHOSTS", "vhosts", "vhosts", "",
            "real vhosts; every other host name means `__defaultVhost__`";
        KEY_COMPAT: Text, "PROXY_KEY_COMPAT", "key-compat", "key_compat", "",
            "`go` forms stream keys as the Go proxy does, for a fleet of both";
        RTMP_REAL_IP: Switch, "PROXY_RTMP_REAL_IP", "rtmp-real-ip", "rtmp_real_ip", "off",
            "tell origins the IPv4 address of each RTMP client before the handshake; SRS logs it, other servers refuse it";
        HLS_KEY: Secret, "PROXY_HLS_KEY", "hls-key", "hls_key", "",
            "what the ids of origins in playlists are made with, the same on every proxy of a fleet; without it a key that follows \
             from `PROXY_FLEET_KEY`; without that the token of registration, which ids do not tell but let one test guesses at; without that a key that everybody knows, and \
             who knows an origin's server id can then name it, which reaches no other host than a registered origin";
    }
    Signalling {
        API_BODY_LIMIT: Number, "PROXY_API_BODY_LIMIT", "api-body-limit", "api_body_limit", "65536",
            "largest body of a request or answer, in bytes";
        API_ORIGIN_TIMEOUT: Duration, "PROXY_API_ORIGIN_TIMEOUT", "api-origin-timeout", "api_origin_timeout", "5s",
            "deadline of one exchange with an origin";
        API_CLIENT_TIMEOUT: Duration, "PROXY_API_CLIENT_TIMEOUT", "api-client-timeout", "api_client_timeout", "10s",
            "deadline for a client to send its request";
        NEW_SESSIONS_PER_SOURCE: Number,
            "PROXY_NEW_SESSIONS_PER_SOURCE", "new-sessions-per-source", "new_sessions_per_source", "100",
            "WebRTC sessions that a /24 or /56 may begin in a second, ten times as many at once; more get 429";
        NEW_SESSIONS_IN_ALL: Number,
            "PROXY_NEW_SESSIONS_IN_ALL", "new-sessions-in-all", "new_sessions_in_all", "1000",
            "the same of all clients together; more get 503";
    }
    Webrtc {
        WEBRTC_CANDIDATE: List, "PROXY_WEBRTC_CANDIDATE", "webrtc-candidate", "webrtc_candidate", "",
            "addresses or names put into answers; without it the request's Host decides";
        WEBRTC_CANDIDATE_HOSTS: List,
            "PROXY_WEBRTC_CANDIDATE_HOSTS", "webrtc-candidate-hosts", "webrtc_candidate_hosts", "",
            "names a Host header may hold and be resolved, beside our own addresses";
        WEBRTC_IDLE_TIMEOUT: Duration,
            "PROXY_WEBRTC_IDLE_TIMEOUT", "webrtc-idle-timeout", "webrtc_idle_timeout", "30s",
            "a session without a packet for this long ends";
        WEBRTC_CONNECT_TIMEOUT: Duration,
            "PROXY_WEBRTC_CONNECT_TIMEOUT", "webrtc-connect-timeout", "webrtc_connect_timeout", "30s",
            "a session whose client never sends for this long ends";
        SRT_IDLE_TIMEOUT: Duration, "PROXY_SRT_IDLE_TIMEOUT", "srt-idle-timeout", "srt_idle_timeout", "15s",
            "an SRT session without a packet of its client for this long ends";
        MAX_SESSIONS: Number, "PROXY_MAX_SESSIONS", "max-sessions", "max_sessions", "100000",
            "most sessions at a time; more are refused with 503";
        SOURCE_PORTS: Range, "PROXY_SOURCE_PORTS", "source-ports", "source_ports", "61000-65535",
            "ports media is sent from towards origins, one a session and origin; keep them out of ip_local_port_range";
        TCP_SOURCE_PORTS: Range, "PROXY_TCP_SOURCE_PORTS", "tcp-source-ports", "tcp_source_ports", "20000-29999",
            "ports TCP streams are fetched and sent from, one a connection and origin; keep them out of ip_local_port_range";
        SOURCE_ADDRESSES: List, "PROXY_SOURCE_ADDRESSES", "source-addresses", "source_addresses", "",
            "own addresses to send from; without it the one the route to the origin prefers";
        SOURCE_PORT_REST: Duration, "PROXY_SOURCE_PORT_REST", "source-port-rest", "source_port_rest", "45s",
            "how long a freed port rests, longer than origins keep sending to a client that is gone";
    }
    Datapath {
        DATAPATH: Text, "PROXY_DATAPATH", "datapath", "datapath", "auto",
            "`auto`, `xdp`, `tc` or `userspace`";
        REQUIRE_KERNEL: Switch, "PROXY_REQUIRE_KERNEL", "require-kernel", "require_kernel", "off",
            "refuse to start when no kernel engine can be used";
        INTERFACES: List, "PROXY_INTERFACES", "interfaces", "interfaces", "",
            "attach to these interfaces alone; without it to those clients and origins are found on";
        MAX_FLOWS: Number, "PROXY_MAX_FLOWS", "max-flows", "max_flows", "65536",
            "IPv4 flows the kernel tables are for";
        MAX_FLOWS_V6: Number, "PROXY_MAX_FLOWS_V6", "max-flows-v6", "max_flows_v6", "16384",
            "IPv6 flows the kernel tables are for";
        MISSES_PER_SOURCE: Number, "PROXY_MISSES_PER_SOURCE", "misses-per-source", "misses_per_source", "64",
            "packets without a flow that come up in a second from a /24 or /56 that no session is awaited from";
        MISSES_IN_ALL: Number, "PROXY_MISSES_IN_ALL", "misses-in-all", "misses_in_all", "2048",
            "packets without a flow that come up in a second on one CPU from all networks that no session is awaited from";
        TCP_JOIN: Text, "PROXY_TCP_JOIN", "tcp-join", "tcp_join", "auto",
            "how the bytes of TCP streams get from one connection to the other: `copy`, `splice`, or `auto` as suits each";
        RELAY_WORKERS: Number, "PROXY_RELAY_WORKERS", "relay-workers", "relay_workers", "",
            "threads of the userspace relay; without it one a CPU, at most 8";
    }
    Process {
        CONFIG: Text, "PROXY_CONFIG", "config", "", "",
            "TOML file to read settings from";
        GRACE_QUIT_TIMEOUT: Duration,
            "PROXY_GRACE_QUIT_TIMEOUT", "grace-quit-timeout", "grace_quit_timeout", "20s",
            "how long a graceful stop may take";
        FORCE_QUIT_TIMEOUT: Duration,
            "PROXY_FORCE_QUIT_TIMEOUT", "force-quit-timeout", "force_quit_timeout", "30s",
            "the process ends this long after the first signal, whatever is left";
        ON_STOP: Text, "PROXY_ON_STOP", "on-stop", "on_stop", "drain",
            "what outlives the process: nothing with `drain`; with `keep` SIGTERM leaves sessions to the next process, and the \
             kernel forwards while none runs, also after a crash; SIGINT drains";
        ORPHAN_TIMEOUT: Duration, "PROXY_ORPHAN_TIMEOUT", "orphan-timeout", "orphan_timeout", "10m",
            "the kernel forwards for this long without a process; so long a flow of unknown origin is kept at most";
        RUNTIME_DIR: Text, "PROXY_RUNTIME_DIR", "runtime-dir", "runtime_dir", "",
            "directory for what one process leaves to the next; without it `/run/srs-xproxy/net-<network namespace>`";
        TAKE_OVER: Switch, "PROXY_TAKE_OVER", "take-over", "take_over", "off",
            "take over from the process that runs, its sockets included; it ends then";
        LOG_FORMAT: Text, "PROXY_LOG_FORMAT", "log-format", "log_format", "text",
            "`text` for people or `json`, one object a line";
        LOG_LEVEL: Text, "PROXY_LOG_LEVEL", "log-level", "log_level", "info",
            "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,proxy_userspace=debug`";
        GO_PPROF: Text, "GO_PPROF", "go-pprof", "go_pprof", "",
            "accepted for compatibility and ignored";
    }
}

/// What `PROXY_SRS_PORTS` puts in the place of defaults.
pub(super) const SRS_DEFAULTS: [(&str, &str); 5] = [
    (RTMP_SERVER.variable, "1935"),
    (HTTP_SERVER.variable, "8080"),
    (HTTP_API.variable, "1985"),
    (WEBRTC_SERVER.variable, "8000"),
    (SRT_SERVER.variable, "10080"),
];

/// The known name most like `name`, by edit distance.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.filter(|known| !known.is_empty()).min_by_key(|known| edit_distance(name, known))
}

fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_a_setting_follow_from_its_variable() {
        for setting in SETTINGS {
            let stem = setting.variable.trim_start_matches("PROXY_").to_lowercase();
            assert_eq!(setting.flag, stem.replace('_', "-"), "{}", setting.variable);
            if setting.variable != CONFIG.variable {
                assert_eq!(setting.key, stem, "{}", setting.variable);
            }
        }
    }

    #[test]
    fn every_setting_is_listed_once_under_contiguous_headings() {
        let names: BTreeSet<_> = SETTINGS.iter().map(|s| s.variable).collect();
        assert_eq!(names.len(), SETTINGS.len());
        let mut headings: Vec<_> = SETTINGS.iter().map(|s| s.heading.title()).collect();
        headings.dedup();
        assert_eq!(headings.iter().collect::<BTreeSet<_>>().len(), headings.len());
    }

    #[test]
    fn nearest_finds_the_misspelt_name() {
        let known = || SETTINGS.iter().map(|s| s.variable);
        assert_eq!(nearest("PROXY_WEBRTC_SEVER", known()), Some("PROXY_WEBRTC_SERVER"));
        assert_eq!(nearest("PROXY_STATICFILES", known()), Some("PROXY_STATIC_FILES"));
    }

    #[test]
    fn edit_distance_counts_single_edits() {
        for (a, b, expected) in [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
        }
    }
}
