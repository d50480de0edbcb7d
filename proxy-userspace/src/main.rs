//! `srs-xproxy`: reads the configuration, runs the proxy, ends with an exit code that says why.

use std::{io::Write as _, process::ExitCode};

use proxy_userspace::{
    app,
    config::{self, Command, ConfigErrors},
    telemetry,
};

fn main() -> ExitCode {
    let (Command::Run, config) = match config::read() {
        Ok(read) => read,
        Err(errors) => return explain(&errors, ConfigErrors::EXIT_CODE),
    };
    telemetry::init(&config);
    tracing::info!("{config}");
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(app::run(config)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => explain(&format_args!("{error:#}"), 1),
    }
}

fn explain(why: &dyn std::fmt::Display, code: u8) -> ExitCode {
    // A closed stderr leaves nobody to tell.
    let _closed = writeln!(std::io::stderr(), "srs-xproxy: {why}");
    ExitCode::from(code)
}
