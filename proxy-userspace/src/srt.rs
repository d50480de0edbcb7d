//! SRT calls: the origin of a stream is found, and called in the caller's name from the source port that the session keeps.
//!
//! Each call is a task of its own, so an origin that is silent delays nobody else. A caller gives up after 3 s and repeats
//! its request every 250 ms until then; a call ends before that, by the origin's answer, which the relay passes on
//! ([`crate::datapath::userspace`]), or by a refusal that says why.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proxy_protocol::{
    srt::{Handshake, Rejection, readdress},
    stream_url::{SrtMode, StreamKey, StreamRules, StreamUrlError},
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};
use tracing::debug;

use crate::{
    api::signalling::OfferError,
    control::Control,
    datapath::userspace::{Call, News, Switchboard},
    origin::{Origin, PickError, Registry},
    session::{EndReason, Kind, Role, SessionId, SessionOffer, Srt as Caller},
};

/// How long a call lasts without an answer: callers wait 3 s by default.
const DEADLINE: Duration = Duration::from_millis(2500);
/// An origin that did not answer the first request by then does not answer: there is time for another one.
const FIRST_ORIGIN: Duration = Duration::from_millis(1250);
/// A handshake is repeated this often, as libsrt does.
const REPEAT: Duration = Duration::from_millis(250);
/// How many origins are tried if one does not answer.
const ATTEMPTS: u32 = 2;

/// What calls need.
#[derive(Clone)]
pub struct Srt {
    /// Where streams are.
    pub registry: Arc<dyn Registry>,
    /// Who has the sessions.
    pub control: Control,
    /// How origins are called and callers told.
    pub switchboard: Switchboard,
    /// How streams are named.
    pub rules: Arc<StreamRules>,
}

impl std::fmt::Debug for Srt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Srt").finish_non_exhaustive()
    }
}

/// Why one origin did not take a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// It refused.
    Rejected(Rejection),
    /// It did not answer the first request: another one may.
    Unreachable,
    /// It answered the first request and not the second.
    Unanswered,
}

/// What a caller wants.
struct Wish<'a> {
    request: Handshake<'a>,
    stream: StreamKey,
    role: Role,
}

