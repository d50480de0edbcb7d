//! Source ports towards origins: leases from a range of our own, with a rest after each.
//!
//! SRS finds a session by its peer address and keeps it for 30 s after the last packet, so a port that is used again
//! too early would feed one client's packets to another client's session. Every origin endpoint sees its own space:
//! the same port may serve one session of each origin.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

/// The ports of every (source address, origin endpoint) pair.
#[derive(Debug)]
pub struct SourcePorts {
    range: RangeInclusive<u16>,
    rest: Duration,
    /// Where a new space starts: differs from run to run, so that a restart does not hand out what just died.
    start: u16,
    spaces: HashMap<(IpAddr, SocketAddr), Space>,
    unusable: HashSet<SocketAddr>,
    /// Ports that have rested, and towards which origin, since [`SourcePorts::sweep`] was last called.
    rested: HashSet<(SocketAddr, SocketAddr)>,
}

#[derive(Debug, Default)]
struct Space {
    /// No port before this one is free. Leases stay close together: the kernel keeps records by blocks of ports.
    next: u32,
    taken: HashSet<u16>,
    resting: VecDeque<(Instant, u16)>,
}

/// How full the fullest space is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Ports leased in all spaces.
    pub leased: usize,
    /// Ports resting in all spaces.
    pub resting: usize,
    /// Leased and resting ports of the fullest space.
    pub fullest: usize,
    /// Ports of one space.
    pub capacity: usize,
}

impl SourcePorts {
    /// Ports of `range`; a freed one rests for `rest`. `seed` chooses where allocation starts.
    pub fn new(range: RangeInclusive<u16>, rest: Duration, seed: u16) -> Self {
        let start = seed % (range.end() - range.start()).saturating_add(1).max(1);
        Self { range, rest, start, spaces: HashMap::new(), unusable: HashSet::new(), rested: HashSet::new() }
    }

    /// Takes a port towards `origin` on the first of `sources` that has one; `None` when all are exhausted.
    pub fn lease(&mut self, sources: &[IpAddr], origin: SocketAddr, now: Instant) -> Option<SocketAddr> {
        sources.iter().find_map(|&source| self.lease_from(source, origin, now))
    }

    fn lease_from(&mut self, source: IpAddr, origin: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let (first, size) = (*self.range.start(), self.range.len() as u32);
        let start = u32::from(self.start);
        let space = self.spaces.entry((source, origin)).or_default();
        let woken = space.wake(now, (first, self.start, size));
        self.rested.extend(woken.into_iter().map(|port| (SocketAddr::new(source, port), origin)));
        while space.next < size {
            let offset = (start + space.next) % size;
            space.next += 1;
            let port = first + u16::try_from(offset).expect("an offset into a range of u16");
            let address = SocketAddr::new(source, port);
            if !self.unusable.contains(&address) && space.taken.insert(port) {
                self.rested.remove(&(address, origin));
                return Some(address);
            }
        }
        None
    }

    /// Gives a port back; it rests before it is leased towards `origin` again.
    pub fn release(&mut self, source: SocketAddr, origin: SocketAddr, now: Instant) {
        if let Some(space) = self.spaces.get_mut(&(source.ip(), origin)) {
            space.resting.push_back((now + self.rest, source.port()));
        }
    }

    /// Gives back a port that could not be bound and never leases it again.
    pub fn discard(&mut self, source: SocketAddr, origin: SocketAddr) {
        self.unusable.insert(source);
        if let Some(space) = self.spaces.get_mut(&(source.ip(), origin)) {
            space.taken.remove(&source.port());
        }
    }

    /// Ends rests that are over and drops spaces that hold nothing; names the ports, and the origins they were towards, that
    /// have rested and were not leased again.
    pub fn sweep(&mut self, now: Instant) -> Vec<(SocketAddr, SocketAddr)> {
        let Self { spaces, rested, start, range, .. } = self;
        spaces.retain(|(source, origin), space| {
            let woken = space.wake(now, (*range.start(), *start, range.len() as u32));
            rested.extend(woken.into_iter().map(|port| (SocketAddr::new(*source, port), *origin)));
            !space.taken.is_empty()
        });
        rested.drain().collect()
    }

    /// How full the spaces are.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage { capacity: self.range.len(), ..Usage::default() };
        for space in self.spaces.values() {
            usage.resting += space.resting.len();
            usage.leased += space.taken.len() - space.resting.len();
            usage.fullest = usage.fullest.max(space.taken.len());
        }
        usage
    }
}

