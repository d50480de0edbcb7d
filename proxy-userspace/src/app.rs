//! Puts the parts together and runs them until a signal comes or another process takes over.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{sync::mpsc, task::JoinSet};

use self::{
    process::{Signals, quit_by_force_after, raise_descriptor_limit},
    report::report,
    servers::{Backend, Servers, Stops},
};
use crate::{
    api::{resolve::Resolver, signalling::SessionSink, system},
    config::{Config, DefaultBackend},
    connections::Connections,
    control::{Control, ControlLoop, EVENT_QUEUE},
    datapath::{
        FlowId, FlowSpec, Protocol,
        installer::Installer,
        userspace::{Relay, Sockets},
    },
    directory::Directory,
    executor::Executor,
    fleet::Fleet,
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

mod drain;
mod kernel;
mod parts;
mod process;
mod report;
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
    /// The origins, as this process knows them.
    origins: Arc<MemoryRegistry>,
    registry: Arc<dyn Registry>,
    key: Option<Arc<Fleet>>,
    resolver: Arc<Resolver>,
    control: Control,
    sessions: Arc<dyn SessionSink>,
    connections: Arc<Connections>,
    dialer: Arc<Dialer>,
    ice_tcp: IceTcp,
    /// Of WebRTC and SRT.
    media_ports: (u16, u16),
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
    let media_ports = media_ports(&config, &relay);
    let mut kernel = kernel::load(&config, &startup)?;
    let (origins, origin_events) = MemoryRegistry::new(config.origins, config.balancing.clone());
    let resolver = Arc::new(Resolver::new(RESOLVE_DEADLINE));
    let static_origin = default_origin(&config, &resolver).await?;
    let mut records = kernel::records(&startup, &mut kernel)?;
    let is_crash_loop = startup.is_crash_loop();

    // A signal before the other process has let go ends this one and nothing else.
    let (home, mut estate) = startup.commit(records.as_mut()).await?;
    let signals = Signals::watch()?;
    let (kernel, findings) = kernel::begin(&config, kernel, records.as_mut(), is_crash_loop).await?;
    origins.adopt(std::mem::take(&mut estate.known));
    if let Some(origin) = static_origin {
        origins.register_static(origin).context("failed to register the default backend")?;
    }
    let (gate, switchboard) = (relay.gate(), relay.switchboard());
    estate.cookies.take().into_iter().for_each(|key| relay.set_cookie_key(key));
    report(&config, servers.ports(&config, media_ports)?, kernel.as_ref())?;
    let (keeps_records, records) = (records.is_some(), records.map(|records| Box::new(records) as _));
    let (control, mut control_loop) = control(&config, relay, kernel, records);
    let left = estate.inheritance(findings.flows.into_iter().map(inherited).collect(), findings.ports);
    control_loop.begin(left.is_anything().then_some(left)).await.context("failed to start the relay")?;

    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&origins).watch(Arc::new(NetworkProbe { timeout: config.origins.probe_timeout })));
    let connections = Arc::new(Connections::default());
    let shared = parts::shared(&config, &origins, &mut tasks);
    let registry = Arc::clone(&shared.registry);
    tasks.spawn(Arc::clone(&connections).keep_picks(Arc::clone(&registry)));
    let roaming = parts::roaming(&gate, &control, &shared, &mut tasks);
    let sessions = parts::sessions(&control, &shared, &mut tasks);
    let (picks, carried) = (Arc::clone(&registry), Arc::clone(&connections));
    tasks.spawn(control_loop.run(event_queue, origin_events, picks, carried));
    let dialer = Arc::new(parts::dialer(&config.sources));
    tasks.spawn(parts::srt(&config, &registry, &control, switchboard).answer());
    let ice_tcp = parts::ice_tcp(&config, gate, &control, &connections, &dialer).with_roaming(roaming);
    let app = App {
        config,
        servers,
        home,
        origins,
        registry,
        key: shared.key,
        resolver,
        control,
        sessions,
        connections,
        dialer,
        ice_tcp,
        media_ports,
        keeps_records,
        signals,
    };
    app.serve().await
}

