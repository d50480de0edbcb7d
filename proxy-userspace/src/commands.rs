//! The commands beside `run`: they talk to the process that runs, or clean up after one.

use std::{io::Write as _, net::SocketAddr};

use anyhow::Context as _;
use http::{Method, StatusCode};

use crate::{
    api::client,
    config::Config,
    lifecycle::{RuntimeDir, owner::Holder},
};

mod detach;
mod doctor;
mod origins;
mod status;
mod table;

pub use detach::detach;
pub use doctor::doctor;
pub use origins::{drain, origins};
pub use status::status;

/// The process that runs with this configuration, if one does.
fn running(config: &Config) -> anyhow::Result<(RuntimeDir, Option<Holder>)> {
    let dir = RuntimeDir::locate(config.lifecycle.runtime_dir.as_deref())
        .context("failed to tell the network namespace")?;
    let holder = dir.holder()?;
    Ok((dir, holder))
}

/// Asks the system API of the process that runs.
async fn ask(config: &Config, address: SocketAddr, method: Method, path: &str) -> anyhow::Result<String> {
    let (status, body) = client::exchange(address, method, path, config.registration_token.as_ref()).await?;
    anyhow::ensure!(
        status == StatusCode::OK,
        "http://{address}{path} answered {status}: {}",
        String::from_utf8_lossy(&body).trim()
    );
    String::from_utf8(body.to_vec()).context("the answer is no text")
}

/// Asks the process that runs here, or the one at the configured address.
async fn ask_running(config: &Config, method: Method, path: &str) -> anyhow::Result<String> {
    let (_, holder) = running(config)?;
    let address = holder.and_then(|holder| holder.system_api).unwrap_or_else(|| configured_address(config));
    let answer = ask(config, address, method, path).await;
    answer.with_context(|| match holder {
        Some(holder) => format!("{holder} runs and does not answer that"),
        None => "no srs-xproxy runs here".to_owned(),
    })
}

/// Where the system API is without a process that says so.
fn configured_address(config: &Config) -> SocketAddr {
    let ip = config.system_api.specific_ip();
    SocketAddr::new(ip.unwrap_or([127, 0, 0, 1].into()), config.system_api.port)
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("failed to print")
}
