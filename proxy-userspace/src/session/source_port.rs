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

/// A port that must not be leased yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Our address.
    pub source: SocketAddr,
    /// The origin endpoint it was used towards.
    pub origin: SocketAddr,
    /// How much longer it rests.
    pub left: Duration,
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

    /// Leases the very port that an earlier process leased; false if it is leased or resting already.
    ///
    /// It may lie outside the range: that of an earlier process need not be ours.
    pub fn adopt(&mut self, source: SocketAddr, origin: SocketAddr) -> bool {
        self.spaces.entry((source.ip(), origin)).or_default().taken.insert(source.port())
    }

    /// Lets a port that an earlier process freed rest for as long as it still has to.
    pub fn adopt_rest(&mut self, rest: Rest, now: Instant) {
        if self.adopt(rest.source, rest.origin) {
            let until = now + rest.left.min(self.rest);
            let space = self.spaces.entry((rest.source.ip(), rest.origin)).or_default();
            let at = space.resting.partition_point(|(other, _)| *other <= until);
            space.resting.insert(at, (until, rest.source.port()));
        }
    }

    /// Every port that rests.
    pub fn rests(&self, now: Instant) -> impl Iterator<Item = Rest> {
        self.spaces.iter().flat_map(move |(&(ip, origin), space)| {
            space.resting.iter().map(move |&(until, port)| Rest {
                source: SocketAddr::new(ip, port),
                origin,
                left: until.saturating_duration_since(now),
            })
        })
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
            // An adopted port may lie outside the range.
            if let Some(offset) = port.checked_sub(first).map(u32::from).filter(|offset| *offset < size) {
                self.next = self.next.min((offset + size - u32::from(start)) % size);
            }
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
    fn an_adopted_port_is_leased_and_rests_when_it_is_freed() {
        let (mut ports, now) = (pool(1), Instant::now());
        let port = SocketAddr::new(ip(1), 61000);
        assert!(ports.adopt(port, origin(2)));
        assert!(!ports.adopt(port, origin(2)), "it is leased already");
        assert_eq!(ports.lease(&[ip(1)], origin(2), now), None);
        ports.release(port, origin(2), now);
        assert_eq!(ports.lease(&[ip(1)], origin(2), now + REST), Some(port));
    }

    #[test]
    fn an_adopted_port_outside_the_range_rests_and_is_not_leased_again() {
        let (mut ports, now) = (pool(1), Instant::now());
        for port in [60_999, 61_001] {
            let port = SocketAddr::new(ip(1), port);
            assert!(ports.adopt(port, origin(2)));
            ports.release(port, origin(2), now);
        }
        assert_eq!(ports.lease(&[ip(1)], origin(2), now + REST).map(|lease| lease.port()), Some(61_000));
        assert_eq!(ports.lease(&[ip(1)], origin(2), now + REST), None);
    }

    #[test]
    fn rests_go_on_where_an_earlier_process_left_them() {
        let (mut before, now) = (pool(2), Instant::now());
        for wait in [0, 10] {
            let lease = before.lease(&[ip(1)], origin(2), now).unwrap();
            before.release(lease, origin(2), now + Duration::from_secs(wait));
        }
        let mut rests: Vec<_> = before.rests(now + Duration::from_secs(20)).collect();
        // In whatever order they come.
        rests.reverse();
        let mut after = pool(2);
        rests.into_iter().for_each(|rest| after.adopt_rest(rest, now));
        assert_eq!(after.usage().resting, 2);
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(after.lease(&[ip(1)], origin(2), at(24)), None);
        assert!(after.lease(&[ip(1)], origin(2), at(25)).is_some());
        assert_eq!(after.lease(&[ip(1)], origin(2), at(34)), None);
        assert!(after.lease(&[ip(1)], origin(2), at(35)).is_some());
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