impl Srt {
    /// Takes calls as long as the relay has any.
    pub async fn answer(self) {
        let Some(mut calls) = self.switchboard.calls() else { return };
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                call = calls.recv() => {
                    let Some(call) = call else { return };
                    let srt = self.clone();
                    under_way.spawn(async move { srt.take(call).await });
                }
                Some(_ended) = under_way.join_next() => {}
            }
        }
    }

    async fn take(self, mut call: Call) {
        let request = call.request.clone();
        let outcome = match self.connect(&mut call, &request).await {
            Ok(()) => "answered",
            Err(reason) => {
                debug!(client = %call.tuple.client, code = %reason, "an SRT call is refused");
                self.switchboard.refuse(&call, reason);
                word(reason)
            }
        };
        self.control.count_call(outcome);
    }

    async fn connect(&self, call: &mut Call, request: &[u8]) -> Result<(), Rejection> {
        let request = Handshake::parse(request).map_err(|_| Rejection::ROGUE)?;
        let id = request.stream_id().map_err(|_| Rejection::ROGUE)?.unwrap_or_default();
        let (stream, mode) = self.rules.srt_request(&id).map_err(refuse_id)?;
        let role = match mode {
            SrtMode::Publish => Role::Publisher,
            SrtMode::Request => Role::Player,
        };
        let wish = Wish { request, stream, role };
        let deadline = Instant::from_std(call.began) + DEADLINE;
        for _ in 0..ATTEMPTS {
            let picked = timeout_at(deadline, self.registry.pick(&wish.stream)).await;
            let origin = picked.map_err(|_| Rejection::GATEWAY)?.map_err(refuse_pick)?;
            let media = origin.srt.ok_or(Rejection::UNIMPLEMENTED)?;
            match self.at_origin(call, &wish, (&origin, media), deadline).await? {
                Ok(()) => {
                    if wish.role == Role::Publisher {
                        self.registry.published(&wish.stream, &origin.id).await;
                    }
                    return Ok(());
                }
                Err(Failure::Rejected(reason)) => return Err(reason),
                Err(Failure::Unreachable) => self.registry.report_failure(&origin.id).await,
                Err(Failure::Unanswered) => break,
            }
        }
        Err(Rejection::GATEWAY)
    }

    /// Calls one origin, by a session that ends if it does not answer.
    async fn at_origin(
        &self,
        call: &mut Call,
        wish: &Wish<'_>,
        (origin, media): (&Arc<Origin>, SocketAddr),
        deadline: Instant,
    ) -> Result<Result<(), Failure>, Rejection> {
        let offer = SessionOffer {
            stream: Some(wish.stream.clone()),
            origin: Arc::clone(origin),
            client_ip: call.tuple.client.ip(),
            role: Some(wish.role),
            kind: Kind::Srt(Caller {
                tuple: call.tuple,
                ifindex: call.ifindex,
                caller: wish.request.socket,
                cookie: wish.request.cookie,
                answer: None,
            }),
        };
        let session = self.control.admit(offer, media).await.map_err(refuse_offer)?;
        let shaken = self.shake(call, &wish.request, (session, media), deadline).await;
        if let Err(failure) = shaken {
            debug!(session = session.0, origin = %origin.id, ?failure, "an origin did not take a call");
            self.control.hung_up(session, failure.end()).await;
        }
        Ok(shaken)
    }

    async fn shake(
        &self,
        call: &mut Call,
        request: &Handshake<'_>,
        (session, origin): (SessionId, SocketAddr),
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut repeat = interval(REPEAT);
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut handshake = request.inducing(origin.ip()).encode();
        let (mut is_induced, mut until) = (false, deadline.min(Instant::now() + FIRST_ORIGIN));
        loop {
            let news = tokio::select! {
                biased;
                news = call.news.recv() => news,
                _ = repeat.tick() => {
                    self.switchboard.send(session, &handshake);
                    continue;
                }
                () = sleep_until(until) => {
                    return Err(if is_induced { Failure::Unanswered } else { Failure::Unreachable });
                }
            };
            match news {
                Some((heard, News::Induced(cookie))) if heard == session && !is_induced => {
                    (is_induced, until) = (true, deadline);
                    handshake = readdress(&call.request, cookie, origin.ip()).unwrap_or_default();
                    repeat.reset_immediately();
                }
                Some((heard, News::Answered(answer))) if heard == session => {
                    self.control.established(session, answer).await;
                    return Ok(());
                }
                Some((heard, News::Rejected(reason))) if heard == session => {
                    return Err(Failure::Rejected(reason));
                }
                Some((heard, News::Unreachable)) if heard == session && !is_induced => {
                    return Err(Failure::Unreachable);
                }
                // Of the origin before, or said twice.
                Some(_) => {}
                // The relay ends.
                None => return Err(Failure::Unreachable),
            }
        }
    }
}

impl Failure {
    fn end(self) -> EndReason {
        match self {
            Self::Rejected(_) => EndReason::Rejected,
            Self::Unreachable | Self::Unanswered => EndReason::Unanswered,
        }
    }
}

fn refuse_id(error: StreamUrlError) -> Rejection {
    match error {
        StreamUrlError::SrtMode => Rejection::BAD_MODE,
        StreamUrlError::EmptyStream
        | StreamUrlError::NotAUrl
        | StreamUrlError::ControlCharacter
        | StreamUrlError::TooLong
        | StreamUrlError::SrtResource
        | StreamUrlError::Escape => Rejection::BAD_REQUEST,
    }
}

fn refuse_pick(error: PickError) -> Rejection {
    debug!(reason = error.tell(), "no origin for an SRT call");
    match error {
        PickError::NoOrigin(_) => Rejection::DOWN,
        PickError::NotTaken { .. } => Rejection::OVERLOAD,
        PickError::Unavailable(_) => Rejection::GATEWAY,
    }
}

fn refuse_offer(error: OfferError) -> Rejection {
    match error {
        OfferError::Full | OfferError::TooManyOfSource | OfferError::TooManyInAll => Rejection::OVERLOAD,
        OfferError::PortsExhausted | OfferError::DuplicateUfrag => Rejection::RESOURCE,
        OfferError::Unreachable => Rejection::GATEWAY,
        OfferError::Stopping => Rejection::CLOSE,
    }
}

/// The word of an outcome in metrics.
fn word(reason: Rejection) -> &'static str {
    match reason {
        Rejection::BAD_REQUEST | Rejection::BAD_MODE | Rejection::ROGUE => "bad_request",
        Rejection::DOWN => "no_origin",
        Rejection::GATEWAY => "unreachable",
        Rejection::OVERLOAD | Rejection::RESOURCE => "overload",
        Rejection::CLOSE => "stopping",
        Rejection::UNIMPLEMENTED => "not_served",
        // What else there is, origins say.
        _ => "rejected",
    }
}
