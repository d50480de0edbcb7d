//! The three HTTP servers.

use std::{os::fd::OwnedFd, sync::Arc};

use anyhow::Context as _;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    api::{BodyLimits, Server, resolve::Resolver, signalling, status, stream_http, system},
    config::{Config, Listen},
    control::Control,
    first_use,
    lifecycle::Inherited,
    net::handover::Role,
    origin::{Registry, memory::MemoryRegistry},
    telemetry,
};

/// A heartbeat is a few hundred bytes.
const HEARTBEAT_LIMIT: usize = 64 << 10;

/// The three HTTP servers, bound.
pub(super) struct Servers {
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
}

impl Servers {
    /// Listens where configured, on inherited sockets where there are.
    pub(super) fn open(config: &Config, inherited: &mut Inherited) -> anyhow::Result<Self> {
        let mut open = |name: &str, listen: Listen, is_ours: fn(&Role) -> bool| {
            let sockets: Vec<OwnedFd> =
                inherited.take(is_ours).into_iter().map(|(_, socket)| socket).collect();
            Server::inherit(listen, sockets)
                .with_context(|| format!("failed to listen on {name} port {}", listen.port))
        };
        Ok(Self {
            api: open("PROXY_HTTP_API", config.http_api, |role| matches!(role, Role::HttpApi(_)))?,
            http: open("PROXY_HTTP_SERVER", config.http_server, |role| matches!(role, Role::HttpServer(_)))?,
            system: open("PROXY_SYSTEM_API", config.system_api, |role| matches!(role, Role::SystemApi(_)))?,
        })
    }

    /// The ports, for people.
    pub(super) fn ports(&self, webrtc: u16) -> anyhow::Result<first_use::Ports> {
        Ok(first_use::Ports {
            http: self.http.local_addr()?.port(),
            api: self.api.local_addr()?.port(),
            webrtc,
            system: self.system.local_addr()?.port(),
        })
    }

    /// Second descriptors of every listener, for the next process.
    pub(super) fn share(&self) -> std::io::Result<Vec<(Role, OwnedFd)>> {
        let mut shared = Vec::new();
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
        let Backend { config, webrtc_port, registry, control, resolver } = backend;
        let registry = Arc::clone(registry) as Arc<dyn Registry>;
        let signalling = signalling::Signalling::new(
            config,
            webrtc_port,
            Arc::clone(&registry),
            Arc::new(control.clone()),
            Arc::clone(resolver),
        );
        let totals = control.totals();
        let system = system::System {
            registry,
            resolver: Arc::clone(resolver),
            token: config.registration_token.clone(),
            limits: BodyLimits { size: HEARTBEAT_LIMIT, time: config.signalling.client_timeout },
            metrics: Arc::new(move || telemetry::metrics::encode(&totals.borrow())),
            readiness: readiness(stopping.clone()),
        };
        let status = status::router(control.clone(), config.registration_token.clone());
        let (client_timeout, grace) = (config.signalling.client_timeout, config.grace_quit_timeout);
        let mut serving = JoinSet::new();
        for (server, router) in [
            (&self.api, signalling::router(signalling)),
            (&self.http, stream_http::router()),
            (&self.system, system::router(system).merge(status)),
        ] {
            let server = server.try_clone().context("failed to share a listener")?;
            serving.spawn(server.serve(router, client_timeout, grace, stopping.clone()));
        }
        Ok(serving)
    }
}

fn readiness(stopping: watch::Receiver<bool>) -> system::Readiness {
    Arc::new(move || if *stopping.borrow() { Err("the proxy is stopping".to_owned()) } else { Ok(()) })
}
