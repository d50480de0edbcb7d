//! What must hold, each with the figure it rests on.

use std::fmt;

use super::{
    compare::Compared,
    crowd::Crowd,
    handshakes::{self, Handshakes},
    idle::{Idle, Protocol},
    stall::Stalled,
    trial::Between,
};

const SPLICE: Between = Between::Proxy("splice");
const COPY: Between = Between::Proxy("copy");
const AUTO: Between = Between::Proxy("auto");

/// Of a router's throughput, with one connection and with many.
pub(super) const BULK: f64 = 0.75;
pub(super) const BULK_OF_MANY: f64 = 0.65;
/// Of what tokio's copying adds to the processor time of the ends.
const OF_PLAIN: f64 = 1.0 / 3.0;
/// Of the better of the two means.
const OF_BETTER: f64 = 1.1;
/// Bytes held for a viewer that stalls.
const STALLED: u64 = 6 << 20;
/// Bytes of an idle joined connection.
const IDLE: f64 = (18 << 10) as f64;
/// The delay by others is at most what the round trips of a handshake take.
const HANDSHAKE: f64 = 2.0;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) holds: bool,
    what: String,
}

impl Gate {
    fn new(holds: bool, what: String) -> Self {
        Self { holds, what }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<6} {}", if self.holds { "holds" } else { "MISSED" }, self.what)
    }
}

/// Bulk by splicing, against a router and against tokio.
pub(super) fn bulk(name: &str, compared: &Compared, least: f64) -> [Gate; 2] {
    let rates = compared.rates(SPLICE, Between::Router);
    let costs = compared.extra_costs(SPLICE, Between::Plain);
    [
        Gate::new(
            rates.median() >= least,
            format!("{name}: splicing reaches {} of a router's throughput, at least {least}", rates.ratio()),
        ),
        Gate::new(
            costs.median() <= OF_PLAIN,
            format!(
                "{name}: splicing adds {} of the CPU time of a GB that tokio's copying adds to a link, at most {OF_PLAIN:.2}",
                costs.ratio()
            ),
        ),
    ]
}

/// Live streams by whatever the proxy chooses.
pub(super) fn paced(compared: &Compared) -> Gate {
    let [to_copy, to_splice] = [COPY, SPLICE].map(|means| compared.costs(AUTO, means));
    // As many times what the better one takes: that is the greater of the two.
    let worse = if to_copy.median() >= to_splice.median() { &to_copy } else { &to_splice };
    Gate::new(
        to_copy.median().max(to_splice.median()) <= OF_BETTER && !to_copy.median().is_nan(),
        format!(
            "live streams: auto takes {} of the CPU time of a GB that the better of copying and splicing takes, at most \
             {OF_BETTER}",
            worse.ratio()
        ),
    )
}

pub(super) fn stalled(means: &str, stalled: &Stalled) -> Gate {
    let (total, most) = (stalled.total(), STALLED >> 20);
    Gate::new(total <= STALLED, format!("a viewer that stalls, {means}: {stalled}; at most {most} MiB"))
}

pub(super) fn idle(protocol: Protocol, idle: &Idle) -> Gate {
    let name = protocol.name();
    Gate::new(
        idle.total.median() <= IDLE,
        format!("an idle joined connection of {name} costs {idle}; at most {IDLE}"),
    )
}

pub(super) fn crowd(crowd: &Crowd) -> Gate {
    Gate::new(crowd.holds(), format!("one origin's viewers: {crowd}"))
}

pub(super) fn handshakes(handshakes: &Handshakes) -> Gate {
    let Handshakes { alone, among } = handshakes;
    let ratio = handshakes.ratio();
    Gate::new(
        ratio <= HANDSHAKE,
        format!(
            "a handshake takes {alone} us alone and {among} us among {} clients that do not finish theirs, {ratio:.2} \
             times; at most {HANDSHAKE}",
            handshakes::IDLE
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join_bench::compare::tests::compared;

    fn bulk_holds(splice: (f64, f64)) -> [bool; 2] {
        let figures = [
            (Between::Nothing, 100.0, 0.1),
            (Between::Router, 80.0, 0.12),
            (SPLICE, splice.0, splice.1),
            (Between::Plain, 20.0, 0.4),
        ];
        bulk("one connection", &compared(&figures), BULK).map(|gate| gate.holds)
    }

    #[test]
    fn bulk_is_compared_with_a_router_and_with_tokio() {
        assert_eq!(bulk_holds((60.1, 0.19)), [true, true]);
        assert_eq!(bulk_holds((59.0, 0.19)), [false, true]);
        assert_eq!(bulk_holds((60.1, 0.21)), [true, false]);
    }

    fn auto_holds(copy: f64, splice: f64, auto: f64) -> bool {
        paced(&compared(&[(COPY, 1.0, copy), (SPLICE, 1.0, splice), (AUTO, 1.0, auto)])).holds
    }

    #[test]
    fn auto_is_compared_with_the_better_of_both() {
        assert!(auto_holds(1.0, 2.0, 1.09));
        assert!(!auto_holds(1.0, 2.0, 1.2));
        assert!(!auto_holds(2.0, 1.0, 1.2));
        assert!(auto_holds(2.0, 1.0, 1.0));
    }

    #[test]
    fn nothing_measured_holds_nowhere() {
        let nothing = compared(&[]);
        assert!(bulk("nothing", &nothing, BULK).iter().all(|gate| !gate.holds));
        assert!(!paced(&nothing).holds);
        assert!(!idle(Protocol::Http, &Idle::default()).holds);
    }
}
