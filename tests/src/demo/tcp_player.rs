//! FFmpeg as a player of a stream over TCP, and the pictures that it tells of.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use rustix::process::Signal;

use super::timeline::{FrameLines, Timeline};
use crate::{
    live::ffmpeg,
    netns::{Namespace, Process},
};

/// For a busy machine.
const LAST_WORDS: Duration = Duration::from_secs(15);
/// How FFmpeg ends when it is asked to by a signal.
const ASKED: i32 = 255;

/// By what a stream is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Rtmp,
    HttpFlv,
    HttpTs,
    Hls,
}

impl Protocol {
    pub(super) const ALL: [Self; 4] = [Self::Rtmp, Self::HttpFlv, Self::HttpTs, Self::Hls];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rtmp => "RTMP",
            Self::HttpFlv => "HTTP-FLV",
            Self::HttpTs => "HTTP-TS",
            Self::Hls => "HLS",
        }
    }

    /// What is behind the name of a stream where it is played by HTTP.
    pub(super) fn extension(self) -> Option<&'static str> {
        match self {
            Self::Rtmp => None,
            Self::HttpFlv => Some("flv"),
            Self::HttpTs => Some("ts"),
            Self::Hls => Some("m3u8"),
        }
    }
}

/// Pictures that came to all players of each protocol.
#[derive(Debug, Clone, Default)]
pub(super) struct Pictures(Arc<[AtomicU64; Protocol::ALL.len()]>);

impl Pictures {
    pub(super) fn counted(&self) -> [u64; Protocol::ALL.len()] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn add(&self, protocol: Protocol) {
        if let Some(count) = self.0.get(protocol as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A player or a publisher in its process.
#[derive(Debug)]
pub(super) struct TcpClient {
    name: String,
    process: Process,
}

/// A player and what it got.
#[derive(Debug)]
pub(super) struct TcpPlayer {
    pub(super) protocol: Protocol,
    client: TcpClient,
    timeline: Arc<Mutex<Timeline>>,
}

impl TcpClient {
    /// Starts FFmpeg in a process group of its own: Ctrl-C is for the demo, which then ends its clients in order.
    pub(super) fn start(
        namespace: &Namespace,
        name: String,
        mut command: Command,
        log: File,
    ) -> Result<Self> {
        command.process_group(0).stdin(Stdio::null()).stderr(log);
        Ok(Self { name, process: namespace.spawn(command)? })
    }

    pub(super) fn runs(&mut self) -> bool {
        self.process.child().try_wait().is_ok_and(|status| status.is_none())
    }

    /// Asks for the end; see [`TcpClient::finish`].
    pub(super) fn ask(&self) -> Result<()> {
        self.process.signal(Signal::TERM).with_context(|| format!("{} has ended too early", self.name))
    }

    /// Waits for the end that was asked for.
    pub(super) fn finish(mut self) -> Result<()> {
        let status = self.process.wait(LAST_WORDS).with_context(|| format!("{} does not end", self.name))?;
        ensure!(status.success() || status.code() == Some(ASKED), "{} ended with {status}", self.name);
        Ok(())
    }
}

impl TcpPlayer {
    pub(super) fn start(
        namespace: &Namespace,
        protocol: Protocol,
        (stream, url): (&str, &str),
        pictures: &Pictures,
        log: File,
    ) -> Result<Self> {
        let started = Instant::now();
        let name = format!("the {} player of {stream}", protocol.name());
        let mut client = TcpClient::start(namespace, name, telling(url), log)?;
        let lines = client.process.child().stdout.take().context("the player has no standard output")?;
        let timeline = Arc::<Mutex<Timeline>>::default();
        let (heard, counted) = (Arc::clone(&timeline), pictures.clone());
        thread::spawn(move || {
            listen(lines, |at| {
                heard.lock().take(at, started);
                counted.add(protocol);
            });
        });
        Ok(Self { protocol, client, timeline })
    }

    pub(super) fn timeline(&self) -> Timeline {
        *self.timeline.lock()
    }

    pub(super) fn runs(&mut self) -> bool {
        self.client.runs()
    }

    pub(super) fn into_client(self) -> TcpClient {
        self.client
    }
}

/// Copies the pictures and tells of each as soon as it is there. Half a second is enough to find out what there is.
fn telling(url: &str) -> Command {
    let mut command = ffmpeg();
    command.args(["-analyzeduration", "500000", "-probesize", "64000", "-i", url, "-map", "0:v:0"]);
    command.args(["-c", "copy", "-flush_packets", "1", "-f", "framecrc", "-"]).stdout(Stdio::piped());
    command
}

fn listen(lines: impl Read, mut hear: impl FnMut(f64)) {
    let mut frames = FrameLines::default();
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        if let Some(at) = frames.hear(&line) {
            hear(at);
        }
    }
}
