//! The network of the benchmark and the sinks at both its ends.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use bench_tables::{Hop, Link};
use serde_json::Value;

use super::object;
use crate::netns::{Direct, Namespace};

/// An interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) ifindex: u32,
    pub(super) mac: [u16; 3],
}

/// Client, proxy and origin, with a sink at either end.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) network: Direct,
    pub(super) client: Device,
    pub(super) left: Device,
    pub(super) right: Device,
    pub(super) origin: Device,
    // Attached as long as they live.
    pub(super) at_client: Sink,
    pub(super) at_origin: Sink,
}

impl Site {
    pub(super) fn new() -> Result<Self> {
        let network = Direct::new()?;
        let Direct { client, proxy, origin } = &network;
        for namespace in [client, proxy, origin] {
            // What the stack sends by itself can leave a device's poll on a CPU that has other things to do.
            namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        }
        let (to_client, to_origin) = (device(client, "eth0")?, device(origin, "eth0")?);
        Ok(Self {
            client: to_client,
            left: device(proxy, "eth0")?,
            right: device(proxy, "eth1")?,
            origin: to_origin,
            at_client: Sink::attach(client, to_client)?,
            at_origin: Sink::attach(origin, to_origin)?,
            network,
        })
    }

    /// Frames that came to either end.
    pub(super) fn arrived(&self) -> Result<u64> {
        Ok(self.at_origin.arrived()? + self.at_client.arrived()?)
    }

    /// How the proxy's frames leave towards the origin.
    pub(super) fn to_origin(&self) -> Hop {
        hop(self.right, self.origin)
    }

    /// How the proxy's frames leave towards the client.
    pub(super) fn to_client(&self) -> Hop {
        hop(self.left, self.client)
    }
}

fn hop(from: Device, to: Device) -> Hop {
    Hop { link: link(from, to), ifindex: from.ifindex, ..Hop::default() }
}

pub(super) fn link(from: Device, to: Device) -> Link {
    Link { dst: to.mac, src: from.mac }
}

/// Counts and drops.
#[derive(Debug)]
pub(super) struct Sink {
    arrived: object::Counter,
    _program: Ebpf,
}

impl Sink {
    fn attach(namespace: &Namespace, device: Device) -> Result<Self> {
        let mut program = object::load(object::SINK, |_| {})?;
        let arrived = object::Counter::of(&mut program, "ARRIVED")?;
        let sink: &mut Xdp = object::program(&mut program, "sink")?;
        namespace.enter(|| sink.attach_to_if_index(device.ifindex, XdpMode::Driver))?;
        Ok(Self { arrived, _program: program })
    }

    pub(super) fn arrived(&self) -> Result<u64> {
        self.arrived.total()
    }
}

pub(super) fn device(namespace: &Namespace, name: &str) -> Result<Device> {
    let links: Value = serde_json::from_str(&namespace.ip(&["-json", "link", "show", "dev", name])?)?;
    let text = |key| links[0][key].as_str().with_context(|| format!("ip says no {key} of {name}"));
    let ifindex = links[0]["ifindex"].as_u64().with_context(|| format!("ip says no index of {name}"))?;
    let bytes = text("address")?.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes = bytes.collect::<Result<Vec<_>, _>>().context("a MAC is hexadecimal")?;
    let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    Ok(Device { ifindex: u32::try_from(ifindex)?, mac: [word(0), word(2), word(4)] })
}
