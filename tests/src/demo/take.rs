//! One run under one engine, from the first namespace to the last check.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::cast::{Cast, Seen};
use super::host_link::HostLink;
use super::protocols::timelines;
use super::report::{Circumstances, Report, streams};
use super::sample::{Cpu, Window};
use super::srt_cast::SrtCast;
use super::stage::Stage;
use super::tcp_cast::{STREAMS, TcpCast};
use super::watch::{Phase, Watch};
use super::{Plan, say};
use crate::interrupt::{Interrupt, Interrupted};
use crate::netns::Routed;
use crate::proxy::Engine;

/// For a busy machine; what is late is told as a broken promise.
const PATIENCE: Duration = Duration::from_secs(25);
/// What the kernel path has until it must carry everything.
const FIRST_SECOND: Duration = Duration::from_secs(1);

/// Runs, shows what was measured, and ends everything.
pub(super) fn run(
    plan: &Plan,
    engine: Engine,
    keeps: bool,
    interrupt: &Interrupt,
    show: impl FnOnce(&Report) -> Result<()>,
) -> Result<Report> {
    let started = Instant::now();
    say(format!(
        "engine {}: client - router - proxy - router - two origins, each in its own namespace",
        engine.as_str()
    ));
    let network = Routed::new()?;
    let link = keeps.then(|| HostLink::to(&network)).transpose()?;
    let stage = Stage::start(&network, engine)?;
    let mut casts = Casts { webrtc: Cast::new()?, tcp: TcpCast::new()?, srt: SrtCast::default() };
    let mut watch = Watch::start(&stage, interrupt, casts.tcp.pictures.clone())?;
    let mut report = measure(plan, engine, &mut casts, (&stage, &mut watch), started)?;
    show(&report)?;
    if let Some(link) = &link {
        link.explain(&network, plan);
        keep(&mut watch, Phase::counted(engine))?;
    }
    say("ending every session, then the proxy");
    drop(casts.srt);
    report.broken.extend(casts.tcp.end());
    report.broken.extend(casts.webrtc.end(&stage));
    report.broken.extend(stage.end());
    Ok(report)
}

/// Everyone who publishes and plays.
struct Casts {
    webrtc: Cast,
    tcp: TcpCast,
    srt: SrtCast,
}

fn measure(
    plan: &Plan,
    engine: Engine,
    casts: &mut Casts,
    (stage, watch): (&Stage<'_>, &mut Watch<'_>),
    started: Instant,
) -> Result<Report> {
    if engine.is_kernel() {
        stage.switch_offload(false)?;
    }
    let everyone_after = enter(plan, casts, (stage, watch), started)?;
    let before = if engine.is_kernel() { Some(hold_off(plan.before, watch)?) } else { None };
    stage.switch_offload(true)?;
    let phase = Phase::counted(engine);
    let all = casts.webrtc.sessions() + casts.srt.sessions();
    let offloaded = || !engine.is_kernel() || all_offloaded(stage, all);
    watch.until(phase, PATIENCE, offloaded)?;
    let first = watch.during(phase, FIRST_SECOND)?;
    let (seen_first, timelines_first) = (see(plan, &casts.webrtc), timelines(&casts.tcp));
    let srt_first = casts.srt.seen();
    let last = watch.during(phase, plan.after)?;
    let window = Window { first: &first, last: &last };
    let srt = casts.srt.rows(window, &srt_first);
    let (ticks, connections) = (watch.ticks().to_vec(), stage.connections()?);
    let given = Circumstances {
        engine,
        before,
        everyone_after,
        ticks,
        seen_first,
        timelines_first,
        connections,
        srt,
    };
    Ok(Report::new(plan, (&casts.webrtc, &mut casts.tcp), window, given))
}

/// Publishers first: a player of nothing would get nothing to decode. Returns when everyone had something.
fn enter(
    plan: &Plan,
    Casts { webrtc: cast, tcp, srt }: &mut Casts,
    (stage, watch): (&Stage<'_>, &mut Watch<'_>),
    started: Instant,
) -> Result<Duration> {
    cast.publish(stage, plan)?;
    watch.until(Phase::Starting, PATIENCE, || cast.publishers_are_connected())?;
    tcp.publish(stage)?;
    srt.publish(stage)?;
    watch.until(Phase::Starting, PATIENCE, || stage.has_segments(STREAMS.len()))?;
    cast.play(stage, plan)?;
    tcp.play(stage)?;
    srt.play(stage)?;
    watch.until(Phase::Starting, PATIENCE, || cast.everyone_has_media() && tcp.everyone_has_media())?;
    Ok(started.elapsed())
}

fn hold_off(duration: Duration, watch: &mut Watch<'_>) -> Result<(Duration, Cpu)> {
    let first = watch.last().clone();
    let last = watch.during(Phase::Before, duration)?;
    let window = Window { first: &first, last: &last };
    Ok((window.duration(), window.cpu()))
}

fn all_offloaded(stage: &Stage<'_>, sessions: usize) -> bool {
    stage.status().is_ok_and(|status| status.totals.offloaded == sessions)
}

fn see(plan: &Plan, cast: &Cast) -> Vec<Seen> {
    streams(plan).into_iter().map(|stream| cast.seen(|name| name == stream)).collect()
}

fn keep(watch: &mut Watch<'_>, phase: Phase) -> Result<()> {
    loop {
        match watch.now_and_then(phase) {
            Ok(()) => {}
            Err(error) if error.is::<Interrupted>() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
