//! The program that is shipped, by the same interface as the proxy uses it.

use std::{fmt, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use bench_tables::{Hop, Link};
use proxy_userspace::datapath::{
    Datapath as _, Egress, Engine, FlowId, FlowSpec, InstallError, NextHopId, NextHopSpec, Protocol,
    kernel::{EngineChoice, KernelDatapath, KernelOptions},
};

use super::{
    candidate::{Candidate, Engine as Measured, Installed},
    flows::{self, Flow},
    site::Site,
};
use crate::netns::MTU;

/// What the shipped program and its tables are called.
pub(super) const PRODUCT: &str = "product";
/// No flow ends by itself while it is measured.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// The kernel engine with its tables filled.
pub(super) struct Product {
    kernel: KernelDatapath,
    hops: [NextHopId; 2],
    attached: Vec<u32>,
    pub(super) flows: Vec<(Flow, FlowId)>,
}

impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Product").field("attached", &self.attached).finish_non_exhaustive()
    }
}

impl Product {
    /// With as many flows as find a row, at most so many.
    pub(super) fn candidate(site: &Site, flows: u32) -> Result<Candidate> {
        let options = KernelOptions {
            max_flows: flows,
            max_flows_v6: 1,
            choice: EngineChoice::Xdp,
            idle_limit: LONG,
            orphan_timeout: LONG,
            ..KernelOptions::default()
        };
        let mut kernel = KernelDatapath::load(&options).context("failed to load the proxy's programs")?;
        let hops =
            [kernel.add_next_hop(&hop(&site.to_origin()))?, kernel.add_next_hop(&hop(&site.to_client()))?];
        // Makes the service one that strangers' packets are dropped at, as it is where a session is.
        let Flow { client, service, .. } = Flow::number(0);
        kernel.bind(client.into(), service.into(), Protocol::WebRtc);
        let mut product = Self { kernel, hops, attached: Vec::new(), flows: Vec::new() };
        for flow in (0..flows).map(Flow::number) {
            product.install(flow)?;
        }
        product.kernel.settle();
        product.check()?;
        let (bytes, installed) = (product.kernel.table_bytes(), product.installed());
        Candidate::with_engine(site, PRODUCT, Measured::Product(Box::new(product)), bytes, &installed)
    }

    /// What it forwards.
    pub(super) fn installed(&self) -> Installed {
        let mut installed = Installed::default();
        self.flows.iter().for_each(|(flow, _)| installed.add(flow));
        installed
    }

    /// Whether the flow found a row. It is forwarded once the tables have settled.
    pub(super) fn install(&mut self, flow: Flow) -> Result<bool> {
        let [client, service, source, origin] =
            [flow.client, flow.service, flow.source, flow.origin].map(SocketAddr::V4);
        let [to_origin, to_client] = self.hops;
        match self.kernel.install(&FlowSpec {
            protocol: Protocol::WebRtc,
            client,
            service,
            source,
            origin,
            to_origin,
            to_client,
        }) {
            Ok(id) => {
                self.flows.push((flow, id));
                Ok(true)
            }
            Err(InstallError::Full) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("failed to install {flow:?}")),
        }
    }

    /// Removes the flow at this place in the list of them, and takes the last one into it.
    pub(super) fn remove(&mut self, at: usize) -> Flow {
        let (flow, id) = self.flows.swap_remove(at);
        self.kernel.remove(id);
        flow
    }

    /// Waits until nobody uses what was removed.
    pub(super) fn settle(&mut self) {
        self.kernel.settle();
    }

    /// A fast program that forwards wrongly is no candidate.
    pub(super) fn check(&mut self) -> Result<()> {
        let Installed { to_origin, to_client } = self.installed();
        for pairs in [to_origin, to_client] {
            flows::check(PRODUCT, &pairs, |frame| {
                let run = self.kernel.dry_run(Engine::Xdp, frame)?;
                Ok((run.action, run.frame))
            })?;
        }
        Ok(())
    }

    pub(super) fn attach(&mut self, devices: [u32; 2]) -> Result<()> {
        for ifindex in devices {
            let attachment = self.kernel.attach(ifindex)?;
            anyhow::ensure!(attachment.mode == "native", "{attachment:?} has no native XDP");
            self.attached.push(ifindex);
        }
        Ok(())
    }

    pub(super) fn detach(&mut self) {
        self.attached.drain(..).for_each(|ifindex| self.kernel.detach(ifindex));
    }
}

fn hop(hop: &Hop) -> NextHopSpec {
    let Link { dst, src } = hop.link;
    let egress = Egress::Redirect { dst_mac: flows::mac(dst), src_mac: flows::mac(src), xdp: true };
    NextHopSpec { ifindex: hop.ifindex, mtu: MTU, egress }
}
