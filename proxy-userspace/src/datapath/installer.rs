//! Turns a wish for a flow into next hops, attached programs and an installed flow, or into the reason why not.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr, SocketAddrV4},
};

use super::{
    Attachment, Datapath, Engine, Escalation, FlowCounters, FlowId, FlowSpec, InstallError,
    next_hops::{Direction, Manner, NextHops, View},
};
use crate::{
    datapath::kernel,
    net::route::{Hop, Routes},
    proxy::FlowRequest,
    session::{RelayReason, SessionId, Tuple},
};

/// The kernel engine with what it takes to use it.
pub struct Installer {
    datapath: Box<dyn Datapath>,
    routes: Routes,
    hops: NextHops,
    view: View,
    /// The operator's choice of interfaces; `None` means the ones clients and origins are found on.
    selected: Option<HashSet<u32>>,
    /// What could not be attached is not tried for every session again.
    failed: HashMap<u32, String>,
    /// What the clients of relayed tuples send to, as on the wire.
    services: HashMap<Tuple, SocketAddr>,
}

impl std::fmt::Debug for Installer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installer").field("hops", &self.hops).finish_non_exhaustive()
    }
}

/// Both ends of a flow in the one family the kernel forwards.
struct Endpoints {
    client: SocketAddrV4,
    local: SocketAddrV4,
    source: SocketAddrV4,
    origin: SocketAddrV4,
}

impl Installer {
    /// Uses `datapath`, on the interfaces named, or on those where packets are found.
    pub async fn new(
        datapath: Box<dyn Datapath>,
        routes: Routes,
        interfaces: &[String],
    ) -> anyhow::Result<Self> {
        let mut installer = Self {
            datapath,
            routes,
            hops: NextHops::default(),
            view: View::default(),
            selected: None,
            failed: HashMap::new(),
            services: HashMap::new(),
        };
        installer.look_around().await?;
        if interfaces.is_empty() {
            installer.attach_default_devices().await?;
        } else {
            installer.attach_selected(interfaces)?;
        }
        Ok(installer)
    }

