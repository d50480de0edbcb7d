//! Running other programs and talking to the person at the terminal.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Prints a line.
#[expect(clippy::print_stdout, reason = "the terminal is where this program's results go")]
pub(crate) fn say(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}

/// Announces what is about to be done.
pub(crate) fn announce(text: impl AsRef<str>) {
    say(format!("==> {}", text.as_ref()));
}

/// A program that runs in the workspace.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).env("PATH", search_path());
    command
}

/// Debian keeps `nft`, `tc` and `ethtool` where an ordinary user's path does not lead.
fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// Cargo as the path has it, so that rustup understands `+toolchain`: not the one whose child we are.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = program("cargo");
    command.args(args);
    command
}

/// A command as one would type it, without quotes.
pub(crate) fn typed(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = program(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// Runs a program to its end, with its output on the terminal.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    say(format!("$ {}", shown(command)));
    let status = command.status().with_context(|| format!("failed to start {}", shown(command)))?;
    ensure!(status.success(), "{} failed: {status}", shown(command));
    Ok(())
}

/// Whether a program can be started and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// What a program prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("failed to start {}", shown(command)))?;
    ensure!(output.status.success(), "{} failed: {}", shown(command), output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", shown(command)))
}

/// What a program prints, if it can be started and succeeds.
pub(crate) fn quiet_output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it, without its environment.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Something cargo built.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Of the package it belongs to.
    pub(crate) manifest: PathBuf,
    pub(crate) is_test: bool,
}

/// Builds, and lists the executables cargo tells of.
pub(crate) fn executables(command: &mut Command) -> Result<Vec<Executable>> {
    say(format!("$ {}", shown(command)));
    let messages = output(command.arg("--message-format=json-render-diagnostics"))?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages.filter_map(|message| executable(&message)).collect())
}

fn executable(message: &Value) -> Option<Executable> {
    Some(Executable {
        path: message.get("executable")?.as_str()?.into(),
        manifest: message.get("manifest_path")?.as_str()?.into(),
        name: message.pointer("/target/name")?.as_str()?.to_owned(),
        is_test: message.pointer("/profile/test")?.as_bool()?,
    })
}

/// Builds one binary of a package in release mode.
pub(crate) fn release_binary(package: &str, name: &str, features: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(["build", "--release", "--package", package, "--bin", name]);
    let built = executables(command.args(["--features", &features.join(",")]))?;
    match built.into_iter().find(|executable| executable.name == name) {
        Some(executable) => Ok(executable.path),
        None => bail!("cargo built no binary {name} in {package}"),
    }
}
