//! One origin's viewers by RTMP, thousands of them at once: whether each gets media, from ports of ours that nobody has twice.

use std::{
    collections::HashSet,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    cpu::Clock,
    memory::Memory,
    players::Players,
    rtmp_origin::RtmpOrigin,
    site::{RTMP, Site},
    trial,
};
use crate::{interrupt::Interrupt, live::RTMP_PORT, netns::Direct};

/// `PROXY_TCP_SOURCE_PORTS`.
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;
/// Between frames of a viewer.
const PERIOD: Duration = Duration::from_millis(500);
/// Of each viewer: the first ones are relayed, later ones joined.
const FRAMES: u32 = 4;

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Crowd {
    viewers: usize,
    set_up: Duration,
    /// What the proxy used of a CPU while everybody watched.
    load: f64,
    /// Frames that arrived in a second.
    frames: f64,
    /// Of the proxy's process and its sockets, for a viewer.
    memory: Memory,
    origin_saw: Sources,
}

/// Where the origin was connected from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sources {
    connections: usize,
    /// How many of them have a tuple of their own.
    distinct: usize,
    /// How many come from the proxy's address and range.
    ours: usize,
}

pub(super) fn run(site: &Site, viewers: usize, window: Duration, interrupt: &Interrupt) -> Result<Crowd> {
    let origin = RtmpOrigin::start(&site.network.origin, Some(PERIOD))?;
    let proxy = trial::proxy(site, [RTMP, RTMP], &[])?;
    let to = SocketAddr::from((Direct::PROXY, RTMP_PORT));
    let (begin, before) = (Instant::now(), Memory::now(Some(proxy.id()))?);
    let players = Players::start(&site.network.client, to, viewers, FRAMES)?;
    let (set_up, after) = (begin.elapsed(), Memory::now(Some(proxy.id()))?);
    let clock = Clock::new(Some(proxy.id()))?;
    let (begin, frames, used) = (Instant::now(), players.frames(), clock.read()?);
    interrupt.sleep(window)?;
    let (lasted, frames, used) = (begin.elapsed(), players.frames() - frames, clock.read()? - used);
    players.check()?;
    Ok(Crowd {
        viewers,
        set_up,
        load: used.relay.as_secs_f64() / lasted.as_secs_f64(),
        frames: frames as f64 / lasted.as_secs_f64(),
        memory: after - before,
        origin_saw: Sources::of(&origin.players()),
    })
}

impl Sources {
    fn of(seen: &[SocketAddr]) -> Self {
        let is_ours =
            |from: &&SocketAddr| (from.ip() == Direct::PROXY_INSIDE) && SOURCE_PORTS.contains(&from.port());
        Self {
            connections: seen.len(),
            distinct: seen.iter().collect::<HashSet<_>>().len(),
            ours: seen.iter().filter(is_ours).count(),
        }
    }
}

impl Crowd {
    /// That each viewer has frames is what waiting for it was about.
    pub(super) fn holds(&self) -> bool {
        let Sources { connections, distinct, ours } = self.origin_saw;
        [connections, distinct, ours] == [self.viewers; 3]
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { viewers, set_up, load, frames, memory, origin_saw } = self;
        let Sources { connections, distinct, ours } = origin_saw;
        let each = memory.process as f64 / *viewers as f64;
        write!(
            f,
            "{viewers} viewers in {:.1} s, {frames:.0} frames/s; the proxy uses {:.1} % of a CPU and {each:.0} bytes \
             of its own for each; the origin saw {connections} connections, {distinct} of them distinct and {ours} \
             from ports of ours",
            set_up.as_secs_f64(),
            load * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(ports: &[u16]) -> bool {
        let seen: Vec<_> = ports.iter().map(|port| SocketAddr::from((Direct::PROXY_INSIDE, *port))).collect();
        let (set_up, memory) = (Duration::ZERO, Memory::default());
        let origin_saw = Sources::of(&seen);
        Crowd { viewers: 2, set_up, load: 0.0, frames: 0.0, memory, origin_saw }.holds()
    }

    #[test]
    fn every_viewer_needs_a_port_of_ours_and_of_its_own() {
        assert!(holds(&[20_000, 29_999]));
        assert!(!holds(&[20_000, 20_000]));
        assert!(!holds(&[20_000, 30_000]));
        assert!(!holds(&[20_000]));
    }
}
