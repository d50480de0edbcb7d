//! Programs of JavaScript: node-media-server as an origin, and players in Chromium.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{PATIENCE, Scratch, finish, sockets, until};
use crate::netns::{Namespace, Process};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A script with the packages that `cargo xtask setup` installs.
fn script(name: &str) -> Result<Command> {
    let packages = root().join("target/tools/web");
    ensure!(packages.join("node_modules").exists(), "no packages of npm: run `cargo xtask setup`");
    let mut command = Command::new("node");
    command.arg(root().join("tests/clients/web").join(name)).env("WEB_CLIENTS", packages);
    Ok(command)
}

/// A running node-media-server; it ends when dropped.
#[derive(Debug)]
pub struct NodeMediaServer {
    _process: Process,
    _directory: Scratch,
}

impl NodeMediaServer {
    /// Where it listens for RTMP.
    pub const RTMP_PORT: u16 = 1935;
    /// Where it listens for HTTP.
    pub const HTTP_PORT: u16 = 8080;

    /// Starts it in `namespace` and waits until it listens.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let directory = Scratch::new("nms")?;
        let mut command = script("origin.mjs")?;
        command.args([Self::RTMP_PORT, Self::HTTP_PORT].map(|port| port.to_string())).arg(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let server = Self { _process: namespace.spawn(command)?, _directory: directory };
        for port in [Self::RTMP_PORT, Self::HTTP_PORT] {
            until("node-media-server listens", PATIENCE, || Ok(sockets(namespace, &["-ltn"], port)? > 0))?;
        }
        Ok(server)
    }

    /// Where it serves the HLS of a stream.
    #[must_use]
    pub fn playlist(name: &str) -> String {
        format!("{name}/index.m3u8")
    }
}

/// What a page's player made of a stream.
#[derive(Clone, Debug, Deserialize)]
pub struct Watched {
    /// Frames that were decoded.
    pub frames: u32,
    /// Of the picture, in pixels.
    pub width: u32,
    /// What went wrong.
    pub error: Option<String>,
}

/// Plays streams in Chromium, each given as `flv=URL` or `hls=URL`, until so many frames of each are decoded.
///
/// # Errors
/// When the browser does not run.
pub fn watch(namespace: &Namespace, frames: u32, streams: &[String]) -> Result<BTreeMap<String, Watched>> {
    const SECONDS: u32 = 20;
    let mut command = script("play.mjs")?;
    command.args([frames, SECONDS].map(|number| number.to_string())).args(streams);
    let finished = finish(namespace, command)?;
    let complaints = finished.complaints.clone();
    serde_json::from_str(&finished.success()?).with_context(|| format!("no result: {complaints}"))
}
