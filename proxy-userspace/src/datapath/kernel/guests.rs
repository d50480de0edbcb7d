//! Who may send what without a flow: services, tuples that have no record, and networks that sessions are awaited from.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use proxy_common::flow::{ServiceFlags, ServiceKey};

use super::{
    super::Protocol,
    record::{mapped, prefix},
    table::Tables,
};

/// A client and what it sends to.
type Tuple = (SocketAddr, SocketAddr);

/// What the policing of packets without a flow depends on.
#[derive(Debug)]
pub(super) struct Guests {
    drop_unsolicited: bool,
    services: HashMap<SocketAddr, Protocol>,
    sources: HashSet<IpAddr>,
    /// Relayed tuples that the full table has no record of: while there are any, their packets must not be dropped.
    unknown: HashSet<Tuple>,
    expected: HashMap<u64, usize>,
}

impl Guests {
    pub(super) fn new(drop_unsolicited: bool) -> Self {
        Self {
            drop_unsolicited,
            services: HashMap::new(),
            sources: HashSet::new(),
            unknown: HashSet::new(),
            expected: HashMap::new(),
        }
    }

    /// Polices what comes to the source ports of an address.
    pub(super) fn source(&mut self, ip: IpAddr, tables: &mut Tables) {
        if self.sources.insert(ip) {
            // Nothing but an origin's packets belongs there, and a session's port has a record.
            tables.set_service(key(SocketAddr::new(ip, 0)), 0);
        }
    }

    /// A tuple is relayed; its service is policed.
    pub(super) fn bound(&mut self, tuple: Tuple, protocol: Protocol, is_known: bool, tables: &mut Tables) {
        let was_strict = self.is_strict();
        if is_known {
            self.unknown.remove(&tuple);
        } else {
            self.unknown.insert(tuple);
        }
        if self.services.insert(tuple.1, protocol) != Some(protocol) {
            tables.set_service(key(tuple.1), self.flags(protocol));
        }
        self.update(was_strict, tables);
    }

    /// A tuple is relayed no more.
    pub(super) fn unbound(&mut self, tuple: Tuple, tables: &mut Tables) {
        let was_strict = self.is_strict();
        self.unknown.remove(&tuple);
        self.update(was_strict, tables);
    }

    pub(super) fn expect(&mut self, client: IpAddr, tables: &mut Tables) {
        let prefix = prefix(client);
        let sessions = self.expected.entry(prefix).or_default();
        *sessions += 1;
        if *sessions == 1 {
            tables.expect(prefix);
        }
    }

    pub(super) fn unexpect(&mut self, client: IpAddr, tables: &mut Tables) {
        let prefix = prefix(client);
        let Some(sessions) = self.expected.get_mut(&prefix) else { return };
        *sessions -= 1;
        if *sessions == 0 {
            self.expected.remove(&prefix);
            tables.unexpect(prefix);
        }
    }

    /// Forgets what an earlier process told the tables of guests and this one did not.
    pub(super) fn forget_others(&self, tables: &mut Tables) {
        let services = self.services.keys().copied();
        let ports = self.sources.iter().map(|ip| SocketAddr::new(*ip, 0));
        let known: HashSet<ServiceKey> = services.chain(ports).map(key).collect();
        tables.keep_services(|service| known.contains(service));
        tables.keep_expected(|prefix| self.expected.contains_key(&prefix));
    }

    fn is_strict(&self) -> bool {
        self.drop_unsolicited && self.unknown.is_empty()
    }

    fn flags(&self, protocol: Protocol) -> u32 {
        let strict = if self.is_strict() { ServiceFlags::STRICT } else { 0 };
        match protocol {
            Protocol::WebRtc => strict,
            Protocol::Srt => strict | ServiceFlags::SRT,
        }
    }

    fn update(&self, was_strict: bool, tables: &mut Tables) {
        if was_strict != self.is_strict() {
            for (service, protocol) in &self.services {
                tables.set_service(key(*service), self.flags(*protocol));
            }
        }
    }
}

fn key(service: SocketAddr) -> ServiceKey {
    ServiceKey { addr: mapped(service.ip()), port: service.port().into(), reserved: [0; 2] }
}
