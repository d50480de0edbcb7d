//! Programs that somebody else detaches while a session runs: they come back, and whoever insists is left alone.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use integration_tests::{
    case::Case,
    fault::outlive,
    in_cases, links,
    netns::Direct,
    proxy::{Engine, Proxy, Status},
    pulse::Rhythm,
    residue,
    wire::Wire,
};

const PATIENCE: Duration = Duration::from_secs(10);

in_cases!(xdp, tc, xdp_v6, tc_v6: {
    a4_a_program_that_somebody_detached_is_attached_again,
    a4_a_session_whose_program_was_detached_is_forwarded_again,
    a4_somebody_who_detaches_again_is_left_alone_for_a_while,
});

fn kind(case: Case) -> (&'static str, &'static str) {
    if case.engine == Engine::Xdp { ("xdp", "XDP on eth0") } else { ("tcx", "tcx on eth0") }
}

fn detach(wire: &Wire<'_>, network: &Direct, case: Case) {
    links::detach(wire.proxy.id(), kind(case).0, network.proxy.ifindex("eth0").unwrap()).unwrap();
}

fn is_there(network: &Direct, case: Case) -> bool {
    residue::attached(&network.proxy).unwrap().iter().any(|found| found == kind(case).1)
}

/// Whether `status` shows the program of the case on eth0.
fn is_shown(status: &Status, case: Case) -> bool {
    status.interfaces.iter().any(|shown| shown.name == "eth0" && shown.engine == case.engine.as_str())
}

#[track_caller]
fn comes_back(network: &Direct, proxy: &Proxy<'_>, case: Case) {
    let end = Instant::now() + PATIENCE;
    while !is_there(network, case) {
        assert!(Instant::now() < end, "{} does not come back", kind(case).1);
        sleep(Duration::from_millis(100));
    }
    proxy.wait(PATIENCE, |status| is_shown(status, case)).unwrap();
}

fn a4_a_program_that_somebody_detached_is_attached_again(case: Case) {
    let network = Direct::new().unwrap();
    let outcome = outlive(&network, case, Rhythm::default(), |wire| {
        detach(wire, &network, case);
        comes_back(&network, &wire.proxy, case);
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.tally.missing(), outcome.status.totals.detachments), (0, 1));
}

fn a4_a_session_whose_program_was_detached_is_forwarded_again(case: Case) {
    let network = Direct::new().unwrap();
    let outcome = outlive(&network, case, Rhythm::default(), |wire| {
        detach(wire, &network, case);
        comes_back(&network, &wire.proxy, case);
        let forwarded = |status: &Status| status.packets_of(case.path(), "to_origin");
        let before = forwarded(&wire.proxy.status().unwrap());
        let more = |status: &Status| forwarded(status) > before + 100;
        wire.proxy.wait(Duration::from_secs(25), more).unwrap();
    });
    assert_eq!(outcome.unwrap().tally.missing(), 0);
}

fn a4_somebody_who_detaches_again_is_left_alone_for_a_while(case: Case) {
    let network = Direct::new().unwrap();
    let outcome = outlive(&network, case, Rhythm::default(), |wire| {
        for _ in 0..2 {
            detach(wire, &network, case);
            comes_back(&network, &wire.proxy, case);
        }
        // Twice in a row was answered after two seconds; the third time is after four.
        let detached = Instant::now();
        detach(wire, &network, case);
        let noticed = |status: &Status| status.totals.detachments == 3;
        let status = wire.proxy.wait(PATIENCE, noticed).unwrap();
        assert!(!is_shown(&status, case), "{status:#?}");
        comes_back(&network, &wire.proxy, case);
        assert!(detached.elapsed() >= Duration::from_secs(4), "somebody who means it is fought");
    });
    assert_eq!(outcome.unwrap().tally.missing(), 0);
}
