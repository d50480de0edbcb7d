//! The kernel engine, or the reason to go without.

use anyhow::{Context as _, bail};

use crate::{
    config::{Config, DatapathMode},
    datapath::{
        installer::Installer,
        kernel::{EngineChoice, KernelDatapath, KernelOptions, MissLimits},
    },
    net::route::Routes,
};

/// The kernel engine, or `None` where there is none and none was demanded.
///
/// In a crash loop no program is loaded, so that no interface is left half attached; a proxy that demands the kernel
/// tries nevertheless.
pub(super) async fn start(config: &Config, is_crash_loop: bool) -> anyhow::Result<Option<Installer>> {
    let choice = match config.datapath.mode {
        DatapathMode::Auto => EngineChoice::Auto,
        DatapathMode::Xdp => EngineChoice::Xdp,
        DatapathMode::Tc => EngineChoice::Tc,
        DatapathMode::Userspace if config.datapath.require_kernel => {
            bail!("PROXY_REQUIRE_KERNEL is on and PROXY_DATAPATH is userspace: choose one")
        }
        DatapathMode::Userspace => return Ok(None),
    };
    if is_crash_loop && !config.datapath.require_kernel {
        return Ok(None);
    }
    match load(config, choice).await {
        Ok(installer) => Ok(Some(installer)),
        Err(error) if config.datapath.require_kernel => {
            Err(error.context("PROXY_REQUIRE_KERNEL is on and no kernel engine can run"))
        }
        Err(error) => {
            tracing::warn!("media is relayed in userspace: {error:#}");
            Ok(None)
        }
    }
}

async fn load(config: &Config, choice: EngineChoice) -> anyhow::Result<Installer> {
    let datapath = KernelDatapath::load(&options(config, choice))?;
    let routes = Routes::connect().context("failed to open a netlink socket")?;
    let vetoes = (choice == EngineChoice::Xdp).then(|| datapath.vetoes());
    let interfaces = &config.datapath.interfaces;
    let installer = Installer::new(Box::new(datapath), routes, interfaces, vetoes).await?;
    if installer.attachments().is_empty() && config.datapath.require_kernel {
        bail!("no interface takes a program");
    }
    Ok(installer)
}

fn options(config: &Config, choice: EngineChoice) -> KernelOptions {
    let datapath = &config.datapath;
    let misses = MissLimits {
        per_source: datapath.misses_per_source,
        in_all: datapath.misses_in_all,
        ..MissLimits::default()
    };
    KernelOptions {
        max_flows: datapath.max_flows,
        max_flows_v6: datapath.max_flows_v6,
        choice,
        source_ports: config.sources.ports.clone(),
        idle_limit: config.webrtc.idle_timeout * 2,
        orphan_timeout: config.lifecycle.orphan_timeout,
        misses,
    }
}
