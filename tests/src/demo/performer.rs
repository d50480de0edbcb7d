//! A third-party client in its own process, and what it says of itself in JSON lines.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde::Deserialize;

use super::tool;
use crate::netns::{Namespace, Process};

/// For a busy machine.
const LAST_WORDS: Duration = Duration::from_secs(15);
/// Longer than any show: clients are told when it is over.
const ENDLESS: &str = "1000000";

/// Who performs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// FFmpeg's WHIP muxer.
    FfmpegPublisher,
    /// aiortc, encoding.
    AiortcPublisher,
    /// aiortc, decoding.
    AiortcViewer,
}

/// What a client has told so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Told {
    /// It has a path and keys.
    pub(super) connected: bool,
    /// From its offer to the first decoded picture.
    pub(super) first_frame_ms: Option<f64>,
    /// Pictures decoded.
    pub(super) pictures: u64,
    /// Pieces of sound decoded.
    pub(super) sounds: u64,
}

/// A running client.
#[derive(Debug)]
pub(super) struct Performer {
    pub(super) stream: String,
    part: Part,
    process: Process,
    told: Arc<Mutex<Told>>,
}

impl Performer {
    pub(super) fn start(
        namespace: &Namespace,
        part: Part,
        (stream, url): (&str, &str),
        log: std::fs::File,
    ) -> Result<Self> {
        let mut process = namespace.spawn(part.command(url, log)?)?;
        let lines = process.child().stdout.take().context("the client has no standard output")?;
        let told = Arc::new(Mutex::new(Told::default()));
        let heard = Arc::clone(&told);
        thread::spawn(move || listen(lines, &heard));
        Ok(Self { stream: stream.to_owned(), part, process, told })
    }

    pub(super) fn told(&self) -> Told {
        *lock(&self.told)
    }

    /// Asks for the end; see [`Performer::finish`].
    pub(super) fn ask(&self) -> Result<()> {
        self.process.signal(Signal::TERM).with_context(|| format!("{self} has ended too early"))
    }

    /// Waits for the end that was asked for.
    pub(super) fn finish(mut self) -> Result<()> {
        let status = self.process.wait(LAST_WORDS).with_context(|| format!("{self} does not end"))?;
        ensure!(status.success(), "{self} ended with {status}");
        Ok(())
    }
}

impl std::fmt::Display for Performer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} of {}", self.part.name(), self.stream)
    }
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FfmpegPublisher => "the FFmpeg publisher",
            Self::AiortcPublisher => "the aiortc publisher",
            Self::AiortcViewer => "an aiortc viewer",
        }
    }

    fn arguments(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::FfmpegPublisher => ("tests/clients/whip_publish.py", &["--stack", "ffmpeg"]),
            Self::AiortcPublisher => ("tests/clients/whip_publish.py", &["--stack", "aiortc"]),
            Self::AiortcViewer => ("tests/clients/whep_play.py", &[]),
        }
    }

    /// In a process group of its own: Ctrl-C is for the demo, which then ends its clients in order.
    fn command(self, url: &str, log: std::fs::File) -> Result<Command> {
        let (script, arguments) = self.arguments();
        let mut command = Command::new(tool(PYTHON)?);
        command.arg(tool(script)?).arg(url).args(arguments).args(["--seconds", ENDLESS]);
        // Caches that root writes into the virtual environment would be root's.
        command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(Path::new("/"));
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        Ok(command)
    }
}

/// Has the clients' libraries.
pub(super) const PYTHON: &str = "target/tools/venv/bin/python";

/// One line of a client.
#[derive(Debug, Deserialize)]
struct Line {
    event: String,
    state: Option<String>,
    kind: Option<String>,
    ms: Option<f64>,
    frames: Option<Frames>,
}

#[derive(Debug, Deserialize)]
struct Frames {
    audio: u64,
    video: u64,
}

fn listen(lines: impl Read, told: &Mutex<Told>) {
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        if let Ok(line) = serde_json::from_str::<Line>(&line) {
            lock(told).hear(&line);
        }
    }
}

impl Told {
    fn hear(&mut self, line: &Line) {
        if line.event == "state" {
            self.connected = line.state.as_deref() == Some("connected");
        }
        if line.event == "first_frame" && line.kind.as_deref() == Some("video") {
            self.first_frame_ms = line.ms;
        }
        if let Some(frames) = &line.frames {
            (self.sounds, self.pictures) = (frames.audio, frames.video);
        }
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hears_what_a_viewer_says() {
        let lines = concat!(
            "not JSON\n",
            r#"{"event": "state", "state": "connected", "ms": 31.0}"#,
            "\n",
            r#"{"event": "first_frame", "kind": "audio", "ms": 60.0}"#,
            "\n",
            r#"{"event": "first_frame", "kind": "video", "ms": 310.5}"#,
            "\n",
            r#"{"event": "progress", "frames": {"audio": 50, "video": 25}, "packets": {}}"#,
            "\n",
        );
        let told = Mutex::default();
        listen(lines.as_bytes(), &told);
        let expected = Told { connected: true, first_frame_ms: Some(310.5), pictures: 25, sounds: 50 };
        assert_eq!(told.into_inner().unwrap(), expected);
    }
}
