//! Shows on one machine what the proxy does, with real clients, and judges it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use integration_tests::demo::{self, Fleet, Plan, Restart};
use integration_tests::proxy::Engine;

/// Publishes and plays real WebRTC streams through the proxy, with two origins, and says what held
#[derive(Debug, Parser)]
struct Arguments {
    /// How packets are forwarded; several engines, separated by commas, run one after the other
    #[arg(long, visible_alias = "engines", value_enum, value_delimiter = ',', default_value = "auto")]
    engine: Vec<Choice>,
    /// How many streams
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    streams: u16,
    /// How many viewers of each stream decode it
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    viewers: u16,
    /// How long the kernel forwards while everything is counted; how long the proxy (--restart) or Redis (--fleet) is away
    #[arg(long)]
    seconds: Option<u64>,
    /// How many synthetic sessions of 1 Mbit/s come on top
    #[arg(long, default_value_t = 0)]
    load: usize,
    /// End within a minute
    #[arg(long)]
    quick: bool,
    /// Keep everything running after the table, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Kill the proxy for a while and replace it by another process, instead of measuring what forwarding costs
    #[arg(long, conflicts_with_all = ["streams", "load", "quick", "keep", "out"])]
    restart: bool,
    /// Run three proxies, four origins and one Redis, kill one of each, and show for how long media stopped
    #[arg(long, conflicts_with_all = ["restart", "streams", "viewers", "load", "quick", "keep", "out"])]
    fleet: bool,
    /// Where the chart is written; target/demo/demo.svg if not given
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Arguments {
    fn engines(&self) -> Vec<Engine> {
        self.engine.iter().copied().map(Engine::from).collect()
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    Auto,
    Xdp,
    Tc,
    Userspace,
}

impl From<Choice> for Engine {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Auto => Self::Auto,
            Choice::Xdp => Self::Xdp,
            Choice::Tc => Self::Tc,
            Choice::Userspace => Self::Userspace,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.restart {
        return demo::run_restart(&restart(&arguments));
    }
    if arguments.fleet {
        return demo::run_fleet(&fleet(&arguments));
    }
    demo::run(&plan(arguments))
}

fn restart(arguments: &Arguments) -> Restart {
    Restart {
        engines: arguments.engines(),
        viewers: arguments.viewers.into(),
        outage: Duration::from_secs(arguments.seconds.unwrap_or(10)),
    }
}

fn fleet(arguments: &Arguments) -> Fleet {
    Fleet { engines: arguments.engines(), outage: Duration::from_secs(arguments.seconds.unwrap_or(10)) }
}

fn plan(arguments: Arguments) -> Plan {
    let (before, after) = if arguments.quick { (5, 10) } else { (10, 20) };
    Plan {
        engines: arguments.engines(),
        streams: arguments.streams.into(),
        viewers: arguments.viewers.into(),
        before: Duration::from_secs(before),
        after: Duration::from_secs(arguments.seconds.unwrap_or(after).max(2)),
        load: arguments.load,
        keep: arguments.keep,
        chart: arguments.out.unwrap_or_else(|| demo::directory().join("demo.svg")),
    }
}
