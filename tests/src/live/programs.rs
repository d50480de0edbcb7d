//! FFmpeg and other programs, bounded in time.

use std::{
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{Clip, PATIENCE};
use crate::netns::{Namespace, Process};

/// What came of a program.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended; 124 is that it had to be ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub complaints: String,
}

impl Finished {
    /// The output of a program that was successful.
    ///
    /// # Errors
    /// When it was not.
    pub fn success(self) -> Result<String> {
        ensure!(self.status.success(), "{self:#?}");
        Ok(self.output)
    }

    /// Whether it ended by itself, and not with success.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        const TIMED_OUT: [i32; 2] = [124, 137];
        self.status.code().is_some_and(|code| (code != 0) && !TIMED_OUT.contains(&code))
    }
}

/// Runs a program in a namespace to its end, which is forced if it does not come in time.
///
/// # Errors
/// When it cannot be started.
pub fn finish(namespace: &Namespace, command: Command) -> Result<Finished> {
    namespace.enter(|| finish_here(command))
}

pub(super) fn finish_here(command: Command) -> Result<Finished> {
    let mut bounded = Command::new("timeout");
    bounded.arg("--kill-after=2").arg(PATIENCE.as_secs().to_string());
    bounded.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    bounded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = bounded.output().with_context(|| format!("failed to start {command:?}"))?;
    Ok(Finished {
        status: ended.status,
        output: String::from_utf8_lossy(&ended.stdout).into_owned(),
        complaints: String::from_utf8_lossy(&ended.stderr).into_owned(),
    })
}

/// FFmpeg, saying nothing but what went wrong.
#[must_use]
pub fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error"]);
    command
}

/// Sends the clip over and over in real time, by what `output` says: options and where to.
#[must_use]
pub fn publish(clip: &Clip, output: &[&str]) -> Command {
    let mut command = ffmpeg();
    command.args(["-re", "-stream_loop", "-1", "-i"]).arg(clip.path()).args(["-c", "copy"]).args(output);
    command
}

/// Plays until the stream ends.
#[must_use]
pub fn play(url: &str) -> Command {
    let mut command = ffmpeg();
    command.args(["-i", url, "-c", "copy", "-f", "null", "-"]);
    command
}

/// How many video frames FFprobe decodes of three seconds of a stream, or of a whole file if that is shorter.
///
/// # Errors
/// When it gets no video.
pub fn frames_in(namespace: &Namespace, source: impl AsRef<Path>) -> Result<u32> {
    let mut command = Command::new("ffprobe");
    command.args(["-loglevel", "error", "-count_frames", "-read_intervals", "%+3", "-select_streams", "v"]);
    command.args(["-show_entries", "stream=codec_name,nb_read_frames", "-of", "csv=p=0"]);
    command.arg(source.as_ref());
    let finished = finish(namespace, command)?;
    let output = finished.clone().success()?;
    let frames = output.lines().next().and_then(|line| line.strip_prefix("h264,")?.parse().ok());
    frames.with_context(|| format!("no frames: {finished:#?}"))
}

/// Starts a program whose output nobody reads.
///
/// # Errors
/// When it cannot be started.
pub fn start(namespace: &Namespace, mut command: Command) -> Result<Process> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    namespace.spawn(command)
}
