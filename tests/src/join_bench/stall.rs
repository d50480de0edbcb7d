//! What a viewer that reads fast and then stalls has the proxy and its kernel hold.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    origin::Origin,
    site::{HTTP, Site},
    trial,
    viewers::Viewers,
};
use crate::{
    interrupt::Interrupt,
    live::{HTTP_PORT, Held},
    netns::Direct,
};

/// Long enough for every buffer to have grown as far as it does.
const READS: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(20);

/// What is held once nothing moves any more, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stalled {
    /// What the viewer had got by then.
    read: u64,
    /// Memory of the two sockets of the proxy.
    sockets: u64,
    /// What is in neither socket: in a pipe or a buffer.
    between: u64,
    /// What the origin was rid of and the viewer's kernel did not have.
    payload: u64,
}

impl Stalled {
    pub(super) fn total(&self) -> u64 {
        self.sockets + self.between
    }

    /// The origin's connection, the proxy's two, and the viewer's.
    fn of([origin, inside, outside, viewer]: [Held; 4]) -> Self {
        let payload = origin.acknowledged.saturating_sub(viewer.received);
        Self {
            read: viewer.received.saturating_sub(viewer.unread),
            sockets: inside.memory + outside.memory,
            between: payload.saturating_sub(inside.unread + outside.unsent),
            payload,
        }
    }
}

pub(super) fn run(site: &Site, means: &'static str, interrupt: &Interrupt) -> Result<Stalled> {
    let _origin = Origin::start(&site.network.origin)?;
    let _proxy = trial::proxy(site, [HTTP, HTTP], &[("PROXY_TCP_JOIN", means)])?;
    let to = SocketAddr::from((Direct::PROXY, HTTP_PORT));
    let viewers = Viewers::start(&site.network.client, to, "bulk", 1)?;
    interrupt.sleep(READS)?;
    viewers.stall();
    let end = Instant::now() + LIMIT;
    let mut last = look(site)?;
    loop {
        interrupt.sleep(STEP)?;
        let now = look(site)?;
        if now == last {
            break;
        }
        ensure!(Instant::now() < end, "bytes still move {LIMIT:?} after the viewer stalled");
        last = now;
    }
    viewers.check()?;
    Ok(Stalled::of(last))
}

fn look(site: &Site) -> Result<[Held; 4]> {
    let Direct { client, proxy, origin } = &site.network;
    let (from_http, to_http) = (format!("sport = :{HTTP}"), format!("dport = :{HTTP}"));
    let (from_proxy, to_proxy) = (format!("sport = :{HTTP_PORT}"), format!("dport = :{HTTP_PORT}"));
    Ok([
        Held::by(origin, &from_http)?,
        Held::by(proxy, &to_http)?,
        Held::by(proxy, &from_proxy)?,
        Held::by(client, &to_proxy)?,
    ])
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let Self { read, sockets, between, payload } = self;
        write!(
            f,
            "{:.2} MiB: {:.2} in sockets, {:.2} between them, for {:.2} of payload, after {:.0} MiB were read",
            mib(self.total()),
            mib(*sockets),
            mib(*between),
            mib(*payload),
            mib(*read)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_socket_is_between_them() {
        let held = Held::default();
        let origin = Held { acknowledged: 1000, ..held };
        let inside = Held { unread: 300, memory: 400, ..held };
        let outside = Held { unsent: 100, memory: 150, ..held };
        let viewer = Held { unread: 50, received: 500, ..held };
        let stalled = Stalled::of([origin, inside, outside, viewer]);
        assert_eq!(stalled, Stalled { read: 450, sockets: 550, between: 100, payload: 500 });
        assert_eq!(stalled.total(), 650);
    }
}