    /// What is attached.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.datapath.attachments()
    }

    /// The engine underneath, for its counters.
    pub fn datapath(&self) -> &dyn Datapath {
        self.datapath.as_ref()
    }

    /// Installs a flow.
    pub async fn install(
        &mut self,
        session: SessionId,
        request: &FlowRequest,
        escalation: Escalation,
    ) -> Result<FlowId, RelayReason> {
        let ends = Endpoints::of(request)?;
        let arrival = self.datapath.arrival(ends.client.into());
        let (service, ingress) =
            arrival.map_or((ends.local.into(), request.ifindex), |a| (a.service, a.ifindex));
        let to_client = self.hop(*ends.client.ip()).await?;
        let to_origin = self.hop(*ends.origin.ip()).await?;
        self.refuse_half_local(ingress, to_client, to_origin)?;
        let from_client = self.attach(ingress)?;
        let from_origin = self.attach(to_origin.ifindex)?;
        let id =
            self.install_between(session, &ends, service, (to_origin, from_client), (to_client, from_origin));
        let id = id.inspect_err(|_| self.hops.release(session, self.datapath.as_mut()))?;
        self.datapath.escalate(id, escalation);
        Ok(id)
    }

    /// Removes a flow and frees what it used.
    pub fn remove(&mut self, session: SessionId, flow: FlowId) -> FlowCounters {
        let counters = self.datapath.remove(flow);
        self.hops.release(session, self.datapath.as_mut());
        counters
    }

    /// Chooses which STUN packets of a flow come up.
    pub fn escalate(&mut self, flow: FlowId, what: Escalation) {
        self.datapath.escalate(flow, what);
    }

    /// A session has a source port towards its origin, and is awaited from its client's address.
    pub fn lease(&mut self, source: SocketAddr, origin: SocketAddr, client: IpAddr) {
        if let Err(error) = self.datapath.lease(source, origin) {
            tracing::debug!(%source, %origin, %error, "no record for a source port: its session stays in userspace");
        }
        self.datapath.expect(client);
    }

    /// The session of a source port is gone.
    pub fn retire(&mut self, source: SocketAddr, origin: SocketAddr, client: IpAddr) {
        self.datapath.retire(source, origin);
        self.datapath.unexpect(client);
    }

    /// A source port has rested.
    pub fn release(&mut self, source: SocketAddr, origin: SocketAddr) {
        self.datapath.release(source, origin);
    }

    /// A tuple is relayed.
    pub fn bind(&mut self, tuple: Tuple) {
        let service = self.datapath.arrival(tuple.client).map_or(tuple.local, |arrival| arrival.service);
        if let Some(before) = self.services.insert(tuple, service) {
            self.datapath.unbind(tuple.client, before);
        } else {
            self.datapath.expect(tuple.client.ip());
        }
        self.datapath.bind(tuple.client, service);
    }

    /// A tuple is relayed no more.
    pub fn unbind(&mut self, tuple: Tuple) {
        if let Some(service) = self.services.remove(&tuple) {
            self.datapath.unbind(tuple.client, service);
            self.datapath.unexpect(tuple.client.ip());
        }
    }

    /// A grace period begins; false if nothing waits for one.
    pub fn begin_grace(&mut self) -> bool {
        self.datapath.begin_grace()
    }

    /// The grace period is over.
    pub fn end_grace(&mut self) {
        self.datapath.end_grace();
    }

    /// Asks the kernel for links and neighbours again; sessions whose next hop is unusable are named.
    pub async fn refresh(&mut self) -> Vec<SessionId> {
        self.datapath.keep_alive();
        match self.look_around().await {
            Ok(()) => self.hops.refresh(&self.view, self.datapath.as_mut()),
            Err(error) => {
                tracing::warn!(%error, "failed to read links and neighbours");
                Vec::new()
            }
        }
    }

    /// Attaches where packets of `peer` will arrive, so that the hook sees a session's first one.
    pub async fn prepare(&mut self, peer: IpAddr) {
        let IpAddr::V4(peer) = peer else { return };
        if let Ok(hop) = self.hop(peer).await
            && let Err(reason) = self.attach(hop.ifindex)
        {
            tracing::debug!(%peer, reason = reason.as_str(), "no program where its packets arrive");
        }
    }

    fn install_between(
        &mut self,
        session: SessionId,
        ends: &Endpoints,
        service: SocketAddr,
        (to_origin, from_client): (Hop, Engine),
        (to_client, from_origin): (Hop, Engine),
    ) -> Result<FlowId, RelayReason> {
        let Self { hops, view, datapath, .. } = self;
        let datapath = datapath.as_mut();
        let mut hop = |direction, hop, ingress| {
            hops.take((session, direction), hop, manner(ingress), view, datapath).map_err(relay_reason)
        };
        let to_origin = hop(Direction::ToOrigin, to_origin, from_client)?;
        let to_client = hop(Direction::ToClient, to_client, from_origin)?;
        let spec = FlowSpec {
            client: ends.client.into(),
            service,
            source: ends.source.into(),
            origin: ends.origin.into(),
            to_origin,
            to_client,
        };
        datapath.install(&spec).map_err(relay_reason)
    }

    async fn hop(&self, destination: std::net::Ipv4Addr) -> Result<Hop, RelayReason> {
        match self.routes.hop(destination).await {
            Ok(Some(hop)) => Ok(hop),
            Ok(None) | Err(_) => Err(RelayReason::NoRoute),
        }
    }

    /// A frame from outside cannot be turned into one for `lo`, nor the reverse: the stack refuses its addresses.
    fn refuse_half_local(&self, ingress: u32, to_client: Hop, to_origin: Hop) -> Result<(), RelayReason> {
        let is_local = |ifindex| self.view.link(ifindex).is_some_and(|link| link.is_loopback);
        let local = [ingress, to_client.ifindex, to_origin.ifindex].map(is_local);
        if local == [true; 3] || local == [false; 3] { Ok(()) } else { Err(RelayReason::LocalPeer) }
    }

    fn attach(&mut self, ifindex: u32) -> Result<Engine, RelayReason> {
        if let Some(attachment) = self.datapath.attachments().iter().find(|a| a.ifindex == ifindex) {
            return Ok(attachment.engine);
        }
        if self.selected.as_ref().is_some_and(|selected| !selected.contains(&ifindex)) {
            return Err(RelayReason::InterfaceNotSelected);
        }
        if self.failed.contains_key(&ifindex) {
            return Err(RelayReason::AttachFailed);
        }
        self.attach_new(ifindex)
    }

    fn attach_new(&mut self, ifindex: u32) -> Result<Engine, RelayReason> {
        match self.datapath.attach(ifindex) {
            Ok(attachment) => {
                tracing::info!(
                    interface = attachment.name,
                    engine = attachment.engine.as_str(),
                    mode = attachment.mode,
                    note = attachment.note.as_deref().unwrap_or_default(),
                    "attached"
                );
                Ok(attachment.engine)
            }
            Err(error) => {
                tracing::warn!(%error, "sessions on this interface stay in userspace");
                self.failed.insert(ifindex, error.reason);
                Err(RelayReason::AttachFailed)
            }
        }
    }

    async fn attach_default_devices(&mut self) -> anyhow::Result<()> {
        let loopback = self.view.links.iter().filter(|link| link.is_loopback).map(|link| link.ifindex);
        let mut devices: Vec<u32> = loopback.collect();
        devices.extend(self.routes.default_devices().await?);
        devices.dedup();
        for ifindex in devices {
            // A refusal is logged; the sessions it concerns carry the reason.
            let _refused = self.attach(ifindex);
        }
        Ok(())
    }

    fn attach_selected(&mut self, interfaces: &[String]) -> anyhow::Result<()> {
        let mut selected = HashSet::new();
        for name in interfaces {
            let link = self.view.links.iter().find(|link| link.name == *name);
            selected.insert(link.ok_or_else(|| anyhow::anyhow!("no interface named {name}"))?.ifindex);
        }
        self.selected = Some(selected.clone());
        for ifindex in selected {
            // A refusal is logged; the sessions it concerns carry the reason.
            let _refused = self.attach(ifindex);
        }
        Ok(())
    }

    async fn look_around(&mut self) -> Result<(), rtnetlink::Error> {
        let links = self.routes.links().await?;
        let neighbours = self.routes.neighbours().await?;
        let transmits = |ifindex: &u32| {
            kernel::features::xdp_features(*ifindex).is_some_and(|features| features.has_ndo_xmit())
        };
        let xdp_transmit = links.iter().map(|link| link.ifindex).filter(transmits).collect();
        self.view = View { links, neighbours, xdp_transmit };
        Ok(())
    }
}

impl Endpoints {
    fn of(request: &FlowRequest) -> Result<Self, RelayReason> {
        let v4 = |address| match address {
            SocketAddr::V4(v4) => Ok(v4),
            SocketAddr::V6(_) => Err(RelayReason::AddressFamily),
        };
        Ok(Self {
            client: v4(request.tuple.client)?,
            local: v4(request.tuple.local)?,
            source: v4(request.source)?,
            origin: v4(request.origin)?,
        })
    }
}

fn manner(ingress: Engine) -> Manner {
    match ingress {
        Engine::Xdp => Manner::Xdp,
        Engine::Tc => Manner::Tc,
    }
}

fn relay_reason(error: InstallError) -> RelayReason {
    match error {
        InstallError::Full => RelayReason::TableFull,
        InstallError::Taken => RelayReason::KeyTaken,
        InstallError::Resting => RelayReason::Settling,
        InstallError::MixedFamilies => RelayReason::AddressFamily,
        InstallError::Kernel(errno) => {
            tracing::warn!(errno, "the kernel refused a map update");
            RelayReason::KernelError
        }
    }
}
