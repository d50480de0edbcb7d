//! A whole run: start publishers, then players, wait, maybe migrate, report, end.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::client::{Client, ClientOptions};
use super::path::Over;
use super::report::Report;
use super::stats::Role;
use super::swarm::Swarm;
use crate::http::Url;

/// Which HTTP interface a run uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKind {
    /// WHIP and WHEP.
    Whip,
    /// SRS's JSON calls.
    Legacy,
}

/// How sessions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By DELETE and a DTLS alert.
    Delete,
    /// By silence.
    Abandon,
}

/// What a run does.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where publishers post, without `app` and `stream`.
    pub whip: Option<Url>,
    /// How many publishers; publisher `i` publishes stream `i`.
    pub publishers: usize,
    /// Where players post, without `app` and `stream`.
    pub whep: Option<Url>,
    /// How many players; player `i` plays stream `i` modulo `streams`.
    pub players: usize,
    /// How many streams there are; publishers beyond are refused by SRS.
    pub streams: usize,
    /// What stream names start with.
    pub stream_prefix: String,
    /// Bits per second of each publisher.
    pub bitrate: u32,
    /// Whether there is audio.
    pub audio: bool,
    /// How long the run lasts once all sessions are started.
    pub duration: Duration,
    /// Local addresses, used in turn.
    pub bind: Vec<IpAddr>,
    /// Replace every player's socket this long into the run.
    pub migrate_after: Option<Duration>,
    /// Which interface to use.
    pub api: ApiKind,
    /// Which candidates of answers are used.
    pub over: Over,
    /// How sessions end.
    pub end: End,
}

const APP: &str = "live";

/// Runs to the end. A session that cannot be started is an entry of the report, not an error.
///
/// # Errors
/// When no session can be started at all, for instance because an address is missing.
pub fn run(options: &LoadOptions) -> Result<Report> {
    let swarm = Arc::new(Swarm::start()?);
    let mut sessions = Sessions::default();
    sessions.start(&swarm, options, Role::Publisher)?;
    sessions.start(&swarm, options, Role::Player)?;
    let started = Instant::now();
    if let Some(after) = options.migrate_after {
        thread::sleep(after.min(options.duration));
        sessions.migrate_players()?;
    }
    thread::sleep(options.duration.saturating_sub(started.elapsed()));
    let report = sessions.report(started.elapsed());
    sessions.end(options.end);
    Ok(report)
}

#[derive(Debug, Default)]
struct Sessions {
    running: Vec<(String, Client)>,
    failed: Vec<String>,
}

impl Sessions {
    fn start(&mut self, swarm: &Arc<Swarm>, options: &LoadOptions, role: Role) -> Result<()> {
        let (count, url) = match role {
            Role::Publisher => (options.publishers, &options.whip),
            Role::Player => (options.players, &options.whep),
        };
        for index in 0..count {
            let url = url.as_ref().context("sessions are asked for, but no address to post to")?;
            let stream = format!("{}{}", options.stream_prefix, index % options.streams.max(1));
            match Client::connect(swarm, options.client(url, &stream, role, index)) {
                Ok(client) => self.running.push((stream, client)),
                Err(error) => self.failed.push(format!("{stream}: {error:#}")),
            }
        }
        Ok(())
    }

    fn migrate_players(&self) -> Result<()> {
        let mut players = self.running.iter().filter(|(_, client)| client.stats().role == Role::Player);
        players.try_for_each(|(_, client)| client.migrate())
    }

    fn report(&self, elapsed: Duration) -> Report {
        let sessions = self.running.iter().map(|(stream, client)| (stream.clone(), client.stats()));
        Report::new(elapsed, sessions.collect(), self.failed.clone())
    }

    fn end(self, end: End) {
        for (_, client) in self.running {
            match end {
                // The report is made; a server that refuses DELETE shows in its own statistics.
                End::Delete => drop(client.stop()),
                End::Abandon => drop(client),
            }
        }
    }
}

impl LoadOptions {
    fn client(&self, url: &Url, stream: &str, role: Role, index: usize) -> ClientOptions {
        let options = ClientOptions {
            url: url.clone(),
            api: super::Api::Whip,
            role,
            bitrate: self.bitrate,
            audio: self.audio,
            bind: (!self.bind.is_empty()).then(|| self.bind[index % self.bind.len()]),
            over: self.over,
            socket: None,
        };
        match self.api {
            ApiKind::Whip => ClientOptions {
                url: url.clone().with_query("app", APP).with_query("stream", stream),
                ..options
            },
            ApiKind::Legacy => options.legacy(format!("webrtc://{}/{APP}/{stream}", url.authority())),
        }
    }
}
