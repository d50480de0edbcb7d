//! `srs-xproxy`: reads the configuration, runs the proxy, ends with an exit code that says why.

use std::{io::Write as _, process::ExitCode};

use proxy_userspace::{
    app, commands,
    config::{self, Command, Config, ConfigErrors},
    telemetry,
};

fn main() -> ExitCode {
    let (command, config) = match config::read() {
        Ok(read) => read,
        Err(errors) => return explain(&errors, ConfigErrors::EXIT_CODE),
    };
    if command == Command::Run {
        telemetry::init(&config);
        tracing::info!("{config}");
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done =
        runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(obey(command, config)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => explain(&format_args!("{error:#}"), 1),
    }
}

async fn obey(command: Command, config: Config) -> anyhow::Result<()> {
    match command {
        Command::Run => app::run(config).await,
        Command::Detach => commands::detach(&config).await,
        Command::Doctor { json } => commands::doctor(&config, json).await,
        Command::Origins { json } => commands::origins(&config, json).await,
        Command::Drain { origin, off } => commands::drain(&config, &origin, !off).await,
        Command::Status { json } => commands::status(&config, json).await,
    }
}

fn explain(why: &dyn std::fmt::Display, code: u8) -> ExitCode {
    // A closed stderr leaves nobody to tell.
    let _closed = writeln!(std::io::stderr(), "srs-xproxy: {why}");
    ExitCode::from(code)
}
