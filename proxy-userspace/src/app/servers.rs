//! The listeners of TCP and what is behind them: three HTTP servers, RTMP, and WebRTC media.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    api::{
        BodyLimits, Server, origin_api,
        resolve::Resolver,
        signalling::{self, Receiver, Receivers, SessionSink},
        status,
        stream_http::{self, StaticFiles},
        system,
    },
    config::{Config, Listen, WebrtcTcp},
    connections::Connections,
    control::Control,
    first_use,
    fleet::Fleet,
    ice_tcp::{self, IceTcp},
    lifecycle::Inherited,
    live::Live,
    net::{
        handover::Role,
        tcp::{Dialer, Listeners},
    },
    origin::{OriginStatus, Registry, Trouble, connector::Connector},
    rtmp::{self, Rtmp},
    telemetry::metrics::{self, RegistryView},
};

/// A heartbeat is a few hundred bytes.
const HEARTBEAT_LIMIT: usize = 64 << 10;

/// An origin may ask a web hook whether it takes a stream, and that one somebody else.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// The servers, bound.
pub(super) struct Servers {
    rtmp: Listeners,
    api: Server,
    http: Server,
    system: Server,
    /// Of WebRTC media, where it has a port of its own.
    webrtc_tcp: Option<Listeners>,
}

/// Tells servers to stop.
pub(super) struct Stops {
    /// Those of clients.
    pub(super) public: watch::Sender<bool>,
    /// That of origins and operators, who want to know how the stop goes on.
    pub(super) system: watch::Sender<bool>,
}

impl Stops {
    pub(super) fn new() -> Self {
        Self { public: watch::Sender::new(false), system: watch::Sender::new(false) }
    }

    pub(super) fn all(&self) {
        self.public.send_replace(true);
        self.system.send_replace(true);
    }
}

/// What requests are answered with.
#[derive(Clone, Copy)]
pub(super) struct Backend<'a> {
    pub(super) config: &'a Config,
    pub(super) webrtc_port: u16,
    pub(super) registry: &'a Arc<dyn Registry>,
    pub(super) key: &'a Option<Arc<Fleet>>,
    pub(super) control: &'a Control,
    pub(super) sessions: &'a Arc<dyn SessionSink>,
    pub(super) resolver: &'a Arc<Resolver>,
    pub(super) connections: &'a Arc<Connections>,
    pub(super) dialer: &'a Arc<Dialer>,
    pub(super) ice_tcp: &'a IceTcp,
}

impl Backend<'_> {
    fn origins(&self) -> Connector {
        Connector {
            registry: Arc::clone(self.registry),
            dialer: Arc::clone(self.dialer),
            deadline: self.config.signalling.origin_timeout / 2,
        }
    }

    fn live(&self) -> Live {
        Live {
            origins: self.origins(),
            rules: Arc::new(self.config.streams.rules()),
            trusted_proxies: self.config.trusted_proxies.as_slice().into(),
            connections: Arc::clone(self.connections),
            join: self.config.datapath.tcp_join,
            head_deadline: self.config.signalling.client_timeout,
        }
    }

    fn rtmp(&self) -> Rtmp {
        let signalling = &self.config.signalling;
        Rtmp {
            origins: self.origins(),
            rules: Arc::new(self.config.streams.rules()),
            connections: Arc::clone(self.connections),
            tells_real_ip: self.config.streams.rtmp_real_ip,
            join: self.config.datapath.tcp_join,
            deadlines: rtmp::Deadlines {
                client: signalling.client_timeout,
                origin: signalling.origin_timeout,
                start: START_DEADLINE,
            },
        }
    }
}

