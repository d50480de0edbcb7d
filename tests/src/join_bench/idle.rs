//! What an idle joined connection costs: the memory that some thousands of them take, less what they take without a proxy.

use std::{fmt, net::SocketAddr, time::Duration};

use anyhow::Result;

use super::{
    memory::Memory,
    origin::Origin,
    players::Players,
    rtmp_origin::RtmpOrigin,
    site::{HTTP, RTMP, Site},
    trial,
    viewers::Viewers,
};
use crate::{
    interrupt::Interrupt,
    live::{HTTP_PORT, RTMP_PORT},
    netns::Direct,
    samples::Samples,
};

/// Sockets of a proxied connection that are not the ends'.
const SOCKETS: usize = 2;
/// What was freed is given back by then.
const SETTLE: Duration = Duration::from_millis(1500);

/// How they are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Rtmp,
}

/// Bytes for a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Idle {
    pub(super) total: Samples,
    caches: Samples,
    queues: Samples,
    process: Samples,
}

impl Protocol {
    pub(super) const ALL: [Self; 2] = [Self::Http, Self::Rtmp];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP-FLV",
            Self::Rtmp => "RTMP",
        }
    }
}

/// What each of `count` connections costs, measured once more.
pub(super) fn measure(
    site: &Site,
    protocol: Protocol,
    count: usize,
    idle: &mut Idle,
    interrupt: &Interrupt,
) -> Result<()> {
    let without = grown(site, protocol, count, false, interrupt)?;
    let with = grown(site, protocol, count, true, interrupt)?;
    idle.push((with - without).with_names(SOCKETS * count), count);
    Ok(())
}

/// What memory grows by when so many connect.
fn grown(
    site: &Site,
    protocol: Protocol,
    count: usize,
    is_proxied: bool,
    interrupt: &Interrupt,
) -> Result<Memory> {
    let Direct { client, origin, .. } = &site.network;
    let (ports, entrance) = match protocol {
        Protocol::Http => ([HTTP, HTTP], HTTP_PORT),
        Protocol::Rtmp => ([RTMP, RTMP], RTMP_PORT),
    };
    let http = (protocol == Protocol::Http).then(|| Origin::start(origin)).transpose()?;
    let rtmp = (protocol == Protocol::Rtmp).then(|| RtmpOrigin::start(origin, None)).transpose()?;
    let proxy = is_proxied.then(|| trial::proxy(site, ports, &[])).transpose()?;
    let to = match &proxy {
        Some(_) => SocketAddr::from((Direct::PROXY, entrance)),
        None => SocketAddr::from((Direct::ORIGIN, ports[0])),
    };
    let process = proxy.as_ref().map(crate::proxy::Proxy::id);
    let before = Memory::now(process)?;
    let viewers = http.as_ref().map(|_| Viewers::start(client, to, "idle", count)).transpose()?;
    let players = rtmp.as_ref().map(|_| Players::start(client, to, count, 1)).transpose()?;
    interrupt.sleep(SETTLE)?;
    let grown = Memory::now(process)? - before;
    drop((viewers, players));
    Ok(grown)
}

impl Idle {
    fn push(&mut self, memory: Memory, count: usize) {
        let each = |bytes: i64| bytes as f64 / count as f64;
        self.total.push(each(memory.total()));
        self.caches.push(each(memory.caches));
        self.queues.push(each(memory.queues));
        self.process.push(each(memory.process));
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { total, caches, queues, process } = self;
        write!(f, "{total} bytes: {caches} of the kernel, {queues} of queues, {process} of the process")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_costs_what_many_cost_by_their_number() {
        let mut idle = Idle::default();
        let memory = Memory { caches: 30_000, queues: 0, process: 12_000 };
        idle.push(memory.with_names(10), 10);
        assert_eq!((idle.caches.median(), idle.total.median()), (3192.0, 4392.0));
    }
}
