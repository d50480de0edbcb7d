//! The kernel engine, or the reason to go without.

use anyhow::{Context as _, bail};

use crate::{
    config::{Config, DatapathMode, OnStop},
    datapath::{
        Datapath as _,
        installer::Installer,
        kernel::{
            EngineChoice, Findings, KernelDatapath, KernelOptions, LoadError, MissLimits, Pinning,
            SessionRecords, TcHook, pins,
        },
    },
    lifecycle::{Ledger, Startup, remains::pins_root},
    net::route::Routes,
    session::record::RecordStore,
};

const TAKEN_AWAY: &str = "what an earlier process left in the kernel is taken away";

/// The kernel engine before it has touched anything, or `None` where there is none and none was demanded.
///
/// In a crash loop no program is loaded; a proxy that demands the kernel tries nevertheless.
pub(super) fn load(config: &Config, startup: &Startup) -> anyhow::Result<Option<KernelDatapath>> {
    let Some(choice) = choice(config)? else { return Ok(None) };
    if startup.is_crash_loop() && !config.datapath.require_kernel {
        return Ok(None);
    }
    let mut options = options(config, choice, startup);
    let loaded = match KernelDatapath::load(&options) {
        Err(LoadError::Pins(error)) => {
            tracing::error!("flows will not outlive this process: {:#}", anyhow::Error::new(error));
            options.pinning = Pinning::None;
            KernelDatapath::load(&options)
        }
        loaded => loaded,
    };
    usable(config, loaded.map_err(Into::into))
}

/// Takes over what an earlier process left in the kernel, and attaches where packets are expected.
pub(super) async fn begin(
    config: &Config,
    loaded: Option<KernelDatapath>,
    records: Option<&mut Ledger>,
    is_crash_loop: bool,
) -> anyhow::Result<(Option<Installer>, Findings)> {
    let keeps_records = loaded.as_ref().is_some_and(KernelDatapath::outlives);
    let started = match loaded {
        Some(datapath) => usable(config, start(config, datapath).await)?,
        None => None,
    };
    let Some((installer, findings)) = started else {
        if let Some(records) = records.filter(|_| keeps_records) {
            // Their table goes with this process.
            records.move_back().context("failed to move the records of sessions back")?;
        }
        leave_to_nobody(config, is_crash_loop)?;
        return Ok((None, Findings::default()));
    };
    Ok((Some(installer), findings))
}

/// Where records of sessions are kept, with those of an earlier process.
pub(super) fn records(
    startup: &Startup,
    kernel: &mut Option<KernelDatapath>,
) -> anyhow::Result<Option<Ledger>> {
    let boxed = |store: Option<SessionRecords>| store.map(|store| Box::new(store) as Box<dyn RecordStore>);
    let files = startup.record_files()?.map(|files| Box::new(files) as Box<dyn RecordStore>);
    let Some(kernel) = boxed(kernel.as_mut().and_then(KernelDatapath::session_records)) else {
        let left = boxed(pins_root().and_then(|root| SessionRecords::pinned(&root)));
        return Ok(files.map(|files| Ledger::new(files, left)));
    };
    Ok(Some(Ledger::new(kernel, files)))
}

async fn start(config: &Config, mut datapath: KernelDatapath) -> anyhow::Result<(Installer, Findings)> {
    let findings = datapath.begin()?;
    let routes = Routes::connect().context("failed to open a netlink socket")?;
    let vetoes = (choice(config)? == Some(EngineChoice::Xdp)).then(|| datapath.vetoes());
    let interfaces = &config.datapath.interfaces;
    let installer = Installer::new(Box::new(datapath), routes, interfaces, vetoes).await?;
    if installer.attachments().is_empty() && config.datapath.require_kernel {
        bail!("no interface takes a program");
    }
    Ok((installer, findings))
}

/// A proxy without a kernel engine cannot look after what an earlier one left in the kernel, or what its own engine began.
fn leave_to_nobody(config: &Config, is_crash_loop: bool) -> anyhow::Result<()> {
    let Some(root) = pins_root() else { return Ok(()) };
    let is_wanted = config.datapath.mode == DatapathMode::Userspace;
    if is_crash_loop && !is_wanted {
        // It forwards on, but must not judge what this process relays.
        pins::stop_policing(&root);
        return Ok(());
    }
    let failed = "failed to take away what an earlier process left in the kernel";
    match pins::abandon(&root).context(failed) {
        Ok(true) if is_wanted => tracing::info!("{TAKEN_AWAY}"),
        Ok(true) => tracing::warn!("{TAKEN_AWAY}: without an engine nobody looks after it"),
        Ok(false) => {}
        Err(error) if is_wanted => return Err(error),
        // Whoever did not ask for this relays on.
        Err(error) => tracing::error!("{error:#}"),
    }
    Ok(())
}

fn usable<T>(config: &Config, result: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match result {
        Ok(usable) => Ok(Some(usable)),
        Err(error) if config.datapath.require_kernel => {
            Err(error.context("PROXY_REQUIRE_KERNEL is on and no kernel engine can run"))
        }
        Err(error) => {
            tracing::warn!("media is relayed in userspace: {error:#}");
            Ok(None)
        }
    }
}

fn choice(config: &Config) -> anyhow::Result<Option<EngineChoice>> {
    Ok(Some(match config.datapath.mode {
        DatapathMode::Auto => EngineChoice::Auto,
        DatapathMode::Xdp => EngineChoice::Xdp,
        DatapathMode::Tc => EngineChoice::Tc,
        DatapathMode::Userspace if config.datapath.require_kernel => {
            bail!("PROXY_REQUIRE_KERNEL is on and PROXY_DATAPATH is userspace: choose one")
        }
        DatapathMode::Userspace => return Ok(None),
    }))
}

fn options(config: &Config, choice: EngineChoice, startup: &Startup) -> KernelOptions {
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
        idle_limit: config.webrtc.idle_timeout.max(config.srt.idle_timeout) * 2,
        orphan_timeout: config.lifecycle.orphan_timeout,
        misses,
        max_sessions: u32::try_from(config.webrtc.max_sessions).unwrap_or(u32::MAX),
        pinning: pinning(config.lifecycle.on_stop),
        takes_over: startup.takes_over(),
        hook: TcHook::Best,
    }
}

fn pinning(on_stop: OnStop) -> Pinning {
    match (pins_root(), on_stop) {
        (Some(root), OnStop::Keep) => Pinning::Keep(root),
        (Some(root), OnStop::Drain) => Pinning::Adopt(root),
        (None, OnStop::Keep) => {
            tracing::error!(
                "flows will not outlive this process: the kernel does not number network namespaces"
            );
            Pinning::None
        }
        (None, OnStop::Drain) => Pinning::None,
    }
}