impl Backend<'_> {
    fn system(&self, stopping: &watch::Receiver<bool>) -> Router {
        let Backend { config, registry, control, resolver, connections, ice_tcp, .. } = self;
        let (totals, carried, outcomes) = (control.totals(), Arc::clone(connections), ice_tcp.outcomes());
        let asked = Arc::clone(registry);
        let metrics = move |origins: &[OriginStatus]| {
            let registry = RegistryView { is_up: asked.trouble().is_none(), counts: asked.counts(), origins };
            metrics::encode(&totals.borrow(), &carried.totals(), &outcomes.counted(), &registry)
        };
        let token = config.registration_token.clone();
        let system = system::System {
            registry: Arc::clone(registry),
            resolver: Arc::clone(resolver),
            token: token.clone(),
            limits: BodyLimits { size: HEARTBEAT_LIMIT, time: config.signalling.client_timeout },
            metrics: Arc::new(metrics),
            readiness: readiness(stopping.clone(), Arc::clone(registry)),
        };
        let status = status::router(Control::clone(control), Arc::clone(connections), token);
        system::router(system).merge(status)
    }
}

impl Servers {
    /// Listens where configured, on inherited sockets where there are.
    pub(super) fn open(config: &Config, inherited: &mut Inherited) -> anyhow::Result<Self> {
        let mut listeners = |name: &str, listen: Listen, is_ours: fn(&Role) -> bool| {
            let sockets: Vec<OwnedFd> =
                inherited.take(is_ours).into_iter().map(|(_, socket)| socket).collect();
            Listeners::inherit(listen, sockets)
                .with_context(|| format!("failed to listen on {name} port {}", listen.port))
        };
        let mut open = |name, listen, is_ours| listeners(name, listen, is_ours).map(Server::new);
        let api = open("PROXY_HTTP_API", config.http_api, |role| matches!(role, Role::HttpApi(_)))?;
        let http = open("PROXY_HTTP_SERVER", config.http_server, |role| matches!(role, Role::HttpServer(_)))?;
        let system = open("PROXY_SYSTEM_API", config.system_api, |role| matches!(role, Role::SystemApi(_)))?;
        let rtmp =
            listeners("PROXY_RTMP_SERVER", config.rtmp_server, |role| matches!(role, Role::RtmpServer(_)))?;
        let webrtc_tcp = match config.webrtc_tcp() {
            WebrtcTcp::Own(listen) => {
                let is_ours: fn(&Role) -> bool = |role| matches!(role, Role::WebrtcTcp(_));
                Some(listeners("PROXY_WEBRTC_TCP_SERVER", listen, is_ours)?)
            }
            WebrtcTcp::HttpApi | WebrtcTcp::Off => None,
        };
        Ok(Self { rtmp, api, http, system, webrtc_tcp })
    }

    /// The ports, for people.
    pub(super) fn ports(
        &self,
        config: &Config,
        (webrtc, srt): (u16, u16),
    ) -> anyhow::Result<first_use::Ports> {
        Ok(first_use::Ports {
            rtmp: self.rtmp.local_addr()?.port(),
            http: self.http.local_addr()?.port(),
            api: self.api.local_addr()?.port(),
            webrtc,
            srt,
            webrtc_tcp: self.tcp_receiver(config)?.map(|receiver| receiver.port),
            system: self.system.local_addr()?.port(),
        })
    }

    /// Where clients send media over TCP, if they may.
    fn tcp_receiver(&self, config: &Config) -> std::io::Result<Option<Receiver>> {
        let (listen, address) = match (config.webrtc_tcp(), &self.webrtc_tcp) {
            (WebrtcTcp::Own(listen), Some(listeners)) => (listen, listeners.local_addr()?),
            (WebrtcTcp::HttpApi, _) => (config.http_api, self.api.local_addr()?),
            (WebrtcTcp::Own(_) | WebrtcTcp::Off, _) => return Ok(None),
        };
        Ok(Some(Receiver { bound: listen.specific_ip(), port: address.port() }))
    }

    /// Stops listening for clients; what has been accepted goes on.
    pub(super) fn close_public(&mut self) {
        self.rtmp.close();
        self.api.close();
        self.http.close();
        self.webrtc_tcp = None;
    }

