use std::{path::PathBuf, time::Duration};

use super::*;
use crate::config::{DatapathMode, File, LogFormat, RedisNode, RedisServers, RedisTls, Values};
use crate::origin::balance::Policy;

#[test]
fn defaults_are_those_of_the_go_proxy() {
    let config = Config::default();
    let ports = [
        config.rtmp_server,
        config.http_server,
        config.http_api,
        config.webrtc_server,
        config.srt_server,
        config.system_api,
    ];
    assert_eq!(ports.map(|listen| listen.port), [11935, 18080, 11985, 18000, 20080, 12025]);
    assert!(ports.iter().all(|listen| listen.ip.is_none()));
    assert_eq!(config.static_files, PathBuf::from("../trunk/research"));
    assert_eq!(config.load_balancer, LoadBalancer::Memory);
    assert_eq!((config.redis.servers, config.redis.db), (standalone("127.0.0.1", 6379), 0));
    assert_eq!(config.default_backend, None);
    assert_eq!(config.registration_token, None);
    assert_eq!(config.grace_quit_timeout, Duration::from_secs(20));
    assert_eq!(config.force_quit_timeout, Duration::from_secs(30));
    assert_eq!(config.origins.ttl, Duration::from_secs(300));
}

#[test]
fn defaults_of_our_own_are_as_documented() {
    let config = Config::default();
    assert_eq!(config.sources.ports, 61000..=65535);
    assert_eq!(config.sources.rest, Duration::from_secs(45));
    assert_eq!(config.signalling.body_limit, 64 * 1024);
    assert_eq!(config.webrtc.max_sessions, 100_000);
    assert_eq!(config.datapath.mode, DatapathMode::Auto);
    assert_eq!(config.datapath.max_flows, 65536);
    assert!((1..=8).contains(&config.datapath.relay_workers));
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!((config.given, config.warnings), (vec![], vec![]));
}

#[test]
fn media_over_tcp_is_taken_where_that_over_udp_is_unless_told_otherwise() {
    let where_is = |variables: &[(&str, &str)]| {
        Config::from_variables(variables.iter().copied()).map(|config| config.webrtc_tcp())
    };
    let own = |ip: Option<[u8; 4]>, port| WebrtcTcp::Own(Listen { ip: ip.map(Into::into), port });
    const TCP: &str = "PROXY_WEBRTC_TCP_SERVER";
    assert_eq!(where_is(&[]).unwrap(), own(None, 18000));
    assert_eq!(where_is(&[("PROXY_SRS_PORTS", "on")]).unwrap(), own(None, 8000));
    assert_eq!(
        where_is(&[("PROXY_WEBRTC_SERVER", "10.0.0.1:8000")]).unwrap(),
        own(Some([10, 0, 0, 1]), 8000)
    );
    assert_eq!(where_is(&[(TCP, "443")]).unwrap(), own(None, 443));
    assert_eq!(where_is(&[(TCP, "off")]).unwrap(), WebrtcTcp::Off);
    assert_eq!(where_is(&[(TCP, "11985")]).unwrap(), WebrtcTcp::HttpApi);
    assert_eq!(where_is(&[("PROXY_HTTP_API", "18000")]).unwrap(), WebrtcTcp::HttpApi);
    for taken in [("PROXY_RTMP_SERVER", "18000"), ("PROXY_TCP_SOURCE_PORTS", "18000-18050")] {
        let config = variables(&[taken]);
        assert_eq!((config.webrtc_tcp(), config.warnings.len()), (WebrtcTcp::Off, 1), "{taken:?}");
        refuses(&[taken, (TCP, "18000")], TCP);
    }
    refuses(&[(TCP, "none")], TCP);
}

