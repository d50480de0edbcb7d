//! Whether the kernel forwards a session, and the proof that it really does.
//!
//! An installed flow is believed only while what it does agrees with what userspace sees: frames that still come up
//! although the flow should take them, or checks that get no answer, end the offload with a reason.

use std::time::{Duration, Instant};

use crate::datapath::{FlowCounters, FlowId};

/// A tuple must have been the active one for this long before its flow is installed.
pub const SETTLE: Duration = Duration::from_millis(150);
/// A tuple that changed hands between live sessions must have been left alone for this long.
pub const SHARED_SETTLE: Duration = Duration::from_secs(3);
/// First wait after a failed offload; doubles each time.
const BACKOFF: Duration = Duration::from_secs(15);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Frames of one direction that may still come up between two looks without meaning that the hook is bypassed:
/// stragglers of the flip, escalated checks.
const STRAGGLERS: u64 = 8;
/// Checks in a row without an answer before forwarding is doubted; of SRT, looks in a row at which nothing came back.
const UNANSWERED: u32 = 4;

/// Why a session is relayed in userspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelayReason {
    /// Its active tuple is new.
    Settling,
    /// The client has not chosen a tuple.
    NotNominated,
    /// The origin has not answered.
    NotAnswered,
    /// Another live session uses the same client address.
    SharedTuple,
    /// One side speaks IPv6.
    AddressFamily,
    /// No kernel engine runs.
    NoEngine,
    /// Client or origin is this host and the other is not.
    LocalPeer,
    /// No route to one of the two.
    NoRoute,
    /// A program could not be attached where the packets come in.
    AttachFailed,
    /// Somebody else detached the program where the packets come in.
    ProgramDetached,
    /// The operator chose other interfaces.
    InterfaceNotSelected,
    /// The flow table is full.
    TableFull,
    /// Another flow has the same key.
    KeyTaken,
    /// Packets that the flow should have taken came up.
    HookMissed,
    /// Checks were forwarded and not answered.
    NoAnswer,
    /// The neighbour or the device went away.
    NextHopLost,
    /// The operator switched offloading off.
    SwitchedOff,
}

impl RelayReason {
    /// Every reason.
    pub const ALL: [Self; 17] = [
        Self::Settling,
        Self::NotNominated,
        Self::NotAnswered,
        Self::SharedTuple,
        Self::AddressFamily,
        Self::NoEngine,
        Self::LocalPeer,
        Self::NoRoute,
        Self::AttachFailed,
        Self::ProgramDetached,
        Self::InterfaceNotSelected,
        Self::TableFull,
        Self::KeyTaken,
        Self::HookMissed,
        Self::NoAnswer,
        Self::NextHopLost,
        Self::SwitchedOff,
    ];

    /// Whether links, routes or interfaces were the cause, so that a change of them may end it.
    pub fn is_network(self) -> bool {
        matches!(
            self,
            Self::NoRoute
                | Self::NextHopLost
                | Self::AttachFailed
                | Self::ProgramDetached
                | Self::InterfaceNotSelected
        )
    }

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settling => "settling",
            Self::NotNominated => "not_nominated",
            Self::NotAnswered => "not_answered",
            Self::SharedTuple => "shared_tuple",
            Self::AddressFamily => "address_family",
            Self::NoEngine => "no_engine",
            Self::LocalPeer => "local_peer",
            Self::NoRoute => "no_route",
            Self::AttachFailed => "attach_failed",
            Self::ProgramDetached => "program_detached",
            Self::InterfaceNotSelected => "interface_not_selected",
            Self::TableFull => "table_full",
            Self::KeyTaken => "key_taken",
            Self::HookMissed => "hook_missed",
            Self::NoAnswer => "no_answer",
            Self::NextHopLost => "next_hop_lost",
            Self::SwitchedOff => "switched_off",
        }
    }
}

/// Whether the kernel forwards a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Userspace relays.
    Relayed {
        /// Why.
        reason: RelayReason,
        /// The kernel is tried again from then on.
        not_before: Instant,
        /// Failed offloads in a row.
        failures: u32,
    },
    /// The kernel forwards.
    Installed {
        /// The flow.
        flow: FlowId,
        /// Since when.
        since: Instant,
        /// What it has shown so far.
        proof: Proof,
        /// Failed offloads before this one.
        failures: u32,
    },
}

