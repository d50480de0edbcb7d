//! What works between the servers, the registry and the control loop.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::{
    api::signalling::SessionSink,
    config::{Config, LoadBalancer, Sources},
    connections::Connections,
    control::Control,
    datapath::userspace::{Gate, Switchboard},
    fleet::Fleet,
    ice_tcp::{self, IceTcp},
    net::tcp::Dialer,
    origin::{
        Registry,
        fleet::{FleetRegistry, sessions::SharedSessions},
        memory::MemoryRegistry,
        store::{MemberId, Store},
    },
    roaming::{Roaming, SessionFinder},
    srt::Srt,
};

/// Where streams are found, and what that is in a fleet.
pub(super) struct Shared {
    pub(super) registry: Arc<dyn Registry>,
    pub(super) fleet: Option<Arc<FleetRegistry>>,
    /// What leads the proxies of a fleet to the origins of each other's sessions.
    pub(super) key: Option<Arc<Fleet>>,
}

/// Where streams are found: here, or where a fleet of proxies finds them.
pub(super) fn shared(config: &Config, origins: &Arc<MemoryRegistry>, tasks: &mut JoinSet<()>) -> Shared {
    let key = config.fleet_key().map(Fleet::new).map(Arc::new);
    match config.load_balancer {
        LoadBalancer::Memory => {
            Shared { registry: Arc::clone(origins) as Arc<dyn Registry>, fleet: None, key }
        }
        LoadBalancer::Redis => {
            let (store, notices) = Store::open(&config.redis, MemberId::random());
            let fleet = FleetRegistry::new(config.origins, Arc::clone(origins), store);
            tasks.spawn(Arc::clone(&fleet).watch(notices));
            Shared { registry: Arc::clone(&fleet) as Arc<dyn Registry>, fleet: Some(fleet), key }
        }
    }
}

/// What connects to origins, from where it is to.
pub(super) fn dialer(sources: &Sources) -> Dialer {
    Dialer::new(sources.tcp_ports.clone(), sources.addresses.clone(), rand::random())
}

/// What takes sessions of other proxies over, if they can be known; runs among `tasks`.
pub(super) fn roaming(
    gate: &Gate,
    control: &Control,
    shared: &Shared,
    tasks: &mut JoinSet<()>,
) -> Option<Arc<Roaming>> {
    let finder = shared.fleet.clone().map(|fleet| fleet as Arc<dyn SessionFinder>);
    if shared.key.is_none() && finder.is_none() {
        return None;
    }
    let (registry, key) = (Arc::clone(&shared.registry), shared.key.clone());
    let roaming = Roaming::new(gate.clone(), control.clone(), registry, key, finder);
    tasks.spawn(Arc::clone(&roaming).run());
    Some(roaming)
}

/// Who keeps sessions: the control loop, and in a fleet what others know of them; its task runs among `tasks`.
pub(super) fn sessions(control: &Control, shared: &Shared, tasks: &mut JoinSet<()>) -> Arc<dyn SessionSink> {
    let Some(fleet) = &shared.fleet else { return Arc::new(control.clone()) };
    let sessions = SharedSessions::new(control.clone(), Arc::clone(fleet), shared.key.clone());
    tasks.spawn(Arc::clone(&sessions).keep());
    sessions
}

/// What carries WebRTC media over TCP.
pub(super) fn ice_tcp(
    config: &Config,
    gate: Gate,
    control: &Control,
    connections: &Arc<Connections>,
    dialer: &Arc<Dialer>,
) -> IceTcp {
    let deadlines = ice_tcp::Deadlines {
        first_frame: config.signalling.client_timeout,
        dial: config.signalling.origin_timeout / 2,
    };
    let (connections, dialer) = (Arc::clone(connections), Arc::clone(dialer));
    IceTcp::new(gate, control.clone(), connections, dialer, config.datapath.tcp_join, deadlines)
}

/// What answers calls by SRT.
pub(super) fn srt(
    config: &Config,
    registry: &Arc<dyn Registry>,
    control: &Control,
    switchboard: Switchboard,
) -> Srt {
    Srt {
        registry: Arc::clone(registry),
        control: control.clone(),
        switchboard,
        rules: Arc::new(config.streams.rules()),
    }
}
