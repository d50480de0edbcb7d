//! The demo of a fleet: three proxies, four origins and one Redis. One of each is killed while streams play by every kind, and
//! it is counted for how long media stopped, at those whom it concerns and at the others.

mod cast;
mod part;
mod rows;
mod seen;
mod stage;

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use self::{
    cast::Cast,
    part::{End, Kind, Part, Rules},
    rows::{Row, table},
    stage::Stage,
};
use super::{judge_each, say};
use crate::{fleet::Grounds, interrupt::Interrupt, netns::Cluster, pins::Pins, proxy::Engine, residue};

const PROXIES: usize = 3;
const ORIGINS: usize = 4;
/// What is killed, and who gets the address of the proxy.
const VICTIM: usize = 0;
const HEIR: usize = 1;

/// Everybody has media for so long before the next one is killed.
const CALM: Duration = Duration::from_secs(3);
/// Whoever has none after this time gets none.
const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);
/// From the end of a proxy to the move of its address, as long as who announces it takes to notice.
const MOVE: Duration = Duration::from_secs(1);
/// How long clients of an origin that is gone wait for media before they connect again; publishers hear about every second
/// that their media arrives.
const RECONNECT: Duration = Duration::from_millis(1500);

/// For WebRTC behind an address that moves along.
const RESUMED: Duration = Duration::from_secs(5);
/// For kinds whose clients connect again: libsrt takes five seconds of silence for the end.
const RECONNECTED: Duration = Duration::from_secs(10);
/// What an origin's clients get on top of the time until proxies know that it is gone.
const REPICKED: Duration = Duration::from_secs(3);
/// For a stream that begins without Redis.
const NEWCOMER: Duration = Duration::from_secs(5);

/// What is shown.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The engines, one run each.
    pub engines: Vec<Engine>,
    /// How long Redis is away.
    pub outage: Duration,
}

/// Shows everything and judges it: success means that media stopped for no longer than promised.
#[must_use]
pub fn run(plan: &Fleet) -> ExitCode {
    judge_each(&plan.engines, |engine, interrupt| take(plan, engine, interrupt))
}

fn take(plan: &Fleet, engine: Engine, interrupt: &Interrupt) -> Result<Vec<String>> {
    let cluster = Cluster::new()?;
    let grounds = Grounds::new(&cluster, PROXIES, ORIGINS)?;
    let pins = grounds.proxies.iter().map(|pod| Pins::of(&pod.namespace)).collect::<Result<Vec<_>>>()?;
    let mut stage = Stage::start(&cluster, &grounds, engine)?;
    say(format!("engine {}: {PROXIES} proxies, {ORIGINS} origins, one Redis", engine.as_str()));
    let (cast, rules) = (Cast::new(&cluster.client)?, Rules::default());
    let mut broken = thread::scope(|scope| {
        let _end = End(&rules);
        let begin = |part: Part| -> Result<Part> {
            let log = cast.log(&part)?;
            let (cast, playing) = (&cast, part.clone());
            part.perform(scope, &rules, move || cast.connect(&playing, &log));
            Ok(part)
        };
        let mut show =
            Show { interrupt, stage: &mut stage, rules: &rules, players: Vec::new(), broken: Vec::new() };
        show.begin(&begin)?;
        let rows = [show.without_redis(plan.outage, &begin)?, show.without_origin()?, show.without_proxy()?]
            .concat();
        say(table(&rows));
        anyhow::Ok(show.broken.into_iter().chain(rows.iter().flat_map(Row::broken)).collect::<Vec<_>>())
    })?;
    stage.end()?;
    for (pod, pins) in grounds.proxies.iter().zip(&pins).skip(VICTIM + 1) {
        broken.extend(
            residue::attached(&pod.namespace)?.into_iter().map(|left| format!("left behind: {left}")),
        );
        if !pins.is_empty() {
            broken.push(format!("left behind: {}", pins.path().display()));
        }
    }
    Ok(broken)
}

/// What goes on while everybody streams.
struct Show<'s, 'a> {
    interrupt: &'s Interrupt,
    stage: &'s mut Stage<'a>,
    rules: &'s Rules,
    players: Vec<Part>,
    /// What does not hold, beside what the rows tell.
    broken: Vec<String>,
}

/// Whom the end of something concerns, and when it began.
struct Act {
    since: Instant,
    missing: Vec<u64>,
}

impl Show<'_, '_> {
    /// The first stream of each kind is on the origin that will be killed, and published through the proxy that will be; the
    /// second is on another origin, and through another proxy.
    fn begin(&mut self, begin: &impl Fn(Part) -> Result<Part>) -> Result<()> {
        for stream in [0, 1] {
            self.stage.place(|origin| (origin == VICTIM) == (stream == 0))?;
            let mut parts = Vec::new();
            for kind in Kind::PUBLISHED {
                parts.push(begin(Part::publisher(kind, stream, stream))?);
            }
            self.wait_for(&parts)?;
            for kind in Kind::ALL {
                let gates: &[usize] = if stream == 0 { &[2] } else { &[VICTIM, 2] };
                for gate in gates {
                    self.players.push(begin(Part::player(kind, stream, *gate))?);
                }
            }
            self.wait_for(&self.players)?;
        }
        let placed = Kind::PUBLISHED.len();
        self.until("every proxy knows that the victim has its streams", |stage| {
            stage.have_streams(VICTIM, placed)
        })?;
        self.stage.place(|_| true)?;
        self.calm()
    }

