//! Publishes and plays many WebRTC streams and counts every packet.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use integration_tests::http::Url;
use integration_tests::load::{ApiKind, End, LoadOptions, Over, Report, run};

/// Publishes and plays many WebRTC streams and counts every packet
#[derive(Debug, Parser)]
struct Arguments {
    /// Where publishers post: http://host:1985/rtc/v1/whip/, or /rtc/v1/publish/ with `--api legacy`
    #[arg(long)]
    whip: Option<String>,
    /// How many publishers
    #[arg(long, default_value_t = 0)]
    publishers: usize,
    /// Where players post: http://host:1985/rtc/v1/whep/, or /rtc/v1/play/ with `--api legacy`
    #[arg(long)]
    whep: Option<String>,
    /// How many players
    #[arg(long, default_value_t = 0)]
    players: usize,
    /// How many streams; as many as publishers if not given
    #[arg(long)]
    streams: Option<usize>,
    /// What stream names start with
    #[arg(long, default_value = "s")]
    stream_prefix: String,
    /// Bits per second of each publisher's video
    #[arg(long, default_value_t = 1_000_000)]
    bitrate: u32,
    /// Leave audio out
    #[arg(long)]
    no_audio: bool,
    /// How long the run lasts
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Local addresses, used in turn
    #[arg(long, value_delimiter = ',')]
    bind: Vec<IpAddr>,
    /// Replace every player's socket after so many seconds
    #[arg(long)]
    migrate_after: Option<f64>,
    /// Which HTTP interface to use
    #[arg(long, value_enum, default_value = "whip")]
    api: Api,
    /// Use the TCP candidates of answers instead of those of UDP
    #[arg(long)]
    tcp: bool,
    /// End sessions by silence instead of DELETE
    #[arg(long)]
    abandon: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Api {
    Whip,
    Legacy,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let report = run(&options(arguments)?)?;
    print(&report, json)?;
    if !report.failed.is_empty() {
        std::process::exit(1);
    }
    Ok(())
}

fn options(arguments: Arguments) -> Result<LoadOptions> {
    Ok(LoadOptions {
        whip: arguments.whip.as_deref().map(Url::parse).transpose()?,
        publishers: arguments.publishers,
        whep: arguments.whep.as_deref().map(Url::parse).transpose()?,
        players: arguments.players,
        streams: arguments.streams.unwrap_or(arguments.publishers).max(1),
        stream_prefix: arguments.stream_prefix,
        bitrate: arguments.bitrate,
        audio: !arguments.no_audio,
        duration: Duration::try_from_secs_f64(arguments.seconds)?,
        bind: arguments.bind,
        migrate_after: arguments.migrate_after.map(Duration::try_from_secs_f64).transpose()?,
        api: match arguments.api {
            Api::Whip => ApiKind::Whip,
            Api::Legacy => ApiKind::Legacy,
        },
        over: if arguments.tcp { Over::Tcp } else { Over::Udp },
        end: if arguments.abandon { End::Abandon } else { End::Delete },
    })
}

#[expect(clippy::print_stdout, reason = "the report is the program's output")]
fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
