//! The listeners of TCP and what is behind them: three HTTP servers, and RTMP.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    api::{
        BodyLimits, Server, origin_api,
        resolve::Resolver,
        signalling, status,
        stream_http::{self, StaticFiles},
        system,
    },
    config::{Config, Listen},
    connections::Connections,
    control::Control,
    first_use,
    lifecycle::Inherited,
    live::Live,
    net::{
        handover::Role,
        tcp::{Dialer, Listeners},
    },
    origin::{Registry, connector::Connector, memory::MemoryRegistry},
    rtmp::{self, Rtmp},
    telemetry,
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
}

/// What requests are answered with.
#[derive(Clone, Copy)]
pub(super) struct Backend<'a> {
    pub(super) config: &'a Config,
    pub(super) webrtc_port: u16,
    pub(super) registry: &'a Arc<MemoryRegistry>,
    pub(super) control: &'a Control,
    pub(super) resolver: &'a Arc<Resolver>,
    pub(super) connections: &'a Arc<Connections>,
    pub(super) dialer: &'a Arc<Dialer>,
}

impl Backend<'_> {
    fn origins(&self) -> Connector {
        Connector {
            registry: Arc::clone(self.registry) as Arc<dyn Registry>,
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
            join: self.config.datapath.tcp_join,
            deadlines: rtmp::Deadlines {
                client: signalling.client_timeout,
                origin: signalling.origin_timeout,
                start: START_DEADLINE,
            },
        }
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
        Ok(Self { rtmp, api, http, system })
    }

    /// The ports, for people.
    pub(super) fn ports(&self, webrtc: u16) -> anyhow::Result<first_use::Ports> {
        Ok(first_use::Ports {
            rtmp: self.rtmp.local_addr()?.port(),
            http: self.http.local_addr()?.port(),
            api: self.api.local_addr()?.port(),
            webrtc,
            system: self.system.local_addr()?.port(),
        })
    }

    /// Second descriptors of every listener, for the next process.
    pub(super) fn share(&self) -> std::io::Result<Vec<(Role, OwnedFd)>> {
        let mut shared = Vec::new();
        shared.extend(self.rtmp.share()?.into_iter().map(|(at, socket)| (Role::RtmpServer(at), socket)));
        shared.extend(self.api.share()?.into_iter().map(|(at, socket)| (Role::HttpApi(at), socket)));
        shared.extend(self.http.share()?.into_iter().map(|(at, socket)| (Role::HttpServer(at), socket)));
        shared.extend(self.system.share()?.into_iter().map(|(at, socket)| (Role::SystemApi(at), socket)));
        Ok(shared)
    }

    /// Serves until `stopping` turns true; connections that come later wait in the listeners.
    pub(super) fn serve(
        &self,
        backend: Backend<'_>,
        stopping: &watch::Receiver<bool>,
    ) -> anyhow::Result<JoinSet<()>> {
        let Backend { config, webrtc_port, registry, control, resolver, connections, .. } = backend;
        let registry = Arc::clone(registry) as Arc<dyn Registry>;
        let streams = stream_http::Streams::new(config, Arc::clone(&registry));
        let origins = origin_api::router(origin_api::OriginApi::new(config, Arc::clone(&registry)));
        let signalling = signalling::Signalling::new(
            config,
            webrtc_port,
            Arc::clone(&registry),
            Arc::new(control.clone()),
            Arc::clone(resolver),
        );
        let (totals, carried) = (control.totals(), Arc::clone(connections));
        let system = system::System {
            registry,
            resolver: Arc::clone(resolver),
            token: config.registration_token.clone(),
            limits: BodyLimits { size: HEARTBEAT_LIMIT, time: config.signalling.client_timeout },
            metrics: Arc::new(move || telemetry::metrics::encode(&totals.borrow(), &carried.totals())),
            readiness: readiness(stopping.clone()),
        };
        let status =
            status::router(control.clone(), Arc::clone(connections), config.registration_token.clone());
        let (client_timeout, grace) = (config.signalling.client_timeout, config.grace_quit_timeout);
        let mut serving = JoinSet::new();
        for (server, router) in [
            (&self.api, signalling::router(signalling).merge(origins)),
            (&self.system, system::router(system).merge(status)),
        ] {
            let server = server.try_clone().context("failed to share a listener")?;
            serving.spawn(server.serve(router, client_timeout, grace, stopping.clone()));
        }
        let http = self.http.try_clone().context("failed to share a listener")?;
        let (live, router) = (backend.live(), stream_http::router(streams, StaticFiles::new(config)));
        serving.spawn(http.serve_with(live, router, client_timeout, grace, stopping.clone()));
        let listeners = self.rtmp.try_clone().context("failed to share a listener")?;
        for acceptor in listeners.into_acceptors(rtmp::MAX_CONNECTIONS, stopping) {
            serving.spawn(backend.rtmp().accept(acceptor));
        }
        Ok(serving)
    }
}

fn readiness(stopping: watch::Receiver<bool>) -> system::Readiness {
    Arc::new(move || if *stopping.borrow() { Err("the proxy is stopping".to_owned()) } else { Ok(()) })
}
