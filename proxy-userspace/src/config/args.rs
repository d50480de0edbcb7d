//! The command line: the settings table as flags. Flags, like every layer, are unchecked text here.

use clap::{Arg, ArgAction, ArgMatches, Command as Clap, parser::ValueSource};

use super::{
    ConfigError,
    layers::Values,
    settings::{Kind, SETTINGS, Setting},
};

/// The flag of `status` and `doctor`; no setting.
const JSON: &str = "json";
/// The argument of `drain`.
const ORIGIN: &str = "ORIGIN";
/// The flag of `drain`.
const OFF: &str = "off";

/// What the process was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve; also without a command.
    Run,
    /// Remove everything from the kernel.
    Detach,
    /// Tell whether this host can do what is configured.
    Doctor {
        /// For programs, not as a table.
        json: bool,
    },
    /// Show the origins.
    Origins {
        /// As the process that runs tells them, not as a table.
        json: bool,
    },
    /// Give an origin no new streams.
    Drain {
        /// Its id, server id, device id or address.
        origin: String,
        /// Give it new streams again.
        off: bool,
    },
    /// Show what the process that runs is doing.
    Status {
        /// As it tells it, not as a table.
        json: bool,
    },
}

/// Reads `args`, the first of which is the program's name; answers `--help` and `--version` itself.
pub(super) fn parse(
    args: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<(Command, Values), ConfigError> {
    let matches = command().try_get_matches_from(args).map_err(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        ConfigError::Usage(error.to_string())
    })?;
    Ok(match matches.subcommand() {
        Some(("detach", matches)) => (Command::Detach, values(matches)),
        Some(("doctor", matches)) => (Command::Doctor { json: matches.get_flag(JSON) }, values(matches)),
        Some(("origins", matches)) => (Command::Origins { json: matches.get_flag(JSON) }, values(matches)),
        Some(("drain", matches)) => (drain_of(matches), values(matches)),
        Some(("status", matches)) => (Command::Status { json: matches.get_flag(JSON) }, values(matches)),
        Some((_, matches)) => (Command::Run, values(matches)),
        None => (Command::Run, values(&matches)),
    })
}

fn drain_of(matches: &ArgMatches) -> Command {
    let origin = matches.get_one::<String>(ORIGIN).cloned().unwrap_or_default();
    Command::Drain { origin, off: matches.get_flag(OFF) }
}

fn values(matches: &ArgMatches) -> Values {
    let given = SETTINGS.iter().filter(|s| matches.value_source(s.flag) == Some(ValueSource::CommandLine));
    let value = |setting: &Setting| matches.get_one::<String>(setting.flag).cloned();
    given.filter_map(|setting| Some((setting.variable.to_owned(), value(setting)?))).collect()
}

pub(super) fn command() -> Clap {
    Clap::new("srs-xproxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(
            "A flag is stronger than the environment, which is stronger than .env in the working directory, \
             the TOML file and the default.",
        )
        .args(SETTINGS.iter().map(flag))
        .subcommand(Clap::new("run").about("Serve; also without a command"))
        .subcommand(Clap::new("detach").about(
            "Remove programs, pins and records of sessions; a process that runs goes on and relays in userspace",
        ))
        .subcommand(
            Clap::new("doctor")
                .about("Tell whether this host can do what is configured, and what would make it faster")
                .arg(json()),
        )
        .subcommand(Clap::new("origins").about("Show the origins").arg(json()))
        .subcommand(
            Clap::new("drain")
                .about("Give an origin no new streams; it keeps those it has")
                .arg(Arg::new(ORIGIN).required(true).help("Its id, server id, device id or address"))
                .arg(Arg::new(OFF).long(OFF).action(ArgAction::SetTrue).help("Give it new streams again")),
        )
        .subcommand(Clap::new("status").about("Show what the process that runs is doing").arg(json()))
}

fn json() -> Arg {
    Arg::new(JSON).long(JSON).action(ArgAction::SetTrue).help("As JSON, not as a table")
}

fn flag(setting: &Setting) -> Arg {
    let arg = Arg::new(setting.flag)
        .long(setting.flag)
        .help(help(setting))
        .help_heading(setting.heading.title())
        .value_name(setting.kind.placeholder())
        .action(ArgAction::Set)
        .hide_possible_values(true)
        .global(true);
    match setting.kind {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("on"),
        Kind::Listen
        | Kind::Duration
        | Kind::Number
        | Kind::Range
        | Kind::List
        | Kind::Text
        | Kind::Secret => arg,
    }
}

fn help(setting: &Setting) -> String {
    match setting.default {
        "" => format!("{} [{}]", setting.help, setting.variable),
        default => format!("{} [{}, default {default}]", setting.help, setting.variable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_count_before_and_after_the_command() {
        let expected = Values::from([("PROXY_RTMP_SERVER".to_owned(), "1936".to_owned())]);
        for line in [
            &["--rtmp-server", "1936"][..],
            &["run", "--rtmp-server=1936"],
            &["--rtmp-server", "1936", "run"],
        ] {
            assert_eq!(parse_line(line), Ok((Command::Run, expected.clone())), "{line:?}");
        }
    }

    #[test]
    fn commands_take_the_flags_of_settings_too() {
        let expected = Values::from([("PROXY_SYSTEM_API".to_owned(), "1".to_owned())]);
        for (line, command) in [
            (&["detach", "--system-api", "1"][..], Command::Detach),
            (&["--system-api=1", "status"], Command::Status { json: false }),
            (&["origins", "--json", "--system-api=1"], Command::Origins { json: true }),
            (&["drain", "o1", "--system-api=1"], Command::Drain { origin: "o1".into(), off: false }),
            (&["--system-api=1", "drain", "--off", "o1"], Command::Drain { origin: "o1".into(), off: true }),
            (&["status", "--system-api", "1", "--json"], Command::Status { json: true }),
        ] {
            assert_eq!(parse_line(line), Ok((command, expected.clone())), "{line:?}");
        }
        assert!(parse_line(&["--json"]).is_err(), "run has no --json");
        assert!(parse_line(&["drain"]).is_err(), "drain whom?");
    }

    #[test]
    fn a_switch_needs_no_value() {
        for (line, expected) in [("--srs-ports", "on"), ("--srs-ports=off", "off")] {
            let expected = Values::from([("PROXY_SRS_PORTS".to_owned(), expected.to_owned())]);
            assert_eq!(parse_line(&[line, "run"]), Ok((Command::Run, expected)), "{line}");
        }
    }

    #[test]
    fn an_unknown_flag_is_a_usage_error() {
        let error = parse_line(&["--rtmp-sever", "1"]).expect_err("unknown flag");
        assert!(error.to_string().contains("--rtmp-server"), "{error}");
    }

    #[test]
    fn help_names_variable_and_default_under_a_heading() {
        let help = command().render_help().to_string();
        for text in ["Listeners:", "--webrtc-server <LISTEN>", "PROXY_WEBRTC_SERVER, default 18000"] {
            assert!(help.contains(text), "{text} in {help}");
        }
    }

    fn parse_line(line: &[&str]) -> Result<(Command, Values), ConfigError> {
        parse(["srs-xproxy"].iter().chain(line).map(Into::into))
    }
}
