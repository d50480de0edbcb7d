//! One session under load, a fault, and the reckoning: what was lost, what the proxy says of it, and what is left.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    case::Case,
    netns::Direct,
    proxy::Status,
    pulse::{Rhythm, Tally},
    residue,
    wire::Wire,
};

/// Before the fault, to see that all is well.
const CALM: Duration = Duration::from_millis(500);
/// The proxy asks origins nothing by itself, so that only the kernel path tells that something is wrong.
const SETTINGS: [(&str, &str); 1] = [("PROXY_ORIGIN_PROBE_INTERVAL", "0")];

/// What a fault came to.
#[derive(Debug)]
pub struct Outcome<R> {
    /// What the fault returned.
    pub result: R,
    /// The datagrams sent and received meanwhile.
    pub tally: Tally,
    /// What the proxy said in the end.
    pub status: Status,
}

/// Runs `fault` under load in a session that is where the case puts it; then the proxy ends.
///
/// # Errors
/// When the session does not outlive the fault, datagrams come twice, or something is left attached.
pub fn outlive<R>(
    network: &Direct,
    case: Case,
    rhythm: Rhythm,
    fault: impl FnOnce(&Wire<'_>) -> R,
) -> Result<Outcome<R>> {
    let wire = Wire::start(network, case, &SETTINGS)?;
    let live = wire.connected()?;
    wire.settled()?;
    let (result, tally) = wire.beat(&live, rhythm, || {
        sleep(CALM);
        fault(&wire)
    });
    let status = wire.proxy.status()?;
    ensure!(status.totals.sessions == 1, "the session is gone: {status:#?}");
    for (direction, arrivals) in tally.directions() {
        ensure!(arrivals.duplicates() == 0, "{} came twice {direction}", arrivals.duplicates());
    }
    wire.proxy.stop()?;
    let left = residue::attached(&network.proxy)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(Outcome { result, tally, status })
}

impl<R> Outcome<R> {
    /// Checks that nothing sent after `recovered` is missing, and that nothing arrived for `outage` at most.
    ///
    /// # Errors
    /// When more is missing.
    pub fn recovers(&self, recovered: Instant, outage: Duration) -> Result<()> {
        let (late, longest) = (self.tally.missing_after(recovered), self.tally.outage());
        let said = || format!("{} missing, {late} of them late, outage {longest:?}", self.tally.missing());
        ensure!(late == 0 && longest <= outage, "{}: {:#?}", said(), self.status);
        Ok(())
    }
}