#[test]
fn ids_in_playlists_are_made_with_what_the_fleet_shares() {
    const TOKEN: [(&str, &str); 3] = [
        ("PROXY_HTTP_API_AUTH_ENABLED", "on"),
        ("PROXY_HTTP_API_AUTH_TYPE", "bearer"),
        ("PROXY_HTTP_API_AUTH_TOKEN", "t"),
    ];
    let id = |variables: &[(&str, &str)]| {
        Config::from_variables(variables.iter().copied()).unwrap().backend_key().id_of("vid-1")
    };
    let key = ("PROXY_HLS_KEY", "k");
    assert_eq!(id(&[TOKEN.as_slice(), &[key]].concat()), id(&[key]));
    let fleet = ("PROXY_FLEET_KEY", "0123456789abcdef");
    assert_eq!(id(&[fleet, key]), id(&[key]));
    assert_eq!(id(&[TOKEN.as_slice(), &[fleet]].concat()), id(&[fleet]));
    let ids = [id(&[]), id(&TOKEN), id(&[key]), id(&[fleet]), id(&[("PROXY_HLS_KEY", fleet.1)])];
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

#[test]
fn the_strongest_layer_counts() {
    let mut layers = Layers {
        flags: values(&[("PROXY_RTMP_SERVER", "1")]),
        environment: values(&[("PROXY_RTMP_SERVER", "2")]),
        env_file: "PROXY_RTMP_SERVER=3".to_owned(),
        file: Some(toml("rtmp_server = 4")),
    };
    assert_eq!(rtmp_port(&layers), 1);
    layers.flags.clear();
    assert_eq!(rtmp_port(&layers), 2);
    layers.environment.clear();
    assert_eq!(rtmp_port(&layers), 3);
    layers.env_file.clear();
    assert_eq!(rtmp_port(&layers), 4);
    layers.file = None;
    assert_eq!(rtmp_port(&layers), 11935);
}

#[test]
fn an_empty_value_is_no_value_in_any_layer() {
    let layers = Layers {
        flags: values(&[("PROXY_RTMP_SERVER", "")]),
        environment: values(&[("PROXY_RTMP_SERVER", " "), ("PROXY_STATIC_FILES", "")]),
        env_file: "PROXY_RTMP_SERVER=\n".to_owned(),
        file: Some(toml("rtmp_server = ''")),
    };
    assert_eq!(rtmp_port(&layers), 11935);
    assert_eq!(read(&layers).static_files, PathBuf::from("../trunk/research"));
}

#[test]
fn every_error_is_reported_at_once() {
    let layers = Layers {
        flags: values(&[("PROXY_RTMP_SERVER", "x")]),
        environment: values(&[("PROXY_LOAD_BALANCER_TYPE", "consul"), ("PROXY_ORIGIN_SERVER_TTL", "0s")]),
        env_file: "PROXY_SOURCE_PORTS=1-2".to_owned(),
        file: Some(toml("datapath = 'fast'\nrtmp_sever = 1\nhttp_api = 1.5")),
    };
    let errors = Config::from_layers(&layers).expect_err("everything is wrong");
    let text = errors.to_string();
    for expected in [
        "PROXY_RTMP_SERVER: \"x\" (command line) is not a port",
        "PROXY_LOAD_BALANCER_TYPE: \"consul\" (environment) is not one of `memory`, `redis`",
        "PROXY_ORIGIN_SERVER_TTL: \"0s\" (environment) must be positive",
        "PROXY_SOURCE_PORTS: \"1-2\" (.env) reaches below port 1024",
        "PROXY_DATAPATH: \"fast\" (configuration file) is not one of",
        "proxy.toml: unknown key \"rtmp_sever\"; did you mean \"rtmp_server\"?",
        "proxy.toml: \"http_api\" must be a string",
    ] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    assert_eq!(errors.0.len(), 7, "{text}");
}

#[test]
fn defect_38_secrets_are_never_shown() {
    let variables = [
        ("PROXY_REDIS_PASSWORD", "hunter2"),
        ("PROXY_HTTP_API_AUTH_ENABLED", "on"),
        ("PROXY_HTTP_API_AUTH_TYPE", "bearer"),
        ("PROXY_HTTP_API_AUTH_TOKEN", "hunter2"),
        ("PROXY_API_TOKEN", "hunter2, hunter22"),
        ("PROXY_ORIGIN_API_AUTH", "admin:hunter2"),
        ("PROXY_FLEET_KEY", "hunter2, the hunter's second"),
    ];
    let config = Config::from_variables(variables).expect("valid");
    for text in [config.to_string(), format!("{config:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(config.to_string().contains("PROXY_REDIS_PASSWORD=*** (environment)"));
    assert_eq!(config.redis.password.as_ref().map(Secret::expose), Some("hunter2"));
    assert_eq!(config.registration_token.as_ref().map(Secret::expose), Some("hunter2"));
    assert_eq!(config.api_tokens, ["hunter2", "hunter22"].map(Secret::new));
    assert_eq!(config.origin_api_auth.as_ref().map(Secret::expose), Some("admin:hunter2"));
}

#[test]
fn what_is_wrong_with_a_secret_is_said_without_it() {
    for (variable, value, reason) in [
        ("PROXY_API_TOKEN", "hunter2,", "has an empty item"),
        ("PROXY_FLEET_KEY", "hunter2hunter2", "has fewer than 16 characters"),
        ("PROXY_API_TOKEN", "hunter2 hunter2", "holds a token with other characters"),
        ("PROXY_API_TOKEN", "hunter2\u{e9}", "holds a token with other characters"),
        ("PROXY_ORIGIN_API_AUTH", "hunter2", "is not `user:password`"),
        ("PROXY_ORIGIN_API_AUTH", ":hunter2", "is not `user:password`"),
    ] {
        let text = Config::from_variables([(variable, value)]).expect_err(value).to_string();
        assert!(text.contains(&format!("{variable}: \"***\" (environment) {reason}")), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_broken_file_is_reported_without_its_text() {
    let layers =
        Layers { file: Some(toml("rtmp_server = 1\nredis_password = 'hunter2")), ..Layers::default() };
    let text = format!("{:?} {}", layers, Config::from_layers(&layers).expect_err("unclosed quote"));
    assert!(text.contains("failed to read proxy.toml: line 2"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn toml_values_are_those_of_variables() {
    let text = "rtmp_server = '10.0.0.1:1935'\nrequire_kernel = true\nvhosts = ['a.example', 'b.example']\nredis_db = 3";
    let config = read(&Layers { file: Some(toml(text)), ..Layers::default() });
    assert_eq!(config.rtmp_server.to_string(), "10.0.0.1:1935");
    assert!(config.datapath.require_kernel);
    assert_eq!(config.streams.vhosts, ["a.example", "b.example"]);
    assert_eq!(config.redis.db, 3);
}

#[test]
fn the_file_cannot_name_another_file() {
    let layers = Layers { file: Some(toml("config = 'other.toml'")), ..Layers::default() };
    let errors = Config::from_layers(&layers).expect_err("no such key");
    assert!(matches!(errors.0.as_slice(), [ConfigError::UnknownKey { .. }]), "{errors}");
}

#[test]
fn srs_ports_replace_defaults_and_nothing_else() {
    let config = variables(&[("PROXY_SRS_PORTS", "on"), ("PROXY_HTTP_SERVER", "18080")]);
    assert_eq!(
        config.to_string().lines().next(),
        Some("rtmp :1935, http :18080, api :1985, webrtc :8000, srt :10080, system api :12025")
    );
    assert_eq!((config.rtmp_server.port, config.srt_server.port), (1935, 10080));
}

#[test]
fn listeners_of_one_protocol_share_no_port() {
    refuses(
        &[("PROXY_RTMP_SERVER", "18080")],
        "PROXY_RTMP_SERVER and PROXY_HTTP_SERVER: both listen on TCP port 18080",
    );
    refuses(
        &[("PROXY_SRT_SERVER", "127.0.0.1:18000")],
        "PROXY_WEBRTC_SERVER and PROXY_SRT_SERVER: both listen on UDP",
    );
    variables(&[("PROXY_WEBRTC_SERVER", "11935")]);
    variables(&[("PROXY_RTMP_SERVER", "0"), ("PROXY_HTTP_SERVER", "0")]);
    variables(&[("PROXY_RTMP_SERVER", "10.0.0.1:1935"), ("PROXY_HTTP_SERVER", "10.0.0.2:1935")]);
    variables(&[("PROXY_RTMP_SERVER", "[::1]:1935"), ("PROXY_HTTP_SERVER", "127.0.0.1:1935")]);
}

#[test]
fn a_wrong_value_is_not_compared() {
    let errors = Config::from_variables([("PROXY_RTMP_SERVER", "x"), ("PROXY_HTTP_SERVER", "11935")]);
    assert_eq!(errors.expect_err("not a port").0.len(), 1);
}

#[test]
fn listeners_stay_out_of_the_source_ports() {
    refuses(&[("PROXY_WEBRTC_SERVER", "61000")], "PROXY_WEBRTC_SERVER: port 61000 lies in the source ports");
    variables(&[("PROXY_WEBRTC_SERVER", "61000"), ("PROXY_SOURCE_PORTS", "62000-65535")]);
    variables(&[("PROXY_RTMP_SERVER", "61000")]);
}

#[test]
fn authentication_needs_type_and_token() {
    let on = ("PROXY_HTTP_API_AUTH_ENABLED", "on");
    refuses(&[on], "PROXY_HTTP_API_AUTH_TYPE: must be set when PROXY_HTTP_API_AUTH_ENABLED is on");
    refuses(&[on, ("PROXY_HTTP_API_AUTH_TYPE", "bearer")], "PROXY_HTTP_API_AUTH_TOKEN: must be set");
    let basic = [on, ("PROXY_HTTP_API_AUTH_TYPE", "basic"), ("PROXY_HTTP_API_AUTH_TOKEN", "t")];
    refuses(&basic, "PROXY_HTTP_API_AUTH_TYPE: \"basic\" is not supported; `bearer` is");
    let off = variables(&[("PROXY_HTTP_API_AUTH_TOKEN", "t")]);
    assert_eq!(off.registration_token, None);
    assert!(off.warnings[0].contains("registration is open"), "{:?}", off.warnings);
}

#[test]
fn a_grace_that_force_would_cut_short_is_refused() {
    refuses(
        &[("PROXY_GRACE_QUIT_TIMEOUT", "30s")],
        "PROXY_GRACE_QUIT_TIMEOUT must be shorter than PROXY_FORCE_QUIT_TIMEOUT, which begins with it",
    );
}

#[test]
fn origins_are_weighed_by_name() {
    let balancing = variables(&[
        ("PROXY_BALANCING", "weighted"),
        ("PROXY_ORIGIN_WEIGHTS", "origin1=3,*=1"),
        ("PROXY_ORIGIN_CAPACITIES", "vid-1=500"),
    ])
    .balancing;
    assert_eq!(balancing.policy, Policy::Weighted);
    assert_eq!(variables(&[]).balancing.policy, Policy::LeastSessions);
    let fleet = variables(&[("PROXY_LOAD_BALANCER_TYPE", "redis")]);
    assert_eq!(fleet.balancing.policy, Policy::LessOfTwo);
    assert_eq!(balancing.weights, [("origin1".to_owned(), 3), ("*".to_owned(), 1)]);
    assert_eq!(balancing.capacities, [("vid-1".to_owned(), 500)]);
    let weights = |value| [("PROXY_ORIGIN_WEIGHTS", value)];
    refuses(&weights("origin1"), "which is not a name and a number");
    refuses(&weights("=3"), "which is not a name and a number");
    refuses(&weights("origin1=0"), "which is not a whole number from 1 to 1000000");
    refuses(&[("PROXY_BALANCING", "best")], "is not one of `least-sessions`");
}

#[test]
fn the_static_origin_has_no_http_unless_told() {
    let on = ("PROXY_DEFAULT_BACKEND_ENABLED", "on");
    let backend = variables(&[on]).default_backend.expect("enabled");
    assert_eq!((backend.ip.as_str(), backend.rtmp.as_str(), backend.http), ("127.0.0.1", "1935", None));
    let endpoints = [backend.api, backend.rtc, backend.srt].map(Option::unwrap_or_default);
    assert_eq!(endpoints, ["1985", "8000", "10080"]);
    refuses(
        &[on, ("PROXY_DEFAULT_BACKEND_RTC", "x")],
        "PROXY_DEFAULT_BACKEND_RTC: \"x\" (environment) is not an endpoint",
    );
    variables(&[("PROXY_DEFAULT_BACKEND_RTC", "x")]);
}

#[test]
fn unknown_variables_are_warned_of_and_foreign_ones_are_not() {
    let mut layers = Layers { env_file: "PROXY_RTC_SERVER=1".to_owned(), ..Layers::default() };
    layers.environment = values(&[("PROXY_WEBRTC_SEVER", "8000"), ("HOME", "/"), ("GO_PPROF", ":6060")]);
    let warnings = read(&layers).warnings;
    assert_eq!(
        warnings[0],
        "unknown variable PROXY_WEBRTC_SEVER (environment) is ignored; did you mean PROXY_WEBRTC_SERVER?"
    );
    assert!(warnings[1].starts_with("unknown variable PROXY_RTC_SERVER (.env)"), "{warnings:?}");
    assert!(warnings[2].starts_with("GO_PPROF is ignored"), "{warnings:?}");
    assert_eq!(warnings.len(), 3);
}

#[test]
fn the_file_is_named_by_any_stronger_layer() {
    let layers = Layers { env_file: "export PROXY_CONFIG='a b.toml' # c".to_owned(), ..Layers::default() };
    assert_eq!(layers.file_path(), Some(PathBuf::from("a b.toml")));
    let layers = Layers { flags: values(&[("PROXY_CONFIG", "c.toml")]), ..layers };
    assert_eq!(layers.file_path(), Some(PathBuf::from("c.toml")));
    assert_eq!(Layers::default().file_path(), None);
}

#[test]
fn every_default_passes_every_check_under_both_presets() {
    for preset in ["on", "off"] {
        variables(&[("PROXY_SRS_PORTS", preset), ("PROXY_DEFAULT_BACKEND_ENABLED", "on")]);
    }
}

#[track_caller]
fn refuses(variables: &[(&str, &str)], expected: &str) {
    let errors = Config::from_variables(variables.iter().copied()).expect_err(expected).to_string();
    assert!(errors.contains(expected), "{expected:?} in {errors}");
}

#[track_caller]
fn variables(variables: &[(&str, &str)]) -> Config {
    Config::from_variables(variables.iter().copied()).unwrap_or_else(|errors| panic!("{errors}"))
}

#[track_caller]
fn read(layers: &Layers) -> Config {
    Config::from_layers(layers).unwrap_or_else(|errors| panic!("{errors}"))
}

#[track_caller]
fn rtmp_port(layers: &Layers) -> u16 {
    read(layers).rtmp_server.port
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn toml(text: &str) -> File {
    File { path: "proxy.toml".into(), text: text.to_owned() }
}

fn standalone(host: &str, port: u16) -> RedisServers {
    RedisServers::Standalone(node(host, port))
}

fn node(host: &str, port: u16) -> RedisNode {
    RedisNode { host: host.into(), port, username: None, password: None }
}

#[test]
fn one_redis_is_named_by_host_and_port_or_by_a_url() {
    let go = variables(&[
        ("PROXY_REDIS_HOST", "redis.local"),
        ("PROXY_REDIS_PORT", "7000"),
        ("PROXY_REDIS_DB", "3"),
    ]);
    assert_eq!((go.redis.servers, go.redis.db, go.redis.tls), (standalone("redis.local", 7000), 3, None));
    let url = variables(&[
        ("PROXY_REDIS_URL", "rediss://u:hunter2@redis.local/3"),
        ("PROXY_REDIS_CA", "/etc/ca.pem"),
    ]);
    assert!(!url.to_string().contains("hunter2") && !format!("{url:?}").contains("hunter2"), "{url}");
    assert_eq!((url.redis.servers, url.redis.db), (standalone("redis.local", 6379), 3));
    assert_eq!(url.redis.tls, Some(RedisTls { ca: Some("/etc/ca.pem".into()) }));
    assert_eq!(url.redis.username.as_deref(), Some("u"));
    assert_eq!(url.redis.password.as_ref().map(Secret::expose), Some("hunter2"));
}

#[test]
fn several_redis_servers_are_sentinels_or_a_cluster() {
    let nodes = vec![node("a", 1), node("b", 2)];
    let urls = ("PROXY_REDIS_URL", "redis://a:1,redis://b:2");
    let master = ("PROXY_REDIS_SENTINEL_MASTER", "mymaster");
    let sentinel = RedisServers::Sentinel { sentinels: nodes.clone(), master: "mymaster".into() };
    assert_eq!(variables(&[urls, master]).redis.servers, sentinel);
    assert_eq!(variables(&[urls, master, ("PROXY_REDIS_MODE", "sentinel")]).redis.servers, sentinel);
    let cluster = variables(&[urls, ("PROXY_REDIS_MODE", "cluster")]).redis;
    assert_eq!(cluster.servers, RedisServers::Cluster(nodes));
    let own =
        variables(&[("PROXY_REDIS_URL", "redis://:s@a:1"), master, ("PROXY_REDIS_PASSWORD", "p")]).redis;
    assert_eq!(own.password.as_ref().map(Secret::expose), Some("p"));
    let RedisServers::Sentinel { sentinels, .. } = own.servers else { panic!("sentinels") };
    assert_eq!(sentinels[0].password.as_ref().map(Secret::expose), Some("s"));
}

#[test]
fn settings_of_redis_that_contradict_each_other_are_refused() {
    const URL: &str = "PROXY_REDIS_URL";
    const MODE: &str = "PROXY_REDIS_MODE";
    const MASTER: &str = "PROXY_REDIS_SENTINEL_MASTER";
    let two = (URL, "redis://a,redis://b");
    refuses(
        &[(URL, "redis://u:hunter2@a/x")],
        "PROXY_REDIS_URL: \"***\" (environment) is not a URL of a Redis server",
    );
    refuses(
        &[(URL, "redis://a"), ("PROXY_REDIS_HOST", "b")],
        "PROXY_REDIS_HOST: has no effect beside PROXY_REDIS_URL",
    );
    refuses(&[two], "PROXY_REDIS_URL: names several servers");
    refuses(&[two, (MODE, "cluster"), (MASTER, "m")], "PROXY_REDIS_SENTINEL_MASTER: has a meaning in");
    refuses(
        &[two, (MODE, "sentinel")],
        "PROXY_REDIS_SENTINEL_MASTER: must be set when PROXY_REDIS_MODE is `sentinel`",
    );
    refuses(&[two, (MODE, "ring")], "PROXY_REDIS_MODE: \"ring\" (environment) is not one of");
    refuses(
        &[(URL, "redis://a,rediss://b"), (MODE, "cluster")],
        "PROXY_REDIS_URL: mixes redis:// and rediss://",
    );
    refuses(
        &[(URL, "redis://a"), ("PROXY_REDIS_CA", "/ca")],
        "PROXY_REDIS_CA: has no effect without a rediss:// URL",
    );
    refuses(&[("PROXY_REDIS_USERNAME", "u")], "PROXY_REDIS_USERNAME: needs PROXY_REDIS_PASSWORD");
    refuses(
        &[(URL, "redis://:p@a"), ("PROXY_REDIS_PASSWORD", "q")],
        "PROXY_REDIS_PASSWORD: is given here and in",
    );
    refuses(&[(URL, "redis://a/1"), ("PROXY_REDIS_DB", "2")], "PROXY_REDIS_DB: is another database");
    refuses(&[(URL, "redis://a/1"), (MASTER, "m")], "PROXY_REDIS_URL: names a database of a Sentinel");
    refuses(
        &[two, (MODE, "cluster"), ("PROXY_REDIS_DB", "2")],
        "PROXY_REDIS_DB: must be 0 in PROXY_REDIS_MODE `cluster`",
    );
    refuses(&[("PROXY_REDIS_TIMEOUT", "0")], "PROXY_REDIS_TIMEOUT: \"0\" (environment) must be positive");
}
