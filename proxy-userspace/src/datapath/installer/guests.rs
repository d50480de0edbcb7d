//! Whom the kernel's tables know although it does not forward for them: leased ports, relayed tuples, awaited clients.

use std::net::{IpAddr, SocketAddr};

use super::Installer;
use crate::{datapath::Protocol, session::Tuple};

impl Installer {
    /// A session has a source port towards its origin, and is awaited from its client's address.
    pub fn lease(&mut self, source: SocketAddr, origin: SocketAddr, client: IpAddr) {
        if let Err(error) = self.datapath.lease(source, origin) {
            tracing::debug!(%source, %origin, %error, "no record for a source port");
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
    pub fn bind(&mut self, tuple: Tuple, protocol: Protocol) {
        let arrived = || self.datapath.arrival(tuple.client).map(|arrival| arrival.service);
        let service = self.datapath.inherited_service(tuple.client).or_else(arrived).unwrap_or(tuple.local);
        match self.services.insert(tuple, service) {
            Some(before) => self.datapath.unbind(tuple.client, before),
            None => self.datapath.expect(tuple.client.ip()),
        }
        self.datapath.bind(tuple.client, service, protocol);
    }

    /// A tuple is relayed no more.
    pub fn unbind(&mut self, tuple: Tuple) {
        if let Some(service) = self.services.remove(&tuple) {
            self.datapath.unbind(tuple.client, service);
            self.datapath.unexpect(tuple.client.ip());
        }
    }

    /// Tells the programs that their owner is alive.
    pub fn keep_alive(&mut self) {
        self.datapath.keep_alive();
    }

    /// A grace period begins; false if nothing waits for one.
    pub fn begin_grace(&mut self) -> bool {
        self.datapath.begin_grace()
    }

    /// The grace period is over.
    pub fn end_grace(&mut self) {
        self.datapath.end_grace();
    }
}