    fn without_redis(&mut self, outage: Duration, begin: &impl Fn(Part) -> Result<Part>) -> Result<Vec<Row>> {
        say(format!("kill -9 of Redis, which is away for {outage:?}"));
        let act = self.act();
        self.stage.kill_redis()?;
        self.interrupt.sleep(outage / 2)?;
        let asked = Instant::now();
        let _publisher = begin(Part::publisher(Kind::WebRtc, 2, 1))?;
        let newcomer = begin(Part::player(Kind::WebRtc, 2, 2))?;
        self.wait_for(&[newcomer])?;
        let newcomer = asked.elapsed();
        say(format!("  a stream that began meanwhile, through two proxies, had media after {newcomer:.1?}"));
        self.interrupt.sleep((outage / 2).saturating_sub(newcomer))?;
        let back = Instant::now();
        self.stage.restart_redis()?;
        self.until("every proxy is ready again", |stage| Ok(stage.are_ready()))?;
        say(format!("  Redis came back empty: every proxy was ready {:.1?} later", back.elapsed()));
        self.calm()?;
        if newcomer > NEWCOMER {
            self.broken.push(format!("without Redis: a new stream had no media for {newcomer:.1?}"));
        }
        Ok(self.rows("Redis", &act, |_| Duration::ZERO, |_| true))
    }

    fn without_origin(&mut self) -> Result<Vec<Row>> {
        say(format!("kill -9 of an origin; clients connect again after {RECONNECT:?} without media"));
        self.rules.set_patience(Some(RECONNECT));
        let act = self.act();
        self.stage.kill_origin(VICTIM)?;
        self.until("every proxy knows that the origin is gone", |stage| stage.are_up(ORIGINS - 1))?;
        let detected = act.since.elapsed();
        say(format!("  every proxy knew after {detected:.1?}"));
        self.calm()?;
        self.rules.set_patience(None);
        Ok(self.rows("an origin", &act, |_| detected + REPICKED, |part| part.stream == 0))
    }

    fn without_proxy(&mut self) -> Result<Vec<Row>> {
        say(format!("kill -9 of a proxy, whose address moves to another one {MOVE:?} later"));
        let act = self.act();
        self.stage.kill_proxy(VICTIM)?;
        self.interrupt.sleep(MOVE)?;
        self.stage.move_address(VICTIM, HEIR)?;
        self.calm()?;
        let limit = |kind| if kind == Kind::WebRtc { RESUMED } else { RECONNECTED };
        let rows = self.rows("a proxy", &act, limit, |part| part.stream == 0 || part.gate == VICTIM);
        say(format!("  {} WebRTC sessions went on without a new exchange", self.stage.resumed(HEIR)?));
        Ok(rows)
    }

    fn act(&self) -> Act {
        let missing = self.players.iter().map(|player| player.seen.lock().missing()).collect();
        Act { since: Instant::now(), missing }
    }

    /// A row for each kind.
    fn rows(
        &self,
        killed: &'static str,
        act: &Act,
        limit: impl Fn(Kind) -> Duration,
        is_concerned: impl Fn(&Part) -> bool,
    ) -> Vec<Row> {
        let now = Instant::now();
        let players = || self.players.iter().zip(&act.missing);
        let row = |kind| {
            let mut row = Row::new(killed, kind, limit(kind));
            for (player, missing) in players().filter(|(player, _)| player.kind == kind) {
                let seen = player.seen.lock();
                let group = if is_concerned(player) { &mut row.concerned } else { &mut row.others };
                group.add(seen.stopped(act.since, now), seen.missing() - missing);
            }
            row
        };
        Kind::ALL.map(row).into()
    }

    fn wait_for(&self, parts: &[Part]) -> Result<()> {
        let have_begun = || parts.iter().all(|part| part.seen.lock().has_begun());
        self.until("everybody has media", |_| Ok(have_begun()))
    }

    fn until(&self, what: &str, holds: impl Fn(&Stage<'_>) -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        while !holds(self.stage)? {
            ensure!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            self.interrupt.sleep(STEP)?;
        }
        Ok(())
    }

    /// Until everybody has had media for a while, or will not get any.
    fn calm(&self) -> Result<()> {
        let (began, mut calm) = (Instant::now(), Instant::now());
        while calm.elapsed() < CALM && began.elapsed() < PATIENCE {
            let now = Instant::now();
            if !self.players.iter().all(|player| player.seen.lock().has_media(began, now)) {
                calm = now;
            }
            self.interrupt.sleep(STEP)?;
        }
        Ok(())
    }
}
