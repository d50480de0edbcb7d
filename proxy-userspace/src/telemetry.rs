//! Logs and metrics.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

pub mod metrics;

/// Newer kernels send more than this crate knows, which it says for every link every second.
const QUIET: &str = "netlink_packet_route=error";

/// Starts logging to stderr as configured; colours are for terminals.
pub fn init(config: &Config) {
    // The filter was checked with the rest of the configuration.
    let filter = EnvFilter::try_new(&config.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = filter.add_directive(QUIET.parse().expect("a constant directive"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => logs.with_target(false).init(),
        LogFormat::Json => logs.json().init(),
    }
}
