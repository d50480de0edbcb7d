//! The proxy's relay against a plain tokio relay: loss-free rate and CPU time of a packet, on the same network, in turns,
//! as medians.
//!
//! Both relays have a thread a CPU. The generator is bound to the first CPU, where it costs what sending and receiving in
//! the kernel cost; the relays share what is left, as they would on a host that runs other things too. The plain relay
//! leaves its sockets as the host gives them, unless [`Buffers::LikeOurs`] asks what remains without that difference.

use anyhow::{Context as _, Result, ensure};

mod generator;
mod ours;
mod plain;
mod stage;
mod trial;

use stage::{Direction, Stage};
use trial::{Contender, Trial};

/// How much faster than the plain relay, as it comes, ours must be.
const TARGET: f64 = 1.3;

/// How thorough a run is.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Turns of each relay in each case.
    pub repeats: usize,
    /// Room in the sockets of the plain relay.
    pub buffers: Buffers,
}

/// Room in a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffers {
    /// What a host gives to who does not ask, as a plain relay does not.
    OfTheHost,
    /// What our relay asks for.
    LikeOurs,
}

/// What is offered to a relay.
#[derive(Clone, Copy, Debug)]
struct Case {
    direction: Direction,
    flows: u16,
    /// Datagrams of a flow that follow each other.
    run: usize,
    payload: usize,
}

const fn case(direction: Direction, flows: u16, run: usize, payload: usize) -> Case {
    Case { direction, flows, run, payload }
}

const CASES: [Case; 8] = [
    case(Direction::ToOrigin, 64, 1, 200),
    case(Direction::ToOrigin, 64, 1, 1200),
    case(Direction::ToClient, 64, 1, 200),
    case(Direction::ToClient, 64, 1, 1200),
    // What an origin sends: the packets of a video frame to one player, then those to the next.
    case(Direction::ToClient, 64, 8, 1200),
    case(Direction::ToOrigin, 1, 64, 200),
    case(Direction::ToOrigin, 1, 64, 1200),
    case(Direction::ToClient, 1, 64, 1200),
];

/// Medians of one case.
#[derive(Clone, Debug)]
struct Row {
    case: Case,
    /// Loss-free packets per second: ours, plain.
    rates: [f64; 2],
    /// CPU nanoseconds of a packet at the same rate: ours, plain.
    costs: [f64; 2],
    /// The generator could not offer more than ours took.
    bounded: bool,
}

/// Measures every case, tells `progress` of each, and returns a table and whether every case reaches its target.
///
/// # Errors
/// When the network cannot be built or a relay does not start.
pub fn run(plan: Plan, progress: impl Fn(&str)) -> Result<(String, bool)> {
    let stage = Stage::new()?;
    let mut rows = Vec::new();
    for case in CASES {
        let row = measure(&stage, case, plan)?;
        progress(&row.line());
        rows.push(row);
    }
    // With equal buffers the kernel's part is equal too where datagrams share neither socket nor receiver.
    let reached = plan.buffers == Buffers::LikeOurs || rows.iter().all(|row| row.ratio() >= TARGET);
    Ok((table(&rows), reached))
}

fn measure(stage: &Stage, case: Case, plan: Plan) -> Result<Row> {
    ensure!(plan.repeats > 0, "nothing to measure");
    let (mut rates, mut costs, mut bounded) = ([vec![], vec![]], [vec![], vec![]], false);
    for _ in 0..plan.repeats {
        let trials =
            [Contender::Ours, Contender::Plain].map(|who| Trial::new(stage, case, who, plan.buffers));
        let found = [trials[0].loss_free(&mut bounded)?, trials[1].loss_free(&mut false)?];
        for (at, trial) in trials.iter().enumerate() {
            rates[at].push(found[at]);
            costs[at].push(trial.cost(f64::max(found[1] * 0.6, trial::SLOWEST))?);
        }
    }
    let [rates, costs] = [rates, costs].map(|figures| figures.map(median));
    Ok(Row { case, rates, costs, bounded })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

impl Row {
    fn ratio(&self) -> f64 {
        self.rates[0] / self.rates[1]
    }

    fn line(&self) -> String {
        let Self { case, rates: [ours, plain], costs: [cost, plain_cost], .. } = self;
        let bound = if self.bounded { ">" } else { " " };
        format!(
            "{:9} {:5} {:4} {:8} |{bound}{:5.0} {:6.0} {bound}{:5.2}x | {:5.0} {:6.0} {:6.2}x",
            case.direction.word(),
            case.flows,
            case.run,
            case.payload,
            ours / 1e3,
            plain / 1e3,
            self.ratio(),
            cost,
            plain_cost,
            cost / plain_cost,
        )
    }
}

fn table(rows: &[Row]) -> String {
    let head = "                              | loss-free kpps        | CPU ns/packet\n\
                direction flows  run  payload |  ours  plain   ratio |  ours  plain   ratio";
    let lines = rows.iter().map(Row::line);
    let foot = "> the generator offers no more".to_owned();
    std::iter::once(head.to_owned())
        .chain(lines)
        .chain([foot])
        .fold(String::new(), |text, line| text + &line + "\n")
}

fn first_cpu() -> Result<usize> {
    let set = rustix::thread::sched_getaffinity(None)?;
    (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu)).context("this process runs on a CPU")
}

fn run_on(cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