/// Packets userspace relayed for a session, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounters {
    /// Client to origin, from the active tuple alone.
    pub to_origin: u64,
    /// Origin to client.
    pub to_client: u64,
}

/// How an installed flow tells that the origin hears its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The origin answers checks.
    ToChecks,
    /// Userspace asked for the origin's answers, so their absence means nothing.
    Elsewhere,
    /// Both sides of an SRT connection send something several times a second, if no more than acknowledgements.
    Always,
}

/// Evidence about an installed flow, gathered from one look at the counters to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    last: Option<(RelayCounters, FlowCounters)>,
    unanswered: u32,
    answered: bool,
}

impl Offload {
    /// Relayed for `reason`, to be tried at `not_before`.
    pub fn relayed(reason: RelayReason, not_before: Instant) -> Self {
        Self::Relayed { reason, not_before, failures: 0 }
    }

    /// Relayed because an attempt failed; the wait doubles each time.
    pub fn failed(&self, reason: RelayReason, now: Instant) -> Self {
        let failures = match self {
            Self::Relayed { failures, .. } | Self::Installed { failures, .. } => *failures,
        };
        let wait = BACKOFF.saturating_mul(1 << failures.min(8)).min(BACKOFF_MAX);
        Self::Relayed { reason, not_before: now + wait, failures: failures.saturating_add(1) }
    }

    /// Forwarded by the kernel from `now` on.
    pub fn installed(&self, flow: FlowId, now: Instant) -> Self {
        let failures = match self {
            Self::Relayed { failures, .. } | Self::Installed { failures, .. } => *failures,
        };
        Self::Installed { flow, since: now, proof: Proof::default(), failures }
    }

    /// The installed flow.
    pub fn flow(&self) -> Option<FlowId> {
        match self {
            Self::Installed { flow, .. } => Some(*flow),
            Self::Relayed { .. } => None,
        }
    }

    /// Why it is relayed, if it is.
    pub fn reason(&self) -> Option<RelayReason> {
        match self {
            Self::Relayed { reason, .. } => Some(*reason),
            Self::Installed { .. } => None,
        }
    }
}

impl Proof {
    /// Takes one look; an error says why the flow is not to be believed.
    pub fn look(
        &mut self,
        relay: RelayCounters,
        kernel: FlowCounters,
        answers: Answers,
    ) -> Result<(), RelayReason> {
        let Some((relay_before, kernel_before)) = self.last.replace((relay, kernel)) else { return Ok(()) };
        let bypassed = |relayed: u64, relayed_before: u64, forwarded: u64, forwarded_before: u64| {
            relayed.saturating_sub(relayed_before) > STRAGGLERS && forwarded == forwarded_before
        };
        let to_origin = bypassed(
            relay.to_origin,
            relay_before.to_origin,
            kernel.to_origin.packets,
            kernel_before.to_origin.packets,
        );
        let to_client = bypassed(
            relay.to_client,
            relay_before.to_client,
            kernel.to_client.packets,
            kernel_before.to_client.packets,
        );
        if to_origin || to_client {
            return Err(RelayReason::HookMissed);
        }
        match answers {
            Answers::ToChecks => self.count_answers(kernel, kernel_before, false),
            Answers::Elsewhere => self.count_answers(kernel, kernel_before, true),
            Answers::Always => self.count_silences(kernel, kernel_before),
        }
    }

    /// Whether something went to the origin and its answer came back, both through the kernel.
    pub fn is_complete(&self) -> bool {
        self.answered
    }

    fn count_silences(&mut self, now: FlowCounters, before: FlowCounters) -> Result<(), RelayReason> {
        let asked = now.to_origin.packets != before.to_origin.packets;
        let answered = now.to_client.packets != before.to_client.packets;
        self.answered |= asked && answered;
        self.unanswered = if asked && !answered { self.unanswered + 1 } else { 0 };
        if self.unanswered >= UNANSWERED { Err(RelayReason::NoAnswer) } else { Ok(()) }
    }