    /// Second descriptors of every listener, for the next process.
    pub(super) fn share(&self) -> std::io::Result<Vec<(Role, OwnedFd)>> {
        let mut shared = Vec::new();
        shared.extend(self.rtmp.share()?.into_iter().map(|(at, socket)| (Role::RtmpServer(at), socket)));
        shared.extend(self.api.share()?.into_iter().map(|(at, socket)| (Role::HttpApi(at), socket)));
        shared.extend(self.http.share()?.into_iter().map(|(at, socket)| (Role::HttpServer(at), socket)));
        shared.extend(self.system.share()?.into_iter().map(|(at, socket)| (Role::SystemApi(at), socket)));
        if let Some(listeners) = &self.webrtc_tcp {
            let sockets = listeners.share()?.into_iter();
            shared.extend(sockets.map(|(at, socket)| (Role::WebrtcTcp(at), socket)));
        }
        Ok(shared)
    }

    /// Serves until told to stop; connections that come later wait in the listeners.
    pub(super) fn serve(&self, backend: Backend<'_>, stops: &Stops) -> anyhow::Result<JoinSet<()>> {
        let stopping = &stops.public.subscribe();
        let (config, stop) = (backend.config, || stopping.clone());
        let (client_timeout, grace) = (config.signalling.client_timeout, config.grace_quit_timeout);
        let share = "failed to share a listener";
        let mut serving = JoinSet::new();
        let registry = Arc::clone(backend.registry);
        let origins = origin_api::router(origin_api::OriginApi::new(config, Arc::clone(&registry)));
        let (api, router) = (self.api.try_clone().context(share)?, self.signalling(&backend)?.merge(origins));
        match config.webrtc_tcp() {
            WebrtcTcp::Off => serving.spawn(api.serve(router, client_timeout, grace, stop())),
            WebrtcTcp::HttpApi | WebrtcTcp::Own(_) => {
                let ice_tcp = backend.ice_tcp.clone();
                serving.spawn(api.serve_beside(ice_tcp, router, client_timeout, grace, stop()))
            }
        };
        let (system, router) = (self.system.try_clone().context(share)?, backend.system(stopping));
        serving.spawn(system.serve(router, client_timeout, grace, stops.system.subscribe()));
        let streams = stream_http::Streams::new(config, registry);
        let router = stream_http::router(streams, StaticFiles::new(config));
        let (http, live) = (self.http.try_clone().context(share)?, backend.live());
        serving.spawn(http.serve_with(live, router, client_timeout, grace, stop()));
        for acceptor in self.rtmp.try_clone().context(share)?.into_acceptors(rtmp::MAX_CONNECTIONS, stopping)
        {
            serving.spawn(backend.rtmp().accept(acceptor));
        }
        if let Some(listeners) = &self.webrtc_tcp {
            for acceptor in
                listeners.try_clone().context(share)?.into_acceptors(ice_tcp::MAX_STRANGERS, stopping)
            {
                serving.spawn(backend.ice_tcp.clone().accept(acceptor));
            }
        }
        Ok(serving)
    }

    fn signalling(&self, backend: &Backend<'_>) -> anyhow::Result<Router> {
        let Backend { config, webrtc_port, registry, key, sessions, resolver, .. } = *backend;
        let receivers = Receivers {
            udp: Receiver { bound: config.webrtc_server.specific_ip(), port: webrtc_port },
            tcp: self.tcp_receiver(config).context("failed to tell where media is received")?,
        };
        Ok(signalling::router(signalling::Signalling::new(
            config,
            receivers,
            Arc::clone(registry),
            Arc::clone(sessions),
            Arc::clone(resolver),
            key.clone(),
        )))
    }
}

/// A proxy that does without Redis is ready: if all were not, nobody would serve.
fn readiness(stopping: watch::Receiver<bool>, registry: Arc<dyn Registry>) -> system::Readiness {
    Arc::new(move || {
        if *stopping.borrow() {
            return Err("the proxy is stopping".to_owned());
        }
        match registry.trouble() {
            None => Ok("ready".to_owned()),
            Some(Trouble { what, is_fatal: false }) => Ok(format!("ready, although {what}")),
            Some(Trouble { what, is_fatal: true }) => Err(format!("no origin is known, and {what}")),
        }
    })
}
