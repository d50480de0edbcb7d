//! What a fault costs: numbered datagrams both ways through a session while something happens, and which arrived.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::raw::{Endpoint, RawSession, check};

/// What every datagram starts with: the first bytes of RTP.
const HEAD: [u8; 12] = [0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const LENGTH: usize = 200;
const TURN: Duration = Duration::from_millis(1);
/// Datagrams sent at once after a pause of the machine.
const BURST: u32 = 8;
/// What is under way when sending ends has this long to arrive.
const DRAIN: Duration = Duration::from_millis(400);

/// The two ends of a session.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The client's socket.
    pub client: &'a Endpoint,
    /// The origin's socket.
    pub origin: &'a Endpoint,
    /// The session.
    pub session: &'a RawSession,
    /// Where the origin sees it.
    pub source: SocketAddr,
}

/// How often what is sent.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Time between two datagrams from the client, if it sends media at all.
    pub to_origin: Option<Duration>,
    /// Time between two datagrams from the origin.
    pub to_client: Duration,
    /// Time between two checks from the client.
    pub checks: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        let media = Duration::from_millis(5);
        Self { to_origin: Some(media), to_client: media, checks: Duration::from_millis(500) }
    }
}

/// What came of the datagrams of both directions.
#[derive(Debug)]
pub struct Tally {
    /// Client to origin.
    pub to_origin: Arrivals,
    /// Origin to client.
    pub to_client: Arrivals,
}

/// Which datagrams of one direction arrived.
#[derive(Debug, Default)]
pub struct Arrivals {
    sent: Vec<Instant>,
    arrived: Vec<u32>,
}

impl Tally {
    /// Both directions.
    pub fn directions(&self) -> [(&'static str, &Arrivals); 2] {
        [("to_origin", &self.to_origin), ("to_client", &self.to_client)]
    }

    /// Datagrams that never arrived, in both directions.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.to_origin.missing() + self.to_client.missing()
    }

    /// The longest time in which nothing sent in a direction arrived.
    #[must_use]
    pub fn outage(&self) -> Duration {
        self.to_origin.outage().max(self.to_client.outage())
    }

    /// Datagrams sent after `moment` that never arrived, in both directions.
    #[must_use]
    pub fn missing_after(&self, moment: Instant) -> usize {
        self.to_origin.missing_after(moment) + self.to_client.missing_after(moment)
    }
}

impl Arrivals {
    /// Datagrams sent.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Datagrams that never arrived.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.lost().count()
    }

    /// Datagrams sent after `moment` that never arrived.
    #[must_use]
    pub fn missing_after(&self, moment: Instant) -> usize {
        self.lost().filter(|sent| *sent > moment).count()
    }

    /// Datagrams that arrived more than once.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.arrived.len() + self.missing() - self.sent.len()
    }

    /// The longest time in which nothing that was sent arrived.
    #[must_use]
    pub fn outage(&self) -> Duration {
        let (mut longest, mut since) = (Duration::ZERO, None);
        for (&sent, arrived) in self.sent.iter().zip(self.seen()) {
            let start = *since.get_or_insert(sent);
            longest = longest.max(sent.duration_since(start));
            if arrived {
                since = None;
            }
        }
        longest
    }

    fn lost(&self) -> impl Iterator<Item = Instant> {
        self.sent.iter().zip(self.seen()).filter(|(_, arrived)| !arrived).map(|(sent, _)| *sent)
    }

    fn seen(&self) -> Vec<bool> {
        let mut seen = vec![false; self.sent.len()];
        for &number in &self.arrived {
            if let Some(seen) = seen.get_mut(number as usize) {
                *seen = true;
            }
        }
        seen
    }
}

/// Runs `work` while datagrams go both ways, and says what became of them.
///
/// # Panics
/// When `work` does, and when a socket fails otherwise than by refusing to send.
pub fn beat<R>(ends: Ends<'_>, rhythm: Rhythm, work: impl FnOnce() -> R) -> (R, Tally) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| client(ends, rhythm, &stop));
        let origin = scope.spawn(|| origin(ends, rhythm, &stop));
        let stopper = StopOnDrop(&stop);
        let result = work();
        drop(stopper);
        let (from_client, at_client) = client.join().expect("the client's socket works");
        let (from_origin, at_origin) = origin.join().expect("the origin's socket works");
        let to_origin = Arrivals { sent: from_client, arrived: at_origin };
        let to_client = Arrivals { sent: from_origin, arrived: at_client };
        (result, Tally { to_origin, to_client })
    })
}

