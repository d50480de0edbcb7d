//! Puts the parts together and runs them until a signal comes.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    api::{BodyLimits, Server, resolve::Resolver, signalling, status, stream_http, system},
    config::{Config, DatapathMode, DefaultBackend},
    control::{Control, ControlLoop, EVENT_QUEUE},
    datapath::{
        installer::Installer,
        kernel::{EngineChoice, KernelDatapath, KernelOptions, MissLimits},
        userspace::Relay,
    },
    executor::{Executor, OriginsByUfrags},
    first_use,
    net::route::Routes,
    origin::{Registry, memory::MemoryRegistry, probe::NetworkProbe, registration::Registration},
    proxy::{Limits, Proxy},
    session::{RelayReason, source_port::SourcePorts},
    telemetry,
};

/// A heartbeat is a few hundred bytes.
const HEARTBEAT_LIMIT: usize = 64 << 10;
const RESOLVE_DEADLINE: Duration = Duration::from_secs(2);

/// The three HTTP servers, bound.
struct Servers {
    api: Server,
    http: Server,
    system: Server,
}

/// Runs the proxy until SIGINT or SIGTERM.
pub async fn run(config: Config) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let servers = Servers::bind(&config)?;
    let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
    let listen = config.webrtc_server.addresses();
    let relay = Relay::start(&listen, config.datapath.relay_workers, events).with_context(|| {
        format!("failed to listen for WebRTC media on UDP port {}", config.webrtc_server.port)
    })?;
    let webrtc_port = relay.local_addrs().first().map_or(config.webrtc_server.port, SocketAddr::port);
    let kernel = start_kernel(&config).await?;
    let (registry, origin_events) = MemoryRegistry::new(config.origins);
    let resolver = Arc::new(Resolver::new(RESOLVE_DEADLINE));
    if let Some(backend) = &config.default_backend {
        register_default(&registry, &resolver, backend).await?;
    }
    report(&config, &servers, webrtc_port, kernel.as_ref())?;
    let (control, control_loop) = control(&config, relay, kernel);

    let mut tasks = JoinSet::new();
    tasks
        .spawn(Arc::clone(&registry).watch(Arc::new(NetworkProbe { timeout: config.origins.probe_timeout })));
    let picks = Arc::clone(&registry) as Arc<dyn Registry>;
    tasks.spawn(control_loop.run(event_queue, origin_events, picks));
    let (stop, stopping) = watch::channel(false);
    let serving = servers.serve(&config, webrtc_port, &registry, &control, &resolver, &stopping);
    wait_for_signal(config.force_quit_timeout).await?;
    stop.send_replace(true);
    serving.join_all().await;
    control.stop().await;
    Ok(())
}

fn control(config: &Config, relay: Relay, kernel: Option<Installer>) -> (Control, ControlLoop) {
    let limits = Limits {
        max_sessions: config.webrtc.max_sessions,
        connect_timeout: config.webrtc.connect_timeout,
        idle_timeout: config.webrtc.idle_timeout,
        relay_only: kernel.is_none().then_some(RelayReason::NoEngine),
    };
    let ports = SourcePorts::new(config.sources.ports.clone(), config.sources.rest, rand::random());
    let origins = OriginsByUfrags::default();
    let executor = Executor::new(relay, kernel, Arc::clone(&origins));
    Control::new(Proxy::new(limits, ports), executor, origins, &config.sources.addresses)
}

