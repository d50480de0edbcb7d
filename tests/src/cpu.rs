//! The processor time of a process, as the kernel tells it.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// What a process has used so far, in both modes.
///
/// # Errors
/// When there is no such process.
pub fn used_by(process: u32) -> Result<Duration> {
    let ticks = ticks(&stat(process)?).context("the kernel's processor times look unfamiliar")?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// What the kernel says of a process.
pub(crate) fn stat(process: u32) -> Result<String> {
    fs::read_to_string(format!("/proc/{process}/stat")).with_context(|| format!("process {process} is gone"))
}

/// The process's name may hold anything, so its fields are counted from the bracket that closes it.
pub(crate) fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
    Some(fields.next()?? + fields.next()??)
}
