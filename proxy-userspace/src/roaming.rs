//! Sessions of other proxies whose clients come here: one of the fleet died and its address moved, or packets never came to the
//! proxy that signalling went to.
//!
//! A STUN request whose USERNAME no session has waits here while it is found out whose it is: from the ufrag itself, if a proxy
//! of the fleet made it, else from where the fleet writes its sessions down, if it does. Nobody waits for that but the request:
//! a worker hands it over and goes on. Nothing is made for it before its MESSAGE-INTEGRITY has verified with the password that
//! was found. Then the session is offered to the control loop as signalling would, and the request is processed.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proxy_common::{family::prefix, verdict::Reason};
use proxy_protocol::{
    ice::{IcePwd, UfragPair},
    routed_ufrag::RoutedUfrag,
    stream_url::StreamKey,
    stun::Message,
};
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, info};

use crate::{
    control::Control,
    datapath::userspace::{Gate, Stranger, Stray},
    fleet::Fleet,
    origin::{Origin, Registry},
    rate_limit::{Rate, RateLimit},
    recent::Recent,
    session::{Kind, Role, SessionOffer, WebRtc},
};

/// Strays that wait to be looked at; a worker that finds the queue full drops and counts.
const QUEUE: usize = 1024;
/// Strays that are looked into at once.
const VISITS: usize = 1024;
/// Of these, those that wait for where sessions are written down; others go on when that does not answer.
const QUESTIONS: usize = 256;
/// How long a look-up may take; clients repeat their requests for longer.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a session that is known by its ufrag waits for its stream's name.
const DETAILS_DEADLINE: Duration = Duration::from_millis(200);
/// For how long a USERNAME that nobody knew is not looked up again: about as long as a client waits that repeats its request.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);
/// USERNAMEs that nobody knew, remembered at once.
const MOST_UNKNOWN: usize = 16_384;
/// Strays of a /24 or /56. A whole network may come at once when another proxy died, each client with some requests.
const STRAYS_PER_SOURCE: Rate = Rate { per_second: 500.0, burst: 5_000.0 };
/// Strays of all: each may cost some MACs, so a tenth of a processor.
const STRAYS_IN_ALL: Rate = Rate { per_second: 20_000.0, burst: 40_000.0 };
/// What a /24 or /56 may have asked of where sessions are written down.
const QUESTIONS_PER_SOURCE: Rate = Rate { per_second: 100.0, burst: 1_000.0 };
/// The same of all.
const QUESTIONS_IN_ALL: Rate = Rate { per_second: 1_000.0, burst: 10_000.0 };

/// A session that another proxy made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSession {
    /// The origin that answered.
    pub origin: Arc<Origin>,
    /// The key of the client's MESSAGE-INTEGRITY.
    pub pwd: IcePwd,
    /// The stream, if that is told.
    pub stream: Option<StreamKey>,
    /// Which way media goes, if that is told.
    pub role: Option<Role>,
    /// Where the origin takes media over TCP, if it does.
    pub tcp: Option<SocketAddr>,
}

/// Where the proxies of a fleet write their sessions down.
#[async_trait::async_trait]
pub trait SessionFinder: Send + Sync + 'static {
    /// The session with this USERNAME; its caller bounds how long this may take, how often it comes, and how many come at once.
    async fn find(&self, ufrags: &UfragPair) -> Option<FoundSession>;
}

/// How a session of another proxy was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// By the ufrag, which names the origin.
    Ufrag,
    /// Where the fleet writes its sessions down.
    Store,
}

impl Resumed {
    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ufrag => "ufrag",
            Self::Store => "store",
        }
    }
}

/// Takes sessions over whose clients come here.
pub struct Roaming {
    gate: Gate,
    control: Control,
    registry: Arc<dyn Registry>,
    fleet: Option<Arc<Fleet>>,
    finder: Option<Arc<dyn SessionFinder>>,
    searches: Mutex<HashMap<UfragPair, Arc<Search>>>,
    unknown: Mutex<Recent<UfragPair>>,
    strays: Mutex<RateLimit<u64>>,
    questions: Mutex<RateLimit<u64>>,
    room: Arc<Semaphore>,
    room_for_questions: Semaphore,
}

