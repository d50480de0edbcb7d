//! Proof that what XDP redirects arrives.
//!
//! A redirected frame is counted when a device takes it, not when somebody gets it: a driver may drop it, a hook that it
//! goes by may have had to change it, a neighbour's filter may refuse it. So every neighbour is asked
//! a question by the same way, before XDP redirects to it and every few seconds from then on. One that answers the kernel,
//! but not this, is left to TC.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::{Duration, Instant},
};

use super::{
    super::{
        Datapath,
        next_hops::{Changed, NextHops, View},
    },
    upkeep,
};
use crate::net::{
    neighbour_answers::{Answer, NeighbourAnswers},
    route::{Hop, Reachability},
};

/// A neighbour that answered is asked again after this time.
const CALM: Duration = Duration::from_secs(3);
/// One that did not, after this.
const DOUBT: Duration = Duration::from_millis(500);
/// Questions in a row without an answer that are enough.
const ENOUGH: u32 = 3;
/// Wait before a neighbour left to TC is tried again; doubles each time.
const BACKOFF: Duration = Duration::from_secs(15);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Neighbours asked in one step at most: each question is a system call of 0.1 ms.
const STEP: usize = 32;

/// The neighbours that XDP redirects to, or would.
#[derive(Debug)]
pub(super) struct Delivery {
    answers: Option<NeighbourAnswers>,
    trials: HashMap<Hop, Trial>,
}

#[derive(Debug)]
struct Trial {
    due: Instant,
    unanswered: u32,
    /// How often the neighbour was left to TC, without an answer since.
    failures: u32,
}

impl Delivery {
    /// Listens for answers; without the privilege, nothing is proved.
    pub(super) fn open(view: &mut View) -> Self {
        let answers = NeighbourAnswers::open().inspect_err(tell_that_nothing_is_proved).ok();
        view.set_wants_proof(answers.is_some());
        Self { answers, trials: HashMap::new() }
    }

    /// Neighbours that are left to TC because what XDP redirects does not arrive there.
    pub(super) fn failed(&self) -> usize {
        self.trials.values().filter(|trial| trial.failures > 0).count()
    }

    /// Reads answers and asks whose turn it is; what next hops are made of may change by it.
    pub(super) fn round(
        &mut self,
        hops: &NextHops,
        view: &mut View,
        datapath: &mut dyn Datapath,
        now: Instant,
    ) -> Changed {
        let Some(answers) = self.answers.as_ref().map(NeighbourAnswers::take) else {
            return Changed::default();
        };
        self.forget_unused(hops, view);
        let mut changed = self.read(&answers, view, now);
        match self.ask_due(hops, view, datapath, now) {
            Ok(given_up) => changed.extend(given_up),
            Err(error) => {
                tell_that_nothing_is_proved(&error);
                self.answers = None;
                view.set_wants_proof(false);
                changed.extend(hops.redirected());
            }
        }
        Changed { hops: changed, links: HashSet::new() }
    }

    /// Asks whose turn it is, and names those that are given up; an error means that none can be asked.
    fn ask_due(
        &mut self,
        hops: &NextHops,
        view: &mut View,
        datapath: &mut dyn Datapath,
        now: Instant,
    ) -> io::Result<HashSet<Hop>> {
        let mut given_up = HashSet::new();
        let mut asked = 0;
        for hop in hops.redirected() {
            let trial = self.trials.entry(hop).or_insert_with(|| Trial::new(now));
            if trial.due > now || !may_judge(hop, view, trial) {
                continue;
            }
            if asked == STEP {
                break;
            }
            asked += 1;
            if trial.unanswered >= ENOUGH && trial.failures == 0 {
                warn(hop, view);
                given_up.extend(view.set_delivered(hop, false).then_some(hop));
            }
            match ask(hop, view, datapath) {
                Ok(()) => trial.asked(now),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, neighbour = %hop.neighbour, "a question was not sent");
                    trial.not_asked(now);
                }
            }
        }
        Ok(given_up)
    }

    fn read(&mut self, answers: &[Answer], view: &mut View, now: Instant) -> HashSet<Hop> {
        let answers: HashSet<Answer> = answers.iter().copied().collect();
        if answers.is_empty() {
            return HashSet::new();
        }
        let mut changed = HashSet::new();
        for (hop, trial) in &mut self.trials {
            let from = hop.neighbour;
            let to = view.link(hop.ifindex).and_then(|link| link.mac);
            if [to, None].iter().any(|to| answers.contains(&Answer { from, to: *to })) {
                *trial = Trial { due: now + CALM, unanswered: 0, failures: 0 };
                changed.extend(view.set_delivered(*hop, true).then_some(*hop));
            }
        }
        changed
    }

    fn forget_unused(&mut self, hops: &NextHops, view: &mut View) {
        self.trials.retain(|hop, _| {
            let is_used = hops.uses(*hop);
            if !is_used {
                view.forget_delivered(*hop);
            }
            is_used
        });
    }
}

