//! The scripts that make steps on one key atomic, and commands as they are sent.
//!
//! Each script touches one key, so that all of them run in a cluster, and needs nothing newer than Redis 5, where a script that
//! writes after it asked the time is replicated by its effects. A key of another type than expected counts as one that is not there.

use std::{sync::LazyLock, time::Duration};

use redis::{Cmd, ToRedisArgs};

/// A script, known to Redis by the SHA-1 of its text.
pub(super) struct Script {
    code: &'static str,
    digest: LazyLock<String>,
}

macro_rules! script {
    ($name:ident, $($part:literal),+) => {
        pub(super) static $name: Script = {
            const CODE: &str = concat!($(include_str!(concat!("scripts/", $part, ".lua"))),+);
            Script { code: CODE, digest: LazyLock::new(|| redis::Script::new(CODE).get_hash().to_owned()) }
        };
    };
}

script!(CLAIM, "held", "claim");
script!(ASSIGN, "held", "assign");
script!(KEEP, "held", "keep");
script!(ANNOUNCE, "names", "announce");
script!(STRIKE, "names", "strike");
script!(ENTER, "now", "enter");
script!(LIVING, "now", "living");

/// One command of a round trip.
pub(super) struct Call {
    /// What is sent.
    pub(super) command: Cmd,
    /// What is sent when Redis does not know the script.
    pub(super) whole: Option<Cmd>,
    /// Whether it changes anything: Redis may refuse writes and answer reads.
    pub(super) writes: bool,
}

impl Call {
    /// A command that reads.
    pub(super) fn read(command: Cmd) -> Self {
        Self { command, whole: None, writes: false }
    }

    /// A command that writes.
    pub(super) fn write(command: Cmd) -> Self {
        Self { command, whole: None, writes: true }
    }

    /// A script that writes.
    pub(super) fn change(script: &Script, key: &str, arguments: impl ToRedisArgs) -> Self {
        Self { writes: true, ..Self::ask(script, key, arguments) }
    }

    /// A script that reads.
    pub(super) fn ask(script: &Script, key: &str, arguments: impl ToRedisArgs) -> Self {
        let command = |name, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(1).arg(key).arg(&arguments);
            command
        };
        let whole = Some(command("EVAL", script.code));
        Self { command: command("EVALSHA", &script.digest), whole, writes: false }
    }
}

/// Reads at most `limit` bytes of a value, and one more if there are more; nothing of a key that is not there.
pub(super) fn get(key: &str, limit: usize) -> Call {
    let mut command = redis::cmd("GETRANGE");
    command.arg(key).arg(0).arg(limit);
    Call::read(command)
}

/// Sets a value that expires.
pub(super) fn set(key: &str, value: &[u8], life: Duration) -> Call {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(value).arg("PX").arg(milliseconds(life));
    Call::write(command)
}

/// Tells everybody who listens.
pub(super) fn publish(channel: &str, notice: &[u8]) -> Call {
    let mut command = redis::cmd("PUBLISH");
    command.arg(channel).arg(notice);
    Call::write(command)
}

/// A life as Redis takes it: not zero, and no more than a signed number holds.
pub(super) fn milliseconds(life: Duration) -> u64 {
    const YEAR: u64 = 365 * 24 * 3600 * 1000;
    u64::try_from(life.as_millis()).unwrap_or(YEAR).clamp(1, YEAR)
}