/// What all requests with one USERNAME wait for.
#[derive(Debug, Default)]
struct Search {
    found: OnceCell<Option<(FoundSession, Resumed)>>,
    /// Held by who makes the session.
    admission: tokio::sync::Mutex<()>,
}

/// One request that waits. The search is forgotten with the last of them.
struct Visit<'a> {
    roaming: &'a Roaming,
    ufrags: UfragPair,
    search: Arc<Search>,
    _room: OwnedSemaphorePermit,
}

impl Roaming {
    /// Finds sessions by their ufrags among the origins of `registry`, if the fleet has a key, and by `finder`, if there is one.
    pub fn new(
        gate: Gate,
        control: Control,
        registry: Arc<dyn Registry>,
        fleet: Option<Arc<Fleet>>,
        finder: Option<Arc<dyn SessionFinder>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            gate,
            control,
            registry,
            fleet,
            finder,
            searches: Mutex::default(),
            unknown: Mutex::new(Recent::new(UNKNOWN_FOR, MOST_UNKNOWN)),
            strays: Mutex::new(RateLimit::new(STRAYS_PER_SOURCE, STRAYS_IN_ALL)),
            questions: Mutex::new(RateLimit::new(QUESTIONS_PER_SOURCE, QUESTIONS_IN_ALL)),
            room: Arc::new(Semaphore::new(VISITS)),
            room_for_questions: Semaphore::new(QUESTIONS),
        })
    }

    /// Looks into the relay's strays for as long as the future is polled.
    pub async fn run(self: Arc<Self>) {
        let (queue, mut strays) = mpsc::channel(QUEUE);
        let is_wanted: fn(&str) -> bool = if self.finder.is_some() { is_username } else { is_routed };
        self.gate.set_strays_aside(queue, is_wanted);
        let mut visits = JoinSet::new();
        loop {
            tokio::select! {
                Some(stray) = strays.recv() => match self.room_for(stray.tuple.client.ip()) {
                    Ok(room) => drop(visits.spawn(Arc::clone(&self).look_into(stray, room))),
                    Err(reason) => self.gate.count(reason),
                },
                Some(_) = visits.join_next() => {}
                else => return,
            }
        }
    }

    /// The same for a request that came over TCP, whose task may wait: once it is known here, the gate lets it pass.
    ///
    /// # Errors
    /// When it opens nothing.
    pub async fn resume(&self, client: IpAddr, request: &Message<'_>) -> Result<(), Stranger> {
        let Ok(room) = self.room_for(client) else { return Err(Stranger::UnknownUser) };
        self.know(client, request, room).await.map_err(|reason| {
            if reason == Reason::BadIntegrity { Stranger::BadIntegrity } else { Stranger::UnknownUser }
        })
    }

    async fn look_into(self: Arc<Self>, stray: Stray, room: OwnedSemaphorePermit) {
        if let Err(reason) = self.process(&stray, room).await {
            self.gate.count(reason);
        }
    }

    async fn process(&self, stray: &Stray, room: OwnedSemaphorePermit) -> Result<(), Reason> {
        let request = Message::parse(&stray.datagram).map_err(|_| Reason::MalformedStun)?;
        self.know(stray.tuple.client.ip(), &request, room).await?;
        self.gate.take(stray)
    }

    /// Leave to look into one more request.
    fn room_for(&self, client: IpAddr) -> Result<OwnedSemaphorePermit, Reason> {
        self.strays.lock().take(prefix(client), Instant::now()).map_err(|_| Reason::Policed)?;
        Arc::clone(&self.room).try_acquire_owned().map_err(|_| Reason::ControlBusy)
    }

    /// Makes the session that `request` is of known here, if there is one and the request is its client's.
    async fn know(
        &self,
        client: IpAddr,
        request: &Message<'_>,
        room: OwnedSemaphorePermit,
    ) -> Result<(), Reason> {
        let ufrags = request.username().and_then(|name| name.parse().ok()).ok_or(Reason::UnknownUser)?;
        if self.control.has_ended(&ufrags) || self.unknown.lock().contains(&ufrags, Instant::now()) {
            return Err(Reason::UnknownUser);
        }
        let visit = self.visit(ufrags, room);
        let found = visit.search.found.get_or_try_init(|| self.find(client, &visit.ufrags)).await?;
        let Some((found, how)) = found else {
            self.unknown.lock().insert(visit.ufrags.clone(), Instant::now());
            return Err(Reason::UnknownUser);
        };
        if !request.verify_integrity(found.pwd.as_key()) {
            return Err(Reason::BadIntegrity);
        }
        self.take_over(&visit, client, found, *how).await
    }

    async fn take_over(
        &self,
        visit: &Visit<'_>,
        client: IpAddr,
        found: &FoundSession,
        how: Resumed,
    ) -> Result<(), Reason> {
        let _one_of_them = visit.search.admission.lock().await;
        if self.gate.knows(visit.ufrags.as_str()) {
            return Ok(());
        }
        let FoundSession { origin, pwd, stream, role, tcp } = found.clone();
        let (name, ufrags) = (origin.id.clone(), visit.ufrags.clone());
        let kind = Kind::WebRtc(WebRtc { ufrags, pwd, tcp });
        let offer = SessionOffer { stream, origin, client_ip: client, role, kind };
        match self.control.resume(offer, how).await {
            Ok(()) => {
                info!(how = how.as_str(), origin = %name, %client, "session goes on here");
                Ok(())
            }
            Err(error) => {
                debug!(%error, origin = %name, %client, "session cannot go on here");
                Err(Reason::UnknownUser)
            }
        }
    }

    async fn find(
        &self,
        client: IpAddr,
        ufrags: &UfragPair,
    ) -> Result<Option<(FoundSession, Resumed)>, Reason> {
        let by_ufrag = match &self.fleet {
            Some(fleet) if is_routed(ufrags.as_str()) => {
                fleet.find(ufrags.local(), self.registry.serving().await)
            }
            Some(_) | None => None,
        };
        if let Some((origin, pwd)) = by_ufrag {
            let details = self.ask(client, ufrags, DETAILS_DEADLINE).await.unwrap_or_default();
            let found = known_by_ufrag(origin, pwd, details);
            return Ok(Some((found, Resumed::Ufrag)));
        }
        Ok(self.ask(client, ufrags, DEADLINE).await?.map(|found| (found, Resumed::Store)))
    }

    async fn ask(
        &self,
        client: IpAddr,
        ufrags: &UfragPair,
        deadline: Duration,
    ) -> Result<Option<FoundSession>, Reason> {
        let Some(finder) = &self.finder else { return Ok(None) };
        self.questions.lock().take(prefix(client), Instant::now()).map_err(|_| Reason::Policed)?;
        let _room = self.room_for_questions.try_acquire().map_err(|_| Reason::ControlBusy)?;
        timeout(deadline, finder.find(ufrags)).await.map_err(|_| Reason::UnknownUser)
    }

    fn visit(&self, ufrags: UfragPair, room: OwnedSemaphorePermit) -> Visit<'_> {
        let search = Arc::clone(self.searches.lock().entry(ufrags.clone()).or_default());
        Visit { roaming: self, ufrags, search, _room: room }
    }
}

impl std::fmt::Debug for Roaming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roaming").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut searches = self.roaming.searches.lock();
        // That of the map, and our own.
        if Arc::strong_count(&self.search) <= 2 {
            searches.remove(&self.ufrags);
        }
    }
}

/// Of what was written down the ufrag tells where and by which password; the rest is only told there.
fn known_by_ufrag(origin: Arc<Origin>, pwd: IcePwd, details: Option<FoundSession>) -> FoundSession {
    let details = details.filter(|details| details.origin.id == origin.id);
    let tcp = details.as_ref().and_then(|details| details.tcp).or(origin.rtc_tcp);
    let (stream, role) = details.map_or((None, None), |details| (details.stream, details.role));
    FoundSession { origin, pwd, stream, role, tcp }
}

/// Whether a USERNAME may have been made by a proxy of the fleet.
fn is_routed(username: &str) -> bool {
    username.split_once(':').is_some_and(|(local, _remote)| RoutedUfrag::parse(local).is_some())
}

/// Whether a USERNAME may be of a session.
fn is_username(username: &str) -> bool {
    username.contains(':')
}

#[cfg(test)]
mod tests;