impl Trial {
    fn new(now: Instant) -> Self {
        Self { due: now, unanswered: 0, failures: 0 }
    }

    fn asked(&mut self, now: Instant) {
        if self.unanswered >= ENOUGH {
            let wait = BACKOFF.saturating_mul(1 << self.failures.min(8)).min(BACKOFF_MAX);
            self.failures = self.failures.saturating_add(1);
            self.due = now + wait;
        } else {
            self.due = now + DOUBT;
        }
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// What was not sent cannot be answered: only a neighbour that is left to TC already waits for its next turn.
    fn not_asked(&mut self, now: Instant) {
        if self.unanswered >= ENOUGH {
            self.asked(now);
        } else {
            self.due = now + DOUBT;
        }
    }
}

/// Only of a neighbour that answers the kernel can it be said that something else does not reach it.
fn may_judge(hop: Hop, view: &View, trial: &mut Trial) -> bool {
    let is_unknown = view.neighbour(hop).is_none_or(|found| found.reachability == Reachability::Unknown);
    if is_unknown && trial.failures == 0 {
        trial.unanswered = 0;
    }
    upkeep::answers(hop, view) && view.may_redirect(hop)
}

fn ask(hop: Hop, view: &View, datapath: &mut dyn Datapath) -> io::Result<()> {
    let ours = view.link(hop.ifindex).and_then(|link| link.mac);
    let theirs = view.neighbour(hop).and_then(|neighbour| neighbour.mac);
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(()) };
    let question = proxy_protocol::neighbour::question(hop.neighbour, ours, theirs);
    datapath.send_by_xdp(hop.ifindex, &question)
}

