//! One origin and the states it goes through.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::Lease;
use crate::{
    config,
    origin::{
        Endpoints, Origin, OriginEvent, OriginStatus,
        balance::{Candidate, Terms},
        probe::ProbeError,
        registration::address_hint,
    },
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) origin: Arc<Origin>,
    pub(super) lease: Lease,
    pub(super) state: State,
    pub(super) heartbeat: Instant,
    /// Its silence counts from here on: since the last heartbeat, or since others of the fleet could tell of one.
    pub(super) silent_from: Instant,
    pub(super) next_probe: Instant,
    pub(super) failures: u32,
    pub(super) streams: usize,
    pub(super) terms: Terms,
    /// Of all proxies, as far as they have told.
    pub(super) sessions: u64,
    /// Takes no new stream because the operator says so.
    pub(super) is_draining: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Probing,
    Up,
    Suspect,
    Down(DownReason),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DownReason {
    #[error("no heartbeat for {}", seconds(.0))]
    Silent(Duration),
    #[error("{0}")]
    Unreachable(ProbeError),
}

impl Entry {
    pub(super) fn new(origin: Origin, terms: Terms, lease: Lease, now: Instant) -> Self {
        Self {
            origin: Arc::new(origin),
            lease,
            state: State::Probing,
            heartbeat: now,
            silent_from: now,
            next_probe: now,
            failures: 0,
            streams: 0,
            terms,
            sessions: 0,
            is_draining: false,
        }
    }

    /// As one that has so many streams soon.
    pub(super) fn candidate(&self, pending: usize) -> Candidate<'_> {
        let load = self.sessions.saturating_add((self.streams + pending) as u64);
        Candidate { origin: &self.origin, terms: self.terms, load }
    }

    /// A heartbeat alone proves life only where nobody probes.
    pub(super) fn renew(&mut self, settings: &config::Origins, now: Instant) -> Option<OriginEvent> {
        (self.heartbeat, self.silent_from) = (now, now);
        if settings.probe_interval.is_zero() {
            return self.enter(State::Up);
        }
        if matches!(self.state, State::Down(_)) {
            self.next_probe = now;
        }
        None
    }

    pub(super) fn fail(&mut self, error: ProbeError, limit: u32) -> Option<OriginEvent> {
        self.failures = self.failures.saturating_add(1);
        let is_down = match self.state {
            State::Probing | State::Down(_) => true,
            State::Up | State::Suspect => self.failures >= limit,
        };
        if is_down { self.enter(State::Down(DownReason::Unreachable(error))) } else { None }
    }

    /// The one place where the state changes.
    pub(super) fn enter(&mut self, next: State) -> Option<OriginEvent> {
        let was_serving = self.is_serving();
        if std::mem::discriminant(&self.state) != std::mem::discriminant(&next) {
            self.log_change(&next);
        }
        self.state = next;
        match (was_serving, self.is_serving()) {
            (false, true) => Some(OriginEvent::Up(self.origin.clone())),
            (true, false) => Some(OriginEvent::Down(self.origin.id.clone())),
            (false, false) | (true, true) => None,
        }
    }

    pub(super) fn is_serving(&self) -> bool {
        matches!(self.state, State::Up | State::Suspect)
    }

    pub(super) fn is_silent(&self, settings: &config::Origins, now: Instant) -> bool {
        self.has_been_silent(settings.ttl, now)
    }

    pub(super) fn has_been_silent(&self, duration: Duration, now: Instant) -> bool {
        self.lease == Lease::Heartbeat && now >= self.silent_from + duration
    }

    // The message and the field `device` are what scripts written for the Go proxy wait for.
    pub(super) fn log_registration(&self) {
        let origin = &self.origin;
        info!(
            device = %origin.device_id, id = %origin.id, ip = %origin.ip,
            rtmp = origin.rtmp.map(display), http = origin.http.map(display), api = origin.api.map(display),
            srt = origin.srt.map(display), rtc = origin.rtc.map(display),
            rtc_tcp = origin.rtc_tcp.map(display), "Register SRS media server"
        );
    }

    fn log_change(&self, next: &State) {
        let Origin { id, device_id, ip, .. } = &*self.origin;
        match next {
            State::Probing => {}
            State::Up => info!(device = %device_id, %id, %ip, "origin is up"),
            State::Suspect => {
                warn!(device = %device_id, %id, %ip, "origin refused a connection and is probed")
            }
            State::Down(reason) => {
                let hint = address_hint(*ip).unwrap_or_default();
                warn!(device = %device_id, %id, %ip, %reason, hint, "origin is down");
            }
        }
    }

    pub(super) fn status(&self, now: Instant) -> OriginStatus {
        let (state, reason) = match &self.state {
            State::Up if self.is_draining => ("draining", Some("it takes no new streams".into())),
            State::Probing => ("probing", None),
            State::Up => ("up", None),
            State::Suspect => ("probing", Some("it refused a connection".into())),
            State::Down(reason) => ("down", Some(reason.to_string())),
        };
        let Origin { rtmp, http, api, srt, rtc, .. } = *self.origin;
        OriginStatus {
            id: self.origin.id.clone(),
            device_id: self.origin.device_id.clone(),
            ip: self.origin.ip,
            endpoints: Endpoints { rtmp, http, api, srt, rtc },
            state,
            reason,
            heartbeat_age: now.saturating_duration_since(self.heartbeat).as_secs_f64(),
            streams: self.streams,
            sessions: self.sessions,
            weight: self.terms.weight,
            capacity: self.terms.capacity,
        }
    }
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs())
}
