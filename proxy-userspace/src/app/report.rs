//! What is said when everything is open: where it listens, what forwards, and what a first-time user needs.

use std::{io::Write as _, net::IpAddr};

use anyhow::Context as _;

use crate::{config::Config, datapath::installer::Installer, first_use};

pub(super) fn report(
    config: &Config,
    ports: first_use::Ports,
    kernel: Option<&Installer>,
) -> anyhow::Result<()> {
    tracing::info!(
        rtmp = ports.rtmp,
        http_api = ports.api,
        http_server = ports.http,
        system_api = ports.system,
        webrtc = ports.webrtc,
        webrtc_tcp = ports.webrtc_tcp,
        srt = ports.srt,
        "listening"
    );
    match kernel {
        Some(kernel) => tracing::info!(
            mode = ?config.datapath.mode,
            max_flows = config.datapath.max_flows,
            table_mib = kernel.datapath().table_bytes() >> 20,
            "media is forwarded in the kernel"
        ),
        None => tracing::info!("media is relayed in userspace"),
    }
    if config.default_backend.is_none() {
        let text = first_use::text(own_address(config), ports, config.registration_token.is_some());
        std::io::stdout().write_all(text.as_bytes()).context("failed to print the first-use text")?;
    }
    Ok(())
}

fn own_address(config: &Config) -> IpAddr {
    config.system_api.specific_ip().unwrap_or_else(first_use::own_address)
}
