//! WebRTC stacks that are not ours at both ends: FFmpeg and aiortc publish, aiortc plays and decodes.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use integration_tests::{
    netns::{Namespace, Process, Routed},
    proxy::Engine,
    site::Site,
};
use serde_json::Value;

/// A publisher's start takes seconds: it loads its codecs first.
const PATIENCE: Duration = Duration::from_secs(30);
const PLAYED: &str = "5";

fn client(script: &str, arguments: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = root.join("target/tools/venv/bin/python");
    assert!(python.exists(), "{} is missing: run `cargo xtask setup`", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("tests/clients").join(script)).args(arguments);
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir("/").stdin(Stdio::null());
    command
}

fn publisher(namespace: &Namespace, url: &str, stack: &str) -> Process {
    let mut command = client("whip_publish.py", &[url, "--stack", stack, "--seconds", "60"]);
    command.stdout(Stdio::null());
    namespace.spawn(command).unwrap()
}

/// The last line of a player that has ended: what it decoded, received and lost.
fn played(namespace: &Namespace, url: &str) -> Value {
    let mut command = client("whep_play.py", &[url, "--seconds", PLAYED]);
    let output = namespace.enter(move || command.stderr(Stdio::inherit()).output()).unwrap();
    assert!(output.status.success(), "the player ended with {}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.find(|line| line["event"] == "end").unwrap()
}

fn is_played_without_loss(stack: &str, engine: Engine) {
    let network = Routed::new().unwrap();
    let site = Site::start(&network, engine, &[]).unwrap();
    let mut publisher = publisher(&network.client, &site.proxy.whip("third"), stack);
    site.proxy.wait(PATIENCE, |status| status.totals.offloaded == 1).unwrap();
    sleep(Duration::from_secs(1));
    let end = played(&network.client, &site.proxy.whep("third"));
    assert_eq!(end["state"], "connected", "{end}");
    assert!(end["frames"]["video"].as_u64().unwrap() > 50, "{end}");
    assert!(end["frames"]["audio"].as_u64().unwrap() > 50, "{end}");
    for kind in ["audio", "video"] {
        assert_eq!(end["packets"][kind]["lost"], 0, "{end}");
    }
    let status = site.proxy.wait(PATIENCE, |status| status.totals.ended["deleted"] == 1).unwrap();
    assert!(status.packets("kernel") > status.packets("userspace"), "{status:#?}");
    publisher.stop().unwrap();
}

#[test]
fn what_ffmpeg_publishes_is_played_by_aiortc_through_xdp() {
    is_played_without_loss("ffmpeg", Engine::Xdp);
}

#[test]
fn what_aiortc_publishes_is_played_by_aiortc_through_tc() {
    is_played_without_loss("aiortc", Engine::Tc);
}
