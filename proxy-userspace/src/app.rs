//! Puts the parts together and runs them until a signal comes or another process takes over.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::{
    process::{Signals, quit_by_force_after, raise_descriptor_limit},
    servers::{Backend, Servers},
};
use crate::{
    api::{resolve::Resolver, system},
    config::{Config, DefaultBackend, OnStop},
    connections::Connections,
    control::{Control, ControlLoop, EVENT_QUEUE},
    datapath::{
        installer::Installer,
        userspace::{Relay, Sockets},
    },
    executor::{Executor, OriginsByUfrags},
    first_use,
    ice_tcp::IceTcp,
    lifecycle::{Home, Inherited, Startup},
    net::{
        handover::{Channel, Parcel, Role},
        tcp::Dialer,
    },
    origin::{Origin, Registry, memory::MemoryRegistry, probe::NetworkProbe, registration::Registration},
    proxy::{Event, InheritedFlow, Limits, Proxy},
    session::{RelayReason, record::RecordStore, source_port::SourcePorts},
};

mod kernel;
mod process;
mod servers;

const RESOLVE_DEADLINE: Duration = Duration::from_secs(2);
/// The other process opens the kernel engine between what it is given and the moment it is ready.
const GIVE: Duration = Duration::from_secs(30);

/// Why the main loop wakes up.
enum Wake {
    /// SIGINT: whoever sits at the terminal wants nothing left.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// Another process wants to take over.
    Visitor(Channel),
}

/// How this process ends, unless another one has taken over.
#[derive(Clone, Copy)]
enum End {
    /// Sessions end.
    Drain,
    /// Sessions are left to the next process.
    Keep,
}

/// A proxy with all its parts.
struct App {
    config: Config,
    servers: Servers,
    home: Option<Home>,
    registry: Arc<MemoryRegistry>,
    resolver: Arc<Resolver>,
    control: Control,
    connections: Arc<Connections>,
    dialer: Arc<Dialer>,
    ice_tcp: IceTcp,
    webrtc_port: u16,
    keeps_records: bool,
    signals: Signals,
}

/// Runs the proxy until SIGINT, SIGTERM or a take-over.
pub async fn run(config: Config) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let mut startup = Startup::begin(&config.lifecycle)?;
    let servers = Servers::open(&config, &mut startup.sockets)?;
    let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
    let relay = open_relay(&config, &mut startup.sockets, events)?;
    let webrtc_port = relay.local_addrs().first().map_or(config.webrtc_server.port, SocketAddr::port);
    let mut kernel = kernel::load(&config, &startup)?;
    let (registry, origin_events) = MemoryRegistry::new(config.origins);
    let resolver = Arc::new(Resolver::new(RESOLVE_DEADLINE));
    let static_origin = default_origin(&config, &resolver).await?;
    let mut records = kernel::records(&startup, &mut kernel)?;
    let is_crash_loop = startup.is_crash_loop();

    // A signal before the other process has let go ends this one and nothing else.
    let (home, mut estate) = startup.commit(records.as_mut()).await?;
    let signals = Signals::watch()?;
    let (kernel, findings) = kernel::begin(&config, kernel, records.as_mut(), is_crash_loop).await?;
    registry.adopt(std::mem::take(&mut estate.known));
    if let Some(origin) = static_origin {
        registry.register_static(origin).context("failed to register the default backend")?;
    }
    report(&config, servers.ports(&config, webrtc_port)?, kernel.as_ref())?;
    let gate = relay.gate();
    let keeps_records = records.is_some();
    let records = records.map(|records| Box::new(records) as Box<dyn RecordStore>);
    let (control, mut control_loop) = control(&config, relay, kernel, records);
    let flows = findings.flows.into_iter().map(|(id, spec)| InheritedFlow {
        id,
        client: spec.client,
        source: spec.source,
        origin: spec.origin,
    });
    let left = estate.inheritance(flows.collect(), findings.ports);
    control_loop.begin(left.is_anything().then_some(left)).await.context("failed to start the relay")?;

    let mut tasks = JoinSet::new();
    tasks
        .spawn(Arc::clone(&registry).watch(Arc::new(NetworkProbe { timeout: config.origins.probe_timeout })));
    let connections = Arc::new(Connections::default());
    let picks: Arc<dyn Registry> = Arc::clone(&registry) as Arc<dyn Registry>;
    tasks.spawn(Arc::clone(&connections).keep_picks(Arc::clone(&picks)));
    tasks.spawn(control_loop.run(event_queue, origin_events, picks, Arc::clone(&connections)));
    let sources = &config.sources;
    let dialer = Arc::new(Dialer::new(sources.tcp_ports.clone(), sources.addresses.clone(), rand::random()));
    let ice_tcp = servers::ice_tcp(&config, gate, &control, &connections, &dialer);
    let app = App {
        config,
        servers,
        home,
        registry,
        resolver,
        control,
        connections,
        dialer,
        ice_tcp,
        webrtc_port,
        keeps_records,
        signals,
    };
    app.serve().await
}

impl App {
    async fn serve(mut self) -> anyhow::Result<()> {
        self.move_in()?;
        let (how, serving) = loop {
            let (stop, stopping) = watch::channel(false);
            let serving = self.servers.serve(self.backend(), &stopping)?;
            let wake = self.wait().await;
            stop.send_replace(true);
            match wake {
                Wake::Interrupt => break (End::Drain, serving),
                Wake::Terminate => break (self.end_at_term(), serving),
                Wake::Visitor(channel) => {
                    // Requests under way belong to this process; those that come now wait for the other one.
                    serving.join_all().await;
                    match self.hand_over(channel).await {
                        Ok(()) => {
                            tracing::info!("another process has taken over; TCP streams end here");
                            self.connections.close(self.config.grace_quit_timeout).await;
                            return Ok(());
                        }
                        Err(error) => tracing::error!("take-over failed, this process goes on: {error:#}"),
                    }
                }
            }
        };
        self.end(how, serving).await;
        Ok(())
    }

