//! A master and a replica, and Sentinels that make the replica the master when it is silent.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{Redis, until};
use crate::netns::Namespace;

const MASTER: u16 = 6379;
const REPLICA: u16 = 6380;
const SENTINELS: [u16; 3] = [26379, 26380, 26381];
const QUORUM: usize = 2;

/// All of them, in one namespace.
#[derive(Debug)]
pub struct Sentinels<'a> {
    /// The master at the start.
    pub master: Redis<'a>,
    /// The other one.
    pub replica: Redis<'a>,
    address: Ipv4Addr,
    _watching: Vec<Redis<'a>>,
}

impl<'a> Sentinels<'a> {
    /// The name of the master.
    pub const NAME: &'static str = "mymaster";

    /// Starts them at an address of the namespace, and waits until they know each other.
    ///
    /// # Errors
    /// When they do not.
    pub fn start(namespace: &'a Namespace, address: Ipv4Addr) -> Result<Self> {
        let master = Redis::start_open(namespace, MASTER, &[])?;
        let (of, port) = (address.to_string(), MASTER.to_string());
        let replica = Redis::start_open(namespace, REPLICA, &["--replicaof", &of, &port])?;
        let watching =
            SENTINELS.map(|port| Redis::start_sentinel(namespace, port, (address, MASTER), QUORUM));
        let watching = watching.into_iter().collect::<Result<Vec<_>>>()?;
        until("the Sentinels know each other and the replica", || {
            Ok(watching.iter().all(|sentinel| {
                let known = sentinel.cli(&["SENTINEL", "master", Self::NAME]).unwrap_or_default();
                let lines: Vec<&str> = known.lines().collect();
                let value =
                    |name: &str| lines.iter().position(|line| *line == name).and_then(|at| lines.get(at + 1));
                value("num-other-sentinels") == Some(&"2") && value("num-slaves") == Some(&"1")
            }))
        })?;
        Ok(Self { master, replica, address, _watching: watching })
    }

    /// Where Sentinels are asked; there is none at the first address.
    #[must_use]
    pub fn urls(&self) -> String {
        let ports = [26999].into_iter().chain(SENTINELS);
        ports.map(|port| format!("redis://{}:{port}", self.address)).collect::<Vec<_>>().join(",")
    }
}
