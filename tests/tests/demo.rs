//! The demo as somebody at a terminal meets it.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    time::Duration,
};

use integration_tests::{
    netns::{PREFIX, Process},
    residue::Places,
};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(15);

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("--restart").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_demo_of_a_restart_that_is_interrupted_says_so_and_leaves_nothing() {
    let mut demo = Process::spawn(demo(&["--engine", "tc", "--viewers", "1", "--seconds", "600"])).unwrap();
    let mut output = BufReader::new(demo.child().stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("nobody runs for") {
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
fn what_a_demo_of_a_restart_does_not_heed_is_refused() {
    for other in [&["--streams", "3"][..], &["--load", "3"], &["--quick"], &["--keep"], &["--out", "x.svg"]] {
        let output = demo(other).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{other:?}: {output:?}");
    }
}