    /// Says who runs here, now that it does.
    fn move_in(&mut self) -> anyhow::Result<()> {
        let port = self.servers.ports(&self.config, self.webrtc_port)?.system;
        let ip = self.config.system_api.specific_ip();
        if let Some(home) = &mut self.home {
            home.sign(SocketAddr::new(ip.unwrap_or(IpAddr::from([127, 0, 0, 1])), port));
            home.settle_later();
        }
        Ok(())
    }

    fn backend(&self) -> Backend<'_> {
        let Self { config, webrtc_port, registry, control, resolver, connections, dialer, ice_tcp, .. } =
            self;
        let webrtc_port = *webrtc_port;
        Backend { config, webrtc_port, registry, control, resolver, connections, dialer, ice_tcp }
    }

    async fn wait(&mut self) -> Wake {
        let visitor = async {
            match &self.home {
                Some(home) => home.visitor().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.signals.interrupt.recv() => Wake::Interrupt,
            _ = self.signals.terminate.recv() => Wake::Terminate,
            channel = visitor => Wake::Visitor(channel),
        }
    }

    /// Only what is written down can be left to another process.
    fn end_at_term(&self) -> End {
        match self.config.lifecycle.on_stop {
            OnStop::Keep if self.keeps_records => End::Keep,
            OnStop::Keep | OnStop::Drain => End::Drain,
        }
    }

    /// Gives everything to another process. On an error this one still has it.
    async fn hand_over(&self, mut channel: Channel) -> anyhow::Result<()> {
        let Some(home) = &self.home else { anyhow::bail!("there is no runtime directory") };
        channel.extend(GIVE);
        let mut frozen = self.control.freeze().await.context("failed to share the relay's sockets")?;
        let mut sockets = home.share().and_then(|mut sockets| {
            sockets.extend(self.servers.share()?);
            Ok(sockets)
        })?;
        sockets.append(&mut frozen.sockets);
        frozen.estate.known = self.registry.known();
        let parcel = Parcel { sockets, state: frozen.estate.encode() };
        let given = tokio::task::spawn_blocking(move || channel.give(&parcel).map(|()| channel)).await;
        let channel = given.context("the task that gives ended")??;
        let paused = frozen.pause().await.context("the control loop ended")?;
        channel.let_go()?;
        paused.leave();
        Ok(())
    }

    async fn end(self, how: End, serving: JoinSet<()>) {
        let Self { config, servers, home, control, connections, .. } = self;
        // From here on connections are refused.
        drop(servers);
        quit_by_force_after(config.force_quit_timeout);
        connections.close(Duration::ZERO).await;
        serving.join_all().await;
        match how {
            End::Keep => {
                tracing::info!("stopping; sessions are left to the next process");
                control.leave().await;
            }
            End::Drain => {
                tracing::info!("stopping; sessions end");
                control.stop().await;
            }
        }
        if let Some(home) = home {
            home.leave();
        }
    }
}

fn open_relay(
    config: &Config,
    inherited: &mut Inherited,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<Relay> {
    let media = inherited.take(|role| matches!(role, Role::Media { .. } | Role::Source(_)));
    let listen = config.webrtc_server.addresses();
    let sockets = Sockets::inherit(&listen, config.datapath.relay_workers, media);
    sockets.and_then(|sockets| Relay::new(sockets, events)).with_context(|| {
        format!("failed to listen for WebRTC media on UDP port {}", config.webrtc_server.port)
    })
}

fn control(
    config: &Config,
    relay: Relay,
    kernel: Option<Installer>,
    records: Option<Box<dyn RecordStore>>,
) -> (Control, ControlLoop) {
    let limits = Limits {
        max_sessions: config.webrtc.max_sessions,
        connect_timeout: config.webrtc.connect_timeout,
        idle_timeout: config.webrtc.idle_timeout,
        orphan_timeout: config.lifecycle.orphan_timeout,
        relay_only: kernel.is_none().then_some(RelayReason::NoEngine),
    };
    let ports = SourcePorts::new(config.sources.ports.clone(), config.sources.rest, rand::random());
    let origins = OriginsByUfrags::default();
    let executor = Executor::new(relay, kernel, Arc::clone(&origins));
    let executor = match records {
        Some(records) => executor.with_records(records),
        None => executor,
    };
    Control::new(Proxy::new(limits, ports), executor, origins, &config.sources.addresses)
}

async fn default_origin(config: &Config, resolver: &Resolver) -> anyhow::Result<Option<Origin>> {
    match &config.default_backend {
        Some(backend) => resolve_default(resolver, backend).await.map(Some),
        None => Ok(None),
    }
}

async fn resolve_default(resolver: &Resolver, backend: &DefaultBackend) -> anyhow::Result<Origin> {
    let registration =
        Registration::from_default_backend(backend, std::process::id()).context("PROXY_DEFAULT_BACKEND_*")?;
    system::resolve(resolver, registration).await.context("PROXY_DEFAULT_BACKEND_IP")
}

fn report(config: &Config, ports: first_use::Ports, kernel: Option<&Installer>) -> anyhow::Result<()> {
    tracing::info!(
        rtmp = ports.rtmp,
        http_api = ports.api,
        http_server = ports.http,
        system_api = ports.system,
        webrtc = ports.webrtc,
        webrtc_tcp = ports.webrtc_tcp,
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