/// Whether no question can be sent any more: by this kernel, or with the privileges of this process. Anything else, such
/// as want of memory or a device that is just going, is over some time.
fn is_final(error: &io::Error) -> bool {
    /// What the kernel says of test runs that a kind of program does not have.
    const ENOTSUPP: i32 = 524;
    let kinds = [io::ErrorKind::InvalidInput, io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(ENOTSUPP)
}

fn tell_that_nothing_is_proved(error: &io::Error) {
    tracing::info!(%error, "what XDP redirects cannot be proved to arrive: it is taken to where the kernel says so");
}

fn warn(hop: Hop, view: &View) {
    let device = view.link(hop.ifindex).map_or("?", |link| link.name.as_str());
    tracing::warn!(
        device,
        neighbour = %hop.neighbour,
        "what XDP redirects does not arrive, although the neighbour answers the kernel: TC forwards"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        datapath::next_hops::{
            Key, Manner,
            tests::{HOP, Rows, neighbour, view},
        },
        net::route::{Neighbour, Route, Update},
        session::SessionId,
    };

    struct Bench {
        delivery: Delivery,
        hops: NextHops,
        view: View,
        rows: Rows,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let (mut hops, mut rows) = (NextHops::default(), Rows::default());
            let mut view = view(Some([9; 6]), true);
            view.set_wants_proof(true);
            let key = Key::new(Route { hop: HOP, mtu: None }, Manner::Xdp);
            let user = (SessionId(1), crate::datapath::Direction::ToOrigin);
            hops.take(user, key, &view, &mut rows).unwrap();
            let delivery = Delivery { answers: None, trials: HashMap::new() };
            Self { delivery, hops, view, rows, now: Instant::now() }
        }

        /// With other neighbours that answer the kernel.
        fn with_neighbours(count: u8) -> (Self, Vec<Hop>) {
            let mut bench = Self::new();
            let hops: Vec<Hop> = (0..count)
                .map(|last| Hop { neighbour: std::net::Ipv4Addr::new(10, 0, 1, last).into(), ..HOP })
                .collect();
            let neighbours =
                hops.iter().map(|hop| (*hop, Some(Neighbour { hop: *hop, ..neighbour([9; 6]) })));
            bench.view.apply(Update { neighbours: neighbours.collect(), ..Update::default() });
            for (session, hop) in (2..).zip(&hops) {
                let key = Key::new(Route { hop: *hop, mtu: None }, Manner::Xdp);
                let user = (SessionId(session), crate::datapath::Direction::ToOrigin);
                bench.hops.take(user, key, &bench.view, &mut bench.rows).unwrap();
            }
            (bench, hops)
        }

        fn ask_due(&mut self) -> io::Result<HashSet<Hop>> {
            self.delivery.ask_due(&self.hops, &mut self.view, &mut self.rows, self.now)
        }

        /// Half a second later; says whether something changed.
        fn step(&mut self, is_answered: bool) -> bool {
            self.now += DOUBT;
            let answers = [Answer { from: HOP.neighbour, to: Some([2, 0, 0, 0, 0, 1]) }];
            let answers = if is_answered { &answers[..] } else { &[] };
            let mut changed = self.delivery.read(answers, &mut self.view, self.now);
            changed.extend(self.ask_due().unwrap());
            !changed.is_empty()
        }
    }

    #[test]
    fn a5_a_neighbour_that_answers_the_kernel_alone_is_left_to_tc_until_it_answers() {
        let mut bench = Bench::new();
        bench.step(false);
        assert!(bench.step(true));
        bench.now += CALM;
        let steps: Vec<bool> = (0..6).map(|_| bench.step(false)).collect();
        assert_eq!(steps, [false, false, false, true, false, false]);
        assert_eq!((bench.delivery.failed(), bench.rows.sent.len()), (1, 5));
        assert!(bench.step(true));
        assert_eq!(bench.delivery.failed(), 0);
    }

    #[test]
    fn a5_a_neighbour_that_answers_is_asked_now_and_then() {
        let mut bench = Bench::new();
        bench.step(false);
        assert!(bench.step(true), "XDP redirects to it from now on");
        assert!((0..60).all(|_| !bench.step(true)));
        // Half a second from question to answer, and the calm after it.
        assert!(bench.rows.sent.len() <= 10, "{}", bench.rows.sent.len());
    }

    #[test]
    fn a5_a_neighbour_that_answers_nobody_is_not_judged() {
        let mut bench = Bench::new();
        let lost = Neighbour { reachability: Reachability::Unknown, ..neighbour([9; 6]) };
        bench.view.apply(Update { neighbours: [(HOP, Some(lost))].into(), ..Update::default() });
        assert!((0..60).all(|_| !bench.step(false)));
        assert_eq!(bench.rows.sent, [0; 0]);
    }

    #[test]
    fn a5_a_neighbour_left_to_tc_is_tried_ever_more_rarely() {
        let mut bench = Bench::new();
        for _ in 0..2400 {
            bench.step(false);
        }
        assert!((9..12).contains(&bench.rows.sent.len()), "{}", bench.rows.sent.len());
        assert_eq!(bench.delivery.failed(), 1);
    }

    #[test]
    fn a5_a_question_that_was_not_sent_is_sent_later_and_counts_for_nothing() {
        const ENOBUFS: i32 = 105;
        let mut bench = Bench::new();
        bench.step(false);
        assert!(bench.step(true));
        bench.rows.refusal = Some(ENOBUFS);
        assert!((0..60).all(|_| !bench.step(false)));
        assert_eq!((bench.delivery.failed(), bench.rows.sent.len()), (0, 1));
        bench.rows.refusal = None;
        bench.step(false);
        assert_eq!(bench.rows.sent.len(), 2);
    }

    #[test]
    fn a5_only_a_kernel_that_sends_no_questions_is_asked_for_none() {
        const NEVER: [i32; 5] = [1, 13, 22, 95, 524];
        const LATER: [i32; 6] = [4, 11, 12, 19, 100, 105];
        for errno in NEVER.into_iter().chain(LATER) {
            let mut bench = Bench::new();
            bench.rows.refusal = Some(errno);
            assert_eq!(bench.ask_due().is_err(), NEVER.contains(&errno), "{errno}");
        }
    }

    #[test]
    fn a5_a_neighbour_is_given_up_when_it_is_its_turn() {
        let (mut bench, hops) = Bench::with_neighbours(2 * STEP as u8);
        for hop in hops.into_iter().chain([HOP]) {
            bench.view.set_delivered(hop, true);
            let trial = Trial { unanswered: ENOUGH, ..Trial::new(bench.now) };
            bench.delivery.trials.insert(hop, trial);
        }
        for given_up in [STEP, STEP, 1, 0] {
            assert_eq!(bench.ask_due().unwrap().len(), given_up);
        }
    }
}