impl Servers {
    fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = |name: &str, listen: crate::config::Listen| {
            Server::bind(listen).with_context(|| format!("failed to listen on {name} port {}", listen.port))
        };
        Ok(Self {
            api: bind("PROXY_HTTP_API", config.http_api)?,
            http: bind("PROXY_HTTP_SERVER", config.http_server)?,
            system: bind("PROXY_SYSTEM_API", config.system_api)?,
        })
    }

    fn ports(&self, webrtc: u16) -> anyhow::Result<first_use::Ports> {
        Ok(first_use::Ports {
            http: self.http.local_addr()?.port(),
            api: self.api.local_addr()?.port(),
            webrtc,
            system: self.system.local_addr()?.port(),
        })
    }

    fn serve(
        self,
        config: &Config,
        webrtc_port: u16,
        registry: &Arc<MemoryRegistry>,
        control: &Control,
        resolver: &Arc<Resolver>,
        stopping: &watch::Receiver<bool>,
    ) -> JoinSet<()> {
        let registry = Arc::clone(registry) as Arc<dyn Registry>;
        let signalling = signalling::Signalling::new(
            config,
            webrtc_port,
            Arc::clone(&registry),
            Arc::new(control.clone()),
            Arc::clone(resolver),
        );
        let limits = BodyLimits { size: HEARTBEAT_LIMIT, time: config.signalling.client_timeout };
        let totals = control.totals();
        let system = system::System {
            registry,
            resolver: Arc::clone(resolver),
            token: config.registration_token.clone(),
            limits,
            metrics: Arc::new(move || telemetry::metrics::encode(&totals.borrow())),
            readiness: readiness(stopping.clone()),
        };
        let status = status::router(control.clone(), config.registration_token.clone());
        let (client_timeout, grace) = (config.signalling.client_timeout, config.grace_quit_timeout);
        let mut serving = JoinSet::new();
        for (server, router) in [
            (self.api, signalling::router(signalling)),
            (self.http, stream_http::router()),
            (self.system, system::router(system).merge(status)),
        ] {
            serving.spawn(server.serve(router, client_timeout, grace, stopping.clone()));
        }
        serving
    }
}

fn readiness(stopping: watch::Receiver<bool>) -> system::Readiness {
    Arc::new(move || if *stopping.borrow() { Err("the proxy is stopping".to_owned()) } else { Ok(()) })
}

/// The kernel engine, or `None` where there is none and none was demanded.
async fn start_kernel(config: &Config) -> anyhow::Result<Option<Installer>> {
    let choice = match config.datapath.mode {
        DatapathMode::Auto => EngineChoice::Auto,
        DatapathMode::Xdp => EngineChoice::Xdp,
        DatapathMode::Tc => EngineChoice::Tc,
        DatapathMode::Userspace if config.datapath.require_kernel => {
            bail!("PROXY_REQUIRE_KERNEL is on and PROXY_DATAPATH is userspace: choose one")
        }
        DatapathMode::Userspace => return Ok(None),
    };
    match load_kernel(config, choice).await {
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

async fn load_kernel(config: &Config, choice: EngineChoice) -> anyhow::Result<Installer> {
    let datapath = &config.datapath;
    let misses = MissLimits {
        per_source: datapath.misses_per_source,
        in_all: datapath.misses_in_all,
        ..MissLimits::default()
    };
    let options = KernelOptions {
        max_flows: datapath.max_flows,
        max_flows_v6: datapath.max_flows_v6,
        choice,
        source_ports: config.sources.ports.clone(),
        idle_limit: config.webrtc.idle_timeout * 2,
        misses,
        ..KernelOptions::default()
    };
    let datapath = KernelDatapath::load(&options)?;
    let routes = Routes::connect().context("failed to open a netlink socket")?;
    let vetoes = (choice == EngineChoice::Xdp).then(|| datapath.vetoes());
    let interfaces = &config.datapath.interfaces;
    let installer = Installer::new(Box::new(datapath), routes, interfaces, vetoes).await?;
    if installer.attachments().is_empty() && config.datapath.require_kernel {
        bail!("no interface takes a program");
    }
    Ok(installer)
}

async fn register_default(
    registry: &MemoryRegistry,
    resolver: &Resolver,
    backend: &DefaultBackend,
) -> anyhow::Result<()> {
    let registration =
        Registration::from_default_backend(backend, std::process::id()).context("PROXY_DEFAULT_BACKEND_*")?;
    let origin = system::resolve(resolver, registration).await.context("PROXY_DEFAULT_BACKEND_IP")?;
    registry.register_static(origin).context("failed to register the default backend")
}

fn report(
    config: &Config,
    servers: &Servers,
    webrtc_port: u16,
    kernel: Option<&Installer>,
) -> anyhow::Result<()> {
    let ports = servers.ports(webrtc_port)?;
    tracing::info!(
        http_api = ports.api,
        http_server = ports.http,
        system_api = ports.system,
        webrtc = ports.webrtc,
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
    config.system_api.ip.filter(|ip| !ip.is_unspecified()).unwrap_or_else(first_use::own_address)
}

/// Returns at the first SIGINT or SIGTERM; `force` later the process ends whatever is left.
async fn wait_for_signal(force: Duration) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to watch for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    std::thread::spawn(move || {
        std::thread::sleep(force);
        tracing::error!("stopped by force: PROXY_FORCE_QUIT_TIMEOUT is over");
        std::process::exit(1);
    });
    Ok(())
}

/// Each source port in use is a descriptor.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
}
