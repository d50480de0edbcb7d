//! Everyone who publishes and plays: third-party clients that decode, one counting viewer beside them on each
//! stream, and synthetic sessions as load.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::performer::{Part, Performer, Told};
use super::sample::name_of;
use super::stage::Stage;
use super::{Plan, directory, files};
use crate::load::{Client, ClientOptions, Role, Swarm};

/// What all names of load streams begin with; they are shown as one.
pub(super) const LOAD: &str = "load";
const SESSIONS_PER_LOAD_STREAM: usize = 10;

/// The clients of one run; dropped, they are ended one by one.
#[derive(Debug)]
pub(super) struct Cast {
    publishers: Vec<Performer>,
    viewers: Vec<Performer>,
    counting: Vec<(String, Client)>,
    swarm: Arc<Swarm>,
}

/// What was seen of one stream at its viewers.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// What each decoding viewer told.
    pub(super) decoders: Vec<Told>,
    /// Media packets at counting viewers.
    pub(super) received: u64,
    /// Sequence numbers that never came.
    pub(super) missing: u64,
    /// Sequence numbers that came twice.
    pub(super) duplicates: u64,
    /// Counting viewers that got nothing.
    pub(super) silent: usize,
}

impl Cast {
    pub(super) fn new() -> Result<Self> {
        let swarm = Arc::new(Swarm::start()?);
        Ok(Self { publishers: Vec::new(), viewers: Vec::new(), counting: Vec::new(), swarm })
    }

    /// Starts the publishers, in turn of two kinds.
    pub(super) fn publish(&mut self, stage: &Stage<'_>, plan: &Plan) -> Result<()> {
        for (at, stream) in stream_names(plan).enumerate() {
            let part = if at % 2 == 0 { Part::FfmpegPublisher } else { Part::AiortcPublisher };
            let performer = perform(stage, part, &stream, &stage.whip(&stream), at)?;
            self.publishers.push(performer);
        }
        Ok(())
    }

    /// Starts the load, then everyone who plays.
    pub(super) fn play(&mut self, stage: &Stage<'_>, plan: &Plan) -> Result<()> {
        self.load(stage, plan.load)?;
        for stream in stream_names(plan) {
            for at in 0..plan.viewers {
                let viewer = perform(stage, Part::AiortcViewer, &stream, &stage.whep(&stream), at)?;
                self.viewers.push(viewer);
            }
            self.count(stage, &stream, Role::Player)?;
        }
        Ok(())
    }

    fn load(&mut self, stage: &Stage<'_>, sessions: usize) -> Result<()> {
        for at in 0..sessions {
            let stream = format!("{LOAD}{}", at / SESSIONS_PER_LOAD_STREAM);
            let publishes = at % SESSIONS_PER_LOAD_STREAM == 0;
            self.count(stage, &stream, if publishes { Role::Publisher } else { Role::Player })?;
        }
        Ok(())
    }

    fn count(&mut self, stage: &Stage<'_>, stream: &str, role: Role) -> Result<()> {
        let options = match role {
            Role::Publisher => ClientOptions::publish(&stage.whip(stream)),
            Role::Player => ClientOptions::play(&stage.whep(stream)),
        }?;
        let client = stage.network.client.enter(|| Client::connect(&self.swarm, options));
        self.counting.push((stream.to_owned(), client.with_context(|| format!("no session of {stream}"))?));
        Ok(())
    }

    pub(super) fn publishers_are_connected(&self) -> bool {
        self.publishers.iter().all(|publisher| publisher.told().connected)
    }

    /// Everyone who plays has got something.
    pub(super) fn everyone_has_media(&self) -> bool {
        let decodes = |viewer: &Performer| viewer.told().first_frame_ms.is_some();
        self.viewers.iter().all(decodes) && self.silent_players(|_| true) == 0
    }

    fn silent_players(&self, wanted: impl Fn(&str) -> bool) -> usize {
        let clients = self.counting.iter().filter(|(stream, _)| wanted(name_of(stream)));
        let stats = clients.map(|(_, client)| client.stats());
        stats.filter(|stats| stats.role == Role::Player && stats.received() == 0).count()
    }

    /// What was seen so far of the streams that `wanted` picks.
    pub(super) fn seen(&self, wanted: impl Fn(&str) -> bool) -> Seen {
        let decoders = self.viewers.iter().filter(|viewer| wanted(&viewer.stream));
        let mut seen = Seen { decoders: decoders.map(Performer::told).collect(), ..Seen::default() };
        for (_, client) in self.counting.iter().filter(|(stream, _)| wanted(name_of(stream))) {
            let stats = client.stats();
            seen.received += stats.received();
            seen.missing += stats.missing();
            seen.duplicates += stats.duplicates();
        }
        seen.silent = self.silent_players(wanted);
        seen
    }

    /// How many sessions there must be.
    pub(super) fn sessions(&self) -> usize {
        self.publishers.len() + self.viewers.len() + self.counting.len()
    }

    /// Ends every session the way its client does, viewers first, and tells who did not end well.
    pub(super) fn end(self, stage: &Stage<'_>) -> Vec<String> {
        let mut broken = end_all(self.viewers);
        for (stream, client) in self.counting {
            let stopped = stage.network.client.enter(|| client.stop());
            broken.extend(stopped.err().map(|error| format!("a counting session of {stream}: {error:#}")));
        }
        broken.extend(end_all(self.publishers));
        broken
    }
}

/// The names of the streams of third-party clients.
pub(super) fn stream_names(plan: &Plan) -> impl Iterator<Item = String> {
    (1..=plan.streams).map(|number| format!("show{number}"))
}

fn perform(stage: &Stage<'_>, part: Part, stream: &str, url: &str, number: usize) -> Result<Performer> {
    let kind = if part == Part::AiortcViewer { "viewer" } else { "publisher" };
    let log = files::create(&directory().join(format!("{kind}-{stream}-{number}.log")))?;
    Performer::start(&stage.network.client, part, (stream, url), log)
}

fn end_all(performers: Vec<Performer>) -> Vec<String> {
    let asked: Vec<_> = performers.iter().filter_map(|performer| performer.ask().err()).collect();
    let ended = performers.into_iter().filter_map(|performer| performer.finish().err());
    asked.into_iter().chain(ended).map(|error| format!("{error:#}")).collect()
}