impl Space {
    /// Ports whose rest is over.
    fn wake(&mut self, now: Instant, (first, start, size): (u16, u16, u32)) -> Vec<u16> {
        let over = self.resting.iter().take_while(|(until, _)| *until <= now).count();
        let woken: Vec<u16> = self.resting.drain(..over).map(|(_, port)| port).collect();
        for port in &woken {
            self.taken.remove(port);
            let offset = u32::from(port - first) + size - u32::from(start);
            self.next = self.next.min(offset % size);
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(45);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn origin(last: u8) -> SocketAddr {
        SocketAddr::new(ip(last), 8000)
    }

    fn pool(size: u16) -> SourcePorts {
        SourcePorts::new(61000..=61000 + size - 1, REST, 7)
    }

    #[test]
    fn every_port_of_the_range_is_leased_once_then_none() {
        let (mut ports, now) = (pool(4), Instant::now());
        let leased: HashSet<_> =
            std::iter::from_fn(|| ports.lease(&[ip(1)], origin(2), now)).map(|a| a.port()).collect();
        assert_eq!(leased, (61000..=61003).collect());
    }

    #[test]
    fn each_origin_endpoint_has_its_own_space() {
        let (mut ports, now) = (pool(1), Instant::now());
        let a = ports.lease(&[ip(1)], origin(2), now);
        assert_eq!(ports.lease(&[ip(1)], origin(3), now), a);
        assert_eq!(ports.lease(&[ip(1)], origin(2), now), None);
    }

    #[test]
    fn a_second_source_address_doubles_the_space() {
        let (mut ports, now) = (pool(1), Instant::now());
        let sources = [ip(1), ip(9)];
        assert_eq!(ports.lease(&sources, origin(2), now).unwrap().ip(), ip(1));
        assert_eq!(ports.lease(&sources, origin(2), now).unwrap().ip(), ip(9));
        assert_eq!(ports.lease(&sources, origin(2), now), None);
    }

    #[test]
    fn a_freed_port_rests_before_it_is_leased_again() {
        let (mut ports, now) = (pool(1), Instant::now());
        let lease = ports.lease(&[ip(1)], origin(2), now).unwrap();
        ports.release(lease, origin(2), now);
        assert_eq!(ports.lease(&[ip(1)], origin(2), now + REST - Duration::from_millis(1)), None);
        assert_eq!(ports.lease(&[ip(1)], origin(2), now + REST), Some(lease));
    }

    #[test]
    fn leases_stay_close_together() {
        let (mut ports, now) = (pool(100), Instant::now());
        let first = ports.lease(&[ip(1)], origin(2), now).unwrap();
        for _ in 0..1000 {
            let lease = ports.lease(&[ip(1)], origin(2), now).unwrap();
            ports.release(lease, origin(2), now);
            ports.sweep(now + REST);
        }
        let last = ports.lease(&[ip(1)], origin(2), now).unwrap();
        assert_eq!(last.port(), first.port() + 1);
    }

    #[test]
    fn a_port_that_is_leased_again_has_not_rested_for_nobody() {
        let (mut ports, now) = (pool(1), Instant::now());
        let lease = ports.lease(&[ip(1)], origin(2), now).unwrap();
        ports.release(lease, origin(2), now);
        assert_eq!(ports.lease(&[ip(1)], origin(2), now + REST), Some(lease));
        assert_eq!(ports.sweep(now + REST), []);
    }

    #[test]
    fn a_port_that_cannot_be_bound_is_never_offered_again() {
        let (mut ports, now) = (pool(2), Instant::now());
        let bad = ports.lease(&[ip(1)], origin(2), now).unwrap();
        ports.discard(bad, origin(2));
        let good = ports.lease(&[ip(1)], origin(2), now).unwrap();
        assert_ne!(good, bad);
        assert_eq!(ports.lease(&[ip(1)], origin(2), now), None);
        assert_eq!(ports.lease(&[ip(1)], origin(3), now), Some(good));
    }

    #[test]
    fn nothing_is_kept_once_all_rests_are_over() {
        let (mut ports, now) = (pool(4), Instant::now());
        let lease = ports.lease(&[ip(1)], origin(2), now).unwrap();
        ports.release(lease, origin(2), now);
        assert_eq!(ports.usage(), Usage { leased: 0, resting: 1, fullest: 1, capacity: 4 });
        assert_eq!(ports.sweep(now), []);
        assert_eq!(ports.sweep(now + REST), [(lease, origin(2))]);
        assert_eq!(ports.usage(), Usage { capacity: 4, ..Usage::default() });
        assert!(ports.spaces.is_empty());
    }
}
