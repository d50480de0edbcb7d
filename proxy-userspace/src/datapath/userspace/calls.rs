//! Calls by SRT, from the first handshake to the origin's answer.
//!
//! A first request is answered here and now, and nothing is kept of it: the answer's cookie is a MAC over who asked. A second
//! one with this cookie becomes a [`Call`], one for each tuple, until whoever took it drops it; how many there are, and how
//! many somebody may begin, is limited. What the origin says while it is being called reaches the call as [`News`].

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use proxy_protocol::srt::{CookieKey, Handshake, Rejection, SLICE_SECONDS, SocketId, shutdown};
use tokio::sync::mpsc;

use super::Shared;
use crate::{
    net::udp::{Transmit, UdpSocket},
    rate_limit::{Exceeded, Rate, RateLimit},
    session::{SessionId, Tuple},
};

/// Calls under way at once: one that its origin does not answer lasts for some seconds.
const MOST_CALLS: usize = 2048;
/// So many calls of one address (of IPv6, one network), and of all.
const EACH: Rate = Rate { per_second: 200.0, burst: 1000.0 };
const IN_ALL: Rate = Rate { per_second: 2000.0, burst: 4000.0 };
/// What the origin says is said again if it is not taken.
const NEWS: usize = 16;

/// What an origin says to somebody who calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It answered the first request with this cookie.
    Induced(u32),
    /// It took the call, and the caller was told by this answer.
    Answered(Bytes),
    /// It refused.
    Rejected(Rejection),
    /// Nobody is there, says its host or a router.
    Unreachable,
}

/// Somebody calls.
#[derive(Debug)]
pub struct Call {
    /// The second request.
    pub request: Bytes,
    /// Where it came from, and to.
    pub tuple: Tuple,
    /// The device it came in by.
    pub ifindex: u32,
    /// When.
    pub began: Instant,
    /// What origins say to the sessions of this call.
    pub news: mpsc::Receiver<(SessionId, News)>,
    /// While there is this, the tuple makes no other call.
    _ticket: Ticket,
}

/// Why a second request with the right cookie makes no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCall {
    /// It has made one.
    Made,
    /// There are too many.
    Overload,
    /// Nobody takes them.
    Busy,
}

type Voice = mpsc::Sender<(SessionId, News)>;

/// What the workers need for calls.
pub(super) struct Calls {
    key: OnceLock<CookieKey>,
    began: Instant,
    limit: Mutex<RateLimit<IpAddr>>,
    open: Arc<Mutex<HashMap<Tuple, Voice>>>,
    queue: mpsc::Sender<Call>,
    taken: Mutex<Option<mpsc::Receiver<Call>>>,
    /// By which callers are told what becomes of their calls.
    replies: Vec<UdpSocket>,
}

/// A tuple that calls.
struct Ticket {
    tuple: Tuple,
    open: Arc<Mutex<HashMap<Tuple, Voice>>>,
}

impl Calls {
    /// Of callers of these sockets.
    pub(super) fn new<'a>(listeners: impl Iterator<Item = &'a UdpSocket>) -> io::Result<Self> {
        let (queue, taken) = mpsc::channel(MOST_CALLS);
        Ok(Self {
            key: OnceLock::new(),
            began: Instant::now(),
            limit: Mutex::new(RateLimit::new(EACH, IN_ALL)),
            open: Arc::default(),
            queue,
            taken: Mutex::new(Some(taken)),
            replies: listeners
                .map(|socket| UdpSocket::inherit(socket.share()?))
                .collect::<io::Result<_>>()?,
        })
    }

    /// The key of cookies: that of the process before, if it was given in time.
    pub(super) fn key(&self) -> &CookieKey {
        self.key.get_or_init(|| CookieKey::new(rand::random()))
    }

    /// Goes on with the key of another process.
    pub(super) fn set_key(&self, key: CookieKey) {
        if self.key.set(key).is_err() {
            tracing::debug!("cookies were made already: who is calling has to call again");
        }
    }

    /// The present slice of time.
    pub(super) fn slice() -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.as_secs() / SLICE_SECONDS
    }

    /// Microseconds since we began, which wrap, in the place of a listener's.
    pub(super) fn timestamp(&self) -> u32 {
        let micros = self.began.elapsed().as_micros();
        u32::try_from(micros & u128::from(u32::MAX)).unwrap_or_default()
    }

    /// Hands a request on whose cookie is right.
    pub(super) fn begin(&self, tuple: Tuple, ifindex: u32, request: &[u8]) -> Result<(), NoCall> {
        let now = Instant::now();
        let (voice, news) = mpsc::channel(NEWS);
        {
            let mut open = self.open.lock();
            if open.contains_key(&tuple) {
                return Err(NoCall::Made);
            }
            let taken = self.limit.lock().take(source(tuple.client.ip()), now);
            if open.len() >= MOST_CALLS || matches!(taken, Err(Exceeded::Own | Exceeded::All)) {
                return Err(NoCall::Overload);
            }
            open.insert(tuple, voice);
        }
        let ticket = Ticket { tuple, open: Arc::clone(&self.open) };
        let request = Bytes::copy_from_slice(request);
        let call = Call { request, tuple, ifindex, began: now, news, _ticket: ticket };
        self.queue.try_send(call).map_err(|_| NoCall::Busy)
    }

    /// How the call of a tuple hears of its origin, if there is one.
    pub(super) fn voice(&self, tuple: &Tuple) -> Option<Voice> {
        self.open.lock().get(tuple).cloned()
    }

    /// Tells a caller that its connection is over.
    pub(super) fn hang_up(&self, tuple: Tuple, caller: SocketId) {
        self.tell(tuple, &shutdown(caller, self.timestamp()));
    }

    fn tell(&self, tuple: Tuple, datagram: &[u8]) {
        let fits = |address: std::net::SocketAddr| {
            address.port() == tuple.local.port() && address.is_ipv4() == tuple.client.is_ipv4()
        };
        let Some(socket) = self.replies.iter().find(|socket| fits(socket.local_addr())) else { return };
        if let Err(error) = socket.send(&to_caller(tuple, datagram, 0)) {
            tracing::debug!(%error, client = %tuple.client, "a caller cannot be told");
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.open.lock().remove(&self.tuple);
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ticket").field(&self.tuple).finish()
    }
}

/// What comes to a listener leaves by its address.
pub(super) fn to_caller(tuple: Tuple, payload: &[u8], traffic_class: u8) -> Transmit<'_> {
    Transmit { payload, peer: tuple.client, local_ip: Some(tuple.local.ip()), traffic_class }
}

/// Whoever has an IPv6 address has its network.
fn source(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

/// What calls need of the relay.
#[derive(Clone)]
pub struct Switchboard(pub(super) Arc<Shared>);

impl Switchboard {
    /// The calls that come, once.
    pub fn calls(&self) -> Option<mpsc::Receiver<Call>> {
        self.0.calls.taken.lock().take()
    }

    /// Sends a handshake to the origin of a session.
    pub fn send(&self, session: SessionId, handshake: &[u8]) {
        if let Some(peer) = self.0.table.by_session(session) {
            peer.send_to_origin(handshake, 0, &self.0);
        }
    }

    /// Tells a caller that its call is refused.
    pub fn refuse(&self, call: &Call, reason: Rejection) {
        if let Ok(request) = Handshake::parse(&call.request) {
            let refusal = request.rejected(reason, call.tuple.client.ip(), self.0.calls.timestamp());
            self.0.calls.tell(call.tuple, &refusal.encode());
        }
    }
}

impl std::fmt::Debug for Switchboard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switchboard").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
