//! Settings that say where Redis is, compared with each other: each may be right by itself and make no sense beside others.

use super::{ConfigError, Reader, s};
use crate::config::{
    Redis, RedisNode, RedisServers, RedisTls, Secret, parse,
    redis::{self, RedisMode, RedisUrl},
    settings::Setting,
};

impl Reader<'_> {
    pub(super) fn redis(&mut self) -> Redis {
        let urls = self.redis_urls();
        let mode = self.redis_mode(&urls);
        let tls = self.redis_tls(&urls);
        let (username, password) = self.redis_user(mode, &urls);
        Redis {
            tls,
            username,
            password,
            db: self.redis_db(mode, &urls),
            key_prefix: self.optional(s::REDIS_KEY_PREFIX, redis::key_prefix).unwrap_or_default(),
            timeout: self.required(s::REDIS_TIMEOUT, parse::positive),
            servers: self.redis_servers(mode, urls),
        }
    }

    fn redis_urls(&mut self) -> Vec<RedisUrl> {
        let host = self.required(s::REDIS_HOST, parse::host);
        let port = self.required(s::REDIS_PORT, parse::number(1..=u16::MAX));
        let Some(urls) = self.optional(s::REDIS_URL, redis::urls) else {
            let node = RedisNode { host, port, username: None, password: None };
            return vec![RedisUrl { node, tls: false, db: 0 }];
        };
        for setting in [s::REDIS_HOST, s::REDIS_PORT] {
            if self.is_given(setting) {
                self.conflicts(
                    setting,
                    "has no effect beside PROXY_REDIS_URL, which names the servers; set one of them",
                );
            }
        }
        urls
    }

    fn redis_mode(&mut self, urls: &[RedisUrl]) -> RedisMode {
        let names_master = self.is_given(s::REDIS_SENTINEL_MASTER);
        let default = if names_master { RedisMode::Sentinel } else { RedisMode::Standalone };
        let mode = self.optional(s::REDIS_MODE, redis::mode).unwrap_or(default);
        if mode == RedisMode::Standalone && urls.len() > 1 {
            self.conflicts(
                s::REDIS_URL,
                "names several servers; set PROXY_REDIS_MODE to `sentinel` or `cluster`",
            );
        }
        if mode != RedisMode::Sentinel && names_master {
            self.conflicts(s::REDIS_SENTINEL_MASTER, "has a meaning in PROXY_REDIS_MODE `sentinel` alone");
        }
        mode
    }

    fn redis_tls(&mut self, urls: &[RedisUrl]) -> Option<RedisTls> {
        let ca = self.optional(s::REDIS_CA, parse::text).map(Into::into);
        let secured = urls.iter().filter(|url| url.tls).count();
        if secured != 0 && secured != urls.len() {
            self.conflicts(s::REDIS_URL, "mixes redis:// and rediss://; use one of them");
        }
        if secured == 0 && ca.is_some() {
            self.conflicts(s::REDIS_CA, "has no effect without a rediss:// URL in PROXY_REDIS_URL");
        }
        (secured > 0).then_some(RedisTls { ca })
    }

    /// Whose credentials a URL holds: the Sentinel's where there are Sentinels, else the server's.
    fn redis_user(&mut self, mode: RedisMode, urls: &[RedisUrl]) -> (Option<String>, Option<Secret>) {
        let username = self.optional(s::REDIS_USERNAME, parse::text);
        let password = self.optional(s::REDIS_PASSWORD, parse::text).map(Secret::new);
        if username.is_some() && password.is_none() {
            self.conflicts(s::REDIS_USERNAME, "needs PROXY_REDIS_PASSWORD");
        }
        let in_url = urls.iter().map(|url| &url.node).find(|node| node.password.is_some());
        match in_url {
            Some(node) if mode != RedisMode::Sentinel => {
                if password.is_some() {
                    self.conflicts(
                        s::REDIS_PASSWORD,
                        "is given here and in PROXY_REDIS_URL; set one of them",
                    );
                }
                (node.username.clone(), node.password.clone())
            }
            Some(_) | None => (username, password),
        }
    }

    fn redis_db(&mut self, mode: RedisMode, urls: &[RedisUrl]) -> u32 {
        let db = self.required(s::REDIS_DB, parse::number(0..=u32::MAX));
        let in_url = urls.iter().map(|url| url.db).find(|db| *db != 0);
        match (mode, in_url) {
            (RedisMode::Sentinel, Some(_)) => {
                self.conflicts(s::REDIS_URL, "names a database of a Sentinel; use PROXY_REDIS_DB");
            }
            (RedisMode::Standalone, Some(other)) if self.is_given(s::REDIS_DB) && other != db => {
                self.conflicts(
                    s::REDIS_DB,
                    "is another database than that of PROXY_REDIS_URL; set one of them",
                );
            }
            (RedisMode::Cluster, _) if db != 0 || in_url.is_some() => {
                self.conflicts(
                    s::REDIS_DB,
                    "must be 0 in PROXY_REDIS_MODE `cluster`: a cluster has one database",
                );
            }
            (RedisMode::Standalone | RedisMode::Sentinel | RedisMode::Cluster, _) => {}
        }
        in_url.unwrap_or(db)
    }

    fn redis_servers(&mut self, mode: RedisMode, urls: Vec<RedisUrl>) -> RedisServers {
        let mut nodes = urls.into_iter().map(|url| url.node);
        let without_user = |node| RedisNode { username: None, password: None, ..node };
        match mode {
            RedisMode::Standalone => {
                RedisServers::Standalone(without_user(nodes.next().expect("a list of URLs has an item")))
            }
            RedisMode::Cluster => RedisServers::Cluster(nodes.map(without_user).collect()),
            RedisMode::Sentinel => {
                let master = self.optional(s::REDIS_SENTINEL_MASTER, parse::text);
                if master.is_none() {
                    let because = "PROXY_REDIS_MODE is `sentinel`";
                    let setting = s::REDIS_SENTINEL_MASTER.variable;
                    self.errors.push(ConfigError::Missing { setting, because });
                }
                RedisServers::Sentinel { sentinels: nodes.collect(), master: master.unwrap_or_default() }
            }
        }
    }

    fn is_given(&self, setting: Setting) -> bool {
        self.stack.lookup(&setting).is_some()
    }

    fn conflicts(&mut self, setting: Setting, reason: &'static str) {
        self.errors.push(ConfigError::Conflict { setting: setting.variable, reason });
    }
}
