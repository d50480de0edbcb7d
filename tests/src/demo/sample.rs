//! All counters at one moment, and what two such moments say about the time between them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cast::LOAD;
use super::counters::{CpuTime, EndHost};
use super::stage::{SERVER_IDS, Stage};
use crate::netns::Routed;
use crate::origin::{OriginStats, SessionStats};
use crate::proxy::{Session, Status};

/// Looks at the end hosts for the moment at which the least is in flight.
const LOOKS: usize = 10;

/// All counters at one moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: Status,
    client: EndHost,
    origins: EndHost,
    /// Datagrams of the proxy itself, which looks after its origins' ports; those it relays are not its own.
    own: i64,
    /// Sent and not arrived: to origins, to clients.
    in_flight: [i64; 2],
    cpu: CpuTime,
    pub(super) origin_stats: [OriginStats; 2],
}

impl Sample {
    pub(super) fn take(stage: &Stage<'_>) -> Result<Self> {
        let mut in_flight = [i64::MAX; 2];
        let (mut client, mut origins) = end_hosts(stage)?;
        for _ in 0..LOOKS {
            // What has arrived is read before what was sent: between the two this thread may have to wait, and datagrams
            // that come meanwhile must not hide others.
            let before = origins;
            (client, origins) = end_hosts(stage)?;
            let ahead = [difference(client.sent, before.arrived), difference(origins.sent, client.arrived)];
            in_flight = [in_flight[0].min(ahead[0]), in_flight[1].min(ahead[1])];
        }
        let sent = EndHost::read(&stage.network.proxy)?.sent;
        let cpu = CpuTime::read(stage.process())?;
        let (status, origin_stats) = (stage.status()?, stage.origin_stats());
        let own = difference(sent, status.packets("userspace"));
        Ok(Self { at: Instant::now(), status, client, origins, own, in_flight, cpu, origin_stats })
    }
}

fn end_hosts(stage: &Stage<'_>) -> Result<(EndHost, EndHost)> {
    let network = stage.network;
    let client = EndHost::read(&network.client)?;
    Ok((client, EndHost::read(&network.origin_a)? + EndHost::read(&network.origin_b)?))
}

fn difference(a: u64, b: u64) -> i64 {
    a.cast_signed().wrapping_sub(b.cast_signed())
}

/// The time between two samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) first: &'a Sample,
    pub(super) last: &'a Sample,
}

/// Shares of processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cpu {
    /// The proxy's, of one processor.
    pub(super) process: f64,
    /// The machine's, of all processors.
    pub(super) machine: f64,
    /// In software interrupts, of all processors.
    pub(super) softirq: f64,
}

/// Datagrams of some sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) sessions: usize,
    pub(super) origins: BTreeSet<char>,
    pub(super) kernel: u64,
    pub(super) userspace: u64,
    /// Counted by the origins, both ways.
    pub(super) at_origins: u64,
    /// Of both paths, towards clients.
    pub(super) to_clients: u64,
}

impl Window<'_> {
    pub(super) fn duration(self) -> Duration {
        self.last.at.duration_since(self.first.at)
    }

    /// Packets of one datapath, by the proxy's own count.
    pub(super) fn packets(self, datapath: &str) -> u64 {
        self.last.status.packets(datapath).saturating_sub(self.first.status.packets(datapath))
    }

    /// Frames that the programs of one engine forwarded.
    pub(super) fn forwarded(self, engine: &str) -> u64 {
        let count = |status: &Status| -> u64 {
            let rows = status.totals.reasons.iter();
            rows.filter(|row| row.datapath == engine && row.reason == "forwarded")
                .map(|row| row.packets)
                .sum()
        };
        count(&self.last.status).saturating_sub(count(&self.first.status))
    }

    /// Datagrams that came at either end and were for the other one.
    pub(super) fn arrived(self) -> u64 {
        self.end_hosts(|host| host.arrived).saturating_add_signed(-self.own())
    }

    fn own(self) -> i64 {
        self.last.own - self.first.own
    }

    /// Datagrams that left either end.
    pub(super) fn sent(self) -> u64 {
        self.end_hosts(|host| host.sent)
    }

    /// Datagrams that came and found no room at their reader.
    pub(super) fn no_room(self) -> u64 {
        self.end_hosts(|host| host.no_room)
    }

    /// Bits per second on the clients' link.
    pub(super) fn bits_per_second(self) -> f64 {
        let bytes = self.last.client.link_bytes.saturating_sub(self.first.client.link_bytes);
        bytes as f64 * 8.0 / self.duration().as_secs_f64()
    }

    fn end_hosts(self, count: fn(&EndHost) -> u64) -> u64 {
        let total = |sample: &Sample| count(&sample.client) + count(&sample.origins);
        total(self.last).saturating_sub(total(self.first))
    }

    /// Datagrams that left one end and never came at the other: to origins, to clients. A few may be in flight.
    pub(super) fn lost(self) -> [i64; 2] {
        let ([to_origins, to_clients], before) = (self.last.in_flight, self.first.in_flight);
        [to_origins - before[0] + self.own(), to_clients - before[1]]
    }

    pub(super) fn offloaded(self) -> Option<f64> {
        offloaded(self.packets("userspace"), self.arrived())
    }

    pub(super) fn cpu(self) -> Cpu {
        let ticks = |count: fn(&CpuTime) -> u64| count(&self.last.cpu).saturating_sub(count(&self.first.cpu));
        let machine = ticks(|cpu| cpu.machine).max(1) as f64;
        let wall = rustix::param::clock_ticks_per_second() as f64 * self.duration().as_secs_f64();
        Cpu {
            process: ticks(|cpu| cpu.process) as f64 / wall,
            machine: 1.0 - ticks(|cpu| cpu.idle) as f64 / machine,
            softirq: ticks(|cpu| cpu.softirq) as f64 / machine,
        }
    }

    /// Datagrams that came to where the media of publishers, or of players, is to go.
    pub(super) fn received(self, publishes: bool) -> u64 {
        let of_publishers = |sample: &Sample, count: fn(&SessionStats) -> u64| -> u64 {
            sample.origin_stats.iter().flat_map(|origin| origin.sessions_of(true)).map(count).sum()
        };
        let since = |count: fn(&SessionStats) -> u64| {
            of_publishers(self.last, count).saturating_sub(of_publishers(self.first, count))
        };
        if publishes {
            return since(|session| session.datagrams_in);
        }
        let arrived = self.last.client.arrived.saturating_sub(self.first.client.arrived);
        let by_srt: u64 = [true, false].map(|publishes| self.srt(publishes).to_clients).iter().sum();
        arrived.saturating_sub(since(|session| session.datagrams_out) + by_srt)
    }

    /// What passed of the sessions that `wanted` picks by the name of their stream and whether they publish.
    pub(super) fn traffic(self, wanted: impl Fn(&str, bool) -> bool) -> Traffic {
        self.traffic_of("webrtc", wanted)
    }

    /// What passed by SRT of publishers, or of players.
    pub(super) fn srt(self, publishes: bool) -> Traffic {
        self.traffic_of("srt", |_, role| role == publishes)
    }

    fn traffic_of(self, protocol: &str, wanted: impl Fn(&str, bool) -> bool) -> Traffic {
        let (first, last) =
            (Totals::of(self.first, protocol, &wanted), Totals::of(self.last, protocol, &wanted));
        let sessions =
            self.last.status.sessions.iter().filter(|session| is_wanted(session, protocol, &wanted));
        Traffic {
            sessions: sessions.clone().count(),
            origins: sessions.map(|session| origin_name(&session.media)).collect(),
            kernel: last.kernel.saturating_sub(first.kernel),
            userspace: last.userspace.saturating_sub(first.userspace),
            at_origins: last.at_origins.saturating_sub(first.at_origins),
            to_clients: last.to_clients.saturating_sub(first.to_clients),
        }
    }
}