/// Ends the threads also when the work panics.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn client(ends: Ends<'_>, rhythm: Rhythm, stop: &AtomicBool) -> (Vec<Instant>, Vec<u32>) {
    let mut sender = Sender::new(ends.client, ends.session.proxy, rhythm.to_origin);
    let mut checked = Instant::now();
    let mut arrived = Vec::new();
    let mut turn = |sender: &mut Sender<'_>, may_send: bool| {
        if may_send && checked.elapsed() >= rhythm.checks {
            checked = Instant::now();
            // A refusal is a loss, and shows as one.
            let _ = ends.client.send(&check(&ends.session.username, true), ends.session.proxy, 0);
        }
        arrived.extend(sender.turn(may_send).and_then(|datagram| datagram.number));
    };
    turn_until(stop, &mut sender, &mut turn);
    (sender.sent, arrived)
}

fn origin(ends: Ends<'_>, rhythm: Rhythm, stop: &AtomicBool) -> (Vec<Instant>, Vec<u32>) {
    let mut sender = Sender::new(ends.origin, ends.source, Some(rhythm.to_client));
    let mut arrived = Vec::new();
    let mut turn = |sender: &mut Sender<'_>, may_send: bool| match sender.turn(may_send) {
        Some(Datagram { number: Some(number), .. }) => arrived.push(number),
        Some(Datagram { peer, payload, number: None }) => {
            let _ = ends.origin.answer(peer, &payload);
        }
        None => {}
    };
    turn_until(stop, &mut sender, &mut turn);
    (sender.sent, arrived)
}

fn turn_until<'a>(stop: &AtomicBool, sender: &mut Sender<'a>, turn: &mut impl FnMut(&mut Sender<'a>, bool)) {
    while !stop.load(Relaxed) {
        turn(sender, true);
    }
    let end = Instant::now() + DRAIN;
    while Instant::now() < end {
        turn(sender, false);
    }
}

struct Datagram {
    peer: SocketAddr,
    payload: Vec<u8>,
    number: Option<u32>,
}

struct Sender<'a> {
    endpoint: &'a Endpoint,
    to: SocketAddr,
    interval: Option<Duration>,
    due: Instant,
    sent: Vec<Instant>,
}

impl<'a> Sender<'a> {
    fn new(endpoint: &'a Endpoint, to: SocketAddr, interval: Option<Duration>) -> Self {
        Self { endpoint, to, interval, due: Instant::now(), sent: Vec::new() }
    }

    /// Sends what is due, and takes one datagram if one is there.
    fn turn(&mut self, may_send: bool) -> Option<Datagram> {
        if let Some(interval) = self.interval.filter(|_| may_send) {
            self.send_due(interval);
        }
        let arrived = self.endpoint.receive_within(TURN).expect("the socket works");
        arrived.map(|(meta, payload)| Datagram { peer: meta.peer, number: number_of(&payload), payload })
    }
}

impl Sender<'_> {
    /// Timers may be coarse: what is due is sent in one go, but never more than a small burst.
    fn send_due(&mut self, interval: Duration) {
        let now = Instant::now();
        self.due = self.due.max(now - interval * BURST);
        while self.due <= now {
            let number = u32::try_from(self.sent.len()).expect("a test ends long before");
            self.sent.push(now);
            self.due += interval;
            // A refusal is a loss, and shows as one.
            let _ = self.endpoint.send(&numbered(number), self.to, 0);
        }
    }
}

fn numbered(number: u32) -> Vec<u8> {
    let mut payload = [&HEAD[..], &number.to_be_bytes()].concat();
    payload.resize(LENGTH, 0);
    payload
}

fn number_of(payload: &[u8]) -> Option<u32> {
    let number = payload.strip_prefix(&HEAD)?.first_chunk()?;
    Some(u32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(sent: usize, arrived: &[u32]) -> Arrivals {
        let start = Instant::now();
        let sent = (0..sent).map(|n| start + Duration::from_millis(10) * u32::try_from(n).unwrap());
        Arrivals { sent: sent.collect(), arrived: arrived.into() }
    }

    #[test]
    fn a_number_comes_out_as_it_went_in() {
        assert_eq!(number_of(&numbered(77)), Some(77));
        assert_eq!(number_of(&[0, 1, 0, 0]), None);
    }

    #[test]
    fn counts_what_is_missing_and_what_came_twice() {
        let whole = arrivals(3, &[0, 1, 2]);
        assert_eq!((whole.missing(), whole.duplicates(), whole.outage()), (0, 0, Duration::ZERO));
        let torn = arrivals(6, &[0, 4, 5, 5]);
        assert_eq!((torn.missing(), torn.duplicates()), (3, 1));
        assert_eq!(torn.outage(), Duration::from_millis(30));
        assert_eq!(torn.missing_after(torn.sent[2]), 1);
    }

    #[test]
    fn an_outage_that_never_ends_counts_to_the_last_datagram() {
        assert_eq!(arrivals(5, &[0, 1]).outage(), Duration::from_millis(20));
    }
}
