//! Turns host names into addresses, never without a deadline.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::lookup_host,
    sync::Semaphore,
    time::{Instant, timeout},
};

/// Look-ups at once: each occupies a thread of the runtime's blocking pool.
const CONCURRENT: usize = 16;
/// How long an answer, or that there is none, is taken as true.
const FRESH: Duration = Duration::from_secs(10);
/// Names remembered: clients choose them by their `Host` header.
const REMEMBERED: usize = 1024;

/// Looks up names, and remembers for a short while.
#[derive(Debug)]
pub struct Resolver {
    deadline: Duration,
    slots: Semaphore,
    answers: Mutex<HashMap<String, Answer>>,
}

#[derive(Clone, Debug)]
struct Answer {
    ips: Vec<IpAddr>,
    until: Instant,
}

impl Resolver {
    /// Waits at most `deadline` for an answer.
    pub fn new(deadline: Duration) -> Self {
        Self { deadline, slots: Semaphore::new(CONCURRENT), answers: Mutex::default() }
    }

    /// The addresses of `host`, which may be an address itself; none if it is unknown or nobody answers in time.
    pub async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        if let Ok(ip) = without_brackets(host).parse() {
            return vec![ip];
        }
        if let Some(ips) = self.remembered(host) {
            return ips;
        }
        let ips = timeout(self.deadline, self.look_up(host)).await.unwrap_or_default();
        self.remember(host, &ips);
        ips
    }

    async fn look_up(&self, host: &str) -> Vec<IpAddr> {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let found: io::Result<Vec<IpAddr>> =
            lookup_host((host, 0)).await.map(|all| all.map(|a| a.ip()).collect());
        found.unwrap_or_default()
    }

    fn remembered(&self, host: &str) -> Option<Vec<IpAddr>> {
        let answers = self.answers.lock();
        let answer = answers.get(host).filter(|answer| Instant::now() < answer.until)?;
        Some(answer.ips.clone())
    }

    fn remember(&self, host: &str, ips: &[IpAddr]) {
        let mut answers = self.answers.lock();
        if answers.len() >= REMEMBERED {
            answers.clear();
        }
        answers.insert(host.into(), Answer { ips: ips.into(), until: Instant::now() + FRESH });
    }
}

/// Whether `ip` is an address of this host: only such a one can be bound.
pub fn is_ours(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && UdpSocket::bind((ip, 0)).is_ok()
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_its_own_answer() {
        let resolver = Resolver::new(Duration::from_secs(1));
        assert_eq!(resolver.addresses("10.0.0.1").await, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(resolver.addresses("[::1]").await, ["::1".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn names_are_looked_up_and_unknown_ones_have_no_address() {
        let resolver = Resolver::new(Duration::from_secs(5));
        assert!(resolver.addresses("localhost").await.iter().all(IpAddr::is_loopback));
        assert!(resolver.addresses("").await.is_empty());
    }

    #[tokio::test]
    async fn an_answer_is_remembered() {
        let resolver = Resolver::new(Duration::from_secs(1));
        resolver.remember("edge.example", &[IpAddr::from([10, 0, 0, 7])]);
        assert_eq!(resolver.addresses("edge.example").await, [IpAddr::from([10, 0, 0, 7])]);
    }

    #[test]
    fn knows_the_addresses_of_this_host() {
        assert!(is_ours([127, 0, 0, 1].into()));
        assert!(!is_ours([203, 0, 113, 1].into()));
        assert!(!is_ours([0; 4].into()));
    }
}