/// The part of what came at the ends that userspace did not relay; `None` when nothing came.
pub(super) fn offloaded(relayed: u64, arrived: u64) -> Option<f64> {
    (arrived > 0).then(|| (1.0 - relayed as f64 / arrived as f64).max(0.0))
}

struct Totals {
    kernel: u64,
    userspace: u64,
    at_origins: u64,
    to_clients: u64,
}

impl Totals {
    fn of(sample: &Sample, protocol: &str, wanted: impl Fn(&str, bool) -> bool) -> Self {
        let sessions = sample.status.sessions.iter().filter(|session| is_wanted(session, protocol, &wanted));
        let to_clients = |session: &Session| {
            session.userspace.to_client + session.kernel.map_or(0, |kernel| kernel.to_client)
        };
        let at_origins = sample.origin_stats.iter().flat_map(|origin| &origin.sessions);
        let at_origins = at_origins.filter(|session| wanted(name_of(&session.stream), session.publish));
        Self {
            kernel: sessions.clone().filter_map(|session| session.kernel).map(|both| both.total()).sum(),
            userspace: sessions.clone().map(|session| session.userspace.total()).sum(),
            to_clients: sessions.map(to_clients).sum(),
            at_origins: at_origins.map(|session| session.datagrams_in + session.datagrams_out).sum(),
        }
    }
}

fn is_wanted(session: &Session, protocol: &str, wanted: impl Fn(&str, bool) -> bool) -> bool {
    session.protocol == protocol && wanted(name_of(&session.stream), session.role == "publisher")
}

/// The last part of a stream's path; load streams are one.
pub(super) fn name_of(stream: &str) -> &str {
    let name = stream.rsplit('/').next().unwrap_or(stream);
    if name.starts_with(LOAD) { LOAD } else { name }
}

/// Which of the origins an id names, as the proxy tells it.
pub(super) fn origin_name_of(id: &str) -> Option<char> {
    SERVER_IDS.iter().zip(['A', 'B']).find(|(server, _)| id.starts_with(**server)).map(|(_, name)| name)
}

fn origin_name(media: &str) -> char {
    if media.starts_with(&format!("{}:", Routed::ORIGIN_A)) { 'A' } else { 'B' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_what_userspace_did_not_relay() {
        assert_eq!(offloaded(0, 100), Some(1.0));
        assert_eq!(offloaded(1, 100), Some(0.99));
        assert_eq!(offloaded(150, 100), Some(0.0), "packets in flight cannot make it negative");
        assert_eq!(offloaded(0, 0), None);
    }

    #[test]
    fn load_streams_are_one() {
        assert_eq!(name_of("live/show1"), "show1");
        assert_eq!(["live/load0", "v/live/load12"].map(name_of), [LOAD, LOAD]);
    }

    #[test]
    fn origins_are_told_apart_by_address() {
        assert_eq!(origin_name("10.71.4.2:8000"), 'A');
        assert_eq!(origin_name("10.71.5.2:8000"), 'B');
    }
}