    fn count_answers(
        &mut self,
        now: FlowCounters,
        before: FlowCounters,
        responses_up: bool,
    ) -> Result<(), RelayReason> {
        if responses_up || now.to_client.checks != before.to_client.checks {
            self.answered |= now.to_origin.checks > 0 && now.to_client.checks > 0;
            self.unanswered = 0;
            return Ok(());
        }
        self.unanswered += now.to_origin.checks.wrapping_sub(before.to_origin.checks);
        if self.unanswered >= UNANSWERED { Err(RelayReason::NoAnswer) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::DirectionCounters;

    fn kernel(to_origin: (u64, u32), to_client: (u64, u32)) -> FlowCounters {
        let direction =
            |(packets, checks)| DirectionCounters { packets, checks, ..DirectionCounters::default() };
        FlowCounters { to_origin: direction(to_origin), to_client: direction(to_client), closing: false }
    }

    fn relay(to_origin: u64, to_client: u64) -> RelayCounters {
        RelayCounters { to_origin, to_client }
    }

    #[test]
    fn a_flow_that_counts_and_is_answered_is_proved() {
        let mut proof = Proof::default();
        assert_eq!(proof.look(relay(10, 10), kernel((0, 0), (0, 0)), Answers::ToChecks), Ok(()));
        assert_eq!(proof.look(relay(10, 10), kernel((50, 1), (50, 1)), Answers::ToChecks), Ok(()));
        assert!(proof.is_complete());
    }

    #[test]
    fn packets_that_still_come_up_end_the_offload() {
        for (to_origin, to_client) in [(100, 0), (0, 100)] {
            let mut proof = Proof::default();
            proof.look(relay(0, 0), kernel((0, 0), (0, 0)), Answers::ToChecks).unwrap();
            let verdict = proof.look(relay(to_origin, to_client), kernel((0, 0), (0, 0)), Answers::ToChecks);
            assert_eq!(verdict, Err(RelayReason::HookMissed));
        }
    }

    #[test]
    fn stragglers_of_the_flip_do_not_end_the_offload() {
        let mut proof = Proof::default();
        proof.look(relay(0, 0), kernel((0, 0), (0, 0)), Answers::ToChecks).unwrap();
        assert_eq!(proof.look(relay(8, 8), kernel((0, 0), (0, 0)), Answers::ToChecks), Ok(()));
        assert_eq!(proof.look(relay(20, 8), kernel((90, 0), (0, 0)), Answers::ToChecks), Ok(()));
    }

    #[test]
    fn checks_without_an_answer_end_the_offload() {
        let mut proof = Proof::default();
        proof.look(relay(0, 0), kernel((0, 0), (0, 0)), Answers::ToChecks).unwrap();
        assert_eq!(proof.look(relay(0, 0), kernel((90, 3), (0, 0)), Answers::ToChecks), Ok(()));
        assert_eq!(
            proof.look(relay(0, 0), kernel((90, 4), (0, 0)), Answers::ToChecks),
            Err(RelayReason::NoAnswer)
        );
    }

    #[test]
    fn responses_that_userspace_asked_for_are_not_missed() {
        let mut proof = Proof::default();
        proof.look(relay(0, 0), kernel((0, 0), (0, 0)), Answers::Elsewhere).unwrap();
        assert_eq!(proof.look(relay(0, 0), kernel((90, 9), (5, 0)), Answers::Elsewhere), Ok(()));
    }

    #[test]
    fn an_srt_connection_that_nothing_comes_back_of_ends_the_offload() {
        let mut proof = Proof::default();
        for second in 0..=3 {
            assert_eq!(proof.look(relay(0, 0), kernel((second * 90, 0), (0, 0)), Answers::Always), Ok(()));
        }
        let verdict = proof.look(relay(0, 0), kernel((360, 0), (0, 0)), Answers::Always);
        assert_eq!(verdict, Err(RelayReason::NoAnswer));
    }

    #[test]
    fn an_srt_connection_with_packets_both_ways_is_proved() {
        let mut proof = Proof::default();
        for second in 0..10 {
            // A client that stalls is asked nothing.
            let sent = second / 2 * 90;
            let look = proof.look(relay(4, 4), kernel((sent, 0), (sent, 0)), Answers::Always);
            assert_eq!(look, Ok(()));
        }
        assert!(proof.is_complete());
    }

    #[test]
    fn the_wait_after_a_failed_offload_doubles_up_to_a_limit() {
        let now = Instant::now();
        let mut offload = Offload::relayed(RelayReason::Settling, now);
        let mut waits = vec![];
        for _ in 0..7 {
            offload = offload.failed(RelayReason::NoAnswer, now);
            if let Offload::Relayed { not_before, .. } = &offload {
                waits.push((*not_before - now).as_secs());
            }
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 300, 300]);
    }
}
