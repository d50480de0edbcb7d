//! Where Redis is, as typed: URLs of the schemes that every client of Redis reads.

use std::{path::PathBuf, time::Duration};

use redis::{ConnectionAddr, IntoConnectionInfo as _};

use super::{Secret, ValueError};

/// `PROXY_REDIS_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// `PROXY_REDIS_URL` and `PROXY_REDIS_MODE`, or `PROXY_REDIS_HOST` and `PROXY_REDIS_PORT`.
    pub servers: RedisServers,
    /// How connections are secured, if they are.
    pub tls: Option<RedisTls>,
    /// `PROXY_REDIS_USERNAME`, or that of the URL: a user of Redis's access control list.
    pub username: Option<String>,
    /// `PROXY_REDIS_PASSWORD`, or that of the URL.
    pub password: Option<Secret>,
    /// `PROXY_REDIS_DB`, or that of the URL.
    pub db: u32,
    /// `PROXY_REDIS_KEY_PREFIX`.
    pub key_prefix: String,
    /// `PROXY_REDIS_TIMEOUT`: deadline of a call, default 500 ms.
    pub timeout: Duration,
}

/// Which servers hold the keys, and how they are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisServers {
    /// One server.
    Standalone(RedisNode),
    /// The master that Sentinels name.
    Sentinel {
        /// The Sentinels.
        sentinels: Vec<RedisNode>,
        /// `PROXY_REDIS_SENTINEL_MASTER`.
        master: String,
    },
    /// A cluster, found by some of its nodes.
    Cluster(Vec<RedisNode>),
}

/// A Redis server or Sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisNode {
    /// A name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// A Sentinel's own user; servers have that of [`Redis`].
    pub username: Option<String>,
    /// A Sentinel's own password; servers have that of [`Redis`].
    pub password: Option<Secret>,
}

/// TLS towards Redis: certificates are always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// `PROXY_REDIS_CA`: a PEM file, instead of what the system trusts.
    pub ca: Option<PathBuf>,
}

/// `PROXY_REDIS_MODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RedisMode {
    Standalone,
    Sentinel,
    Cluster,
}

/// A URL, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RedisUrl {
    pub(super) node: RedisNode,
    pub(super) tls: bool,
    pub(super) db: u32,
}

/// URLs between commas. What is wrong is said without the URL, which may hold a password.
pub(super) fn urls(value: &str) -> Result<Vec<RedisUrl>, ValueError> {
    value.split(',').map(|text| url(text.trim())).collect()
}

/// `standalone`, `sentinel` or `cluster`.
pub(super) fn mode(value: &str) -> Result<RedisMode, ValueError> {
    match value {
        "standalone" => Ok(RedisMode::Standalone),
        "sentinel" => Ok(RedisMode::Sentinel),
        "cluster" => Ok(RedisMode::Cluster),
        _ => Err(ValueError::NotOneOf("`standalone`, `sentinel`, `cluster`")),
    }
}

/// A prefix of keys; it must not break lines of logs.
pub(super) fn key_prefix(value: &str) -> Result<String, ValueError> {
    let is_fit = value.len() <= 128 && !value.contains(char::is_control);
    if is_fit { Ok(value.to_owned()) } else { Err(ValueError::NotKeyPrefix) }
}

fn url(text: &str) -> Result<RedisUrl, ValueError> {
    if text.is_empty() {
        return Err(ValueError::EmptyItem);
    }
    let info = text.into_connection_info().map_err(|_| ValueError::NotRedisUrl)?;
    let (host, port, tls) = address(info.addr()).ok_or(ValueError::NotRedisUrl)?;
    let redis = info.redis_settings();
    let db = u32::try_from(redis.db()).map_err(|_| ValueError::NotRedisUrl)?;
    if host.is_empty() || port == 0 || redis.username().is_some() && redis.password().is_none() {
        return Err(ValueError::NotRedisUrl);
    }
    let (username, password) = (redis.username().map(str::to_owned), redis.password().map(Secret::new));
    Ok(RedisUrl { node: RedisNode { host, port, username, password }, tls, db })
}

/// Host, port, and whether TLS is spoken, which is not without verifying whom to.
fn address(address: &ConnectionAddr) -> Option<(String, u16, bool)> {
    if let ConnectionAddr::Tcp(host, port) = address {
        return Some((host.clone(), *port, false));
    }
    let ConnectionAddr::TcpTls { host, port, insecure: false, .. } = address else { return None };
    Some((host.clone(), *port, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls_as_clients_of_redis_do() {
        let read =
            urls("redis://a.example, rediss://user:p%40ss@[fd00::1]:6380/2,redis://:word@10.0.0.1").unwrap();
        let hosts: Vec<_> =
            read.iter().map(|url| (url.node.host.as_str(), url.node.port, url.tls, url.db)).collect();
        assert_eq!(
            hosts,
            [("a.example", 6379, false, 0), ("fd00::1", 6380, true, 2), ("10.0.0.1", 6379, false, 0)]
        );
        assert_eq!(read[1].node.username.as_deref(), Some("user"));
        assert_eq!(read[1].node.password.as_ref().map(Secret::expose), Some("p@ss"));
        assert_eq!(read[2].node.username, None);
        assert_eq!(read[2].node.password.as_ref().map(Secret::expose), Some("word"));
    }

    #[test]
    fn refuses_what_is_no_url_of_a_redis_server_or_does_not_verify() {
        for text in [
            "http://a",
            "a:6379",
            "redis://",
            "redis://a/x",
            "redis://a/-1",
            "rediss://a#insecure",
            "redis+unix:///run/redis.sock",
            "redis://user@a",
            "redis://0.0.0.0",
        ] {
            assert_eq!(urls(text), Err(ValueError::NotRedisUrl), "{text}");
        }
        assert_eq!(urls("redis://a,"), Err(ValueError::EmptyItem));
    }

    #[test]
    fn no_password_is_shown() {
        let shown = format!("{:?}", urls("redis://u:hunter2@a").unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_prefix_of_keys_is_short_and_printable() {
        assert_eq!(key_prefix("fleet-1"), Ok("fleet-1".into()));
        assert_eq!(key_prefix("a\nb"), Err(ValueError::NotKeyPrefix));
        assert_eq!(key_prefix(&"a".repeat(129)), Err(ValueError::NotKeyPrefix));
    }
}
