//! The demo as somebody at a terminal meets it.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    time::Duration,
};

use integration_tests::{
    netns::{PREFIX, Process},
    residue::Places,
};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(15);
/// Of a demo that has begun to count, and then looks for what is left.
const SHOW: Duration = Duration::from_secs(60);

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The process that a demo has started with this in its command line.
fn child_of(demo: u32, word: &str) -> Option<Pid> {
    let processes = fs::read_dir("/proc").expect("processes can be listed").flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    let is_wanted = |id: &i32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
        read("status").contains(&format!("\nPPid:\t{demo}\n")) && read("cmdline").contains(word)
    };
    ids.find(is_wanted).and_then(Pid::from_raw)
}

#[test]
fn a_demo_in_which_one_player_dies_says_which_and_fails() {
    let arguments = ["--engine", "userspace", "--streams", "1", "--viewers", "1", "--seconds", "3"];
    let mut demo = Process::spawn(demo(&arguments)).unwrap();
    let mut output = BufReader::new(demo.child().stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains(" s  userspace ") {
        assert!(output.read_line(&mut text).unwrap() > 0, "it ended too early: {text}");
    }
    let player = child_of(demo.id(), "/live/live1.flv").expect("a player by HTTP-FLV");
    kill_process(player, Signal::KILL).unwrap();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(demo.wait(SHOW).unwrap().code(), Some(1), "{text}");
    for broken in [
        "userspace: HTTP-FLV: 1 clients got less than half of their pictures",
        "userspace: HTTP-FLV and HTTP-TS: 1 connections are not there at the end",
        "the HTTP-FLV player of live1 ended with signal: 9",
    ] {
        assert!(text.contains(broken), "{broken}: {text}");
    }
    let (_, verdict) = text.split_once("did not hold:").expect("a verdict");
    for other in ["RTMP", "HTTP-TS: ", "HLS"] {
        let about = format!("userspace: {other}");
        assert!(!verdict.contains(&about), "{text}");
    }
}

/// Interrupts a demo once it says `sign`, and looks for what is left of it.
#[track_caller]
fn interrupted(arguments: &[&str], sign: &str) {
    let mut demo = Process::spawn(demo(arguments)).unwrap();
    let mut output = BufReader::new(demo.child().stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains(sign) {
        assert!(output.read_line(&mut text).unwrap() > 0, "it ended too early: {text}");
    }
    demo.signal(Signal::INT).unwrap();
    let status = demo.wait(PATIENCE).unwrap();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.contains("interrupted before the end"), "{text}");
    let ours = format!("{PREFIX}{}-", demo.id());
    let left = Places::default().residue().into_iter().map(|residue| residue.to_string());
    let left: Vec<_> = left.filter(|residue| residue.contains(&ours)).collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_demo_of_a_restart_that_is_interrupted_says_so_and_leaves_nothing() {
    interrupted(&["--restart", "--engine", "tc", "--viewers", "1", "--seconds", "600"], "nobody runs for");
}

#[test]
fn a_demo_of_a_fleet_that_is_interrupted_says_so_and_leaves_nothing() {
    interrupted(&["--fleet", "--engine", "tc", "--seconds", "600"], "which is away for");
}

#[test]
#[ignore = "long: a minute"]
fn a_demo_of_a_fleet_keeps_its_promises() {
    let output = demo(&["--fleet", "--engine", "tc"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{text}");
}

#[test]
fn what_a_demo_does_not_heed_is_refused() {
    let others = [&["--streams", "3"][..], &["--load", "3"], &["--quick"], &["--keep"], &["--out", "x.svg"]];
    for show in ["--restart", "--fleet"] {
        for other in others {
            let output = demo(&[&[show], other].concat()).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{show} {other:?}: {output:?}");
        }
    }
    let output = demo(&["--fleet", "--restart"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