impl App {
    async fn serve(mut self) -> anyhow::Result<()> {
        self.move_in()?;
        loop {
            let stops = Stops::new();
            let serving = self.servers.serve(self.backend(), &stops)?;
            match self.wait().await {
                Wake::Interrupt => {
                    quit_by_force_after(self.config.force_quit_timeout);
                    stops.all();
                    self.end(End::Drain, serving).await;
                    return Ok(());
                }
                Wake::Terminate => {
                    quit_by_force_after(self.config.force_quit_timeout);
                    self.terminate(&stops, serving).await;
                    return Ok(());
                }
                Wake::Visitor(channel) => {
                    stops.all();
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
        }
    }

    /// Says who runs here, now that it does.
    fn move_in(&mut self) -> anyhow::Result<()> {
        let port = self.servers.ports(&self.config, self.media_ports)?.system;
        let ip = self.config.system_api.specific_ip();
        if let Some(home) = &mut self.home {
            home.sign(SocketAddr::new(ip.unwrap_or(IpAddr::from([127, 0, 0, 1])), port));
            home.settle_later();
        }
        Ok(())
    }

    fn backend(&self) -> Backend<'_> {
        let Self { config, registry, key, control, sessions, resolver, connections, dialer, ice_tcp, .. } =
            self;
        let (webrtc_port, _) = self.media_ports;
        Backend {
            config,
            webrtc_port,
            registry,
            key,
            control,
            sessions,
            resolver,
            connections,
            dialer,
            ice_tcp,
        }
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
        frozen.estate.known = self.origins.known();
        let parcel = Parcel { sockets, state: frozen.estate.encode() };
        let given = tokio::task::spawn_blocking(move || channel.give(&parcel).map(|()| channel)).await;
        let channel = given.context("the task that gives ended")??;
        let paused = frozen.pause().await.context("the control loop ended")?;
        channel.let_go()?;
        paused.leave();
        Ok(())
    }

    async fn end(self, how: End, serving: JoinSet<()>) {
        let Self { servers, home, control, connections, .. } = self;
        // From here on connections are refused.
        drop(servers);
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
    let ours = |role: &Role| matches!(role, Role::Media { .. } | Role::Srt { .. } | Role::Source(_));
    let (inherited, workers) = (inherited.take(ours), config.datapath.relay_workers);
    let (webrtc, srt) = (config.webrtc_server, config.srt_server);
    let sockets = Sockets::inherit(&webrtc.addresses(), &srt.addresses(), workers, inherited);
    sockets.and_then(|sockets| Relay::new(sockets, events)).with_context(|| {
        format!("failed to listen for WebRTC media and SRT on UDP ports {} and {}", webrtc.port, srt.port)
    })
}

/// Those of WebRTC and SRT, as bound.
fn media_ports(config: &Config, relay: &Relay) -> (u16, u16) {
    let port = |service, wanted| relay.addresses_of(service).next().map_or(wanted, |bound| bound.port());
    (port(Protocol::WebRtc, config.webrtc_server.port), port(Protocol::Srt, config.srt_server.port))
}

fn inherited((id, spec): (FlowId, FlowSpec)) -> InheritedFlow {
    let FlowSpec { client, source, origin, .. } = spec;
    InheritedFlow { id, client, source, origin }
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
        srt_idle_timeout: config.srt.idle_timeout,
        orphan_timeout: config.lifecycle.orphan_timeout,
        relay_only: kernel.is_none().then_some(RelayReason::NoEngine),
    };
    let ports = SourcePorts::new(config.sources.ports.clone(), config.sources.rest, rand::random());
    let directory = Arc::<Directory>::default();
    let executor = Executor::new(relay, kernel, Arc::clone(&directory));
    let executor = match records {
        Some(records) => executor.with_records(records),
        None => executor,
    };
    Control::new(Proxy::new(limits, ports), executor, directory, &config.sources.addresses)
}

async fn default_origin(config: &Config, resolver: &Resolver) -> anyhow::Result<Option<Origin>> {
    match &config.default_backend {
        Some(backend) => resolve_default(resolver, backend).await.map(Some),
        None => Ok(None),
    }
}

async fn resolve_default(resolver: &Resolver, backend: &DefaultBackend) -> anyhow::Result<Origin> {
    let registration = Registration::from_default_backend(backend).context("PROXY_DEFAULT_BACKEND_*")?;
    system::resolve(resolver, registration).await.context("PROXY_DEFAULT_BACKEND_IP")
}
